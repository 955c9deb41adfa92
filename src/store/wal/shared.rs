//! What the handles, the writer and the keeper of one log share: its state and the queue.
//!
//! A request changes the view and enters the queue in one step, in turn, so the order of requests
//! is the order of records on disk. The queue is bounded in bytes and requests; who finds it full
//! waits, and those who come later wait behind. The first failure ends everything: it is kept, and
//! every later call gets it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as Turn, Notify, watch};

use crate::planted::{self, Bug};
use crate::store::wal::Done;
use crate::store::wal::cache::View;
use crate::store::wal::index::{BatchIndex, Place};
use crate::store::wal::pace::Pace;
use crate::store::wal::record::RecordRef;
use crate::store::wal::segment::Segment;
use crate::types::host;
use crate::types::ids::{Index, LogId};
use crate::types::limits::{WAL_QUEUE_BYTES_MAX, WAL_QUEUE_REQUESTS_MAX};

/// What a record on disk means for where entries are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// These entries were appended.
    Append(Range<Index>),
    /// Entries from here on were truncated.
    Cut(Index),
    /// Entries before this one were purged, and the marks written anew in the same batch.
    Purge(Index),
}

/// What is to be written.
pub(super) struct Request {
    /// Encoded records; those of an append may end up in several batches.
    pub(super) records: Vec<u8>,
    /// What they mean.
    pub(super) change: Change,
    /// Called when they are on disk.
    pub(super) done: Option<Done>,
}

/// What the writer has to do.
pub(super) struct Work {
    /// In order.
    pub(super) requests: VecDeque<Request>,
    /// Whether nothing more will come.
    pub(super) last: bool,
}

/// A segment of the log and the bytes of it that are in use.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The segment.
    pub(super) segment: Arc<Segment>,
    /// Where its last batch ends.
    pub(super) end: u64,
}

/// A batch that is on disk.
#[derive(Debug)]
pub(super) struct Written {
    /// Where it starts.
    pub(super) place: Place,
    /// Its segment, up to its end.
    pub(super) held: Held,
    /// What its records mean, in order.
    pub(super) changes: Vec<Change>,
    /// The number of requests, since the log was opened, that are wholly on disk with it.
    pub(super) requests: u64,
}

/// The first failure of a log.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    what: Arc<str>,
}

impl Failure {
    /// The failure as an error of its own.
    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.what.to_string())
    }
}

/// Whether a log still works.
#[derive(Clone, Debug)]
pub(super) enum Status {
    /// It does.
    Open,
    /// It was closed, and everything is on disk.
    Closed,
    /// It does not.
    Failed(Failure),
}

/// What the writer's thread does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Thread {
    /// It works, or was woken.
    Awake,
    /// It waits for something to do.
    Asleep,
}

/// The guarded part.
pub(super) struct Inner {
    /// The log as callers see it.
    pub(super) view: View,
    /// Where entries are on disk.
    pub(super) index: BatchIndex,
    /// The segments with batches, by number.
    pub(super) segments: BTreeMap<u64, Held>,
    /// Counts truncations and purges: whoever reads in several steps sees that the log has changed.
    pub(super) cuts: u64,
    /// Bytes of records queued since the log was opened.
    pub(super) bytes_appended: u64,
    queue: VecDeque<Request>,
    queued_bytes: usize,
    /// The number of requests queued since the log was opened.
    requests: u64,
    /// The commit position as of the last record of it, on disk or queued.
    committed_queued: Option<LogId>,
    closing: bool,
    failure: Option<Failure>,
    /// To wake a thread that is awake, or woken already, is a system call for nothing.
    writer: Thread,
}

impl Inner {
    /// The number that the next request will have.
    pub(super) fn next_request(&self) -> u64 {
        self.requests + 1
    }

