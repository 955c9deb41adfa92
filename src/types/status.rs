//! What processes say of themselves, as JSON: bodies of `/status` and `/cluster`.
//!
//! [`ShardStatus`] also travels over rpc in the binary encoding, so none of its fields may be
//! left out when empty.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::types::bounded::bounded;
use crate::types::ids::{ClusterId, GroupId, Index, LogId, NodeId, StateHash, Term};
use crate::types::limits::NODES_MAX;
use crate::types::topology::Epoch;

/// What a coordinator knows of its ring, at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingStatus {
    /// Its epoch.
    pub epoch: Epoch,
    /// How many groups it has.
    pub groups: u64,
    /// Of how many of them no leader is known.
    pub leaderless: u64,
}

/// What a replica is in its group just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Leads the group.
    Leader,
    /// Votes and follows.
    Follower,
    /// Votes, and stands for election.
    Candidate,
    /// Listens only: on its way in or out.
    Learner,
    /// Waits for its group to form, or to be taken in.
    Forming,
}

/// One member of a group, as the asked replica sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MemberStatus {
    /// Its identity.
    pub node: NodeId,
    /// Its URL.
    pub url: String,
    /// Whether it votes.
    pub voter: bool,
    /// The last entry it is known to have on disk; only a leader knows.
    pub matched: Option<Index>,
}

/// Body of `GET /status` and `GET /stats` of a replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShardStatus {
    /// The identity of its data directory.
    pub node: NodeId,
    /// Its advertised URL.
    pub url: String,
    /// Its group's identity, once it has one.
    pub group: Option<GroupId>,
    /// Its group's name, once it has one.
    pub name: Option<String>,
    /// What it is just now.
    pub role: Role,
    /// The term it is in.
    pub term: Term,
    /// The leader it follows or is.
    pub leader: Option<NodeId>,
    /// The leader's URL.
    pub leader_url: Option<String>,
    /// The last entry in its log.
    pub last_index: Option<Index>,
    /// The last entry it knows to be committed.
    pub committed: Option<Index>,
    /// The last entry in its state.
    pub applied: Option<LogId>,
    /// The hash of that state: replicas of a group that have applied the same entry show the same.
    pub hash: StateHash,
    /// The newest index at which a majority of the voters, this replica among them, is known to have
    /// had the same state.
    pub compared: Option<Index>,
    /// The newest index at which the state of another member is known to have differed from this
    /// replica's; `None` once those that can be compared agree.
    pub differs: Option<Index>,
    /// How old its state may be, in milliseconds; of a leader, how long ago a quorum followed it.
    pub lag_ms: Option<u64>,
    /// The group's members.
    #[serde(deserialize_with = "bounded::<_, _, NODES_MAX>")]
    pub members: Vec<MemberStatus>,
    /// Voters that must have a write on disk before it is answered.
    pub quorum: u32,
    /// Keys in its state.
    pub keys: u64,
    /// Bytes of keys and values in its state.
    pub bytes: u64,
    /// What these keys count for in memory, in bytes.
    pub memory: u64,
    /// The most that they may, in bytes; `None` without a bound.
    pub max_memory: Option<u64>,
    /// Whether its disk is nearly full: as a leader it refuses puts.
    pub disk_full: bool,
    /// The ring that claimed the group.
    pub cluster: Option<ClusterId>,
    /// The epoch of that claim, 0 without one.
    pub epoch: Epoch,
    /// Bytes of WAL on disk.
    pub wal_bytes: u64,
    /// Bytes of its newest snapshot, 0 without one.
    pub snapshot_bytes: u64,
    /// The last entry in its newest snapshot.
    pub snapshot_index: Option<Index>,
    /// The last entry purged from its log.
    pub purged: Option<Index>,
}

/// One group in the body of `GET /cluster`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct GroupBody {
    /// Its identity.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// Its share of the ring, 0 to 1, to six places.
    pub share: f64,
    /// Its leader's URL, if one is known.
    pub leader: Option<String>,
    /// URLs of its members.
    pub members: Vec<String>,
    /// What each member that answered says of itself.
    pub replicas: Vec<ShardStatus>,
    /// Members that did not answer, and why.
    pub unreachable: Vec<Unreachable>,
}

/// A member that did not answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Unreachable {
    /// Its URL.
    pub url: String,
    /// Why.
    pub reason: String,
}

/// Body of `GET /cluster`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClusterBody {
    /// The ring's identity.
    pub cluster: ClusterId,
    /// The topology's epoch.
    pub epoch: Epoch,
    /// Tokens of each group.
    pub vnodes: u32,
    /// The groups by name; the first is the home group.
    pub groups: Vec<GroupBody>,
}
