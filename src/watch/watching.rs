//! One watcher: its place in each group, and how it moves on.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::kv::GroupIndex;
use crate::types::limits::{
    WATCH_CATCH_UP_BYTES_MAX, WATCH_PAUSE, WATCH_PROGRESS_INTERVAL, WATCH_SILENCE_MAX,
    WATCH_STEP_BYTES,
};
use crate::types::watch::{Ask, Filter, Place, Resume, Told};
use crate::watch::news::{News, Shared};
use crate::watch::tail::{Entry, Look};
use crate::watch::{Ended, Hub, end, silent};

/// A watcher. Dropping it ends it.
#[derive(Debug)]
pub struct Watching {
    hub: Arc<Hub>,
    filter: Filter,
    scope: u64,
    legs: Vec<Leg>,
    /// Which leg is looked at first: none waits for ever behind a busy one.
    turn: usize,
    wake: Arc<Notify>,
    /// What was taken and not yet told, of one leg.
    taken: VecDeque<(Place, Arc<Shared>)>,
    /// Whose that is, and where that leg goes on behind it.
    behind: (usize, Place),
    /// What of it this watcher holds alone, in bytes.
    missed: Option<OwnedSemaphorePermit>,
    progress: Instant,
}

/// One group.
#[derive(Debug)]
struct Leg {
    group: usize,
    /// Everything before this place was told.
    next: Place,
    /// Its name in the group's tail, once it has caught up with that.
    entry: Option<Arc<Entry>>,
    /// Since when the group does not answer what was missed.
    silent: Option<Instant>,
}

impl Watching {
    pub(super) fn new(
        hub: &Arc<Hub>,
        filter: Filter,
        scope: u64,
        legs: Vec<(usize, Place)>,
    ) -> Self {
        let legs = legs.into_iter().map(|(group, next)| {
            hub.join(group);
            Leg { group, next, entry: None, silent: None }
        });
        Self {
            legs: legs.collect(),
            hub: Arc::clone(hub),
            filter,
            scope,
            turn: 0,
            wake: Arc::default(),
            taken: VecDeque::new(),
            behind: (0, Place::default()),
            missed: None,
            progress: Instant::now() + WATCH_PROGRESS_INTERVAL,
        }
    }

    /// Where to resume: everything before was told.
    pub fn resume(&self) -> Resume {
        Resume::new(self.scope, self.legs.iter().map(|leg| leg.next).collect())
    }

    /// The state of each group that everything is told behind.
    pub fn positions(&self) -> Vec<GroupIndex> {
        let position = |leg: &Leg| GroupIndex {
            group: Arc::clone(&self.hub.groups[leg.group].name),
            index: leg.next.index.saturating_sub(1),
        };
        self.legs.iter().map(position).collect()
    }

    /// Waits for what comes next. May be dropped and called again at any time.
    ///
    /// # Errors
    /// It has ended, for this reason; from [`Watching::resume`] another may go on.
    pub async fn next(&mut self) -> Result<News, Ended> {
        loop {
            if let Some(news) = self.told() {
                return Ok(news);
            }
            let mut busy = false;
            for turn in 0..self.legs.len() {
                let leg = (self.turn + turn) % self.legs.len();
                // One that has to wait for its group must not make the client wait for a sign of life.
                let advanced = tokio::time::timeout_at(self.progress, self.advance(leg)).await;
                let Ok(again) = advanced else {
                    self.turn = leg + 1;
                    return Ok(self.progress());
                };
                busy |= again?;
                if !self.taken.is_empty() {
                    self.turn = leg + 1;
                    break;
                }
            }
            if !self.taken.is_empty() {
                continue;
            }
            if busy && Instant::now() < self.progress {
                tokio::task::yield_now().await;
                continue;
            }
            if tokio::time::timeout_at(self.progress, self.wake.notified()).await.is_err() {
                return Ok(self.progress());
            }
        }
    }

