//! The thread that owns the end of the log.
//!
//! It takes everything that is queued, writes it as one batch, syncs once and then calls every
//! `done`: group commit without a timer. A batch ends early where its segment ends or when it has
//! [`WAL_BATCH_BYTES`]; the next batch is written only when it is on disk. The first error ends the
//! log: nothing is written after a failed write or sync, and nothing is tried twice.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
#[cfg(any(test, feature = "simulation"))]
use std::time::Duration;

use crate::planted::{self, Bug};
use crate::store::wal::Done;
use crate::store::wal::index::Place;
use crate::store::wal::keeper::Keeper;
use crate::store::wal::mark::Mark;
use crate::store::wal::pace::Pace;
use crate::store::wal::record::{BatchBuilder, batch_len, encoded_len};
use crate::store::wal::recovery::End;
use crate::store::wal::segment::{At, Fill, Kind, START, Segment, at};
use crate::store::wal::shared::{Change, Held, Request, Shared, Work, Written};
#[cfg(any(test, feature = "simulation"))]
use crate::types::host;
use crate::types::limits::WAL_BATCH_BYTES;

/// The segment after the current one.
#[derive(Debug)]
enum Next {
    /// Not asked for yet.
    None,
    /// The keeper prepares it.
    AskedFor,
    /// Left by an earlier run.
    Ready(Segment),
}

/// Writes batches.
pub(super) struct Writer {
    shared: Arc<Shared>,
    keeper: Keeper,
    mark: Mark,
    segment: Arc<Segment>,
    /// The length of the current segment.
    len: u64,
    /// Where the next batch goes.
    offset: u64,
    sequence: u64,
    next: Next,
    batch: BatchBuilder,
    /// What the records in `batch` mean.
    changes: Vec<Change>,
    /// The callers whose last record is in `batch`.
    waiting: Vec<Done>,
    /// The requests whose last record is in `batch` or before it.
    requests: u64,
}

impl Writer {
    /// Starts the thread at the end of a recovered log: `segment`, and `next` if it lies ready.
    pub(super) fn start(
        shared: &Arc<Shared>,
        (kind, mark): (Kind, Mark),
        (segment, next): (Arc<Segment>, Option<Segment>),
        end: End,
    ) -> At<()> {
        let dir = kind.dir.clone();
        let len = segment.len()?;
        let started = Keeper::start(kind, Arc::clone(shared)).and_then(|keeper| {
            let writer = Self {
                shared: Arc::clone(shared),
                keeper,
                mark,
                segment,
                len,
                offset: end.place.offset,
                sequence: end.sequence,
                next: next.map_or(Next::None, Next::Ready),
                batch: BatchBuilder::new(),
                changes: Vec::new(),
                waiting: Vec::new(),
                requests: 0,
            };
            writer.begin()
        });
        started.map_err(|error| (dir, error))
    }

    fn begin(self) -> io::Result<()> {
        #[cfg(any(test, feature = "simulation"))]
        if host::is_simulated() {
            drop(tokio::spawn(self.run_as_task()));
            return Ok(());
        }
        thread::Builder::new().name("wal-writer".into()).spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        let _guard = FailOnPanic(Arc::clone(&self.shared));
        self.prepare_next();
        while let Some(work) = self.shared.take_work() {
            if is_acknowledged(&work) {
                planted::lag();
            }
            if !self.turn(work) {
                break;
            }
        }
        self.end();
    }

    /// As [`Writer::run`], where there are no threads: what blocks there is waited for here.
    #[cfg(any(test, feature = "simulation"))]
    async fn run_as_task(mut self) {
        let _guard = FailOnPanic(Arc::clone(&self.shared));
        self.prepare_next();
        while let Some(work) = self.shared.next_work().await {
            let early = if is_acknowledged(&work) { planted::WRITE_LAG } else { Duration::ZERO };
            let lag = host::disk_lag() + early;
            if !lag.is_zero() {
                tokio::time::sleep(lag).await;
            }
            if !self.turn(work) {
                break;
            }
        }
        self.end();
    }

    /// Writes what was queued; whether there may be more.
    fn turn(&mut self, work: Work) -> bool {
        let last = work.last;
        match self.write(work) {
            Ok(()) => !last,
            Err(error) => {
                self.shared.fail(error);
                false
            }
        }
    }

    fn end(self) {
        let Self { shared, keeper, waiting, .. } = self;
        keeper.end();
        let checked = shared.lock().check();
        if let Err(error) = checked {
            for done in waiting {
                done(Err(io::Error::new(error.kind(), error.to_string())));
            }
        }
        shared.note_closed();
    }

