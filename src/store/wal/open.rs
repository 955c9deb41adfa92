//! Opens a log: reads what is on disk, then does what recovery decided, and starts the threads.
//!
//! What is kept is synced before it is used, what is cut is overwritten with zeros, durably. On
//! damage nothing on disk is changed.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use crate::store::disk::{self, Disk, FileStream, Open};
use crate::store::rests::Rests;
use crate::store::wal::index::Place;
use crate::store::wal::mark::{self, Mark};
use crate::store::wal::record::{HeaderError, SegmentHeader};
use crate::store::wal::recovery::{End, Recovered, Recovery, Why};
use crate::store::wal::segment::{self, Fill, Kind, START, Segment, at};
use crate::store::wal::shared::{Held, Shared};
use crate::store::wal::writer::Writer;
use crate::store::wal::{WalError, WalOptions};
use crate::types::ids::NodeId;
use crate::types::limits::WAL_SEGMENT_BYTES_MAX;

/// A log that was read and is on disk as it was.
pub struct ReadLog {
    kind: Kind,
    read: Result<(Recovered, Segments), WalError>,
}

/// Reads the log; see [`crate::store::wal::Wal::read`].
pub(super) fn read(options: WalOptions, rests: Rests) -> ReadLog {
    let WalOptions { disk, dir, node, segment_bytes } = options;
    assert!(
        (2 * START..=WAL_SEGMENT_BYTES_MAX).contains(&segment_bytes),
        "a segment has between {} and {WAL_SEGMENT_BYTES_MAX} bytes, not {segment_bytes}",
        2 * START
    );
    let kind = Kind { disk, dir, node, bytes: segment_bytes };
    let read = read_segments(&kind, rests);
    ReadLog { kind, read }
}

/// Opens it; see [`crate::store::wal::Wal::open`].
pub(super) fn open(log: ReadLog, cache_bytes_max: usize) -> Result<Arc<Shared>, WalError> {
    let ReadLog { kind, read } = log;
    if let Err(WalError::Damaged { .. }) = read {
        mark::keep(&*kind.disk, &kind.dir)?;
    }
    let (mut recovered, mut segments) = read?;
    recovered.view.keep(cache_bytes_max);
    segment::remove_leftovers(&*kind.disk, &kind.dir)?;
    // A process that was killed may have left the name of a segment unsynced that is used now.
    at(&kind.dir, kind.disk.sync_dir(&kind.dir))?;
    let end = if let Some(end) = recovered.end {
        end
    } else {
        let first = Segment::create(&kind, 1, Fill::Reserve)?;
        segments.insert(1, first);
        End { place: Place { segment: 1, offset: START }, sequence: 1 }
    };
    let (older, newer) = settle(&kind, &recovered, segments, end)?;
    info!(
        dir = %kind.dir.display(),
        segments = older.len(),
        last = ?recovered.view.last(),
        purged = ?recovered.view.purged(),
        "log recovered"
    );
    let current = Arc::clone(&older[&end.place.segment].segment);
    let shared = Arc::new(Shared::new(recovered.view, recovered.index, older));
    // A crash may have come between a purge and the removal of what it freed.
    for freed in recovered.marks.map_or_else(Vec::new, |marks| shared.free_before(marks)) {
        segment::remove(&*kind.disk, freed.path())?;
    }
    let mark = Mark::open(&*kind.disk, &kind.dir)?;
    Writer::start(&shared, (kind, mark), (current, newer), end)?;
    Ok(shared)
}

type Segments = BTreeMap<u64, Segment>;

/// Reads all segments, oldest first. Keeps no entry: those that are applied are read again then, piece by piece, and what a
/// process once had in memory stays with it.
fn read_segments(kind: &Kind, rests: Rests) -> Result<(Recovered, Segments), WalError> {
    at(&kind.dir, disk::make_dir(&*kind.disk, &kind.dir))?;
    let damaged = |damage| WalError::damaged(&kind.dir, damage);
    let mut recovery = Recovery::new(0).resting(rests);
    let mut segments = Segments::new();
    let mut bytes = Vec::new();
    for (number, path) in segment::list(&*kind.disk, &kind.dir)? {
        read_file(&*kind.disk, &path, WAL_SEGMENT_BYTES_MAX, &mut bytes)?;
        let header = decode_header(&path, &bytes)?;
        if let Some(header) = header.filter(|header| header.node != kind.node) {
            return Err(WalError::OtherNode { segment: path, found: header.node, node: kind.node });
        }
        recovery.segment(number, header.as_ref(), &bytes).map_err(damaged)?;
        if let Some(header) = header {
            segments.insert(number, Segment::open(&*kind.disk, path, &header)?);
        }
    }
    let synced = mark::read(&*kind.disk, &kind.dir)?;
    Ok((recovery.finish(synced).map_err(damaged)?, segments))
}

