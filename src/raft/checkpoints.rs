//! Checkpoints of a replica's state, and what follows when those of a group are compared.
//!
//! A checkpoint is the hash of the state after an entry whose index is a multiple of
//! [`CHECKPOINT_ENTRIES`]: the same entries on all replicas. Entries that were cut from a log were
//! never applied (Raft thesis §3.6.3), so at one index there is one entry and one state, and whoever
//! has another is wrong. Who that is, only a majority can say: of **all** voters, not of those that
//! answered, or two that are wrong could condemn the rest. Hashes of another version say nothing.
//!
//! Decides only. `raft::comparison` asks the others and does what is said here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::raft::replica::lock;
use crate::store::digest;
use crate::store::state::State;
use crate::types::ids::{Index, NodeId};
use crate::types::limits::{CHECKPOINT_ENTRIES, CHECKPOINTS_MAX};
use crate::types::peer::{Checkpoint, Checkpoints};

/// The newest checkpoints of this replica. Clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::raft) struct Record(Arc<Mutex<VecDeque<Checkpoint>>>);

impl Record {
    /// Takes a checkpoint if one is due. Must see the state after every single entry.
    pub(in crate::raft) fn note(&self, state: &State) {
        let Some(id) = state.applied.filter(|id| id.index % CHECKPOINT_ENTRIES == 0) else {
            return;
        };
        let mut taken = lock(&self.0);
        if taken.len() == CHECKPOINTS_MAX {
            taken.pop_front();
        }
        taken.push_back(Checkpoint { id, hash: state.hash() });
    }

    /// The state is another one now, which was not made entry by entry.
    pub(in crate::raft) fn begin_anew(&self) {
        lock(&self.0).clear();
    }

    /// All of them, by rising index.
    pub(in crate::raft) fn checkpoints(&self) -> Checkpoints {
        let taken = lock(&self.0).iter().copied().collect();
        Checkpoints { digest: digest::VERSION, taken }
    }
}

/// One entry after which two states were not the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::raft) struct Difference {
    /// What this replica's came to.
    pub(in crate::raft) mine: Checkpoint,
    /// What the other's, or that of a majority, came to.
    pub(in crate::raft) theirs: Checkpoint,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mine, theirs } = self;
        write!(f, "after {} its state came to {}, ", mine.id, mine.hash)?;
        write!(f, "theirs after {} to {}", theirs.id, theirs.hash)
    }
}

/// What two replicas' checkpoints say of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::raft) enum Compared {
    /// There is none that both have.
    Nothing,
    /// The newest that both have is the same.
    Same,
    /// It is not.
    Differ(Difference),
}

/// Compares the newest checkpoints that two replicas took at the same index.
pub(in crate::raft) fn compare(mine: &Checkpoints, theirs: &Checkpoints) -> Compared {
    if mine.digest != theirs.digest {
        return Compared::Nothing;
    }
    let both = mine.taken.iter().rev().find_map(|mine| Some((*mine, at(theirs, mine.id.index)?)));
    match both {
        None => Compared::Nothing,
        Some((mine, theirs)) if mine == theirs => Compared::Same,
        Some((mine, theirs)) => Compared::Differ(Difference { mine, theirs }),
    }
}

/// What a majority says of one replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::raft) struct Judgement {
    /// The newest index at which a majority of the voters, it among them, had the same state.
    pub(in crate::raft) agreed: Option<Index>,
    /// The first index at which a majority had the same state, and it another.
    pub(in crate::raft) condemned: Option<Difference>,
}

/// Judges the replica `me` by its own checkpoints and those of the others that are known. `voters`
/// are the sets of the configuration in force: a majority is one of each.
pub(in crate::raft) fn judge(
    (me, mine): (NodeId, &Checkpoints),
    others: &BTreeMap<NodeId, Checkpoints>,
    voters: &[BTreeSet<NodeId>],
) -> Judgement {
    let mut judgement = Judgement::default();
    for own in &mine.taken {
        let index = own.id.index;
        let said: BTreeMap<NodeId, Checkpoint> = others
            .iter()
            .filter(|(node, theirs)| **node != me && theirs.digest == mine.digest)
            .filter_map(|(node, theirs)| Some((*node, at(theirs, index)?)))
            .chain([(me, *own)])
            .collect();
        let distinct: BTreeSet<Checkpoint> = said.values().copied().collect();
        let Some(theirs) = distinct.into_iter().find(|one| is_majority(*one, &said, voters)) else {
            continue;
        };
        if theirs == *own {
            // One that does not vote adds nothing to a majority, but it may agree with it.
            judgement.agreed = judgement.agreed.max(Some(index));
        } else if judgement.condemned.is_none() {
            judgement.condemned = Some(Difference { mine: *own, theirs });
        }
    }
    judgement
}

fn is_majority(
    one: Checkpoint,
    said: &BTreeMap<NodeId, Checkpoint>,
    voters: &[BTreeSet<NodeId>],
) -> bool {
    let says = |node: &&NodeId| said.get(node) == Some(&one);
    let majority = |set: &BTreeSet<NodeId>| set.iter().filter(says).count() > set.len() / 2;
    !voters.is_empty() && voters.iter().all(majority)
}

fn at(checkpoints: &Checkpoints, index: Index) -> Option<Checkpoint> {
    checkpoints.taken.iter().find(|taken| taken.id.index == index).copied()
}

#[cfg(test)]
mod tests;
