//! The log on disk: Raft's entries, votes and marks in numbered segment files.
//!
//! One thread writes. It takes everything that is queued, writes it as one *batch*, syncs once, and
//! then calls every `done`. What was acknowledged survives the loss of power; what was being
//! written at that moment is cut when the log is opened again; anything else that is wrong with the
//! files is [`WalError::Damaged`], never silently repaired or dropped. A mark beside the segments
//! (`mark`) tells the two apart where the last batch is concerned.
//!
//! The log ends with its first failed write or sync: every later call gets that first error,
//! nothing is tried again, and [`Wal::failed`] tells the owner, who ends the process. What is
//! durable after a failed sync nobody knows before the log is opened again.
//!
//! It knows nothing of Raft's rules beyond "no hole". The bytes are drawn in `docs/formats.md`, the
//! reasons stand in `docs/decisions/003-wal.md`. Read on in `record` (the bytes), `recovery` (how a
//! log ends), `writer`, and `shared` (the queue).

mod cache;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod index;
mod inspect;
mod keeper;
mod mark;
mod open;
mod pace;
mod reader;
mod record;
mod recovery;
mod scrub;
mod segment;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::planted::{self, Bug};
use crate::store::disk::Disk;
use crate::store::rests::Rests;
use crate::store::wal::cache::keep_until;
use crate::store::wal::shared::{Change, Inner, Request, Shared, Status};
use crate::types::ids::{Index, LogId, NodeId, Vote};
use crate::types::limits::{WAL_CACHE_BYTES_MAX, WAL_RECORD_BYTES_MAX};
use crate::types::log::Entry;

pub use crate::store::wal::error::WalError;
pub use crate::store::wal::inspect::{Inspection, Piece, Pieces};
pub use crate::store::wal::open::ReadLog;
pub use crate::store::wal::record::Record;
#[doc(hidden)] // For benches/micro/.
pub use crate::store::wal::record::{BatchBuilder, RecordRef};
pub use crate::store::wal::recovery::Why;
pub use crate::store::wal::scrub::Scrubbed;

/// How a WAL is opened.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// What holds it.
    pub disk: Arc<dyn Disk>,
    /// Its directory; made if missing.
    pub dir: PathBuf,
    /// Who writes it: stands in each segment's header and must match.
    pub node: NodeId,
    /// The size of a segment file in bytes; usually
    /// [`crate::types::limits::WAL_SEGMENT_BYTES_DEFAULT`].
    pub segment_bytes: u64,
}

/// Called once, by the log's own thread, when what it belongs to is on disk, or can't be. It must
/// not block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// More than the marks of a purge take, in bytes.
const MARKS_BYTES: usize = 256;

/// A handle of the open log. Clones share it; when the last one is dropped, what is queued is
/// written and the threads end, but nobody waits for them: see [`Wal::close`].
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

/// Ends the threads when nobody can use them any more.
struct Handle {
    shared: Arc<Shared>,
}

impl ReadLog {
    /// The other half of [`Wal::open`]: fails if the log could not be read, and changes nothing then.
    pub fn open(self) -> Result<Wal, WalError> {
        Wal::open_read(self, WAL_CACHE_BYTES_MAX)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.shared.fmt(f)
    }
}

impl Wal {
    /// Opens and recovers the log: cuts a torn tail, refuses damage, syncs what it keeps. Blocks
    /// while it reads the whole log. Only one process may have the log open: the data directory's
    /// lock sees to that.
    ///
    /// # Panics
    /// If the segment size is out of its bounds.
    pub fn open(options: WalOptions) -> Result<Self, WalError> {
        Self::open_with(options, WAL_CACHE_BYTES_MAX)
    }

    /// The first half of [`Wal::open`]: reads the whole log, with these rests, and makes its directory, but changes nothing there.
    ///
    /// # Panics
    /// If the segment size is out of its bounds.
    pub fn read(options: WalOptions, rests: Rests) -> ReadLog {
        open::read(options, rests)
    }

    /// As [`Wal::open`], with about `cache_bytes_max` bytes of entries in memory.
    fn open_with(options: WalOptions, cache_bytes_max: usize) -> Result<Self, WalError> {
        Self::open_read(Self::read(options, Rests::none()), cache_bytes_max)
    }

