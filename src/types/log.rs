//! A group's log: entries and the membership that some of them carry.
//!
//! The encoding of these types is part of the WAL and snapshot formats.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::types::command::Command;
use crate::types::ids::{LogId, NodeId};

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
    pub voters: Vec<BTreeSet<NodeId>>,
    /// The URL of every member, voters and learners.
    pub urls: BTreeMap<NodeId, String>,
}

impl Membership {
    /// Whether `node` is a voter of the newest configuration.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.last().is_some_and(|voters| voters.contains(&node))
    }
}

/// A membership and the entry that brought it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StoredMembership {
    /// That entry; `None` before the group exists.
    pub id: Option<LogId>,
    /// The membership.
    pub membership: Membership,
}
