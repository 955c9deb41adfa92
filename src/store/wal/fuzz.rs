//! Fuzzes what reads the log: segment headers, batches, records, whole logs, and the mark.
//!
//! Judges, beside what every decoder must keep to: a batch or header with a flipped bit is not one;
//! what recovery says that the log holds is what a reader finds on the disk where recovery says that
//! it stands; and a log that is written from what was recovered says the same.

use std::iter::from_fn;

use crate::store::wal::cache::View;
use crate::store::wal::mark;
use crate::store::wal::record::{
    BATCH_ALIGN, BATCH_HEADER_BYTES, BatchBuilder, BatchRef, HeaderError, Record, RecordRef,
    Records, SEGMENT_START, SegmentHeader, batch_at, batch_len, entries_left_by,
};
use crate::store::wal::recovery::{Recovered, Recovery};
use crate::types::fuzz::{self, Watch, allowed, bent, watched};
use crate::types::ids::NodeId;
use crate::types::log::Entry;

/// The part of a segment's header that stands in an input.
const HEADER_BYTES: usize = 64;

/// How much of an input is made right before it is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mend {
    /// Nothing: what a disk may come up with.
    Nothing,
    /// Checksums, and the identity in each batch: what stands behind them is reached.
    Sums,
    /// Also the numbers of batches and segments: a log that can be recovered.
    Numbers,
}

/// A log of several segments. An input is one byte, the mark (0 for none), then segments: two bytes
/// of length, the header, the batches. The zeros between the two are not part of it.
///
/// # Panics
/// If a promise of the log's decoders is broken.
pub fn wal(bytes: &[u8], watch: Watch<'_>) -> bool {
    let Some((synced, rest)) = bytes.split_first() else { return false };
    let synced = (*synced > 0).then_some(u64::from(*synced));
    let mut any = false;
    for mend in [Mend::Nothing, Mend::Sums, Mend::Numbers] {
        let files = files(rest, mend);
        let len = files.iter().map(Vec::len).sum();
        let recovered = watched(watch, allowed(len), || recover(&files, synced));
        for file in &files {
            segment(file);
        }
        if let Some(recovered) = recovered {
            assert_readable(&recovered, &files);
            assert_rewritable(&recovered);
            any = true;
        }
    }
    any
}

/// The mark: 20 bytes and their checksum.
///
/// # Panics
/// If a promise of its decoder is broken.
pub fn mark(bytes: &[u8], watch: Watch<'_>) -> bool {
    let mut mended = bytes.to_vec();
    if let Some((fields, sum)) = mended.split_last_chunk_mut::<4>() {
        *sum = crc32c::crc32c(fields).to_le_bytes();
    }
    let mut any = false;
    for bytes in [bytes, &mended] {
        if let Some(sequence) = watched(watch, 0, || mark::decode(bytes)) {
            assert_eq!(mark::encode(sequence), *bytes, "a mark has one form");
            assert_eq!(bent(bytes).as_deref().map(mark::decode), Some(None), "a bit was flipped");
            any = true;
        }
    }
    any
}

fn files(mut bytes: &[u8], mend: Mend) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let mut next = None;
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (segment, rest) = rest.split_at(len);
        let (header, batches) = segment.split_at(len.min(HEADER_BYTES));
        let mut file = header.to_vec();
        file.resize(SEGMENT_START, 0);
        file.extend_from_slice(batches);
        mend_file(&mut file, mend, &mut next);
        files.push(file);
        bytes = rest;
    }
    files
}

/// `next` is the number that the next segment, and the next batch, must have.
fn mend_file(file: &mut [u8], mend: Mend, next: &mut Option<(u64, u64)>) {
    if mend == Mend::Nothing {
        return;
    }
    let number = u64_at(file, 16);
    let (number, mut sequence) = next.unwrap_or((number, u64_at(file, SEGMENT_START + 8)));
    if mend == Mend::Numbers {
        file[..8].copy_from_slice(b"SAGE-WAL");
        file[8..12].copy_from_slice(&1_u32.to_le_bytes());
        file[16..24].copy_from_slice(&number.to_le_bytes());
        file[32] |= 1;
        sequence = if next.is_none() && number == 1 { 1 } else { sequence };
    }
    let sum = crc32c::crc32c(&file[..HEADER_BYTES - 4]);
    file[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    let identity = u64_at(file, 32);
    let mut at = SEGMENT_START;
    while at + BATCH_HEADER_BYTES <= file.len() {
        let len = u32::from_le_bytes(file[at + 4..at + 8].try_into().expect("four bytes"));
        let end = at.saturating_add(batch_len(usize::try_from(len).expect("32 bits")));
        let Some(batch) = file.get_mut(at..end) else { break };
        if mend == Mend::Numbers {
            batch[8..16].copy_from_slice(&sequence.to_le_bytes());
        }
        batch[16..24].copy_from_slice(&identity.to_le_bytes());
        let sum = crc32c::crc32c(&batch[4..]);
        batch[..4].copy_from_slice(&sum.to_le_bytes());
        sequence = sequence.wrapping_add(1);
        at = end;
    }
    *next = Some((number.wrapping_add(1), sequence));
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at + 8).and_then(|field| field.try_into().ok());
    field.map_or(0, u64::from_le_bytes)
}

