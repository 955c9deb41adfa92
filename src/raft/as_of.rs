//! Since when a leader's state is the newest there is: what it tells followers about the age of
//! theirs.
//!
//! At the moment `T` of the last message that a quorum has acknowledged nobody else led. So
//! everything acknowledged to anyone before `T` was committed by then, and whoever has applied all
//! that is committed *now* has a state at least as new as `T`. A message carries an older position,
//! fixed when it was made: so pairs of (position, `T`) are remembered for a while, and a message
//! gets the newest `T` that is true for its position.
//!
//! A leader that has not committed an entry of its own term may not know what its predecessor
//! acknowledged, and says nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use openraft::Instant as _;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::raft::config::{Raft, TypeConfig};
use crate::raft::replica::lock;
use crate::raft::wire;
use crate::types::clock::{Clock, TimestampMs};
use crate::types::ids::{Index, LogId, NodeId, Term};

/// The most pairs that are remembered.
const PAIRS_MAX: usize = 128;
/// The least time between two pairs.
const PAIR_INTERVAL: Duration = Duration::from_millis(10);

type Metrics =
    openraft::alias::WatchReceiverOf<TypeConfig, openraft::metrics::RaftMetrics<TypeConfig>>;

/// Positions and the moments that are true for them, oldest first, of one leadership.
#[derive(Debug, Default)]
struct History {
    leadership: Option<(Term, NodeId)>,
    /// Both rise.
    pairs: VecDeque<(Index, Instant)>,
}

impl History {
    /// Takes note that everything acknowledged before `at` is in the log up to `committed`, which
    /// was written by its present leader.
    fn note(&mut self, committed: &LogId, at: Instant) {
        let leadership = Some((committed.term, committed.leader));
        if self.leadership != leadership {
            *self = Self { leadership, pairs: VecDeque::new() };
        }
        match self.pairs.back_mut() {
            Some((index, newest)) if *index == committed.index => *newest = at.max(*newest),
            Some((index, newest)) if *index > committed.index || at < *newest + PAIR_INTERVAL => {}
            Some(_) | None => self.pairs.push_back((committed.index, at)),
        }
        if self.pairs.len() > PAIRS_MAX {
            self.pairs.pop_front();
        }
    }

    /// The newest moment that is true for everything up to `committed`.
    fn get(&self, leadership: (Term, NodeId), committed: Index) -> Option<Instant> {
        let mut pairs = self.pairs.iter().rev();
        let pair = pairs.find(|(index, _)| *index <= committed);
        pair.filter(|_| self.leadership == Some(leadership)).map(|(_, at)| *at)
    }
}

/// The last moments at which a quorum is known to have followed this replica.
pub(in crate::raft) struct AsOf {
    clock: Arc<dyn Clock>,
    metrics: OnceLock<Metrics>,
    history: Mutex<History>,
}

impl AsOf {
    pub(in crate::raft) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, metrics: OnceLock::new(), history: Mutex::default() }
    }

    /// Says whose quorum it is, once Raft runs.
    pub(in crate::raft) fn watch(&self, raft: &Raft) {
        self.metrics.get_or_init(|| raft.metrics());
    }

    /// As of when, by this replica's clock, a state is that has everything up to `committed`, if
    /// the leader of `leadership` knows.
    pub(in crate::raft) fn get(
        &self,
        leadership: (Term, NodeId),
        committed: Option<Index>,
    ) -> Option<TimestampMs> {
        let mut history = lock(&self.history);
        if let Some((committed, at)) = self.now() {
            history.note(&committed, at);
        }
        let now_ms = self.clock.now_ms();
        let age = history.get(leadership, committed?)?.elapsed();
        Some(now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
    }

    /// As of when a state is, on the replica that leads, that has everything up to `applied`.
    pub(in crate::raft) fn of_leader(&self, applied: Option<Index>) -> Option<TimestampMs> {
        let leadership = {
            let metrics = self.metrics.get()?.borrow_watched();
            (metrics.state == ServerState::Leader).then_some((metrics.current_term, metrics.id))?
        };
        self.get(leadership, applied)
    }

    /// What is committed and by when it was all there was; `None` unless this replica leads, and
    /// knows that it has everything.
    fn now(&self) -> Option<(LogId, Instant)> {
        let now = Instant::now();
        let metrics = self.metrics.get()?.borrow_watched();
        let committed = wire::log_id(metrics.local_committed.as_ref()?);
        let leads = metrics.state == ServerState::Leader
            && committed.term == metrics.current_term
            && committed.leader == metrics.id;
        let at = now.checked_sub(metrics.last_quorum_acked.as_ref()?.elapsed())?;
        leads.then_some((committed, at))
    }

    /// How long ago a quorum followed; `None` when this replica does not lead.
    pub(in crate::raft) fn age(&self) -> Option<Duration> {
        let metrics = self.metrics.get()?.borrow_watched();
        metrics.last_quorum_acked.as_ref().map(|acked| acked.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: (Term, NodeId) = (3, NodeId(1));

    fn id(index: Index) -> LogId {
        LogId { term: 3, leader: NodeId(1), index }
    }

    #[test]
    fn a_message_gets_the_newest_moment_that_is_true_for_its_position() {
        let mut history = History::default();
        let start = Instant::now();
        let at = |intervals| start + PAIR_INTERVAL * intervals;
        history.note(&id(10), at(0));
        history.note(&id(20), at(1));
        history.note(&id(30), at(2));
        assert_eq!(history.get(LEADER, 9), None, "nothing is known of so old a position");
        assert_eq!(history.get(LEADER, 10), Some(at(0)));
        assert_eq!(history.get(LEADER, 29), Some(at(1)), "30 may have been acknowledged by then");
        assert_eq!(history.get(LEADER, 30), Some(at(2)));
        assert_eq!(history.get(LEADER, 99), Some(at(2)));
    }

    #[test]
    fn a_position_that_stays_stays_fresh() {
        let mut history = History::default();
        let start = Instant::now();
        for ms in 0..1000 {
            history.note(&id(10), start + Duration::from_millis(ms));
        }
        assert_eq!(history.get(LEADER, 10), Some(start + Duration::from_millis(999)));
        history.note(&id(10), start);
        assert_eq!(history.get(LEADER, 10), Some(start + Duration::from_millis(999)));
    }

    #[test]
    fn another_leadership_begins_anew() {
        let mut history = History::default();
        let now = Instant::now();
        history.note(&id(10), now);
        assert_eq!(history.get((4, NodeId(1)), 10), None);
        history.note(&LogId { term: 4, leader: NodeId(1), index: 11 }, now + PAIR_INTERVAL);
        assert_eq!(history.get(LEADER, 10), None);
        assert_eq!(history.get((4, NodeId(1)), 11), Some(now + PAIR_INTERVAL));
    }

    #[test]
    fn the_history_is_short_and_reaches_back_a_second() {
        let mut history = History::default();
        let start = Instant::now();
        for ms in 0..10_000 {
            history.note(&id(ms), start + Duration::from_millis(ms));
        }
        assert!(history.pairs.len() <= PAIRS_MAX);
        assert!(history.get(LEADER, 9000).is_some());
    }
}
