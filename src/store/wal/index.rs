//! Where on disk each entry stands.
//!
//! One element for each batch that holds entries of the log, by the first such entry: lookups find
//! the batch, and the batch knows its entries. Both follow the order in which batches were written:
//! greater indexes never stand before smaller ones. Nothing here does I/O.

use std::collections::VecDeque;

use crate::types::ids::Index;

/// The place of a batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    /// The number of its segment.
    pub(super) segment: u64,
    /// Where it starts in that segment, in bytes.
    pub(super) offset: u64,
}

/// A batch and the first entry to take from it; entries up to the next stretch are its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stretch {
    place: Place,
    first: Index,
}

/// The batches that hold the log's entries. Takes 24 bytes a batch.
#[derive(Debug, Default)]
pub(super) struct BatchIndex {
    stretches: VecDeque<Stretch>,
    /// The index after the last entry.
    end: Index,
}

impl BatchIndex {
    /// The entries from `first` until `end` were written to the batch at `place`, the newest there
    /// is; what stood at `first` and after it no longer does.
    pub(super) fn append(&mut self, first: Index, end: Index, place: Place) {
        self.cut(first);
        if self.stretches.back().is_none_or(|back| back.place < place) {
            self.stretches.push_back(Stretch { place, first });
        }
        self.end = end;
    }

    /// Entries from `end` on no longer stand in the log.
    pub(super) fn cut(&mut self, end: Index) {
        self.end = self.end.min(end);
        while self.stretches.back().is_some_and(|back| back.first >= end) {
            self.stretches.pop_back();
        }
    }

    /// Entries before `start` no longer stand in the log.
    pub(super) fn purge(&mut self, start: Index) {
        if start >= self.end {
            self.stretches.clear();
        }
        while self.stretches.get(1).is_some_and(|second| second.first <= start) {
            self.stretches.pop_front();
        }
    }

    /// The oldest segment that holds an entry.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.stretches.front().map(|front| front.place.segment)
    }

    /// The first entry that stands in a later segment than `segment`, or the one after the last.
    pub(super) fn first_beyond(&self, segment: u64) -> Index {
        let until = self.stretches.partition_point(|stretch| stretch.place.segment <= segment);
        self.stretches.get(until).map_or(self.end, |stretch| stretch.first)
    }

    /// The batches that hold the entries from `start` until `end`, at most `batches_max` of them,
    /// each with the index where its entries end.
    pub(super) fn lookup(
        &self,
        start: Index,
        end: Index,
        batches_max: usize,
    ) -> Vec<(Place, Index)> {
        let from = self.stretches.partition_point(|stretch| stretch.first <= start);
        let stretches = self.stretches.iter().skip(from.saturating_sub(1));
        let nexts = self.stretches.iter().skip(from.max(1)).map(|next| next.first);
        let found = stretches.zip(nexts.chain([self.end]));
        let found = found.take_while(|(stretch, _)| stretch.first < end).take(batches_max);
        found.map(|(stretch, until)| (stretch.place, until.min(end))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u64, offset: u64) -> Place {
        Place { segment, offset }
    }

    fn firsts(index: &BatchIndex) -> Vec<Index> {
        index.stretches.iter().map(|stretch| stretch.first).collect()
    }

    #[test]
    fn a_batch_is_found_by_any_of_its_entries() {
        let mut index = BatchIndex::default();
        index.append(1, 4, at(1, 0));
        index.append(4, 5, at(1, 80));
        index.append(5, 9, at(1, 80));
        index.append(9, 12, at(2, 0));
        assert_eq!(firsts(&index), [1, 4, 9]);
        assert_eq!(index.lookup(1, 2, 9), [(at(1, 0), 2)]);
        assert_eq!(index.lookup(3, 5, 9), [(at(1, 0), 4), (at(1, 80), 5)]);
        assert_eq!(index.lookup(8, 100, 9), [(at(1, 80), 9), (at(2, 0), 12)]);
        assert_eq!(index.lookup(1, 100, 2).len(), 2);
        assert_eq!([0, 1, 2, 3].map(|segment| index.first_beyond(segment)), [1, 9, 12, 12]);
    }

    #[test]
    fn what_was_truncated_is_not_found() {
        let mut index = BatchIndex::default();
        index.append(1, 4, at(1, 0));
        index.append(4, 5, at(1, 80));
        index.append(9, 12, at(2, 0));
        index.cut(6);
        assert_eq!(firsts(&index), [1, 4]);
        index.append(6, 7, at(2, 80));
        index.append(2, 3, at(2, 160));
        assert_eq!(firsts(&index), [1, 2]);
        index.cut(0);
        assert_eq!(firsts(&index), [] as [Index; 0]);
    }

    #[test]
    fn a_batch_that_rewrites_itself_is_listed_once() {
        let mut index = BatchIndex::default();
        index.append(11, 13, at(1, 0));
        index.cut(8);
        index.append(8, 9, at(1, 0));
        assert_eq!(firsts(&index), [8]);
    }

    #[test]
    fn purging_frees_segments_without_live_entries() {
        let mut index = BatchIndex::default();
        index.append(1, 4, at(1, 0));
        index.append(4, 9, at(2, 0));
        index.append(9, 12, at(3, 0));
        index.purge(4);
        assert_eq!(index.oldest_segment(), Some(2));
        index.purge(8);
        assert_eq!(index.oldest_segment(), Some(2));
        index.purge(9);
        assert_eq!(index.oldest_segment(), Some(3));
        index.purge(12);
        assert_eq!(index.oldest_segment(), None);
    }
}
