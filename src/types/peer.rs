//! Messages between our own processes, as they travel over rpc.
//!
//! A connection opens with [`Hello`] and [`Welcome`]; then it is either a lane of calls
//! ([`Request`] → [`Reply`], many in flight) or one stream: a leader's append messages to one
//! follower, or one snapshot. Variants are only ever added at the end; a change that an older
//! peer can't read raises [`PROTOCOL_VERSION`], which both sides must share.

use serde::{Deserialize, Serialize};

use crate::types::bounded::bounded;
use crate::types::clock::TimestampMs;
use crate::types::command::{Action, Outcome};
use crate::types::error::Error;
use crate::types::http::ShardStatus;
use crate::types::ids::{GroupId, Index, LogId, NodeId, StateHash, Vote};
use crate::types::kv::{KvReply, KvRequest};
use crate::types::limits::{APPEND_ENTRIES_MAX, CHECKPOINTS_MAX, MEMBERS_MAX, NODES_MAX};
use crate::types::log::{Entry, StoredMembership};
use crate::types::scan::{Part, Scan};
use crate::types::topology::{Claim, Member};
use crate::types::watch::{Ask, Told};

/// The version of everything in this module.
pub const PROTOCOL_VERSION: u16 = 8;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Lane {
    /// Many [`Request`]s in flight, each with its [`Reply`].
    Calls,
    /// A stream of [`Append`] one way and [`AppendReply`] the other, in order.
    Append,
    /// One [`SnapshotHeader`], then the file in chunks, then one [`SnapshotReply`].
    Snapshot,
}

/// The first frame of a connection, from the side that opened it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Must be [`PROTOCOL_VERSION`].
    pub version: u16,
    /// What the connection is for.
    pub lane: Lane,
    /// Who opens it; `None` for a coordinator.
    pub from: Option<NodeId>,
    /// Whom it means to reach: another node answers with a refusal, never as if it were meant.
    pub to: Option<NodeId>,
    /// The group whose messages follow; a member of another group refuses.
    pub group: Option<GroupId>,
}

/// The answer to [`Hello`]; a refusal is a sentence.
pub type Welcome = Result<(), String>;

/// A call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Who are you? Answered in every state.
    Identify,
    /// Be a member of this group, which is about to form. Only a fresh replica accepts.
    Adopt {
        /// The group's identity.
        group: GroupId,
    },
    /// Take me in: a replica with a new identity that replaces the member with its URL, or a
    /// member with a new URL. Only the leader accepts.
    Join(Member),
    /// A client's request, to be served by this replica itself.
    Kv {
        /// The request.
        request: KvRequest,
        /// The time that is left for it.
        timeout_ms: u32,
    },
    /// A change of the group's place in a ring, or a new session. Only the leader accepts.
    Propose {
        /// The change.
        action: Action,
        /// The time that is left for it.
        timeout_ms: u32,
    },
    /// A replica's state for people.
    Status,
    /// Raft's request for a vote.
    Vote(VoteRequest),
    /// Raft's question whether a vote would be given.
    PreVote(VoteRequest),
    /// Raft's entries or heartbeat, when not on a lane of their own.
    Append(Append),
    /// The leader asks a follower to stand for election at once (Raft thesis §3.10).
    TransferLeader(TransferLeader),
    /// These are my checkpoints; what are yours? Only peers ask.
    Compare(Checkpoints),
    /// Up to where must a state be applied that is not older than this question (Raft thesis §6.4)? Only
    /// the leader knows.
    ReadIndex {
        /// The time that is left for it.
        timeout_ms: u32,
    },
    /// A client's question about a span of keys, to be answered by this replica itself.
    Scan {
        /// The question.
        scan: Scan,
        /// The time that is left for it.
        timeout_ms: u32,
    },
    /// What has changed, for watchers of this group? Whatever a replica has applied it may tell; that
    /// there is no more only the leader may say.
    Watch {
        /// The question.
        ask: Ask,
        /// The time that is left for it.
        timeout_ms: u32,
    },
}

