//! The log as its callers see it: its marks, which entries there are, and the newest of them in
//! memory.
//!
//! [`View`] is changed the moment something is queued, before it is on disk; recovery replays
//! records into the same type. Entries are forgotten from the front once they take more than the
//! given bytes, but never one that has not been written yet. Nothing here does I/O.

use std::collections::VecDeque;
use std::ops::Range;

use crate::types::ids::{Index, LogId, Vote};
use crate::types::log::Entry;

/// One entry in memory.
#[derive(Debug)]
struct Cached {
    entry: Entry,
    /// Bytes of its encoding.
    bytes: usize,
    /// The request that appended it.
    request: u64,
}

/// What an entry takes in memory beside its encoding, in bytes: about its structs.
const OVERHEAD: usize = size_of::<Cached>();

/// The state of the log and its newest entries.
#[derive(Debug)]
pub(super) struct View {
    /// The last vote.
    pub(super) vote: Option<Vote>,
    /// The last commit position.
    pub(super) committed: Option<LogId>,
    purged: Option<LogId>,
    /// The last entry; of no meaning when `span` is empty.
    last: Option<LogId>,
    /// The indexes that have an entry.
    span: Range<Index>,
    /// The newest of them: `span` ends where this does.
    cached: VecDeque<Cached>,
    bytes: usize,
    bytes_max: usize,
    /// Requests up to and with this one are on disk.
    written: u64,
}

impl View {
    /// The empty log, which keeps about `bytes_max` bytes of entries in memory.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            vote: None,
            committed: None,
            purged: None,
            last: None,
            span: 0..0,
            cached: VecDeque::new(),
            bytes: 0,
            bytes_max,
            written: 0,
        }
    }

    /// From now on keeps about `bytes_max` bytes of entries in memory.
    pub(super) fn keep(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.evict();
    }

    /// The last entry purged.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last entry, purged or not.
    pub(super) fn last(&self) -> Option<LogId> {
        if self.span.is_empty() { self.purged } else { self.last }
    }

    /// The indexes that have an entry.
    pub(super) fn span(&self) -> Range<Index> {
        self.span.clone()
    }

    /// The first of the indexes whose entries are in memory; `span`'s end if none is.
    pub(super) fn cached_from(&self) -> Index {
        self.span.end - self.cached.len() as u64
    }

    /// The index that the next entry must have; `None` if a log without history may start anywhere.
    pub(super) fn next(&self) -> Option<Index> {
        if self.span.is_empty() {
            self.purged.map(|purged| purged.index + 1)
        } else {
            Some(self.span.end)
        }
    }

    /// Adds the entry that follows; `bytes` is the length of its encoding. Where an empty log
    /// starts is the caller's to judge: records replayed from the middle of a log's life may start
    /// after the last purge mark.
    ///
    /// # Panics
    /// If it leaves a hole after the entries there are.
    pub(super) fn append(&mut self, entry: Entry, bytes: usize, request: u64) {
        let index = entry.id.index;
        if self.span.is_empty() {
            self.span = index..index;
        }
        assert!(index == self.span.end, "hole in log: {:?} then {}", self.last(), entry.id);
        self.span.end = index + 1;
        self.last = Some(entry.id);
        self.bytes += bytes + OVERHEAD;
        self.cached.push_back(Cached { entry, bytes, request });
        self.evict();
    }

    /// Whether there is an entry after `last`.
    pub(super) fn has_after(&self, last: Option<LogId>) -> bool {
        !self.span.is_empty() && keep_until(last) < self.span.end
    }

    /// Removes the entries after `last`.
    pub(super) fn truncate_after(&mut self, last: Option<LogId>) {
        if !self.has_after(last) {
            return;
        }
        self.span.end = keep_until(last).max(self.span.start);
        self.last = last;
        while self.cached.back().is_some_and(|back| back.entry.id.index >= self.span.end) {
            self.forget(VecDeque::pop_back);
        }
    }

    /// Removes the entries up to and with `upto`.
    pub(super) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| upto.index <= purged.index) {
            return;
        }
        self.purged = Some(upto);
        let start = upto.index + 1;
        self.span.start = self.span.start.max(start);
        self.span.end = self.span.end.max(self.span.start);
        while self.cached.front().is_some_and(|front| front.entry.id.index < start) {
            self.forget(VecDeque::pop_front);
        }
    }

    /// Takes note that requests up to and with `request` are on disk.
    pub(super) fn set_written(&mut self, request: u64) {
        self.written = request;
        self.evict();
    }

    /// The entries of `range` that are in memory, each with the bytes of its encoding.
    pub(super) fn cached(&self, range: Range<Index>) -> impl Iterator<Item = (&Entry, usize)> {
        let from = usize::try_from(range.start.saturating_sub(self.cached_from()));
        let entries = self.cached.iter().skip(from.unwrap_or(usize::MAX));
        let entries = entries.map(|cached| (&cached.entry, cached.bytes));
        entries.take_while(move |(entry, _)| entry.id.index < range.end)
    }

    fn evict(&mut self) {
        let written = self.written;
        let over = |view: &Self| view.bytes > view.bytes_max;
        while over(self) && self.cached.front().is_some_and(|front| front.request <= written) {
            self.forget(VecDeque::pop_front);
        }
    }

    fn forget(&mut self, pop: impl FnOnce(&mut VecDeque<Cached>) -> Option<Cached>) {
        if let Some(cached) = pop(&mut self.cached) {
            self.bytes -= cached.bytes + OVERHEAD;
        }
    }
}

