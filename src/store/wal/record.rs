//! The bytes of the log: segment headers, batches and the records in them.
//!
//! Pure: turns values into bytes and bytes into values. Every batch carries a checksum over all of
//! its bytes, its sequence number and the identity of the segment it was written to, so that
//! nothing left over from an earlier life of a file is ever taken for a batch. Decoding is bounded
//! and never panics, whatever the bytes are. The format is drawn in `docs/formats.md`.

use serde::Serialize;

use crate::types::codec::{self, DecodeError};
use crate::types::ids::{Index, LogId, NodeId, Vote};
use crate::types::limits::{COUNTER_MAX, WAL_BATCH_BYTES, WAL_RECORD_BYTES_MAX};
use crate::types::log::Entry;

/// The version of everything in this file.
pub(super) const FORMAT_VERSION: u32 = 1;
/// What every segment starts with.
const MAGIC: [u8; 8] = *b"SAGE-WAL";
/// The encoded part of a segment's header, in bytes.
const HEADER_BYTES: usize = 64;
/// Where the first batch of a segment starts. The header has a page for itself: no sector of it is
/// ever written again while the segment lives.
pub(super) const SEGMENT_START: usize = 4096;
/// The header of a batch, in bytes.
pub(super) const BATCH_HEADER_BYTES: usize = 24;
/// Where in it the identity of the segment stands.
const IDENTITY_AT: usize = 16;
/// Batches start at multiples of this, in bytes.
pub(super) const BATCH_ALIGN: usize = 8;
/// What stands before a record's body: its length and its kind, in bytes.
pub(super) const RECORD_HEADER_BYTES: usize = 5;
/// The longest records of one batch, in bytes.
const RECORDS_BYTES_MAX: usize = RECORD_HEADER_BYTES + WAL_RECORD_BYTES_MAX;
const _: () = assert!(WAL_BATCH_BYTES <= RECORDS_BYTES_MAX, "one record may fill a batch");

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    /// Its number: segments of one log are numbered without a gap.
    pub(super) number: u64,
    /// Who writes it.
    pub(super) node: NodeId,
    /// Drawn at random each time a file becomes a segment, never 0: what ties batches to it.
    pub(super) identity: u64,
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderError {
    /// Not a segment, or damaged, or one that says what can't be.
    Bad,
    /// A segment of another version of the format.
    Version(u32),
}

impl SegmentHeader {
    /// The first page of the segment.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; SEGMENT_START];
        page[0..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        page[16..24].copy_from_slice(&self.number.to_le_bytes());
        page[24..32].copy_from_slice(&self.node.0.to_le_bytes());
        page[32..40].copy_from_slice(&self.identity.to_le_bytes());
        let crc = crc32c::crc32c(&page[..HEADER_BYTES - 4]);
        page[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads the header at the start of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(HeaderError::Bad)?;
        let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
        if header[..8] != MAGIC || u32_at(header, HEADER_BYTES - 4) != Some(crc) {
            return Err(HeaderError::Bad);
        }
        let field = |at| u64_at(header, at).ok_or(HeaderError::Bad);
        match u32_at(header, 8) {
            Some(FORMAT_VERSION) => {
                let (number, node, identity) = (field(16)?, NodeId(field(24)?), field(32)?);
                let possible = number <= COUNTER_MAX && identity != 0;
                possible.then_some(Self { number, node, identity }).ok_or(HeaderError::Bad)
            }
            Some(version) => Err(HeaderError::Version(version)),
            None => Err(HeaderError::Bad),
        }
    }
}

/// One fact of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// An entry; what stood at its index and after it no longer does.
    Entry(Entry),
    /// The vote.
    Vote(Vote),
    /// The commit position.
    Committed(Option<LogId>),
    /// Entries after this one are gone.
    Truncate(Option<LogId>),
    /// Entries up to and with this one are gone.
    Purge(LogId),
}

const KIND_ENTRY: u8 = 1;
const KIND_VOTE: u8 = 2;
const KIND_COMMITTED: u8 = 3;
const KIND_TRUNCATE: u8 = 4;
const KIND_PURGE: u8 = 5;

