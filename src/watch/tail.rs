//! The tail of one group: its newest changes, who watches which keys of it, and the task that
//! follows it while anybody does.
//!
//! Changes are numbered as they come. For each watcher there is the number of the first one that it has
//! not looked at and that is for it, if there is any; so watchers of other keys sleep, and one that wakes
//! looks from there on. Only the newest changes are kept, whoever has not looked at the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::key::Key;
use crate::types::limits::{
    WATCH_LINGER, WATCH_LOOK_EVENTS, WATCH_PAUSE, WATCH_SILENCE_MAX, WATCH_STEP_BYTES,
    WATCH_STEP_EVENTS, WATCH_TAIL_BYTES_MAX, WATCH_TIMEOUT, WATCH_WAIT,
};
use crate::types::watch::{Ask, Event, Filter, Place, Told};
use crate::watch::news::Shared;
use crate::watch::{Ended, Hub, end, lock, silent};

/// There is nothing to look at.
const NOTHING: u64 = u64::MAX;

/// A watcher's name in a tail.
#[derive(Debug)]
pub(super) struct Entry {
    /// The number of the first change that is for it; changed under the tail's lock only.
    first: AtomicU64,
    /// Where it stands among those of the same key or prefix; likewise.
    at: AtomicUsize,
    wake: Arc<Notify>,
}

