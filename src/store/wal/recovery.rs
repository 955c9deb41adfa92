//! Decides, from bytes alone, what a log says and how it ends: cleanly, in a torn tail, or damaged.
//!
//! Segments are shown to [`Recovery`] one after the other, oldest first. Batch `n + 1` is written
//! only when batch `n` is on disk, so a crash leaves at most the newest batch incomplete, with its
//! pages in any state. Therefore a batch that can't be read is a torn tail only if no batch with a
//! higher sequence number follows anywhere, in its segment or in a later one; a torn tail was never
//! acknowledged and is cut. Everything else is [`Damage`]: it is reported, and nothing is cut.
//!
//! What bytes alone can't tell: damage to the very last batch looks like a torn tail. A mark that
//! says how far the log was on disk for certain ([`Recovery::finish`]) does.

use std::fmt;

use crate::store::rests::Rests;
use crate::store::wal::cache::{View, keep_until};
use crate::store::wal::index::{BatchIndex, Place};
use crate::store::wal::record::{
    BatchRef, Record, Records, SEGMENT_START, SegmentHeader, batch_at, claims,
};
use crate::types::ids::LogId;
use crate::types::limits::COUNTER_MAX;

/// Where and why a log can't be trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Damage {
    /// The number of the segment.
    pub(super) segment: u64,
    /// The offset in it, in bytes.
    pub(super) offset: u64,
    /// The sequence number of the batch that should be there.
    pub(super) sequence: u64,
    /// The last entry before it.
    pub(super) last_good: Option<LogId>,
    /// What is wrong.
    pub(super) why: Why,
}

/// What is wrong with a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// The header of a segment can't be read; it was on disk before the segment got its name.
    Header,
    /// A segment says it has another number than its name.
    Renumbered(u64),
    /// A segment is not there although a later one is.
    SegmentMissing(u64),
    /// A batch can't be read although a later one can.
    Followed {
        /// The sequence number of the later one.
        by: u64,
    },
    /// A batch can be read, but what it says can't.
    Malformed(String),
    /// The log does not begin where it was purged to.
    StartMissing,
    /// The log ends before what was on disk once.
    EndMissing {
        /// The sequence number of the last batch that was.
        synced: u64,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => write!(f, "the segment's header can't be read"),
            Self::Renumbered(number) => write!(f, "the segment says it is number {number}"),
            Self::SegmentMissing(number) => write!(f, "segment {number} is missing"),
            Self::Followed { by } => write!(f, "it can't be read, but batch {by} can"),
            Self::Malformed(error) => write!(f, "{error}"),
            Self::StartMissing => write!(f, "the log does not begin where it was purged to"),
            Self::EndMissing { synced } => {
                write!(f, "it can't be read, but batches up to {synced} were on disk")
            }
        }
    }
}

/// Where the log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// Where the next batch goes if it fits.
    pub(super) place: Place,
    /// The sequence number of the next batch.
    pub(super) sequence: u64,
}

/// A segment as recovery saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// Its number.
    pub(super) number: u64,
    /// Where its last batch ends, in bytes.
    pub(super) end: u64,
    /// Whether the remains of a torn batch follow there.
    pub(super) torn: bool,
}

/// What a log says.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Its state.
    pub(super) view: View,
    /// Where its entries are.
    pub(super) index: BatchIndex,
    /// Its segments, oldest first.
    pub(super) segments: Vec<Seen>,
    /// Where it ends; `None` if there is no segment.
    pub(super) end: Option<End>,
    /// Where its last batch begins, if it has any: in the segment where it ends.
    pub(super) last: Option<u64>,
    /// The segment in which the marks were last written anew, by a purge.
    pub(super) marks: Option<u64>,
}

/// Reads a log.
#[derive(Debug)]
pub(super) struct Recovery {
    view: View,
    index: BatchIndex,
    segments: Vec<Seen>,
    end: Option<End>,
    last: Option<u64>,
    marks: Option<u64>,
    rests: Rests,
}

impl Recovery {
    /// Starts with no segment; keeps about `cache_bytes_max` bytes of entries in memory.
    pub(super) fn new(cache_bytes_max: usize) -> Self {
        let view = View::new(cache_bytes_max);
        Self {
            view,
            index: BatchIndex::default(),
            segments: Vec::new(),
            end: None,
            last: None,
            marks: None,
            rests: Rests::none(),
        }
    }

    /// The same, with rests in between.
    pub(super) fn resting(self, rests: Rests) -> Self {
        Self { rests, ..self }
    }

    /// Reads the next segment: the file that is named `number`, its header (`None` if there is no
    /// valid one) and the whole file.
    pub(super) fn segment(
        &mut self,
        number: u64,
        header: Option<&SegmentHeader>,
        bytes: &[u8],
    ) -> Result<(), Damage> {
        // Can't overflow: no header with a number over its bound gets this far.
        let next = self.segments.last().map_or(number, |before| before.number + 1);
        if next != number {
            return Err(self.damage(next, 0, Why::SegmentMissing(next)));
        }
        let header = header.ok_or_else(|| self.damage(number, 0, Why::Header))?;
        if header.number != number {
            return Err(self.damage(number, 0, Why::Renumbered(header.number)));
        }
        let mut offset = SEGMENT_START;
        while let Some(batch) = self.expected_at(bytes, offset, header) {
            self.replay(&batch, Place { segment: number, offset: offset as u64 })?;
            offset = batch.end;
            self.rests.rest();
        }
        let mut torn = false;
        for found in claims(bytes, offset, header.identity) {
            torn = true;
            let later = batch_at(bytes, found, header.identity)
                .filter(|batch| batch.sequence >= self.sequence(header).unwrap_or(0));
            if let Some(batch) = later {
                return Err(self.followed(header, offset, found, batch.sequence));
            }
        }
        self.segments.push(Seen { number, end: offset as u64, torn });
        Ok(())
    }