    fn open_read(log: ReadLog, cache_bytes_max: usize) -> Result<Self, WalError> {
        let shared = open::open(log, cache_bytes_max)?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// The node that wrote the log in `dir`, if there is one: the identity of a data directory
    /// whose metadata is lost.
    pub fn written_by(disk: &dyn Disk, dir: &Path) -> Result<Option<NodeId>, WalError> {
        open::written_by(disk, dir)
    }

    /// Looks at the log in `dir` without opening it or changing anything. `visit` sees every record
    /// before the damage, if there is any, in order. Damage is not an error here; a disk that fails is.
    pub fn inspect(
        disk: &dyn Disk,
        dir: &Path,
        visit: impl FnMut(Record),
    ) -> Result<Inspection, WalError> {
        inspect::inspect(disk, dir, visit)
    }

    /// The last vote saved.
    pub fn vote(&self) -> Option<Vote> {
        self.shared().lock().view.vote
    }

    /// The last commit position saved (it has no sync of its own, so after a crash it may be an
    /// older one).
    pub fn committed(&self) -> Option<LogId> {
        self.shared().lock().view.committed
    }

    /// The last entry purged.
    pub fn purged(&self) -> Option<LogId> {
        self.shared().lock().view.purged()
    }

    /// The last entry, purged or not.
    pub fn last(&self) -> Option<LogId> {
        self.shared().lock().view.last()
    }

    /// Appends entries without a hole; they can be read when this returns, and are on disk when
    /// `done` is called. An error means that nothing was appended and `done` is dropped; dropping
    /// the future before it ends comes to the same or to a whole append.
    ///
    /// # Panics
    /// If the entries leave a hole in the log. A log without entries and purge mark may start
    /// anywhere.
    pub async fn append(&self, entries: Vec<Entry>, done: Done) -> io::Result<()> {
        let early = planted::bug(Bug::AckBeforeSync);
        let (done, acknowledge) = if early { (None, Some(done)) } else { (Some(done), None) };
        let mut records = Vec::new();
        let mut sizes = Vec::with_capacity(entries.len());
        for entry in &entries {
            let bytes = RecordRef::Entry(entry).encode(&mut records);
            if bytes > WAL_RECORD_BYTES_MAX {
                return Err(too_large(bytes));
            }
            sizes.push(bytes);
        }
        let bytes = records.len();
        let make = move |inner: &mut Inner| {
            let start = entries.first().map_or(0, |first| first.id.index);
            let next = inner.view.next();
            if let (Some(first), Some(next)) = (entries.first(), next) {
                let last = inner.view.last();
                assert!(first.id.index == next, "hole in log: {last:?} then {}", first.id);
            }
            let request = inner.next_request();
            let change = Change::Append(start..start + entries.len() as u64);
            for (entry, bytes) in entries.into_iter().zip(sizes) {
                inner.view.append(entry, bytes, request);
            }
            Some(Request { records, change, done })
        };
        self.shared().submit(bytes, make).await?;
        if let Some(done) = acknowledge {
            done(Ok(()));
        }
        Ok(())
    }

    /// Saves a vote, in order with appends; on disk when it returns.
    ///
    /// # Panics
    /// If the vote is of an earlier term than the last one.
    pub async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let mut records = Vec::new();
        RecordRef::Vote(vote).encode(&mut records);
        self.write(records.len(), move |inner| {
            let before = inner.view.vote.map_or(0, |before| before.term);
            assert!(vote.term >= before, "vote goes back from term {before} to {vote:?}");
            inner.view.vote = Some(vote);
            (!planted::bug(Bug::ForgetVote)).then_some((records, Change::None))
        })
        .await
    }