    fn write(&mut self, work: Work) -> At<()> {
        let mut requests = work.requests.into_iter();
        while let Some(request) = requests.next() {
            if let Err(error) = self.add(request) {
                // Theirs is the same fate: `run` tells them.
                self.waiting.extend(requests.filter_map(|request| request.done));
                return Err(error);
            }
        }
        self.commit()
    }

    fn add(&mut self, request: Request) -> At<()> {
        let Request { records, change, done } = request;
        let result = match change {
            Change::Append(range) => self.add_entries(&records, range.start),
            change @ (Change::None | Change::Cut(_) | Change::Purge(_)) => {
                self.push(&records).map(|()| self.changes.push(change))
            }
        };
        self.waiting.extend(done);
        self.requests += 1;
        result
    }

    fn add_entries(&mut self, records: &[u8], first: u64) -> At<()> {
        let mut rest = records;
        let mut index = first;
        while !rest.is_empty() {
            let (record, after) = rest.split_at(encoded_len(rest));
            self.push(record)?;
            match self.changes.last_mut() {
                Some(Change::Append(range)) if range.end == index => range.end += 1,
                Some(_) | None => self.changes.push(Change::Append(index..index + 1)),
            }
            rest = after;
            index += 1;
        }
        Ok(())
    }

    /// Adds records that belong together to the batch, or to the next one if they don't fit.
    fn push(&mut self, records: &[u8]) -> At<()> {
        let len = self.batch.records_len() + records.len();
        if !self.batch.is_empty() && (len > WAL_BATCH_BYTES || !self.fits(len)) {
            self.commit()?;
        }
        if self.batch.is_empty() && !self.fits(records.len()) {
            self.rotate(START + batch_len(records.len()) as u64)?;
        }
        self.batch.push(records);
        Ok(())
    }

    fn fits(&self, records: usize) -> bool {
        self.offset + batch_len(records) as u64 <= self.len
    }

    /// Goes on to the next segment, which gets at least `bytes` bytes.
    fn rotate(&mut self, bytes: u64) -> At<()> {
        let segment = match std::mem::replace(&mut self.next, Next::None) {
            Next::Ready(segment) => segment,
            Next::AskedFor => self.keeper.prepared()?,
            Next::None => {
                self.keeper.prepare(self.segment.number + 1, Fill::Reserve);
                self.keeper.prepared()?
            }
        };
        assert!(segment.number == self.segment.number + 1, "segments are numbered without a gap");
        self.len = segment.len()?;
        if self.len < bytes {
            segment.reserve(bytes)?;
            self.len = bytes;
        }
        self.offset = START;
        self.segment = Arc::new(segment);
        Ok(())
    }

    /// Writes the batch, syncs, and tells those who wait for it.
    fn commit(&mut self) -> At<()> {
        let mut freed = Vec::new();
        if !self.batch.is_empty() {
            let bytes = self.batch.seal(self.sequence, self.segment.identity);
            self.shared.pace(Pace::begin);
            if planted::bug(Bug::SlowDisk) {
                planted::slow_disk();
            }
            self.segment.write(bytes, self.offset)?;
            if planted::bug(Bug::FailingSync) {
                at(self.segment.path(), planted::failing_sync(self.requests))?;
            }
            self.segment.sync()?;
            self.shared.pace(Pace::end);
            self.mark.set(self.sequence)?;
            let place = Place { segment: self.segment.number, offset: self.offset };
            self.offset += bytes.len() as u64;
            self.sequence += 1;
            self.batch.clear();
            freed = self.shared.note_written(Written {
                place,
                held: Held { segment: Arc::clone(&self.segment), end: self.offset },
                changes: std::mem::take(&mut self.changes),
                requests: self.requests,
            });
        }
        for done in self.waiting.drain(..) {
            done(Ok(()));
        }
        self.keeper.free(freed);
        self.prepare_next();
        Ok(())
    }

    /// Asks for the next segment when the current one is half full.
    fn prepare_next(&mut self) {
        if matches!(self.next, Next::None) && self.offset - START >= (self.len - START) / 2 {
            self.keeper.prepare(self.segment.number + 1, Fill::Zeros);
            self.next = Next::AskedFor;
        }
    }
}

/// For [`Bug::AckBeforeSync`]: whether nobody waits for this; a vote, for example, is waited for.
fn is_acknowledged(work: &Work) -> bool {
    planted::bug(Bug::AckBeforeSync) && work.requests.iter().all(|r| r.done.is_none())
}

/// Fails the log if its writer panics: nobody shall wait for it in vain.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail((PathBuf::from("wal"), io::Error::other("the writer thread panicked")));
        }
    }
}