    /// The records that keep the vote and the commit position when older segments go.
    pub(super) fn marks(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        if let Some(vote) = self.view.vote.filter(|_| !planted::bug(Bug::ForgetVote)) {
            RecordRef::Vote(vote).encode(&mut records);
        }
        RecordRef::Committed(self.view.committed).encode(&mut records);
        self.committed_queued = self.view.committed;
        records
    }

    /// Queues the commit position if it changed since the last time.
    fn push_committed(&mut self) {
        if self.committed_queued != self.view.committed {
            self.committed_queued = self.view.committed;
            let mut records = Vec::new();
            RecordRef::Committed(self.view.committed).encode(&mut records);
            self.push(Request { records, change: Change::None, done: None });
        }
    }

    /// Fails if the log has failed.
    pub(super) fn check(&self) -> io::Result<()> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// Fails if the log takes no more requests.
    pub(super) fn check_open(&self) -> io::Result<()> {
        self.check()?;
        if self.closing { Err(closed()) } else { Ok(()) }
    }

    /// Whether the writer has nothing to do.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.closing && self.failure.is_none()
    }

    fn has_room(&self, bytes: usize) -> bool {
        let fits = self.queued_bytes + bytes <= WAL_QUEUE_BYTES_MAX;
        self.queue.is_empty() || (fits && self.queue.len() < WAL_QUEUE_REQUESTS_MAX)
    }

    fn push(&mut self, request: Request) {
        self.requests += 1;
        self.queued_bytes += request.records.len();
        self.bytes_appended += request.records.len() as u64;
        self.queue.push_back(request);
    }

    /// Takes the segments before `segment` out of the log, oldest first, unless they hold entries.
    fn free_before(&mut self, segment: u64) -> Vec<Arc<Segment>> {
        let oldest = self.index.oldest_segment().unwrap_or(segment).min(segment);
        let kept = self.segments.split_off(&oldest);
        let freed = std::mem::replace(&mut self.segments, kept);
        freed.into_values().map(|held| held.segment).collect()
    }
}