    /// Saves the commit position, without a sync of its own: it goes to disk with whatever is
    /// written next, at the latest when the log is closed.
    pub async fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        let make = |inner: &mut Inner| {
            inner.view.committed = committed;
            None
        };
        self.shared().submit(0, make).await
    }

    /// Removes every entry after `last` (all of them for `None`); on disk when it returns. Does
    /// nothing if there is none.
    pub async fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        let mut records = Vec::new();
        RecordRef::Truncate(last).encode(&mut records);
        self.write(records.len(), move |inner| {
            if !inner.view.has_after(last) {
                return None;
            }
            inner.view.truncate_after(last);
            inner.cuts += 1;
            Some((records, Change::Cut(keep_until(last))))
        })
        .await
    }

    /// Drops every entry up to and with `upto`, by whole segments; on disk when it returns. `upto`
    /// may lie beyond the last entry (a snapshot was installed): then the log is empty after it.
    /// Does nothing if that much was purged before.
    ///
    /// # Panics
    /// If it leaves a hole between `upto` and the first entry.
    pub async fn purge(&self, upto: LogId) -> io::Result<()> {
        self.write(MARKS_BYTES, move |inner| {
            if inner.view.purged().is_some_and(|purged| upto.index <= purged.index) {
                return None;
            }
            let (first, start) = (inner.view.span().start, upto.index + 1);
            let hole = !inner.view.span().is_empty() && start < first;
            assert!(!hole, "hole in log: purged up to {upto}, the first entry is {first}");
            inner.view.purge(upto);
            inner.cuts += 1;
            // Segments with older marks may go as soon as this is on disk.
            let mut records = inner.marks();
            RecordRef::Purge(upto).encode(&mut records);
            Some((records, Change::Purge(start)))
        })
        .await
    }

    /// The entries of `range` that exist, in order, from memory or disk. Stops early, after at
    /// least one, when the next would bring their encoded size over `bytes_max`.
    pub async fn entries(&self, range: Range<Index>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        reader::read(self.shared(), range, bytes_max).await
    }

    /// Bytes of log on disk; room that is only reserved does not count.
    pub fn bytes(&self) -> u64 {
        self.shared().lock().segments.values().map(|held| held.end).sum()
    }

    /// Bytes of records appended since the process started: what a snapshot is due by.
    pub fn bytes_appended(&self) -> u64 {
        self.shared().lock().bytes_appended
    }

    /// How long the disk has been slow: the time spent in slow syncs since the last quick one.
    pub fn slow_for(&self) -> Duration {
        self.shared().slow_for()
    }

    /// Reads the first sealed segment after number `after` from the disk again, past the system's
    /// cache, and checks every batch of it; `None` if there is none. Blocks.
    pub fn scrub(&self, after: u64) -> io::Result<Option<Scrubbed>> {
        scrub::next(self.shared(), after)
    }

    /// Waits until the log has failed, and says why; for ever if it never does. The process must
    /// end then.
    pub async fn failed(&self) -> io::Error {
        match self.shared().ended().await {
            Status::Failed(failure) => failure.error(),
            Status::Open | Status::Closed => future::pending().await,
        }
    }

    /// Writes and syncs what is queued, then ends the threads. Every call after it fails, except
    /// this one and those that only read.
    pub async fn close(&self) -> io::Result<()> {
        self.shared().close();
        match self.shared().ended().await {
            Status::Failed(failure) => Err(failure.error()),
            Status::Open | Status::Closed => Ok(()),
        }
    }

    /// How often something was cut from the log, at either end.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn cuts(&self) -> u64 {
        self.shared().lock().cuts
    }

    /// The entries from `index` on, read on this thread.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn entries_from(&self, index: Index) -> io::Result<Vec<Entry>> {
        reader::read_at_once(self.shared(), &(index..Index::MAX))
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Queues what `make` wants written, if anything, and waits until it is on disk.
    async fn write(
        &self,
        bytes: usize,
        make: impl FnOnce(&mut Inner) -> Option<(Vec<u8>, Change)>,
    ) -> io::Result<()> {
        let (sender, written) = oneshot::channel();
        let queue = |inner: &mut Inner| {
            let (records, change) = make(inner)?;
            // Who no longer waits does not want to know.
            let done: Done = Box::new(move |result| drop(sender.send(result)));
            Some(Request { records, change, done: Some(done) })
        };
        let mut queued = false;
        let note = |inner: &mut Inner| queue(inner).inspect(|_| queued = true);
        self.shared().submit(bytes, note).await?;
        if !queued {
            return Ok(());
        }
        // Without an answer the writer has panicked, and the log has failed with it.
        match written.await {
            Ok(result) => result,
            Err(_) => Err(self.failed().await),
        }
    }
}

fn too_large(bytes: usize) -> io::Error {
    let what = format!("an entry of {bytes} bytes; at most {WAL_RECORD_BYTES_MAX} are accepted");
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