/// The index after `last`.
pub(super) fn keep_until(last: Option<LogId>) -> Index {
    last.map_or(0, |last| last.index.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::wal::tests::{entry, id};

    fn filled(range: Range<Index>, bytes_max: usize) -> View {
        let mut view = View::new(bytes_max);
        for index in range {
            view.append(entry(1, index, 0), 10, 0);
        }
        view
    }

    #[test]
    fn the_last_entry_is_the_purged_one_when_there_is_none() {
        let mut view = filled(1..4, 1 << 20);
        assert_eq!(view.last(), Some(id(1, 3)));
        view.purge(id(1, 2));
        assert_eq!((view.last(), view.span()), (Some(id(1, 3)), 3..4));
        view.truncate_after(None);
        assert_eq!((view.last(), view.next()), (Some(id(1, 2)), Some(3)));
        view.purge(id(2, 20));
        assert_eq!((view.last(), view.next()), (Some(id(2, 20)), Some(21)));
        view.append(entry(2, 21, 0), 10, 0);
        assert_eq!((view.span(), view.cached_from()), (21..22, 21));
    }

    #[test]
    fn truncating_beyond_the_end_changes_nothing() {
        let mut view = filled(0..3, 1 << 20);
        view.truncate_after(Some(id(1, 2)));
        view.truncate_after(Some(id(9, 9)));
        assert_eq!(view.last(), Some(id(1, 2)));
        view.truncate_after(None);
        assert_eq!((view.last(), view.next()), (None, None));
        view.append(entry(1, 7, 0), 10, 0);
        assert_eq!(view.span(), 7..8);
    }

    #[test]
    fn only_what_is_written_is_forgotten() {
        let mut view = View::new(3 * (10 + OVERHEAD));
        for index in 0..10 {
            view.append(entry(1, index, 0), 10, index + 1);
        }
        assert_eq!(view.cached_from(), 0);
        view.set_written(4);
        assert_eq!(view.cached_from(), 4);
        view.set_written(10);
        assert_eq!(view.cached_from(), 7);
        view.truncate_after(Some(id(1, 2)));
        assert_eq!((view.cached_from(), view.span(), view.bytes), (3, 0..3, 0));
    }

    #[test]
    fn a_part_is_read_from_memory() {
        let view = filled(3..8, 1 << 20);
        let read = |range| view.cached(range).map(|(entry, _)| entry.id.index).collect::<Vec<_>>();
        assert_eq!(read(4..6), [4, 5]);
        assert_eq!(read(3..99), [3, 4, 5, 6, 7]);
        assert_eq!(read(8..9), [] as [Index; 0]);
    }

    #[test]
    #[should_panic(expected = "hole in log")]
    fn a_hole_is_a_bug() {
        filled(0..3, 1 << 20).append(entry(1, 4, 0), 10, 0);
    }
}
