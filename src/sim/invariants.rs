//! What must hold inside the replicas of a group, whatever happens outside, and between
//! coordinators ([`Rings`]); looked at each millisecond.
//!
//! After the figure 3 of the Raft paper (Ongaro and Ousterhout, 2014), in the terms of this
//! implementation, whose log ids carry the leader beside the term, so that a term may see more than
//! one leader, one after the other, and the greater node id wins:
//!
//! - **election safety**: a leadership (term and node) is held by one process only, ever;
//! - **log matching**: an entry with one id has one content and one entry before it, in all logs;
//! - **leader completeness**: whoever leads has all that was committed under leaders before it;
//! - **state machine safety**: at one index everybody applies the same entry, and has the same
//!   state behind it;
//! - a vote never goes back, over restarts too; what is committed and applied never goes back
//!   while the process lives.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use crate::raft::Inspection;
use crate::sim::net::Place;
use crate::sim::node::Node;
use crate::types::codec;
use crate::types::ids::{Index, LogId, NodeId, StateHash, Term, Vote};
use crate::types::topology::{Epoch, Topology};

/// What was seen of one replica the last time.
struct Seen {
    incarnation: u64,
    inspection: Inspection,
    /// How far its log was looked at.
    checked: Option<LogId>,
}

/// Names an entry, so that ids of one term are in order.
type EntryId = (Term, NodeId, Index);

/// Everything that was ever seen of one group.
#[derive(Default)]
pub(in crate::sim) struct Invariants {
    seen: BTreeMap<Place, Seen>,
    /// Who held which leadership: its place and process.
    leaders: BTreeMap<(Term, NodeId), (Place, u64)>,
    /// What each entry holds and which one is before it.
    entries: BTreeMap<EntryId, (u64, Option<LogId>)>,
    /// What was applied at each index, and the state behind it.
    applied: BTreeMap<Index, (LogId, StateHash)>,
    /// The newest entry that is known to be committed.
    committed: Option<LogId>,
    /// The votes of those whose process has ended.
    votes: BTreeMap<NodeId, Vote>,
    /// How many states were compared.
    pub(in crate::sim) compared: u64,
    /// How many leaders there were.
    pub(in crate::sim) elected: u64,
}

fn entry_id(id: &LogId) -> EntryId {
    (id.term, id.leader, id.index)
}

impl Invariants {
    /// Looks at one replica; what is wrong, if anything.
    pub(in crate::sim) fn check(&mut self, node: &Node) -> Result<(), String> {
        let before = self.seen.remove(&node.place);
        let before = before.filter(|before| before.incarnation == node.incarnation);
        let known = before.as_ref().map(|before| &before.inspection);
        let Some(now) = node.inspect(known) else { return Ok(()) };
        self.check_vote(before.as_ref(), &now)?;
        if let Some(before) = &before {
            goes_on("what is committed", before.inspection.committed, now.committed)?;
            goes_on("what is applied", before.inspection.applied, now.applied)?;
        }
        let unchanged = before.as_ref().is_some_and(|before| {
            before.inspection.last == now.last && before.inspection.cuts == now.cuts
        });
        let mut checked = before.as_ref().and_then(|before| before.checked);
        if !unchanged {
            let cut = before.as_ref().is_none_or(|before| before.inspection.cuts != now.cuts);
            checked = self.check_log(node, if cut { None } else { checked })?;
        }
        if before.as_ref().is_none_or(|before| before.inspection.applied != now.applied) {
            self.check_state(&now)?;
        }
        let led = before.as_ref().is_some_and(|before| before.inspection.leads);
        if now.leads {
            self.check_leader(node, &now, led)?;
        }
        let seen = Seen { incarnation: node.incarnation, inspection: now, checked };
        self.seen.insert(node.place, seen);
        Ok(())
    }

    fn check_vote(&mut self, before: Option<&Seen>, now: &Inspection) -> Result<(), String> {
        let rank = |vote: &Vote| (vote.term, vote.node, vote.committed);
        let known = before.map(|before| before.inspection.vote);
        // A process that has just started may not have read its vote yet.
        let started = before.is_some_and(|before| before.inspection.vote.term > 0);
        let kept = self.votes.get(&now.node).filter(|_| started || now.vote.term > 0);
        for earlier in known.iter().chain(kept) {
            if rank(&now.vote) < rank(earlier) {
                let node = now.node;
                return Err(format!("the vote of {node} goes back: {earlier:?}, {:?}", now.vote));
            }
        }
        if now.vote.term > 0 {
            self.votes.insert(now.node, now.vote);
        }
        Ok(())
    }

