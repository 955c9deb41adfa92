//! Watchers of one process: each group is followed once, whoever many watch its keys.
//!
//! ```text
//!   group A    group B         a Source asks them: what is new from this place on?
//!      │          │
//!   ┌──▼───┐   ┌──▼───┐        tail      the newest changes of a group, and who watches which keys;
//!   │ tail │   │ tail │                  one task follows the group while anybody does
//!   └─┬──┬─┘   └──┬─┬─┘
//!     │  └────┐   │ └─────┐    watching  one watcher: its place in each group, moved on whenever a
//!  watching  watching  watching          tail says that something for it is there
//! ```
//!
//! A watcher has no queue. It has a place in each group and takes from there when its client is
//! ready to take; a tail only says that it is worth looking. So a slow one holds no more than the few
//! changes that it has taken, which it shares with the others, and its place is always one to resume
//! from. Who has fallen out of a tail, or resumes behind it, asks the group itself until it has caught up;
//! what such watchers hold is bounded for all of them together. What the group has forgotten as well is
//! refused with [`Error::Compacted`].
//!
//! Promises: of the keys that it watches, a watcher is told every change of a group once, in the order of
//! the group's log, from its place on, through any change of leaders. Between groups there is no order. Where
//! a group has not answered for [`WATCH_SILENCE_MAX`], its watchers end: silence must not be taken
//! for peace.

mod news;
mod tail;
mod watching;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::try_join_all;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::GroupId;
use crate::types::kv::GroupIndex;
use crate::types::limits::{
    WATCH_CATCH_UP_BYTES_MAX, WATCH_CATCH_UPS_MAX, WATCH_SILENCE_MAX, WATCH_TOLD_BYTES_MAX,
};
use crate::types::scan::Span;
use crate::types::topology::Epoch;
use crate::types::watch::{Ask, Place, Resume, Since, Told, Watch, scope};
pub use crate::watch::news::{News, Shared};
use crate::watch::tail::Tail;
pub use crate::watch::watching::Watching;

/// The answer of a group that is on its way.
pub type Telling<'a> = Pin<Box<dyn Future<Output = Result<Told, Error>> + Send + 'a>>;

/// The way to the groups.
pub trait Source: Send + Sync + 'static {
    /// Asks a group, by its number: a leader that is confirmed says that there is no more.
    fn tell(&self, group: usize, ask: Ask, deadline: Deadline) -> Telling<'_>;

    /// As [`Source::tell`], and where whoever is asked has forgotten what is asked for, asks others, if it has a
    /// way to them.
    fn recall(&self, group: usize, ask: Ask, deadline: Deadline) -> Telling<'_>;

    /// Whether these are still all groups of the ring.
    fn stands(&self) -> bool;
}

/// A group that can be watched.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its identity.
    pub id: GroupId,
    /// Its name, as in `X-Sage-Index`.
    pub name: Arc<str>,
}