/// Why a record can't be read although its batch's checksum is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    /// The batch ends in the middle of it.
    #[error("a record is cut short")]
    CutShort,
    /// A kind this version does not know.
    #[error("a record has the unknown kind {0}")]
    Kind(u8),
    /// Its body is no value of its kind.
    #[error("a record can't be decoded: {0}")]
    Body(#[from] DecodeError),
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub enum RecordRef<'a> {
    /// See [`Record::Entry`].
    Entry(&'a Entry),
    /// See [`Record::Vote`].
    Vote(Vote),
    /// See [`Record::Committed`].
    Committed(Option<LogId>),
    /// See [`Record::Truncate`].
    Truncate(Option<LogId>),
    /// See [`Record::Purge`].
    Purge(LogId),
}

impl RecordRef<'_> {
    /// Appends the encoded record to `buffer`; the bytes of its body.
    ///
    /// # Panics
    /// If that is 4 GiB or more: nothing that long is ever made.
    pub fn encode(&self, buffer: &mut Vec<u8>) -> usize {
        let start = buffer.len();
        buffer.extend([0; RECORD_HEADER_BYTES]);
        buffer[start + 4] = match self {
            Self::Entry(entry) => encode_body(KIND_ENTRY, entry, buffer),
            Self::Vote(vote) => encode_body(KIND_VOTE, vote, buffer),
            Self::Committed(committed) => encode_body(KIND_COMMITTED, committed, buffer),
            Self::Truncate(last) => encode_body(KIND_TRUNCATE, last, buffer),
            Self::Purge(upto) => encode_body(KIND_PURGE, upto, buffer),
        };
        let len = buffer.len() - start - RECORD_HEADER_BYTES;
        let field = u32::try_from(len).expect("a record is far shorter than 4 GiB");
        buffer[start..start + 4].copy_from_slice(&field.to_le_bytes());
        len
    }
}

fn encode_body<T: Serialize>(kind: u8, body: &T, buffer: &mut Vec<u8>) -> u8 {
    codec::encode_into(body, buffer);
    kind
}

/// The length of the encoded record that `bytes` start with, header included.
///
/// # Panics
/// If it isn't one of ours, whole.
pub(super) fn encoded_len(bytes: &[u8]) -> usize {
    let body = u32_at(bytes, 0).expect("a whole record of ours");
    RECORD_HEADER_BYTES + as_usize(body)
}

/// The records of a batch, one after the other, each with the bytes of its body.
#[derive(Debug)]
pub(super) struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// Reads what [`batch_at`] found.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self) -> Result<(Record, usize), RecordError> {
        let rest = std::mem::take(&mut self.0);
        let len = as_usize(u32_at(rest, 0).ok_or(RecordError::CutShort)?);
        let kind = *rest.get(4).ok_or(RecordError::CutShort)?;
        let end = RECORD_HEADER_BYTES.saturating_add(len);
        let body = rest.get(RECORD_HEADER_BYTES..end).ok_or(RecordError::CutShort)?;
        let record = match kind {
            KIND_ENTRY => Record::Entry(codec::decode(body, WAL_RECORD_BYTES_MAX)?),
            KIND_VOTE => Record::Vote(codec::decode(body, WAL_RECORD_BYTES_MAX)?),
            KIND_COMMITTED => Record::Committed(codec::decode(body, WAL_RECORD_BYTES_MAX)?),
            KIND_TRUNCATE => Record::Truncate(codec::decode(body, WAL_RECORD_BYTES_MAX)?),
            KIND_PURGE => Record::Purge(codec::decode(body, WAL_RECORD_BYTES_MAX)?),
            unknown => return Err(RecordError::Kind(unknown)),
        };
        self.0 = &rest[end..];
        Ok((record, len))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<(Record, usize), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.take())
    }
}

/// The entries that a batch leaves in the log by itself, by index, each with the bytes of its
/// record's body: those that a later record of the same batch truncates are left out.
pub(super) fn entries_left_by(records: Records<'_>) -> Result<Vec<(Entry, usize)>, RecordError> {
    let mut left: Vec<(Entry, usize)> = Vec::new();
    let keep_below = |left: &mut Vec<(Entry, usize)>, end: Index| {
        left.truncate(left.partition_point(|(entry, _)| entry.id.index < end));
    };
    for record in records {
        match record? {
            (Record::Entry(entry), len) => {
                keep_below(&mut left, entry.id.index);
                left.push((entry, len));
            }
            (Record::Truncate(last), _) => {
                keep_below(&mut left, last.map_or(0, |last| last.index.saturating_add(1)));
            }
            (Record::Vote(_) | Record::Committed(_) | Record::Purge(_), _) => {}
        }
    }
    Ok(left)
}

