//! What a replica tells watchers: the changes that it has applied, and that there were no others.
//!
//! Whatever is applied is committed, so any replica may tell it, whoever leads. That nothing else has
//! happened is another matter: a replica that is cut off would say so for ever. So an answer without a
//! change is one that the leader has confirmed like a linearizable read, after it had waited.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::raft::reads::position;
use crate::raft::replica::{Replica, lock};
use crate::store::history::{Compacted, History};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::{GroupId, Index};
use crate::types::key::Key;
use crate::types::kv::GroupIndex;
use crate::types::limits::WATCH_WAIT;
use crate::types::topology::Epoch;
use crate::types::watch::{Ask, Event, Place, Told};

/// The newest changes of a replica's keys, and whoever waits for more. Clones share them.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Watches(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    history: Mutex<History>,
    grown: Notify,
}

impl Watches {
    /// Keeps so many bytes, before entry `next`.
    pub(in crate::raft) fn new(bytes_max: u64, next: Index) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let history = Mutex::new(History::new(bytes_max, next));
        Self(Arc::new(Inner { history, grown: Notify::new() }))
    }

    /// Takes what these entries have changed, before readers can see it: who says that nothing has changed up to some entry
    /// knows of all before it.
    pub(in crate::raft) fn record(&self, changed: Vec<(Index, Vec<Event>)>) {
        let mut history = lock(&self.0.history);
        let mut any = false;
        // Before, so that all of this is there for whoever waits for it.
        history.trim();
        for (index, events) in changed {
            any |= !events.is_empty();
            history.record(index, events);
        }
        drop(history);
        if any {
            self.0.grown.notify_waiters();
        }
    }

    /// Forgets everything: a snapshot has taken the place of what was here, and entry `next` comes next.
    pub(in crate::raft) fn begin_anew(&self, next: Index) {
        lock(&self.0.history).begin_anew(next);
        self.0.grown.notify_waiters();
    }

    /// Behind everything.
    fn head(&self) -> Place {
        Place { index: lock(&self.0.history).next_index(), part: 0 }
    }

    fn oldest(&self) -> Compacted {
        Compacted { oldest: lock(&self.0.history).oldest() }
    }

    fn tell(&self, ask: &Ask) -> Result<Told, Compacted> {
        lock(&self.0.history).tell(&ask.span, ask.from, ask.bytes as usize)
    }

    /// As [`Watches::tell`], waiting for a change until `until`.
    async fn tell_by(&self, ask: &mut Ask, until: Instant) -> Result<Told, Compacted> {
        loop {
            let mut grown = std::pin::pin!(self.0.grown.notified());
            // Before the look: a change right after it wakes this one too.
            grown.as_mut().enable();
            let told = self.tell(ask)?;
            if !told.events.is_empty() {
                return Ok(told);
            }
            if told.next > ask.from {
                // Others run between two looks.
                ask.from = told.next;
                tokio::task::yield_now().await;
            } else if tokio::time::timeout_at(until, grown).await.is_err() {
                return self.tell(ask);
            }
        }
    }
}

/// What of a replica can be watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watchable {
    /// Its group.
    pub group: GroupId,
    /// The group's name.
    pub name: Arc<str>,
    /// The epoch of the group's claim.
    pub epoch: Epoch,
}

impl Replica {
    /// Tells what has changed, or, once that is confirmed, that nothing has. Errors mean nothing about
    /// other replicas.
    pub async fn watch(&self, ask: &Ask, deadline: Deadline) -> Result<Told, Error> {
        let _place = self.place()?;
        if !ask.anyone && !self.leads() {
            // It would go on telling what it has, and be taken for the leader.
            let leader = self.leader().filter(|leader| leader.node != self.member().node);
            return Err(Error::NotLeader { leader });
        }
        let told = self.watch_here(ask, deadline).await?;
        if ask.anyone || !told.events.is_empty() {
            return Ok(told);
        }
        self.confirm_in_a_round(deadline).await?;
        self.tell_since(ask, &told)
    }

    /// As [`Replica::watch_here`], once entry `index` is applied, which was the last that the leader had
    /// applied at some moment after nothing was told.
    pub async fn watch_at(
        &self,
        ask: &Ask,
        told: &Told,
        index: Index,
        deadline: Deadline,
    ) -> Result<Told, Error> {
        self.until_applied(index, deadline).await?;
        self.tell_since(ask, told)
    }

    /// What has changed, waiting as long as was asked; that nothing has is not confirmed.
    pub async fn watch_here(&self, ask: &Ask, deadline: Deadline) -> Result<Told, Error> {
        let wait = WATCH_WAIT.min(Duration::from_millis(u64::from(ask.wait_ms)));
        let until = Instant::now() + wait.min(deadline.left() / 2);
        let told = self.watches().tell_by(&mut ask.clone(), until).await;
        self.checked(told)
    }

    /// What has changed since nothing was told.
    fn tell_since(&self, ask: &Ask, nothing: &Told) -> Result<Told, Error> {
        let from = if ask.from == Place::END { Place::END } else { nothing.next };
        let told = self.checked(self.watches().tell(&Ask { from, ..ask.clone() }))?;
        // A place that was ever given is not behind the end of a state that was just confirmed: it is of
        // another group, and says nothing of this one.
        if from != Place::END && told.events.is_empty() && told.next > self.watches().head() {
            return self.checked(Err(self.watches().oldest()));
        }
        Ok(told)
    }

    /// What can be watched here: all keys of the group, or this one.
    pub fn watchable(&self, key: Option<&Key>) -> Result<Watchable, Error> {
        self.formed()?;
        self.published().read(|state| {
            let Some((group, name)) = &state.group else {
                return Err(Error::unavailable("the group has not formed yet"));
            };
            let owned = key.map_or(Ok(()), |key| state.check_owned(key));
            owned.map_err(|wrong| Error::WrongShard { epoch: wrong.epoch })?;
            Ok(Watchable { group: *group, name: Arc::clone(name), epoch: state.epoch() })
        })
    }

    fn checked(&self, told: Result<Told, Compacted>) -> Result<Told, Error> {
        let at = self.published().read(position)?;
        self.trusted()?;
        told.map_err(|Compacted { oldest }| {
            let oldest = GroupIndex { group: at.group, index: oldest.saturating_sub(1) };
            Error::Compacted { oldest: oldest.to_string() }
        })
    }
}
