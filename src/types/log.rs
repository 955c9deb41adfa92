//! A group's log: entries and the membership that some of them carry.
//!
//! The encoding of these types is part of the WAL and snapshot formats.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use crate::types::bounded::{Bounded, bounded};
use crate::types::command::Command;
use crate::types::ids::{LogId, NodeId};
use crate::types::limits::{NODES_MAX, VOTER_SETS_MAX};

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Who proposed it, and where it stands.
    pub id: LogId,
    /// What it says.
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: a new leader commits one to learn what is committed (Raft thesis §6.4).
    Blank,
    /// Work for the state machine.
    Command(Command),
    /// A new membership, in force from here on (Raft thesis §4.3).
    Membership(Membership),
}

/// Who votes and who listens.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Membership {
    /// One set of voters, or two during a joint change: a quorum of each is needed.
    #[serde(deserialize_with = "voter_sets")]
    pub voters: Vec<BTreeSet<NodeId>>,
    /// The URL of every member, voters and learners.
    #[serde(deserialize_with = "bounded::<_, _, NODES_MAX>")]
    pub urls: BTreeMap<NodeId, String>,
}

impl Membership {
    /// Whether `node` is a voter of the newest configuration.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.last().is_some_and(|voters| voters.contains(&node))
    }
}

fn voter_sets<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<BTreeSet<NodeId>>, D::Error> {
    let sets: Vec<Bounded<_, NODES_MAX>> = bounded::<_, _, VOTER_SETS_MAX>(from)?;
    Ok(sets.into_iter().map(|Bounded(voters)| voters).collect())
}

/// A membership and the entry that brought it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StoredMembership {
    /// That entry; `None` before the group exists.
    pub id: Option<LogId>,
    /// The membership.
    pub membership: Membership,
}