    /// What the segments that were shown say. `synced` is the number of a batch that was on disk
    /// with all before it, if that is known: a log that ends before it has lost its end.
    pub(super) fn finish(self, synced: Option<u64>) -> Result<Recovered, Damage> {
        let next = self.end.map_or(1, |end| end.sequence);
        if let Some(synced) = synced.filter(|synced| *synced >= next) {
            let (segment, offset) = match (self.end, self.segments.first()) {
                (Some(end), _) => (end.place.segment, end.place.offset),
                (None, first) => (first.map_or(1, |first| first.number), 0),
            };
            return Err(self.damage(segment, offset, Why::EndMissing { synced }));
        }
        let span = self.view.span();
        let purged = self.view.purged().map(|purged| purged.index + 1);
        let first = self.segments.first().map_or(1, |first| first.number);
        let begins = match purged {
            Some(start) => span.is_empty() || span.start == start,
            None => first == 1,
        };
        if !begins {
            return Err(self.damage(first, 0, Why::StartMissing));
        }
        let fresh = self.segments.first().map(|first| End {
            place: Place { segment: first.number, offset: first.end },
            sequence: 1,
        });
        let Self { view, index, segments, end, last, marks, rests: _ } = self;
        Ok(Recovered { view, index, segments, end: end.or(fresh), last, marks })
    }

    /// What the segments that were shown say so far.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The sequence number that the next batch must have. Where the oldest segment starts is known
    /// only if nothing was ever purged; then also behind a first segment that has lost its batches.
    fn sequence(&self, header: &SegmentHeader) -> Option<u64> {
        let oldest = self.segments.first().map_or(header.number, |oldest| oldest.number);
        let first = (oldest == 1).then_some(1);
        self.end.map(|end| end.sequence).or(first)
    }

    /// The batch at `offset`, if it is the one that comes next.
    fn expected_at<'a>(
        &self,
        bytes: &'a [u8],
        offset: usize,
        header: &SegmentHeader,
    ) -> Option<BatchRef<'a>> {
        let batch = batch_at(bytes, offset, header.identity)?;
        let expected = self.sequence(header).is_none_or(|sequence| batch.sequence == sequence);
        expected.then_some(batch)
    }

    /// The batch that comes next can't be read, but the batch `by` can, at `found`.
    fn followed(&self, header: &SegmentHeader, offset: usize, found: usize, by: u64) -> Damage {
        // At the start of a segment, the batch in question may be the last of the one before.
        let before = self.segments.last().filter(|before| before.torn || found == offset);
        let (segment, at) = match before {
            Some(before) if offset == SEGMENT_START => (before.number, before.end),
            Some(_) | None => (header.number, offset as u64),
        };
        let mut damage = self.damage(segment, at, Why::Followed { by });
        if self.sequence(header).is_none() {
            damage.sequence = by.saturating_sub(1);
        }
        damage
    }

    fn damage(&self, segment: u64, offset: u64, why: Why) -> Damage {
        let sequence = self.end.map_or(1, |end| end.sequence);
        Damage { segment, offset, sequence, last_good: self.view.last(), why }
    }

    fn replay(&mut self, batch: &BatchRef<'_>, place: Place) -> Result<(), Damage> {
        self.apply_all(batch, place).map_err(|why| Damage {
            sequence: batch.sequence,
            ..self.damage(place.segment, place.offset, Why::Malformed(why))
        })?;
        self.last = Some(place.offset);
        let place = Place { offset: batch.end as u64, ..place };
        self.end = Some(End { place, sequence: batch.sequence + 1 });
        Ok(())
    }

    fn apply_all(&mut self, batch: &BatchRef<'_>, place: Place) -> Result<(), String> {
        if batch.sequence > COUNTER_MAX {
            return Err(format!("batch {} can't exist", batch.sequence));
        }
        for record in Records::new(batch.records) {
            let (record, bytes) = record.map_err(|error| error.to_string())?;
            self.apply(record, bytes, place)?;
        }
        Ok(())
    }

    fn apply(&mut self, record: Record, bytes: usize, place: Place) -> Result<(), String> {
        match record {
            Record::Entry(entry) => {
                let index = entry.id.index;
                let span = self.view.span();
                if !span.is_empty() && index != span.end {
                    return Err(format!("entry {} follows {:?}", entry.id, self.view.last()));
                }
                self.index.append(index, index + 1, place);
                self.view.append(entry, bytes, 0);
            }
            Record::Vote(vote) => self.view.vote = Some(vote),
            Record::Committed(committed) => self.view.committed = committed,
            Record::Truncate(last) => {
                self.index.cut(keep_until(last));
                self.view.truncate_after(last);
            }
            Record::Purge(upto) => {
                self.index.purge(upto.index + 1);
                self.view.purge(upto);
                self.marks = Some(place.segment);
            }
        }
        Ok(())
    }
}
