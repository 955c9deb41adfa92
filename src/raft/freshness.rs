//! How old a replica's state may be.
//!
//! A leader knows a moment at which a quorum followed it, and for which everything up to the commit
//! position of a message was all there was; it sends that moment (`raft::as_of`) with the message. A
//! follower that has accepted the message and applied everything up to that position has a state
//! at least as new ([`Freshness`]). The age is taken both by the wall clock since then and by the follower's own
//! monotonic clock since the message came, and the greater one is told, so that a clock that is
//! behind can't make a state look newer than the follower's silence.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::raft::published::Published;
use crate::types::clock::{Clock, TimestampMs};
use crate::types::ids::Index;
use crate::types::peer::Append;

/// The most messages whose entries wait to be applied that are remembered.
const MARKS_MAX: usize = 64;

/// What one message from a leader says about the age of a state.
#[derive(Clone, Copy, Debug)]
pub(in crate::raft) struct Mark {
    committed: Option<Index>,
    as_of: Option<TimestampMs>,
    /// When it came.
    pub(in crate::raft) received: Instant,
}

impl Mark {
    pub(in crate::raft) fn of(append: &Append) -> Self {
        Self {
            committed: append.committed.map(|id| id.index),
            as_of: append.as_of,
            received: Instant::now(),
        }
    }
}

/// What a follower knows of the age of its state.
pub(in crate::raft) struct Freshness {
    clock: Arc<dyn Clock>,
    published: Published,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    /// The newest message whose entries are applied.
    applied: Option<Mark>,
    /// When the last message came.
    last_heard: Option<Instant>,
    /// Later ones, oldest first.
    waiting: VecDeque<Mark>,
}

impl Freshness {
    pub(in crate::raft) fn new(clock: Arc<dyn Clock>, published: Published) -> Self {
        Self { clock, published, marks: Mutex::default() }
    }

    /// Raft has accepted the message: its sender leads as far as this replica knows.
    pub(in crate::raft) fn accepted(&self, mark: Mark) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.last_heard = Some(mark.received);
        if mark.as_of.is_none() {
            return;
        }
        self.settle(&mut marks);
        if marks.waiting.len() < MARKS_MAX {
            marks.waiting.push_back(mark);
        }
    }

    /// How long no leader was heard; `None` if none ever was.
    pub(in crate::raft) fn silence(&self) -> Option<Duration> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.last_heard.map(|heard| heard.elapsed())
    }

    /// How old the state may be, in milliseconds; `None` before a leader was heard.
    pub(in crate::raft) fn lag_ms(&self) -> Option<u64> {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut marks);
        let mark = marks.applied?;
        let by_wall_clock = self.clock.now_ms().saturating_sub(mark.as_of?);
        let by_silence = u64::try_from(mark.received.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(by_wall_clock.max(by_silence))
    }

    fn settle(&self, marks: &mut Marks) {
        let applied = self.published.applied_index();
        while let Some(mark) = marks.waiting.front().filter(|mark| mark.committed <= applied) {
            marks.applied = Some(*mark);
            marks.waiting.pop_front();
        }
    }
}
