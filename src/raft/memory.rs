//! Keeps the map within this process's memory budget, by refusing puts before they are in any log.
//!
//! Only a leader decides, and only before it proposes: what is committed is applied by every
//! replica, whatever its own budget is. Puts that are on their way through the log count too, each
//! with its whole item, and until the log has settled what becomes of it, however long that takes
//! and whoever has ceased to wait. So no burst of puts exceeds the budget by a byte:
//!
//! - Let U be the memory of the map if each key had the largest item among the one that it has and
//!   those on their way to it. Whatever becomes of the puts on their way, the map never takes more.
//! - U is at most what is counted here, the map and everything on its way. A put that makes an item
//!   of `held` bytes one of `asked` raises U by `asked - held` at most, or not at all if that is
//!   less than nothing. It is admitted only if U stays within the budget, or is not raised.
//!
//! - A touch may give an item a place in the order of expiry, whichever item that is by then. It counts
//!   for that much, and is admitted where the item has such a place already: it may turn out that a put
//!   on its way takes it away and the touch gives it again, beyond the budget by as much.
//!
//! Hence a put that makes its key no larger is never refused, nor is a delete; and a put may be
//! refused early, by as much as is on its way. The map can be larger than the budget only if it
//! was so when this replica began to lead: another leader had a larger one.

use std::sync::{Arc, Mutex};

use openraft::async_runtime::watch::WatchReceiver;

use crate::raft::published::Published;
use crate::raft::replica::{Replica, lock};
use crate::raft::wire;
use crate::store::state::{EXPIRY_OVERHEAD_BYTES, State, WrongShard, memory_of};
use crate::types::command::{Action, KeyWrite, Write};
use crate::types::deadline::Deadline;
use crate::types::error::{Error, Space};
use crate::types::ids::{LogId, NodeId, Vote};
use crate::types::key::Key;
use crate::types::limits::MEMORY_FREE_PERCENT;
use crate::types::value::Value;

/// What the map of one replica may take, and what is on its way into it.
#[derive(Debug)]
pub(in crate::raft) struct Budget {
    max: u64,
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// The memory of the items of puts whose fate the log has not settled yet.
    on_the_way: u64,
    /// The most that was refused since there was room for everybody.
    refused: Option<u64>,
}

/// What a command adds to the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Adds {
    /// An item for ever, of so many bytes.
    Item(u64),
    /// An item that ends, of so many bytes.
    Ending(u64),
    /// An integer, which ends when what is there does.
    Integer,
    /// A place in the order of expiry, for the item that is there by then.
    Expiry,
}

/// The room that a put has been given; dropped when the log has settled what becomes of it.
#[derive(Debug)]
#[must_use]
pub(in crate::raft) struct Room {
    bytes: u64,
    ledger: Arc<Mutex<Ledger>>,
}

impl Drop for Room {
    fn drop(&mut self) {
        lock(&self.ledger).on_the_way -= self.bytes;
    }
}

impl Replica {
    /// Whether anything bounds what a command may add just now; if not, there is no need to [admit](Replica::admit) it.
    pub(in crate::raft) fn has_bounds(&self) -> bool {
        self.budget().is_some() || self.disk_room().is_full()
    }

    /// Room for what a command adds to the map, if that is bounded; refuses it if there is none, there or
    /// on the disk.
    pub(in crate::raft) async fn admit(
        &self,
        action: &Action,
        deadline: Deadline,
    ) -> Result<Option<Room>, Error> {
        let adds: Vec<(&Key, Adds)> = match action {
            Action::Put { key, value } => vec![(key, Adds::Item(memory_of(key, value, false)))],
            Action::Conditional { key, write, .. }
            | Action::Write(KeyWrite { key, write, .. })
            | Action::Once { write: KeyWrite { key, write, .. }, .. } => {
                added(key, write).map(|adds| (key, adds)).into_iter().collect()
            }
            // Those of both branches: which it will be is not known.
            Action::Txn { txn, .. } => {
                let writes = txn.writes();
                writes.filter_map(|(key, write)| Some((key, added(key, write)?))).collect()
            }
            Action::Delete { .. }
            | Action::OpenSession { .. }
            | Action::DeleteSpan { .. }
            | Action::Expire
            | Action::Found { .. }
            | Action::Claim(_)
            | Action::Confirm { .. }
            | Action::Release { .. } => Vec::new(),
        };
        // What adds nothing goes on, unless it takes much of the log.
        let first = match action {
            Action::Txn { txn, .. } if txn.carries_values() => txn.keys().next(),
            _ => adds.first().map(|(key, _)| *key),
        };
        let Some(key) = first else { return Ok(None) };
        self.admit_on_disk(key)?;
        let Some(budget) = self.budget() else { return Ok(None) };
        let vote = wire::vote(&self.raft().server_metrics().borrow_watched().vote);
        let applied = self.published().read(|state| state.applied);
        // One round makes sure that everything before is applied, and of who leads.
        if !counts_all(&vote, self.member().node, applied.as_ref()) {
            self.confirm_in_a_round(deadline).await?;
        }
        budget.admit(self.published(), &adds).map(Some)
    }
}

