//! Reads entries: from memory, or from disk with their checksums verified.
//!
//! Disk is read off the async runtime. A reading may take several steps; if the log is truncated or
//! purged in between, it starts again, so that what it returns stood in the log at one instant.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::store::blocking::blocking;
use crate::store::wal::index::Place;
use crate::store::wal::record::{Records, batch_at, entries_left_by};
use crate::store::wal::segment::Segment;
use crate::store::wal::shared::{Inner, Shared};
use crate::types::ids::Index;
use crate::types::limits::WAL_LOOKUP_BATCHES_MAX;
use crate::types::log::Entry;

/// What was read so far.
#[derive(Debug, Default)]
struct Found {
    entries: Vec<Entry>,
    /// The index of the next entry.
    next: Index,
    /// Bytes of their encodings.
    bytes: usize,
    bytes_max: usize,
    /// Whether the next entry would have gone over `bytes_max`.
    full: bool,
}

impl Found {
    fn take(&mut self, entry: Entry, bytes: usize) {
        self.full = !self.entries.is_empty() && self.bytes + bytes > self.bytes_max;
        if !self.full {
            self.next = entry.id.index + 1;
            self.bytes += bytes;
            self.entries.push(entry);
        }
    }
}

/// A batch on disk and the index where the entries to take from it end.
struct Stored {
    segment: Arc<Segment>,
    place: Place,
    until: Index,
}

/// What to do next.
enum Step {
    /// Start again.
    Changed,
    /// Nothing: this was all.
    End,
    /// Read these batches.
    Disk(Vec<Stored>),
}

/// The entries of `range` that exist; see [`crate::store::wal::Wal::entries`].
pub(super) async fn read(
    shared: &Shared,
    range: Range<Index>,
    bytes_max: usize,
) -> io::Result<Vec<Entry>> {
    loop {
        if let Some(entries) = attempt(shared, range.clone(), bytes_max).await? {
            return Ok(entries);
        }
    }
}

/// As [`read`]; `None` if the log was changed meanwhile.
async fn attempt(
    shared: &Shared,
    range: Range<Index>,
    bytes_max: usize,
) -> io::Result<Option<Vec<Entry>>> {
    let (mut found, end, cuts) = {
        let inner = shared.lock();
        inner.check()?;
        begin(&inner, &range, bytes_max)
    };
    while !found.full {
        match step(shared, &mut found, end, cuts) {
            Step::Changed => return Ok(None),
            Step::End => break,
            Step::Disk(batches) => {
                let read = move || read_batches(found, &batches);
                found = blocking(read).await??;
            }
        }
    }
    Ok(Some(found.entries))
}

/// As [`read`] without a limit, also from a log that has failed, for a simulation that looks on from outside: nobody else
/// runs meanwhile.
#[cfg(any(test, feature = "simulation"))]
pub(super) fn read_at_once(shared: &Shared, range: &Range<Index>) -> io::Result<Vec<Entry>> {
    let (mut found, end, cuts) = begin(&shared.lock(), range, usize::MAX);
    while let Step::Disk(batches) = step(shared, &mut found, end, cuts) {
        found = read_batches(found, &batches)?;
    }
    Ok(found.entries)
}

/// Nothing read yet, where the range ends, and how often the log was changed until now.
fn begin(inner: &Inner, range: &Range<Index>, bytes_max: usize) -> (Found, Index, u64) {
    let span = inner.view.span();
    let next = range.start.max(span.start);
    let found = Found { next, bytes_max, ..Found::default() };
    (found, range.end.min(span.end), inner.cuts)
}

fn step(shared: &Shared, found: &mut Found, end: Index, cuts: u64) -> Step {
    let inner = shared.lock();
    if inner.cuts != cuts {
        return Step::Changed;
    }
    if found.next >= end {
        return Step::End;
    }
    let cached_from = inner.view.cached_from();
    if found.next >= cached_from {
        for (entry, bytes) in inner.view.cached(found.next..end) {
            found.take(entry.clone(), bytes);
            if found.full {
                break;
            }
        }
        return Step::End;
    }
    let until = end.min(cached_from);
    let places = inner.index.lookup(found.next, until, WAL_LOOKUP_BATCHES_MAX);
    assert!(!places.is_empty(), "entry {} is neither in memory nor on disk", found.next);
    let batches = places.into_iter().map(|(place, until)| Stored {
        segment: Arc::clone(&inner.segments[&place.segment].segment),
        place,
        until,
    });
    Step::Disk(batches.collect())
}

/// Reads batches until they end or `found` is full.
fn read_batches(mut found: Found, batches: &[Stored]) -> io::Result<Found> {
    for Stored { segment, place, until } in batches {
        let bad = || segment.bad(place.offset);
        let bytes = segment.read_batch(place.offset)?;
        let batch = batch_at(&bytes, 0, segment.identity).ok_or_else(bad)?;
        let left = entries_left_by(Records::new(batch.records)).map_err(|_| bad())?;
        for (entry, bytes) in left {
            let index = entry.id.index;
            if index == found.next && index < *until {
                found.take(entry, bytes);
            }
            if found.full {
                return Ok(found);
            }
        }
        if found.next != *until {
            return Err(bad());
        }
    }
    Ok(found)
}