/// All watchers of some groups. Dropping it does not end them; its token does.
pub struct Hub {
    source: Box<dyn Source>,
    epoch: Epoch,
    groups: Vec<Group>,
    tails: Vec<Tail>,
    /// A permit for each watcher that asks a group for what it has missed, of each group.
    catch_ups: Vec<Semaphore>,
    /// A permit for each byte that they hold.
    missed: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Hub {
    /// For these groups of a ring; everything ends with `stopping`.
    pub fn new(
        source: impl Source,
        epoch: Epoch,
        groups: Vec<Group>,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        let tails = groups.iter().map(|_| Tail::default()).collect();
        let catch_ups = groups.iter().map(|_| Semaphore::new(WATCH_CATCH_UPS_MAX)).collect();
        let missed = Arc::new(Semaphore::new(WATCH_CATCH_UP_BYTES_MAX));
        let source = Box::new(source);
        Arc::new(Self { source, epoch, groups, tails, catch_ups, missed, stopping })
    }

    /// Begins to watch keys of all groups, or of one. Returns once every change that is acknowledged
    /// from then on will be told.
    ///
    /// # Errors
    /// [`Error::Compacted`] if changes since then are not kept, [`Error::InvalidParameter`] if it does not
    /// say for each group since when, [`Error::Unavailable`] if a group does not answer in time.
    pub async fn watch(
        self: &Arc<Self>,
        watch: Watch,
        group: Option<usize>,
        deadline: Deadline,
    ) -> Result<Watching, Error> {
        let numbers: Vec<usize> = group.map_or((0..self.groups.len()).collect(), |one| vec![one]);
        let ids: Vec<GroupId> = numbers.iter().map(|number| self.groups[*number].id).collect();
        let scope = scope(self.epoch, &ids);
        let places = match watch.since {
            None => self.now(&numbers, deadline).await?,
            Some(since) => {
                let asked = self.places(&numbers, scope, since);
                self.check(&numbers, asked?, deadline).await?
            }
        };
        let legs = numbers.into_iter().zip(places).collect();
        Ok(Watching::new(self, watch.filter, scope, legs))
    }

    /// Where the groups are now.
    async fn now(&self, groups: &[usize], deadline: Deadline) -> Result<Vec<Place>, Error> {
        let nows = groups.iter().map(|group| self.source.tell(*group, end(), deadline));
        let told = try_join_all(nows).await?;
        Ok(told.into_iter().map(|told| told.next).collect())
    }

    /// Where a client wishes to go on; `None` in a group where it can't.
    fn places(
        &self,
        groups: &[usize],
        ours: u64,
        since: Since,
    ) -> Result<Vec<Option<Place>>, Error> {
        let named = |indexes: &[GroupIndex], name: &Arc<str>| {
            let at = indexes.iter().find(|at| at.group == *name);
            let reason = || format!("names no position of group {name}");
            at.map(|at| Some(Place::behind(at.index)))
                .ok_or_else(|| Error::InvalidParameter { name: "since".into(), reason: reason() })
        };
        match since {
            Since::Resume(Resume { scope, places, .. })
                if scope == ours && places.len() == groups.len() =>
            {
                Ok(places.into_iter().map(|place| (place != Place::END).then_some(place)).collect())
            }
            // Of another ring, or of a watch of other groups: what has changed since can't be said.
            Since::Resume(_) => Ok(vec![None; groups.len()]),
            Since::Indexes(indexes) => {
                groups.iter().map(|group| named(&indexes, &self.groups[*group].name)).collect()
            }
        }
    }

    /// Makes sure that all changes since these places can be told.
    async fn check(
        &self,
        groups: &[usize],
        places: Vec<Option<Place>>,
        deadline: Deadline,
    ) -> Result<Vec<Place>, Error> {
        let all_known = places.iter().all(Option::is_some);
        let checks = groups.iter().zip(places).map(async |(&group, place)| {
            let from = place.unwrap_or_default();
            if place.is_some() && self.tails[group].keeps(from) {
                return Ok(Ok(from));
            }
            let none = Span { from: bytes::Bytes::new(), to: Some(bytes::Bytes::new()) };
            let ask = Ask { span: none, from, ..end() };
            match self.source.recall(group, ask, deadline).await {
                Ok(_) => Ok(Ok(from)),
                Err(Error::Compacted { oldest }) => Ok(Err(oldest)),
                Err(error) => Err(error),
            }
        });
        let checked: Vec<Result<Place, String>> = try_join_all(checks).await?;
        if all_known && checked.iter().all(Result::is_ok) {
            return Ok(checked.into_iter().flatten().collect());
        }
        let oldest = groups.iter().zip(checked).map(|(&group, checked)| {
            let group = Arc::clone(&self.groups[group].name);
            let position = |place: Place| {
                GroupIndex { group, index: place.index.saturating_sub(1) }.to_string()
            };
            checked.map_or_else(|oldest| oldest, position)
        });
        Err(Error::Compacted { oldest: oldest.collect::<Vec<_>>().join(", ") })
    }
}

/// Asks where a group is now.
fn end() -> Ask {
    let bytes = u32::try_from(WATCH_TOLD_BYTES_MAX).unwrap_or(u32::MAX);
    Ask { span: Span::default(), from: Place::END, wait_ms: 0, bytes, anyone: false }
}

/// Why a watch has ended: a sentence.
pub type Ended = String;

/// The group did not answer for so long.
fn silent(name: &str, why: &str) -> Ended {
    format!("group {name} has not answered for {} s: {why}", WATCH_SILENCE_MAX.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
