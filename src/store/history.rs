//! The newest changes of a group's keys, for watchers: a window that moves with the log.
//!
//! It is filled as entries are applied and is nowhere on disk: what a replica applies again after a
//! restart is in it again, and what came in a snapshot is not. Bounded in bytes; the oldest entries leave
//! first, whole, when newer ones come: what was applied last is there, however much it is. A question about
//! what has left is refused and never answered in part.

use std::collections::VecDeque;

use crate::types::ids::Index;
use crate::types::limits::{WATCH_LOOK_EVENTS, WATCH_TOLD_BYTES_MAX, WATCH_TOLD_EVENTS_MAX};
use crate::types::scan::Span;
use crate::types::watch::{Event, Place, Told};

/// What was asked for has left the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// The first entry whose changes are all there.
    pub oldest: Index,
}

/// The newest changes.
#[derive(Debug)]
pub struct History {
    events: VecDeque<(Place, Event)>,
    bytes: usize,
    bytes_max: usize,
    /// The first entry whose changes are all here.
    from: Index,
    /// The entry that comes next.
    to: Index,
}

impl History {
    /// A window of so many bytes, before entry `next`.
    pub fn new(bytes_max: usize, next: Index) -> Self {
        Self { events: VecDeque::new(), bytes: 0, bytes_max, from: next, to: next }
    }

    /// Forgets everything: entry `next` comes next.
    pub fn begin_anew(&mut self, next: Index) {
        *self = Self::new(self.bytes_max, next);
    }

    /// The entry that comes next.
    pub fn next_index(&self) -> Index {
        self.to
    }

    /// The first entry whose changes are all here.
    pub fn oldest(&self) -> Index {
        self.from
    }

    /// Makes room before new entries come.
    pub fn trim(&mut self) {
        while self.bytes > self.bytes_max {
            self.drop_oldest();
        }
    }

    /// Takes what entry `index` has changed.
    pub fn record(&mut self, index: Index, events: impl IntoIterator<Item = Event>) {
        for (part, event) in (0..).zip(events) {
            self.bytes += event.bytes();
            self.events.push_back((Place { index, part }, event));
        }
        self.to = index + 1;
    }

    /// Drops all changes of the oldest entry that has any.
    fn drop_oldest(&mut self) {
        let Some((Place { index, .. }, _)) = self.events.front() else { return };
        let index = *index;
        while self.events.front().is_some_and(|(place, _)| place.index == index) {
            self.bytes -= self.events.pop_front().map_or(0, |(_, event)| event.bytes());
        }
        self.from = index + 1;
    }

    /// The changes of a span from a place on: so many events, of so many bytes, after looking at
    /// so many, that the rest is better asked for with another call. From a place behind all that
    /// is there, nothing, and that place; from [`Place::END`], nothing, and where that is now.
    pub fn tell(&self, span: &Span, from: Place, bytes_max: usize) -> Result<Told, Compacted> {
        let bytes_max = bytes_max.min(WATCH_TOLD_BYTES_MAX);
        if from.index < self.from {
            return Err(Compacted { oldest: self.from });
        }
        let head = Place { index: self.to, part: 0 };
        let (mut events, mut bytes) = (Vec::new(), 0);
        let first = self.events.partition_point(|(place, _)| *place < from);
        for (looked, (place, event)) in self.events.range(first..).enumerate() {
            if looked == WATCH_LOOK_EVENTS {
                return Ok(Told { events, next: *place });
            }
            if span.holds(&event.key) {
                bytes += event.bytes();
                let fits = events.is_empty() || bytes <= bytes_max;
                if events.len() == WATCH_TOLD_EVENTS_MAX || !fits {
                    return Ok(Told { events, next: *place });
                }
                events.push((*place, event.clone()));
            }
        }
        let next = if from == Place::END { head } else { from.max(head) };
        Ok(Told { events, next })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::types::key::Key;
    use crate::types::value::Value;
    use crate::types::watch::{Change, EVENT_OVERHEAD_BYTES};

    fn event(key: &str, version: u64) -> Event {
        let value = Value::text("v");
        let change = Change::Put { value, expires: None };
        Event { key: Key::new(key).expect("a key"), change, ts: 0, version }
    }

    /// All that a window tells from a place on, call by call.
    fn all(
        history: &History,
        span: &Span,
        mut from: Place,
    ) -> Result<Vec<(Place, u64)>, Compacted> {
        let mut all = Vec::new();
        loop {
            let told = history.tell(span, from, usize::MAX)?;
            all.extend(told.events.iter().map(|(place, event)| (*place, event.version)));
            if told.next == from || told.next.index == history.next_index() {
                return Ok(all);
            }
            from = told.next;
        }
    }

    proptest! {
        /// Whatever it has forgotten, it tells all or says that it can't.
        #[test]
        fn nothing_is_left_out_and_nothing_told_twice(
            entries in vec(vec("[ab][ab]?", 0..4), 0..40),
            room in 0..20_usize,
            index in 0..50_u64,
            part in 0..4_u32,
            prefix in "[ab]?",
        ) {
            let mut history = History::new(room * (EVENT_OVERHEAD_BYTES + 3), 3);
            let (mut model, mut version) = (Vec::new(), 0);
            for (index, keys) in (3..).zip(&entries) {
                let mut events = Vec::new();
                for (part, key) in (0..).zip(keys) {
                    version += 1;
                    model.push((Place { index, part }, key.clone(), version));
                    events.push(event(key, version));
                }
                history.trim();
                prop_assert!(history.bytes <= history.bytes_max);
                history.record(index, events);
            }
            let (span, from) = (Span::of_prefix(prefix.as_bytes()), Place { index, part });
            let expected = model.iter().filter(|(place, key, _)| *place >= from && key.starts_with(&prefix));
            let expected: Vec<_> = expected.map(|(place, _, version)| (*place, *version)).collect();
            match all(&history, &span, from) {
                Ok(told) => prop_assert_eq!(told, expected),
                Err(Compacted { oldest }) => {
                    prop_assert!(index < oldest);
                    let kept = all(&history, &span, Place { index: oldest, part: 0 });
                    let rest: Vec<_> = expected.into_iter().filter(|(place, _)| place.index >= oldest).collect();
                    prop_assert_eq!(kept, Ok(rest));
                }
            }
        }
    }

    #[test]
    fn one_answer_is_bounded_in_events_and_bytes() {
        let mut history = History::new(usize::MAX, 0);
        history.record(0, (1..=5000).map(|version| event("a", version)));
        let told =
            history.tell(&Span::default(), Place::default(), usize::MAX).expect("it is there");
        assert_eq!(told.events.len(), WATCH_TOLD_EVENTS_MAX);
        assert_eq!(told.next, Place { index: 0, part: 1024 });
        let few = history.tell(&Span::default(), Place::default(), 1000).expect("it is there");
        assert_eq!(few.events.len(), 1000 / event("a", 1).bytes());
        let none = history
            .tell(&Span::of_prefix(b"b"), Place::default(), usize::MAX)
            .expect("it is there");
        assert_eq!((none.events.len(), none.next.part), (0, 4096), "others run between two looks");
    }
}