/// Whether a replica with this vote leads and has applied an entry of its own in this leadership.
/// What former leaders have admitted, itself among them, has no room here until it is applied: it
/// all stands before that entry.
fn counts_all(vote: &Vote, node: NodeId, applied: Option<&LogId>) -> bool {
    let leads = vote.committed && vote.node == node;
    leads && applied.is_some_and(|id| (id.term, id.leader) == (vote.term, node))
}

impl Budget {
    /// A budget of `max` bytes.
    pub(in crate::raft) fn new(max: u64) -> Self {
        Self { max, ledger: Arc::default() }
    }

    fn admit(&self, published: &Published, adds: &[(&Key, Adds)]) -> Result<Room, Error> {
        // What was applied is published before its room is given back, so that nothing is missing in both: while
        // the state is looked at, nothing is published.
        published.read(|state| self.admit_to(&mut lock(&self.ledger), state, adds))
    }

    fn admit_to(
        &self,
        ledger: &mut Ledger,
        state: &State,
        adds: &[(&Key, Adds)],
    ) -> Result<Room, Error> {
        ledger.note(state, self.max);
        let sizes = || adds.iter().map(|(key, adds)| adds.sizes(state, key));
        let asked = sizes().map(|(asked, _)| asked).sum();
        let raised = sizes().map(|(asked, held)| asked.saturating_sub(held)).sum();
        if !fits(raised, state.memory() + ledger.on_the_way, self.max) {
            for (key, _) in adds {
                state
                    .check_owned(key)
                    .map_err(|WrongShard { epoch }| Error::WrongShard { epoch })?;
            }
            ledger.refuse(state, asked, self.max);
            return Err(Error::NoRoom(Space::Memory { max: self.max }));
        }
        ledger.on_the_way += asked;
        Ok(Room { bytes: asked, ledger: Arc::clone(&self.ledger) })
    }

    /// Looks whether there is room again, and says so.
    pub(in crate::raft) fn note(&self, published: &Published) {
        published.read(|state| lock(&self.ledger).note(state, self.max));
    }
}

/// Whether what may raise the memory by so much fits to what is counted.
fn fits(raised: u64, counted: u64, max: u64) -> bool {
    raised == 0 || counted + raised <= max
}

/// What a write of `key` adds, if it adds anything.
fn added(key: &Key, write: &Write) -> Option<Adds> {
    match write {
        Write::Put { value } => Some(Adds::Item(memory_of(key, value, false))),
        Write::PutFor { value, .. } => Some(Adds::Ending(memory_of(key, value, true))),
        Write::Touch { ttl_ms: Some(_) } => Some(Adds::Expiry),
        Write::Add { .. } => Some(Adds::Integer),
        Write::Delete | Write::Touch { ttl_ms: None } => None,
    }
}

impl Adds {
    /// How much it asks for, and how much of that the key has already.
    fn sizes(self, state: &State, key: &Key) -> (u64, u64) {
        let item = state.map.get(key);
        let expires = item.is_some_and(|item| item.expires.at().is_some());
        // Like is compared with like: an item for ever with what is held but for its place in the order of
        // expiry, which a touch may give it again.
        let held = |ends| item.map_or(0, |item| memory_of(key, &item.value, ends));
        match self {
            Self::Item(bytes) => (bytes, held(false)),
            Self::Ending(bytes) => (bytes, held(expires)),
            Self::Integer => (memory_of(key, &Value::integer(i64::MIN), true), held(true)),
            Self::Expiry if expires => (EXPIRY_OVERHEAD_BYTES, EXPIRY_OVERHEAD_BYTES),
            Self::Expiry => (EXPIRY_OVERHEAD_BYTES, 0),
        }
    }
}

impl Ledger {
    /// Says so if this is the first put to be refused. One that is larger than the whole budget
    /// says nothing about how full that is.
    fn refuse(&mut self, state: &State, asked: u64, max: u64) {
        if asked > max {
            return;
        }
        if self.refused.is_none() {
            let (memory, max_memory) = (state.memory(), max);
            tracing::warn!(memory, max_memory, "out of memory budget: refusing puts");
        }
        self.refused = self.refused.max(Some(asked));
    }

    fn note(&mut self, state: &State, max: u64) {
        let Some(refused) = self.refused else { return };
        let wanted = refused.max(max / 100 * MEMORY_FREE_PERCENT);
        if state.memory() + self.on_the_way + wanted <= max {
            self.refused = None;
            let (memory, max_memory) = (state.memory(), max);
            tracing::warn!(memory, max_memory, "within the memory budget again");
        }
    }
}

#[cfg(test)]
mod tests;