/// Reads the first `bytes_max` bytes of the file into `bytes`, replacing what it holds. Takes no more memory than
/// they need: what a process once had stays with it.
pub(super) fn read_file(
    disk: &dyn Disk,
    path: &Path,
    bytes_max: u64,
    bytes: &mut Vec<u8>,
) -> Result<(), WalError> {
    let file = at(path, disk.open(path, Open::Read))?;
    let size = at(path, file.size())?.min(bytes_max);
    bytes.clear();
    bytes.reserve_exact(usize::try_from(size).unwrap_or(usize::MAX));
    at(path, FileStream::new(file).take(bytes_max).read_to_end(bytes))?;
    Ok(())
}

/// The header at the start of `bytes`; `None` if it is bad.
pub(super) fn decode_header(path: &Path, bytes: &[u8]) -> Result<Option<SegmentHeader>, WalError> {
    match SegmentHeader::decode(bytes) {
        Ok(header) => Ok(Some(header)),
        Err(HeaderError::Bad) => Ok(None),
        Err(HeaderError::Version(found)) => {
            Err(WalError::Version { segment: path.to_owned(), found })
        }
    }
}

/// Makes the disk what recovery says it is. The segments up to the end, and the one after it that
/// lies ready.
fn settle(
    kind: &Kind,
    recovered: &Recovered,
    mut segments: Segments,
    end: End,
) -> Result<(BTreeMap<u64, Held>, Option<Segment>), WalError> {
    for seen in recovered.segments.iter().filter(|seen| seen.torn) {
        let torn = &segments[&seen.number];
        warn!(
            segment = %torn.path().display(),
            offset = seen.end,
            batch = end.sequence,
            "cutting a batch that was never acknowledged: it was being written when the process \
             or the machine ended"
        );
        torn.clear(seen.end)?;
    }
    let mut ready = segments.split_off(&(end.place.segment + 1));
    let newer = ready.remove(&(end.place.segment + 1));
    for surplus in ready.into_values().rev() {
        segment::remove(&*kind.disk, surplus.path())?;
    }
    let current = &segments[&end.place.segment];
    if current.len()? < kind.bytes {
        current.reserve(kind.bytes)?;
    }
    // Readable is not durable: a sync that failed leaves pages that look clean, so the next sync has
    // nothing to write and succeeds (Rebello et al., ATC '20). Only the last batch can be such a one,
    // for nothing is written after a failed sync. Written again, it is certainly synced.
    if let Some(last) = recovered.last {
        let batch = current.read_batch(last).map_err(|error| (current.path().to_owned(), error))?;
        current.write(&batch, last)?;
    }
    current.sync()?;
    let ends: BTreeMap<_, _> =
        recovered.segments.iter().map(|seen| (seen.number, seen.end)).collect();
    let held = segments.into_iter().map(|(number, segment)| {
        let end = ends.get(&number).copied().unwrap_or(START);
        (number, Held { segment: Arc::new(segment), end })
    });
    Ok((held.collect(), newer))
}

/// Who wrote the log in `dir`; see [`crate::store::wal::Wal::written_by`].
pub(super) fn written_by(disk: &dyn Disk, dir: &Path) -> Result<Option<NodeId>, WalError> {
    let mut newest: Option<PathBuf> = None;
    let mut bytes = Vec::new();
    for (_, path) in segment::list(disk, dir)?.into_iter().rev() {
        read_file(disk, &path, START, &mut bytes)?;
        if let Some(header) = decode_header(&path, &bytes)? {
            return Ok(Some(header.node));
        }
        newest = newest.or(Some(path));
    }
    newest.map_or(Ok(None), |segment| {
        Err(WalError::Damaged {
            segment,
            offset: 0,
            sequence: 1,
            last_good: None,
            why: Why::Header,
        })
    })
}
