//! Which groups make up the ring, and which pieces of it each group owns.
//!
//! The topology is replicated in the first group by name, the *home group*, and a copy of it lies
//! in the claim of every other group. Its epoch rises with every change; a copy with a greater
//! epoch replaces one with a smaller.

use serde::{Deserialize, Serialize};

use crate::types::bounded::bounded;
use crate::types::hash::{HashRange, Token};
use crate::types::ids::{ClusterId, GroupId, NodeId};
use crate::types::limits::{GROUPS_MAX, MEMBERS_MAX, RANGES_MAX};

/// A version of the topology; the first is 1. A group that nobody has claimed is at epoch 0.
pub type Epoch = u64;

/// One replica of a group, as others reach it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The identity of its data directory.
    pub node: NodeId,
    /// Its advertised URL, `http://host:port`.
    pub url: String,
}

/// One group of the ring.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Its identity.
    pub id: GroupId,
    /// Its name: what its tokens are made from.
    pub name: String,
    /// URLs of members when the topology was written: where to ask first, nothing more.
    #[serde(deserialize_with = "bounded::<_, _, MEMBERS_MAX>")]
    pub urls: Vec<String>,
}

/// The ring's groups at one epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Topology {
    /// The ring's identity.
    pub cluster: ClusterId,
    /// Rises with every change.
    pub epoch: Epoch,
    /// Tokens of each group.
    pub vnodes: u32,
    /// By name; the first is the home group. Names and ids are unique.
    #[serde(deserialize_with = "bounded::<_, _, GROUPS_MAX>")]
    pub groups: Vec<Group>,
}

impl Topology {
    /// The group that holds the authoritative copy.
    pub fn home(&self) -> Option<&Group> {
        self.groups.first()
    }
}

/// What makes a group part of a ring: the topology, and the pieces that are this group's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The topology that the claim follows from.
    pub topology: Topology,
    /// The ranges that this group owns, by their upper end; they don't overlap.
    #[serde(deserialize_with = "bounded::<_, _, RANGES_MAX>")]
    pub owned: Vec<HashRange>,
}

impl Claim {
    /// Whether the group owns `token`. Takes O(log n) for n ranges.
    pub fn owns(&self, token: Token) -> bool {
        // The first range that ends at or after the token, or the first of all after wrapping.
        let at = self.owned.partition_point(|range| range.upto < token);
        let range = self.owned.get(at).or_else(|| self.owned.first());
        range.is_some_and(|range| range.contains(token))
    }
}