/// A batch in the making: room for its header, then records.
#[derive(Debug)]
pub struct BatchBuilder(Vec<u8>);

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new() -> Self {
        Self(vec![0; BATCH_HEADER_BYTES])
    }

    /// Whether it has no record yet.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == BATCH_HEADER_BYTES
    }

    /// Bytes of records in it.
    pub(super) fn records_len(&self) -> usize {
        self.0.len() - BATCH_HEADER_BYTES
    }

    /// Adds encoded records.
    pub fn push(&mut self, records: &[u8]) {
        self.0.extend_from_slice(records);
    }

    /// The finished batch as it goes to disk; a whole number of [`BATCH_ALIGN`].
    ///
    /// # Panics
    /// If it is longer than a reader accepts.
    pub fn seal(&mut self, sequence: u64, identity: u64) -> &[u8] {
        let records = self.records_len();
        assert!(records <= RECORDS_BYTES_MAX, "batch {sequence} has {records} bytes of records");
        let field = u32::try_from(records).expect("checked above");
        self.0.resize(batch_len(records), 0);
        self.0[4..8].copy_from_slice(&field.to_le_bytes());
        self.0[8..16].copy_from_slice(&sequence.to_le_bytes());
        self.0[IDENTITY_AT..BATCH_HEADER_BYTES].copy_from_slice(&identity.to_le_bytes());
        let crc = crc32c::crc32c(&self.0[4..]);
        self.0[0..4].copy_from_slice(&crc.to_le_bytes());
        &self.0
    }

    /// Makes it empty again and gives back what an extraordinary batch took.
    pub fn clear(&mut self) {
        self.0.truncate(BATCH_HEADER_BYTES);
        self.0.shrink_to(2 * WAL_BATCH_BYTES);
    }
}

/// Bytes on disk of a batch with `records` bytes of records.
pub(super) fn batch_len(records: usize) -> usize {
    (BATCH_HEADER_BYTES + records).next_multiple_of(BATCH_ALIGN)
}

/// A batch whose checksum is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchRef<'a> {
    /// Its sequence number.
    pub(super) sequence: u64,
    /// Its records.
    pub(super) records: &'a [u8],
    /// Where it ends in the bytes it was found in.
    pub(super) end: usize,
}

/// The bytes on disk of the batch that `header` claims to start, if it is one of this segment at
/// all.
pub(super) fn claimed_len(header: &[u8], identity: u64) -> Option<usize> {
    let len = as_usize(u32_at(header, 4)?);
    (u64_at(header, IDENTITY_AT)? == identity && len <= RECORDS_BYTES_MAX).then(|| batch_len(len))
}

/// The offsets from `start` on where a batch of this segment starts, or once started: whole,
/// damaged or in remains.
pub(super) fn claims(bytes: &[u8], start: usize, identity: u64) -> Vec<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut found = Vec::new();
    for (number, page) in bytes.chunks(ZEROS.len()).enumerate().skip(start / ZEROS.len()) {
        // Most of what follows the last batch is zeros.
        if *page == ZEROS[..page.len()] {
            continue;
        }
        let fields = (0..page.len()).step_by(BATCH_ALIGN);
        let matching = fields.filter(|at| u64_at(page, *at) == Some(identity));
        found
            .extend(matching.filter_map(|at| (number * ZEROS.len() + at).checked_sub(IDENTITY_AT)));
    }
    found.retain(|at| *at >= start);
    found
}

/// The batch at `offset` of `bytes`, if a whole and undamaged one of this segment starts there.
pub(super) fn batch_at(bytes: &[u8], offset: usize, identity: u64) -> Option<BatchRef<'_>> {
    let rest = bytes.get(offset..)?;
    let batch = rest.get(..claimed_len(rest, identity)?)?;
    if u32_at(batch, 0)? != crc32c::crc32c(&batch[4..]) {
        return None;
    }
    let len = as_usize(u32_at(batch, 4)?);
    Some(BatchRef {
        sequence: u64_at(batch, 8)?,
        records: batch.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + len)?,
        end: offset + batch.len(),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(field.try_into().expect("four bytes")))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(field.try_into().expect("eight bytes")))
}