    fn progress(&mut self) -> News {
        self.progress = Instant::now() + WATCH_PROGRESS_INTERVAL;
        News::Progress(self.resume())
    }

    /// The next change of those that were taken.
    fn told(&mut self) -> Option<News> {
        let (place, event) = self.taken.pop_front()?;
        let (leg, behind) = self.behind;
        if self.taken.is_empty() {
            self.missed = None;
        }
        self.legs[leg].next = if self.taken.is_empty() { behind } else { place.next() };
        self.progress = Instant::now() + WATCH_PROGRESS_INTERVAL;
        Some(News::Event { event, resume: self.resume() })
    }

    /// Moves one leg on; whether it should be done again at once.
    async fn advance(&mut self, number: usize) -> Result<bool, Ended> {
        let leg = &mut self.legs[number];
        let tail = &self.hub.tails[leg.group];
        if leg.entry.is_none() {
            leg.entry = tail.enter(&self.filter, leg.next, &self.wake);
        }
        // Boxed, so that the many who don't have to hold no room for it.
        let Some(entry) = &leg.entry else { return Box::pin(self.catch_up(number)).await };
        match tail.look(entry, &self.filter, leg.next) {
            Look::News { events, next, more } => {
                self.take(number, events, next);
                Ok(more)
            }
            Look::Behind => {
                tail.leave(&self.filter, entry);
                leg.entry = None;
                Ok(true)
            }
            Look::Ended(why) => Err(why),
        }
    }

    fn take(&mut self, leg: usize, events: Vec<(Place, Arc<Shared>)>, next: Place) {
        if events.is_empty() {
            self.legs[leg].next = next;
        } else {
            (self.taken, self.behind) = (events.into(), (leg, next));
        }
    }

    /// Asks the group itself.
    async fn catch_up(&mut self, number: usize) -> Result<bool, Ended> {
        let (hub, leg) = (Arc::clone(&self.hub), &mut self.legs[number]);
        let bytes = u32::try_from(WATCH_STEP_BYTES).unwrap_or(u32::MAX);
        let ask = Ask { span: self.filter.span(), from: leg.next, bytes, ..end() };
        let turn = hub.catch_ups[leg.group].acquire().await;
        if let Some(ended) = hub.tails[leg.group].ended() {
            return Err(ended);
        }
        // Before the next sign of life is due: a group that says nothing must be noticed, not given up anew
        // each time.
        let deadline = Deadline::after(WATCH_PROGRESS_INTERVAL / 2);
        let answer = hub.source.recall(leg.group, ask, deadline).await;
        let moved = match answer {
            Ok(Told { events, next }) => {
                leg.silent = None;
                let moved = next > leg.next;
                let bytes: usize = events.iter().map(|(_, event)| event.bytes()).sum();
                let bytes = u32::try_from(bytes.min(WATCH_CATCH_UP_BYTES_MAX)).unwrap_or(u32::MAX);
                self.missed = Arc::clone(&hub.missed).acquire_many_owned(bytes).await.ok();
                let events = events.into_iter().map(|(place, event)| (place, Shared::new(event)));
                self.take(number, events.collect(), next);
                moved
            }
            Err(error @ Error::Compacted { .. }) => return Err(error.to_string()),
            Err(error) => {
                let since = leg.silent.get_or_insert_with(Instant::now);
                if since.elapsed() >= WATCH_SILENCE_MAX {
                    let name = &hub.groups[leg.group].name;
                    return Err(silent(name, &error.to_string()));
                }
                false
            }
        };
        drop(turn);
        if !moved {
            tokio::time::sleep(WATCH_PAUSE).await;
        }
        Ok(true)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        for leg in &self.legs {
            let tail = &self.hub.tails[leg.group];
            if let Some(entry) = &leg.entry {
                tail.leave(&self.filter, entry);
            }
            tail.go();
        }
    }
}