impl Entry {
    fn look_at(&self, number: u64) {
        if number < self.first.load(Ordering::Relaxed) {
            self.first.store(number, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }
}

/// What a watcher gets when it looks.
#[derive(Debug)]
pub(super) enum Look {
    /// These changes; there are no others for it up to `next`.
    News {
        /// In order.
        events: Vec<(Place, Arc<Shared>)>,
        /// Where it goes on.
        next: Place,
        /// Whether it should look again at once.
        more: bool,
    },
    /// What it has not seen is not here any more.
    Behind,
    /// Nobody follows the group any more.
    Ended(Ended),
}

/// One group's tail.
#[derive(Debug, Default)]
pub(super) struct Tail(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The number of the first of these.
    first: u64,
    events: VecDeque<(Place, Arc<Shared>)>,
    bytes: usize,
    /// From here on all changes are here; `None` until that is known.
    floor: Option<Place>,
    /// Up to here.
    head: Place,
    keys: BTreeMap<Key, Vec<Arc<Entry>>>,
    prefixes: BTreeMap<String, Vec<Arc<Entry>>>,
    /// How many different prefixes are watched, by their lengths.
    lengths: BTreeMap<usize, usize>,
    watchers: usize,
    /// When the last watcher left.
    left: Option<Instant>,
    followed: bool,
    ended: Option<Ended>,
}

impl Tail {
    /// Whether all changes from this place on are here.
    pub(super) fn keeps(&self, from: Place) -> bool {
        let state = lock(&self.0);
        state.followed && state.floor.is_some_and(|floor| floor <= from) && from <= state.head
    }

    /// Enters a watcher, which wants what comes from `from` on. `false` if that is not all here. Somebody
    /// must follow the group then: see [`Hub::follow`].
    pub(super) fn enter(
        &self,
        filter: &Filter,
        from: Place,
        wake: &Arc<Notify>,
    ) -> Option<Arc<Entry>> {
        let mut state = lock(&self.0);
        state.floor.filter(|floor| *floor <= from)?;
        let at = state.events.partition_point(|(place, _)| *place < from) as u64;
        let first = AtomicU64::new(state.first + at);
        let list = match filter {
            Filter::Key(key) => state.keys.entry(key.clone()).or_default(),
            Filter::Prefix(prefix) => {
                if !state.prefixes.contains_key(prefix) {
                    *state.lengths.entry(prefix.len()).or_default() += 1;
                }
                state.prefixes.entry(prefix.clone()).or_default()
            }
        };
        let at = AtomicUsize::new(list.len());
        let entry = Arc::new(Entry { first, at, wake: Arc::clone(wake) });
        list.push(Arc::clone(&entry));
        Some(entry)
    }

    /// Why nobody follows the group any more, if that is so.
    pub(super) fn ended(&self) -> Option<Ended> {
        lock(&self.0).ended.clone()
    }

    /// Takes a watcher's entry out again.
    pub(super) fn leave(&self, filter: &Filter, entry: &Arc<Entry>) {
        let mut state = lock(&self.0);
        let without = |list: &mut Vec<Arc<Entry>>| {
            let at = entry.at.load(Ordering::Relaxed);
            list.swap_remove(at);
            if let Some(moved) = list.get(at) {
                moved.at.store(at, Ordering::Relaxed);
            }
            list.is_empty()
        };
        match filter {
            Filter::Key(key) => {
                if state.keys.get_mut(key).is_some_and(without) {
                    state.keys.remove(key);
                }
            }
            Filter::Prefix(prefix) => {
                if state.prefixes.get_mut(prefix).is_some_and(without) {
                    state.prefixes.remove(prefix);
                    let last = state.lengths.get_mut(&prefix.len()).is_some_and(|count| {
                        *count -= 1;
                        *count == 0
                    });
                    if last {
                        state.lengths.remove(&prefix.len());
                    }
                }
            }
        }
    }

    /// What there is for a watcher from `from` on, as much as it is given at a time.
    pub(super) fn look(&self, entry: &Entry, filter: &Filter, from: Place) -> Look {
        let state = lock(&self.0);
        if let Some(ended) = &state.ended {
            return Look::Ended(ended.clone());
        }
        let first = entry.first.load(Ordering::Relaxed);
        if first == NOTHING {
            return Look::News { events: Vec::new(), next: from.max(state.head), more: false };
        }
        let Some(at) = first.checked_sub(state.first) else { return Look::Behind };
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(state.events.len());
        let (mut events, mut bytes) = (Vec::new(), 0);
        for (looked, (place, event)) in state.events.range(at..).enumerate() {
            let matches = *place >= from && filter.matches(&event.key);
            bytes += if matches { event.bytes() } else { 0 };
            let fits = events.is_empty() || bytes <= WATCH_STEP_BYTES;
            if looked == WATCH_LOOK_EVENTS || events.len() == WATCH_STEP_EVENTS || !fits {
                entry.first.store(first + looked as u64, Ordering::Relaxed);
                return Look::News { events, next: from.max(*place), more: true };
            }
            if matches {
                events.push((*place, Arc::clone(event)));
            }
        }
        entry.first.store(NOTHING, Ordering::Relaxed);
        Look::News { events, next: from.max(state.head), more: false }
    }

    /// One more watches, who may have to begin to follow the group: then `true`.
    fn come(&self) -> bool {
        let mut state = lock(&self.0);
        state.watchers += 1;
        state.left = None;
        let begins = !state.followed;
        if begins {
            state.followed = true;
            state.floor = None;
            state.ended = None;
        }
        begins
    }

    /// One less watches.
    pub(super) fn go(&self) {
        let mut state = lock(&self.0);
        state.watchers -= 1;
        state.left = (state.watchers == 0).then(Instant::now);
    }

    /// Ends the following if nobody has watched for long.
    fn is_deserted(&self) -> bool {
        let mut state = lock(&self.0);
        let deserted = state.left.is_some_and(|left| left.elapsed() >= WATCH_LINGER);
        if deserted {
            state.forget();
            state.followed = false;
        }
        deserted
    }

    /// Begins behind a gap, or for the first time.
    fn begin(&self, at: Place) {
        let mut state = lock(&self.0);
        state.forget();
        (state.floor, state.head) = (Some(at), at);
        // They see that they are behind, and ask for what they have missed.
        state.wake_all();
    }

    fn take(&self, told: Told) {
        let mut state = lock(&self.0);
        for (place, event) in told.events {
            state.push(place, event);
        }
        state.head = told.next;
    }

    fn end(&self, why: &Ended) {
        let mut state = lock(&self.0);
        state.forget();
        state.followed = false;
        state.ended = Some(why.clone());
        state.wake_all();
    }
}

impl State {
    fn forget(&mut self) {
        // Numbers go on, so that who has not looked sees that it is behind.
        self.first += self.events.len() as u64 + 1;
        self.events.clear();
        (self.bytes, self.floor) = (0, None);
    }

    fn wake_all(&self) {
        for entry in self.keys.values().chain(self.prefixes.values()).flatten() {
            entry.look_at(0);
        }
    }

    fn push(&mut self, place: Place, event: Event) {
        let number = self.first + self.events.len() as u64;
        for entry in self.keys.get(&event.key).into_iter().flatten() {
            entry.look_at(number);
        }
        let key = event.key.as_str();
        for length in self.lengths.keys().take_while(|length| **length <= key.len()) {
            let prefix = key.get(..*length);
            for entry in prefix.and_then(|prefix| self.prefixes.get(prefix)).into_iter().flatten() {
                entry.look_at(number);
            }
        }
        self.bytes += event.bytes();
        self.events.push_back((place, Shared::new(event)));
        // The newest stays, however large it is.
        while self.bytes > WATCH_TAIL_BYTES_MAX && self.events.len() > 1 {
            let Some((place, oldest)) = self.events.pop_front() else { return };
            self.bytes -= oldest.bytes();
            self.first += 1;
            self.floor = Some(place.next());
        }
    }
}

impl Hub {
    /// One more watches a group, which is followed from now on if it was not.
    pub(super) fn join(self: &Arc<Self>, group: usize) {
        if self.tails[group].come() {
            let hub = Arc::clone(self);
            tokio::spawn(async move {
                let stopping = hub.stopping.clone();
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => hub.tails[group].end(&"the server is stopping".into()),
                    () = hub.follow(group) => {}
                }
            });
        }
    }

    /// Follows a group until nobody watches it or it can't be followed.
    async fn follow(&self, group: usize) {
        let (tail, name) = (&self.tails[group], &self.groups[group].name);
        let wait_ms = u32::try_from(WATCH_WAIT.as_millis()).unwrap_or(u32::MAX);
        let next = |from| Ask { from, wait_ms, ..end() };
        let (mut from, mut heard) = (Place::END, Instant::now());
        while !tail.is_deserted() {
            if !self.source.stands() {
                return tail.end(&"the ring has changed".into());
            }
            let beginning = from == Place::END;
            let ask = if beginning { end() } else { next(from) };
            match self.source.tell(group, ask, Deadline::after(WATCH_TIMEOUT)).await {
                Ok(told) => {
                    (from, heard) = (told.next, Instant::now());
                    if beginning { tail.begin(from) } else { tail.take(told) }
                }
                // Another leads who knows less: whoever has missed something asks for it.
                Err(Error::Compacted { .. }) => from = Place::END,
                Err(error) if heard.elapsed() >= WATCH_SILENCE_MAX => {
                    return tail.end(&silent(name, &error.to_string()));
                }
                Err(error) => {
                    tracing::debug!(%error, group = %name, "a group did not tell what has changed");
                    tokio::time::sleep(WATCH_PAUSE).await;
                }
            }
        }
    }
}