/// A 32-bit length as a size in memory.
fn as_usize(len: u32) -> usize {
    usize::try_from(len).expect("a machine with at least 32 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::wal::tests::{entry, id};

    #[test]
    fn a_segment_header_has_these_bytes() {
        let header = SegmentHeader { number: 7, node: NodeId(0xab), identity: 0x1122 };
        let page = header.encode();
        assert_eq!(page.len(), SEGMENT_START);
        let mut expected =
            b"SAGE-WAL\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\xab\0\0\0\0\0\0\0".to_vec();
        expected.extend(b"\x22\x11\0\0\0\0\0\0");
        expected.resize(60, 0);
        assert_eq!(page[..60], expected);
        assert_eq!(SegmentHeader::decode(&page), Ok(header));
    }

    #[test]
    fn a_batch_has_these_bytes() {
        let mut records = Vec::new();
        RecordRef::Vote(Vote { term: 3, node: NodeId(1), committed: true }).encode(&mut records);
        RecordRef::Purge(id(2, 9)).encode(&mut records);
        let mut batch = BatchBuilder::new();
        batch.push(&records);
        let bytes = batch.seal(5, 0x0102).to_vec();
        let expected: &[u8] = &[
            16, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, // length to identity
            3, 0, 0, 0, 2, 3, 1, 1, // vote: term, node, committed
            3, 0, 0, 0, 5, 2, 1, 9, // purge: term, leader, index
        ];
        assert_eq!(bytes[4..], *expected);
        assert_eq!(bytes[..4], crc32c::crc32c(expected).to_le_bytes());
        let found = batch_at(&bytes, 0, 0x0102).expect("a batch");
        assert_eq!((found.sequence, found.end, found.records), (5, 40, &records[..]));
        assert_eq!(batch_at(&bytes, 0, 0x0103), None, "of another segment");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut records = Vec::new();
        RecordRef::Entry(&entry(1, 1, 11)).encode(&mut records);
        let mut batch = BatchBuilder::new();
        batch.push(&records);
        let bytes = batch.seal(1, 9).to_vec();
        let page = SegmentHeader { number: 1, node: NodeId(2), identity: 9 }.encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(batch_at(&bad, 0, 9), None, "bit {bit}");
        }
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = page.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), Err(HeaderError::Bad), "bit {bit}");
        }
    }

    #[test]
    fn remains_are_found_wherever_they_begin() {
        let mut batch = BatchBuilder::new();
        batch.push(&[1; 100]);
        let remains = batch.seal(5, 0x0102)[..24].to_vec();
        for at in [0, 8, 4072, 4080, 4088, 4096, 12264] {
            let mut bytes = vec![0; 3 * 4096];
            bytes[at..at + 24].copy_from_slice(&remains);
            assert_eq!(claims(&bytes, 0, 0x0102), [at]);
            assert_eq!(claims(&bytes, at, 0x0102), [at]);
            assert_eq!(claims(&bytes, at + 8, 0x0102), [] as [usize; 0]);
            assert_eq!(claims(&bytes, 0, 0x0103), [] as [usize; 0]);
        }
    }

    #[test]
    fn a_batch_leaves_what_its_last_records_say() {
        let mut records = Vec::new();
        for (term, index) in [(1, 11), (1, 12)] {
            RecordRef::Entry(&entry(term, index, 0)).encode(&mut records);
        }
        RecordRef::Truncate(Some(id(1, 7))).encode(&mut records);
        for (term, index) in [(2, 8), (2, 9), (2, 10)] {
            RecordRef::Entry(&entry(term, index, 0)).encode(&mut records);
        }
        RecordRef::Truncate(Some(id(2, 9))).encode(&mut records);
        RecordRef::Entry(&entry(3, 10, 0)).encode(&mut records);
        let left = entries_left_by(Records::new(&records)).expect("records");
        let ids: Vec<_> = left.iter().map(|(entry, _)| entry.id).collect();
        assert_eq!(ids, [id(2, 8), id(2, 9), id(3, 10)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _header = SegmentHeader::decode(&bytes);
            let identity = u64_at(&bytes, 16).unwrap_or(0);
            prop_assert_eq!(batch_at(&bytes, 0, identity), None);
            for record in Records::new(&bytes) {
                if record.is_err() {
                    break;
                }
            }
        }
    }
}