/// As `open` reads a log; the first segment has the name that it says, others follow without a gap.
fn recover(files: &[Vec<u8>], synced: Option<u64>) -> Option<Recovered> {
    let mut recovery = Recovery::new(usize::MAX);
    let mut named: Option<u64> = None;
    for file in files {
        let header = match SegmentHeader::decode(file) {
            Ok(header) => Some(header),
            Err(HeaderError::Bad) => None,
            Err(HeaderError::Version(_)) => return None,
        };
        let number = match named {
            Some(before) => before.checked_add(1)?,
            None => header.map_or(1, |header| header.number),
        };
        named = Some(number);
        recovery.segment(number, header.as_ref(), file).ok()?;
    }
    recovery.finish(synced).ok()
}

/// Looks at one file by itself.
fn segment(file: &[u8]) {
    let Ok(header) = SegmentHeader::decode(file) else { return };
    assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header), "a header comes back");
    let other = bent(&file[..HEADER_BYTES]).expect("64 bytes");
    assert_eq!(SegmentHeader::decode(&other), Err(HeaderError::Bad), "a bit was flipped");
    for (at, batch) in batches(file, &header) {
        assert_eq!((batch.end - at) % BATCH_ALIGN, 0, "batches are aligned");
        let other = bent(&file[at..batch.end]).expect("a batch has bytes");
        assert_eq!(batch_at(&other, 0, header.identity), None, "a bit was flipped");
        let read: Vec<Record> =
            Records::new(batch.records).map_while(Result::ok).map(first).collect();
        let mut written = Vec::new();
        for record in &read {
            record_ref(record).encode(&mut written);
        }
        let again: Result<Vec<_>, _> = Records::new(&written).map(|read| read.map(first)).collect();
        assert_eq!(again, Ok(read), "records come back");
        if let Ok(left) = entries_left_by(Records::new(batch.records)) {
            let rise = left.windows(2).all(|pair| pair[0].0.id.index < pair[1].0.id.index);
            assert!(rise, "a batch leaves one entry for an index: {left:?}");
        }
    }
}

fn batches<'a>(
    file: &'a [u8],
    header: &SegmentHeader,
) -> impl Iterator<Item = (usize, BatchRef<'a>)> {
    let (mut at, identity) = (SEGMENT_START, header.identity);
    from_fn(move || {
        let batch = batch_at(file, at, identity)?;
        Some((std::mem::replace(&mut at, batch.end), batch))
    })
}

fn first<T, U>(pair: (T, U)) -> T {
    pair.0
}

fn record_ref(record: &Record) -> RecordRef<'_> {
    match record {
        Record::Entry(entry) => RecordRef::Entry(entry),
        Record::Vote(vote) => RecordRef::Vote(*vote),
        Record::Committed(committed) => RecordRef::Committed(*committed),
        Record::Truncate(last) => RecordRef::Truncate(*last),
        Record::Purge(upto) => RecordRef::Purge(*upto),
    }
}

fn entries(view: &View) -> Vec<Entry> {
    view.cached(view.span()).map(|(entry, _)| entry.clone()).collect()
}

/// Reads each entry from where recovery says that it stands, as `reader` does.
fn assert_readable(recovered: &Recovered, files: &[Vec<u8>]) {
    let Recovered { view, index, segments, .. } = recovered;
    let span = view.span();
    let mut found = Vec::new();
    for (place, until) in index.lookup(span.start, span.end, usize::MAX) {
        let at = segments.iter().position(|seen| seen.number == place.segment);
        let file = &files[at.expect("a segment that was shown")];
        let header = SegmentHeader::decode(file).expect("it was recovered from");
        let offset = usize::try_from(place.offset).expect("an offset in a file");
        let batch = batch_at(file, offset, header.identity).expect("a batch where it should be");
        for (entry, _) in entries_left_by(Records::new(batch.records)).expect("it was replayed") {
            let next = span.start + found.len() as u64;
            if entry.id.index == next && next < until {
                found.push(entry);
            }
        }
        assert_eq!(span.start + found.len() as u64, until, "the batch at {place:?} has them all");
    }
    assert_eq!(found, entries(view), "what is on disk is what was recovered");
}