/// The shared part of one log.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Tells the writer that there is something to do.
    work: Condvar,
    /// The same, where the writer is a task.
    #[cfg(any(test, feature = "simulation"))]
    queued: Notify,
    /// Tells the caller whose turn it is that the queue was emptied.
    room: Notify,
    turn: Turn<()>,
    status: watch::Sender<Status>,
    pace: Mutex<Pace>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Wal")
            .field("span", &inner.view.span())
            .field("last", &inner.view.last())
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The state of a log that was just recovered.
    pub(super) fn new(view: View, index: BatchIndex, segments: BTreeMap<u64, Held>) -> Self {
        let committed_queued = view.committed;
        let inner = Inner {
            view,
            index,
            segments,
            cuts: 0,
            bytes_appended: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            requests: 0,
            committed_queued,
            closing: false,
            failure: None,
            writer: Thread::Awake,
        };
        Self {
            inner: Mutex::new(inner),
            work: Condvar::new(),
            #[cfg(any(test, feature = "simulation"))]
            queued: Notify::new(),
            room: Notify::new(),
            turn: Turn::new(()),
            status: watch::Sender::new(Status::Open),
            pace: Mutex::default(),
        }
    }

    /// The guarded part. Asserts come before changes, so a panic under the lock leaves it whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that a sync begins or has ended.
    pub(super) fn pace(&self, note: impl FnOnce(&mut Pace, Instant)) {
        note(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner), host::now());
    }

    /// How long the disk has been slow.
    pub(super) fn slow_for(&self) -> Duration {
        let pace = *self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.slow_for(host::now())
    }

    /// Waits for room for `bytes`, then lets `make` change the view and queues the request that it
    /// makes, if it does.
    pub(super) async fn submit(
        &self,
        bytes: usize,
        make: impl FnOnce(&mut Inner) -> Option<Request>,
    ) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        loop {
            let room = self.room.notified();
            {
                let mut inner = self.lock();
                inner.check_open()?;
                if inner.has_room(bytes) {
                    if let Some(request) = make(&mut inner) {
                        inner.push(request);
                        self.wake_writer(&mut inner);
                    }
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// Waits for something to do and takes all of it; `None` if the log has failed. Blocks.
    pub(super) fn take_work(&self) -> Option<Work> {
        let mut inner = self.lock();
        while inner.is_idle() {
            inner.writer = Thread::Asleep;
            inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        self.take(&mut inner)
    }

    /// As [`Shared::take_work`], for a writer that is a task.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) async fn next_work(&self) -> Option<Work> {
        loop {
            let queued = self.queued.notified();
            {
                let mut inner = self.lock();
                if !inner.is_idle() {
                    return self.take(&mut inner);
                }
            }
            queued.await;
        }
    }

    fn take(&self, inner: &mut Inner) -> Option<Work> {
        if inner.failure.is_some() {
            return None;
        }
        inner.push_committed();
        inner.queued_bytes = 0;
        let requests = std::mem::take(&mut inner.queue);
        self.room.notify_one();
        Some(Work { requests, last: inner.closing })
    }

    fn wake_writer(&self, inner: &mut Inner) {
        if std::mem::replace(&mut inner.writer, Thread::Awake) == Thread::Asleep {
            self.work.notify_one();
        }
        #[cfg(any(test, feature = "simulation"))]
        self.queued.notify_one();
    }

    /// Takes note of a batch on disk; the segments that it frees, oldest first.
    pub(super) fn note_written(&self, written: Written) -> Vec<Arc<Segment>> {
        let mut inner = self.lock();
        let mut freed = Vec::new();
        for change in written.changes {
            match change {
                Change::None => {}
                Change::Append(range) => {
                    inner.index.append(range.start, range.end, written.place);
                }
                Change::Cut(end) => inner.index.cut(end),
                Change::Purge(start) => {
                    inner.index.purge(start);
                    freed.extend(inner.free_before(written.place.segment));
                }
            }
        }
        inner.segments.insert(written.place.segment, written.held);
        inner.view.set_written(written.requests);
        freed
    }

    /// Takes the segments before `segment`, whose marks are newer than theirs, out of the log,
    /// oldest first, unless they hold entries.
    pub(super) fn free_before(&self, segment: u64) -> Vec<Arc<Segment>> {
        self.lock().free_before(segment)
    }

    /// Ends the log with an error, unless it has failed before.
    pub(super) fn fail(&self, (path, error): (PathBuf, io::Error)) {
        let what = format!("{}: {error}; the log takes no more writes", path.display());
        let failure = Failure { kind: error.kind(), what: what.into() };
        let mut inner = self.lock();
        if inner.failure.is_some() {
            return;
        }
        tracing::error!(path = %path.display(), %error, "the log has failed");
        inner.failure = Some(failure.clone());
        let queue = std::mem::take(&mut inner.queue);
        self.wake_writer(&mut inner);
        drop(inner);
        self.status.send_replace(Status::Failed(failure.clone()));
        self.room.notify_one();
        for done in queue.into_iter().filter_map(|request| request.done) {
            done(Err(failure.error()));
        }
    }

    /// Lets the writer end when it has written everything.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        self.wake_writer(&mut inner);
        drop(inner);
        self.room.notify_one();
    }

    /// Takes note that the writer has ended in good order.
    pub(super) fn note_closed(&self) {
        let open = |status: &Status| matches!(status, Status::Open);
        self.status.send_if_modified(|status| {
            let closes = open(status);
            if closes {
                *status = Status::Closed;
            }
            closes
        });
    }

    /// Waits until the log is open no longer.
    pub(super) async fn ended(&self) -> Status {
        let mut status = self.status.subscribe();
        let ended = status.wait_for(|status| !matches!(status, Status::Open)).await;
        ended.map_or(Status::Closed, |status| status.clone())
    }
}

/// What is said to who comes after `close`.
pub(super) fn closed() -> io::Error {
    io::Error::other("the log is closed")
}