/// The answer to a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Identify`.
    Identity(Box<Identity>),
    /// To `Adopt` and `Join`; a refusal is a sentence.
    Accepted(Result<(), String>),
    /// To `Kv`.
    Kv(Result<KvReply, Error>),
    /// To `Propose`.
    Proposed(Result<Outcome, Error>),
    /// To `Status`.
    Status(Box<ShardStatus>),
    /// To `Vote` and `PreVote`.
    Vote(VoteReply),
    /// To `Append`.
    Append(AppendReply),
    /// To `TransferLeader`; a refusal is a sentence.
    TransferLeader(Result<(), String>),
    /// The replica can't take Raft messages now (it is forming or stopping).
    NotReady(String),
    /// To `Compare`.
    Compared(Checkpoints),
    /// To `ReadIndex`.
    ReadIndex(Result<Index, Error>),
    /// To `Scan`.
    Scanned(Result<Part, Error>),
    /// To `Watch`.
    Watched(Result<Told, Error>),
}

/// Who a replica is.
#[expect(clippy::struct_excessive_bools, reason = "two independent facts, each with its name")]
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Itself.
    pub member: Member,
    /// The group it belongs to or was adopted by.
    pub group: Option<GroupId>,
    /// The group's name if it has formed, else the `--id` this replica was given, if any.
    pub name: Option<String>,
    /// Whether its log and state are empty and it has never voted.
    pub fresh: bool,
    /// While forming: the advertised URLs of itself and of every `--replicas` peer, sorted; empty
    /// until all of them have answered.
    #[serde(deserialize_with = "bounded::<_, _, MEMBERS_MAX>")]
    pub seeds: Vec<String>,
    /// The members of its group as it knows them.
    #[serde(deserialize_with = "bounded::<_, _, NODES_MAX>")]
    pub members: Vec<Member>,
    /// The leader it knows.
    pub leader: Option<Member>,
    /// The ring its group is part of.
    pub claim: Option<Claim>,
    /// Whether that claim is final.
    pub confirmed: bool,
}

/// Raft's request for a vote, or for the promise of one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VoteRequest {
    /// The vote asked for.
    pub vote: Vote,
    /// The candidate's last entry.
    pub last: Option<LogId>,
    /// Whether the old leader asked for this election.
    pub leadership_transfer: bool,
}

/// The answer to a request for a vote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VoteReply {
    /// The vote of the replica that answers.
    pub vote: Vote,
    /// Whether it grants.
    pub granted: bool,
    /// Its last entry.
    pub last: Option<LogId>,
}

/// Entries from a leader; none for a heartbeat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Append {
    /// The leader's vote.
    pub vote: Vote,
    /// The entry before the first of these.
    pub prev: Option<LogId>,
    /// The entries, in order.
    #[serde(deserialize_with = "bounded::<_, _, APPEND_ENTRIES_MAX>")]
    pub entries: Vec<Entry>,
    /// The last entry the leader knows to be committed.
    pub committed: Option<LogId>,
    /// The leader's clock at a moment when a quorum followed it: with everything up to
    /// `committed`, a state is at least as new as this. What a follower's lag is measured from;
    /// `None` before such a moment is known.
    pub as_of: Option<TimestampMs>,
    /// How long a lease the leader asks for, in milliseconds, if it does.
    pub lease_ms: Option<u32>,
}

/// The answer to [`Append`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AppendReply {
    /// All entries are on disk.
    Success {
        /// Whether the lease that was asked for is granted.
        lease: bool,
    },
    /// Entries up to this one are on disk.
    Partial {
        /// The last of them.
        upto: Option<LogId>,
        /// Whether the lease that was asked for is granted.
        lease: bool,
    },
    /// The entry before the first is not there.
    Conflict,
    /// There is a newer leader or candidate.
    HigherVote(Vote),
}

/// Raft's leadership transfer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransferLeader {
    /// The leader that hands over.
    pub from: Vote,
    /// Who shall stand.
    pub to: NodeId,
    /// The last entry that it must have.
    pub last: Option<LogId>,
}

/// The first frame of a snapshot stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The leader's vote.
    pub vote: Vote,
    /// The last entry in the snapshot.
    pub last: Option<LogId>,
    /// The membership as of that entry.
    pub membership: StoredMembership,
    /// The length of the file that follows, in bytes.
    pub bytes: u64,
}

/// The last frame of a snapshot stream, from its receiver: its vote, or why it could not.
pub type SnapshotReply = Result<Vote, String>;

/// What a replica's state came to after one entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The entry.
    pub id: LogId,
    /// The hash of the state.
    pub hash: StateHash,
}

/// The newest checkpoints of a replica.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Checkpoints {
    /// How they are hashed: those of another version say nothing.
    pub digest: u32,
    /// By rising index.
    #[serde(deserialize_with = "bounded::<_, _, CHECKPOINTS_MAX>")]
    pub taken: Vec<Checkpoint>,
}