    /// Looks at a log from behind `checked` on; how far it was looked at then.
    fn check_log(&mut self, node: &Node, checked: Option<LogId>) -> Result<Option<LogId>, String> {
        let from = checked.map_or(0, |checked| checked.index + 1);
        let mut before = checked;
        for entry in node.entries_from(from) {
            let mut hasher = DefaultHasher::new();
            hasher.write(&codec::encode(&entry.payload));
            let content = hasher.finish();
            let known = self.entries.entry(entry_id(&entry.id)).or_insert((content, before));
            if known.0 != content {
                return Err(format!("log matching: two entries are {}", entry.id));
            }
            // What is before the first in the log is not seen.
            match (known.1, before) {
                (Some(one), Some(other)) if one != other => {
                    return Err(format!("log matching: {one} and {other} before {}", entry.id));
                }
                (None, Some(_)) => known.1 = before,
                (Some(_) | None, _) => {}
            }
            before = Some(entry.id);
        }
        Ok(before)
    }

    fn check_state(&mut self, now: &Inspection) -> Result<(), String> {
        let Some(applied) = now.applied else { return Ok(()) };
        self.compared += 1;
        let (id, hash) = *self.applied.entry(applied.index).or_insert((applied, now.hash));
        if id != applied {
            return Err(format!("state machine safety: {id} and {applied} are applied"));
        }
        if hash != now.hash {
            let node = now.node;
            return Err(format!(
                "state machine safety: {node} has state {} at {applied}, another {hash}",
                now.hash
            ));
        }
        self.committed = self.committed.max(Some(applied));
        Ok(())
    }

    fn check_leader(&mut self, node: &Node, now: &Inspection, led: bool) -> Result<(), String> {
        let leadership = (now.vote.term, now.vote.node);
        if now.vote.node != now.node || !now.vote.committed {
            return Ok(()); // It has just seen another vote.
        }
        let me = (node.place, node.incarnation);
        let holder = *self.leaders.entry(leadership).or_insert_with(|| {
            self.elected += 1;
            me
        });
        if holder != me {
            return Err(format!("election safety: {holder:?} and {me:?} lead as {leadership:?}"));
        }
        let Some(committed) = self.committed else { return Ok(()) };
        if led || (committed.term, committed.leader) >= leadership {
            return Ok(());
        }
        let held = node.entries_from(committed.index).first().map(|entry| entry.id);
        let has = match held {
            Some(held) if held.index == committed.index => held == committed,
            Some(_) | None => now.applied.is_some_and(|applied| applied >= committed),
        };
        if !has {
            let last = now.last;
            return Err(format!(
                "leader completeness: {leadership:?} lacks {committed}, its log ends at {last:?}"
            ));
        }
        Ok(())
    }
}

fn goes_on(what: &str, before: Option<LogId>, now: Option<LogId>) -> Result<(), String> {
    if before.map(|id| id.index) > now.map(|id| id.index) {
        return Err(format!("{what} goes back from {before:?} to {now:?}"));
    }
    Ok(())
}

/// What coordinators have served by: one epoch has one topology, so they never disagree on a key.
#[derive(Default)]
pub(in crate::sim) struct Rings(BTreeMap<Epoch, Topology>);

impl Rings {
    /// The coordinator at `place` serves by `topology`; what is wrong with that, if anything.
    pub(in crate::sim) fn check(
        &mut self,
        place: Place,
        topology: &Topology,
    ) -> Result<(), String> {
        match self.0.get(&topology.epoch) {
            Some(known) if known == topology => Ok(()),
            Some(known) => {
                Err(format!("one ring: {place} serves by {topology:?}, another by {known:?}"))
            }
            None => {
                self.0.insert(topology.epoch, topology.clone());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::ClusterId;

    #[test]
    fn one_epoch_has_one_topology() {
        let of = |cluster, epoch| Topology {
            cluster: ClusterId(cluster),
            epoch,
            vnodes: 1,
            groups: Vec::new(),
        };
        let mut rings = Rings::default();
        assert_eq!(rings.check(7, &of(1, 1)), Ok(()));
        assert_eq!(rings.check(8, &of(1, 1)), Ok(()));
        assert_eq!(rings.check(7, &of(1, 2)), Ok(()));
        assert!(rings.check(8, &of(2, 1)).is_err());
    }
}
