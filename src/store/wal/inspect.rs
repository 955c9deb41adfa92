//! Looks at a log without opening it: what its files hold, piece by piece, and whether they can be
//! trusted. Changes nothing on disk.
//!
//! The verdict is that of [`Recovery`], so that what is called whole here can be opened. Beyond it,
//! this tells what can still be read behind damage, which nobody may use: what went before it is
//! missing.

use std::ops::Range;
use std::path::Path;

use serde::Serialize;

use crate::store::disk::Disk;
use crate::store::wal::error::WalError;
use crate::store::wal::mark;
use crate::store::wal::open::{decode_header, read_file};
use crate::store::wal::record::{
    HeaderError, Record, Records, SEGMENT_START, SegmentHeader, batch_at, claims,
};
use crate::store::wal::recovery::Recovery;
use crate::store::wal::segment;
use crate::types::ids::{Index, LogId, NodeId, Vote};
use crate::types::limits::WAL_SEGMENT_BYTES_MAX;

/// Something that stands in a segment file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "piece", rename_all = "lowercase")]
pub enum Piece {
    /// The segment's header.
    Header {
        /// The segment's number.
        number: u64,
        /// Who wrote it.
        node: NodeId,
        /// What ties its batches to it, in hex.
        identity: String,
    },
    /// A batch whose checksum is right.
    Batch {
        /// Where it begins, in bytes.
        offset: u64,
        /// Its length, in bytes.
        bytes: u64,
        /// Its sequence number.
        sequence: u64,
        /// Its records.
        records: Vec<Record>,
    },
    /// Bytes that can't be read.
    Unreadable {
        /// Where they begin, in bytes.
        offset: u64,
        /// Where they end: at the next batch that can be read, or at the end of the file.
        end: u64,
        /// What is wrong with them.
        why: String,
    },
}

/// The pieces of one segment file, in order. What follows the last batch, zeros or batches of an
/// earlier life of the file, is no piece.
#[derive(Debug)]
pub struct Pieces<'a> {
    bytes: &'a [u8],
    /// `None` before the header was read.
    header: Option<SegmentHeader>,
    /// Where the next piece is looked for; `None` at the end.
    offset: Option<usize>,
    sequence: u64,
}

impl<'a> Pieces<'a> {
    /// Reads a whole file.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, header: None, offset: Some(0), sequence: 0 }
    }

    fn header(&mut self) -> Piece {
        self.offset = None;
        let why = match SegmentHeader::decode(self.bytes) {
            Ok(header) => {
                (self.header, self.offset) = (Some(header), Some(SEGMENT_START));
                let SegmentHeader { number, node, identity } = header;
                return Piece::Header { number, node, identity: format!("{identity:016x}") };
            }
            Err(HeaderError::Bad) => "it has no readable segment header".to_owned(),
            Err(HeaderError::Version(version)) => {
                format!("format version {version} is not known to this program")
            }
        };
        Piece::Unreadable { offset: 0, end: self.bytes.len() as u64, why }
    }

    fn batch(&mut self, offset: usize, identity: u64) -> Option<Piece> {
        let batch =
            |at| batch_at(self.bytes, at, identity).filter(|batch| batch.sequence > self.sequence);
        if let Some(batch) = batch(offset) {
            let (bytes, sequence) = ((batch.end - offset) as u64, batch.sequence);
            (self.offset, self.sequence) = (Some(batch.end), sequence);
            let records: Result<Vec<Record>, _> = Records::new(batch.records)
                .map(|record| record.map(|(record, _)| record))
                .collect();
            let (offset, end) = (offset as u64, batch.end as u64);
            return Some(match records {
                Ok(records) => Piece::Batch { offset, bytes, sequence, records },
                Err(error) => Piece::Unreadable { offset, end, why: error.to_string() },
            });
        }
        let claimed = claims(self.bytes, offset, identity);
        let next = claimed.iter().copied().find(|at| batch(*at).is_some());
        self.offset = next;
        if claimed.is_empty() {
            return None;
        }
        let end = next.unwrap_or(self.bytes.len()) as u64;
        let why = match next {
            Some(_) => "a batch is damaged or missing, and later ones are not",
            None => "the remains of a batch: torn by a crash, or damaged",
        };
        Some(Piece::Unreadable { offset: offset as u64, end, why: why.into() })
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let offset = self.offset?;
        match self.header {
            None => Some(self.header()),
            Some(header) => self.batch(offset, header.identity),
        }
    }
}