/// Writes what was recovered as a log of one batch and reads that.
fn assert_rewritable(recovered: &Recovered) {
    let view = &recovered.view;
    let mut records = Vec::new();
    RecordRef::Committed(view.committed).encode(&mut records);
    if let Some(vote) = view.vote {
        RecordRef::Vote(vote).encode(&mut records);
    }
    if let Some(purged) = view.purged() {
        RecordRef::Purge(purged).encode(&mut records);
    }
    let kept = entries(view);
    for entry in &kept {
        RecordRef::Entry(entry).encode(&mut records);
    }
    let header = SegmentHeader { number: 1, node: NodeId(2), identity: 3 };
    let file = [&header.encode()[..], &batch(&records, 1, header.identity)].concat();
    let again = recover(&[file], Some(1)).expect("a log of ours").view;
    assert_eq!((again.vote, again.committed), (view.vote, view.committed), "marks come back");
    assert_eq!((again.purged(), entries(&again)), (view.purged(), kept), "entries come back");
}

fn batch(records: &[u8], sequence: u64, identity: u64) -> Vec<u8> {
    let mut batch = BatchBuilder::new();
    batch.push(records);
    batch.seal(sequence, identity).to_vec()
}

/// Where a search for marks begins.
pub(crate) fn mark_seeds() -> Vec<Vec<u8>> {
    [1, 300, u64::MAX].iter().map(|sequence| mark::encode(*sequence).to_vec()).collect()
}

/// Where a search for logs begins.
pub(crate) fn wal_seeds() -> Vec<Vec<u8>> {
    let [blank, put, members] = fuzz::entries();
    let written = |records: &[RecordRef<'_>]| {
        let mut bytes = Vec::new();
        for record in records {
            record.encode(&mut bytes);
        }
        bytes
    };
    let marks = written(&[
        RecordRef::Vote(fuzz::vote()),
        RecordRef::Committed(Some(fuzz::id(3))),
        RecordRef::Purge(fuzz::id(3)),
    ]);
    let two = written(&[RecordRef::Entry(&blank), RecordRef::Entry(&put)]);
    let third = written(&[RecordRef::Entry(&members)]);
    let cut = written(&[RecordRef::Truncate(Some(fuzz::id(4))), RecordRef::Entry(&put)]);
    let purge = written(&[RecordRef::Vote(fuzz::vote()), RecordRef::Purge(fuzz::id(4))]);
    let segment = |number: u64, sequence: u64, batches: &[&[u8]]| {
        let header = SegmentHeader { number, node: NodeId(2), identity: 0x0102 + number };
        let mut bytes = header.encode()[..HEADER_BYTES].to_vec();
        for (sequence, records) in (sequence..).zip(batches) {
            bytes.extend(batch(records, sequence, header.identity));
        }
        let len = u16::try_from(bytes.len()).expect("a small segment");
        [&len.to_le_bytes()[..], &bytes].concat()
    };
    let log = |synced: u8, segments: &[Vec<u8>]| [&[synced][..], &segments.concat()].concat();
    let mut torn = segment(1, 1, &[&two, &third]);
    torn.extend([0; 8]);
    *torn.last_mut().expect("it has bytes") = 1;
    let torn_len = u16::try_from(torn.len() - 2).expect("a small segment");
    torn[..2].copy_from_slice(&torn_len.to_le_bytes());
    vec![
        log(0, &[segment(1, 1, &[])]),
        log(1, &[segment(1, 1, &[&two])]),
        log(3, &[segment(1, 1, &[&marks, &two, &third])]),
        log(0, &[segment(1, 1, &[&two, &third, &cut])]),
        log(0, &[torn]),
        log(9, &[segment(4, 7, &[&marks, &two]), segment(5, 9, &[&third])]),
        log(2, &[segment(1, 1, &[&two, &cut]), segment(2, 3, &[])]),
        log(0, &[segment(1, 1, &[&two, &third, &purge])]),
        log(2, &[segment(1, 1, &[&two]), segment(2, 2, &[&third, &purge])]),
    ]
}

/// A log of so many entries without payload, in one batch.
#[cfg(test)]
pub(crate) fn wal_of(entries: u64) -> Vec<u8> {
    let mut records = Vec::new();
    for index in 0..entries {
        let payload = crate::types::log::Payload::Blank;
        RecordRef::Entry(&Entry { id: fuzz::id(index), payload }).encode(&mut records);
    }
    let header = SegmentHeader { number: 1, node: NodeId(2), identity: 3 };
    let bytes = [&header.encode()[..HEADER_BYTES], &batch(&records, 1, 3)].concat();
    let len = u16::try_from(bytes.len()).expect("a small segment");
    [&[0][..], &len.to_le_bytes(), &bytes].concat()
}