/// What was found in a log's directory.
#[derive(Debug)]
pub struct Inspection {
    /// Who wrote it; `None` if there is no segment with a readable header.
    pub node: Option<NodeId>,
    /// How many segments there are.
    pub segments: usize,
    /// Bytes of all segment files.
    pub bytes: u64,
    /// The entries that are there, up to the damage if there is any.
    pub entries: Range<Index>,
    /// The last entry, purged or not, up to the damage.
    pub last: Option<LogId>,
    /// The last vote that can be read, also behind the damage.
    pub vote: Option<Vote>,
    /// The last commit position saved, up to the damage.
    pub committed: Option<LogId>,
    /// The last entry purged, up to the damage.
    pub purged: Option<LogId>,
    /// Whether the remains of a batch that was never acknowledged stand at the end.
    pub torn: bool,
    /// Why it can't be opened.
    pub damage: Option<WalError>,
    /// Entries behind the damage that can still be read.
    pub behind: Vec<Range<Index>>,
}

/// Looks at the log in `dir`; `visit` sees every record before the damage, in order. Fails only if
/// the disk does.
pub(super) fn inspect(
    disk: &dyn Disk,
    dir: &Path,
    mut visit: impl FnMut(Record),
) -> Result<Inspection, WalError> {
    let mut recovery = Recovery::new(0);
    let mut bytes = Vec::new();
    let mut found = Inspection {
        node: None,
        segments: 0,
        bytes: 0,
        entries: 0..0,
        last: None,
        vote: None,
        committed: None,
        purged: None,
        torn: false,
        damage: None,
        behind: Vec::new(),
    };
    for (number, path) in segment::list(disk, dir)? {
        read_file(disk, &path, WAL_SEGMENT_BYTES_MAX, &mut bytes)?;
        found.segments += 1;
        found.bytes += bytes.len() as u64;
        if found.damage.is_some() {
            found.note_behind(&bytes, 0);
            continue;
        }
        let header = match decode_header(&path, &bytes) {
            Ok(header) => header,
            Err(error) => {
                found.damage = Some(error);
                continue;
            }
        };
        if let Some(header) = header {
            let node = *found.node.get_or_insert(header.node);
            if header.node != node {
                let other = WalError::OtherNode { segment: path, found: header.node, node };
                found.damage = Some(other);
                continue;
            }
        }
        let end = match recovery.segment(number, header.as_ref(), &bytes) {
            Ok(()) => u64::MAX,
            Err(damage) => {
                let end = if damage.segment == number { damage.offset } else { 0 };
                found.note_behind(&bytes, end);
                found.damage = Some(WalError::damaged(dir, damage));
                end
            }
        };
        for piece in Pieces::new(&bytes) {
            if let Piece::Batch { offset, records, .. } = piece
                && offset < end
            {
                records.into_iter().for_each(&mut visit);
            }
        }
    }
    let view = recovery.view();
    (found.entries, found.last) = (view.span(), view.last());
    found.note_vote(view.vote);
    (found.committed, found.purged) = (view.committed, view.purged());
    if found.damage.is_none() {
        match recovery.finish(mark::read(disk, dir)?) {
            Ok(recovered) => found.torn = recovered.segments.iter().any(|seen| seen.torn),
            Err(damage) => found.damage = Some(WalError::damaged(dir, damage)),
        }
    }
    Ok(found)
}

impl Inspection {
    /// Notes which entries of a segment can be read from `start` on.
    fn note_behind(&mut self, bytes: &[u8], start: u64) {
        for piece in Pieces::new(bytes) {
            let Piece::Batch { offset, records, .. } = piece else { continue };
            for record in records.into_iter().filter(|_| offset >= start) {
                match record {
                    Record::Entry(entry) => self.note_entry(entry.id.index),
                    Record::Vote(vote) => self.note_vote(Some(vote)),
                    Record::Committed(_) | Record::Truncate(_) | Record::Purge(_) => {}
                }
            }
        }
    }

    fn note_vote(&mut self, vote: Option<Vote>) {
        let term = |vote: Option<Vote>| vote.map(|vote| vote.term);
        if term(vote) >= term(self.vote) {
            self.vote = vote;
        }
    }

    fn note_entry(&mut self, index: Index) {
        match self.behind.last_mut() {
            Some(last) if last.end == index => last.end += 1,
            Some(last) if last.contains(&index) => {}
            Some(_) | None => self.behind.push(index..index.saturating_add(1)),
        }
    }
}
