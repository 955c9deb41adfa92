//! Our structs and theirs: every conversion between `types` and openraft, and nothing else.
//!
//! Disk and wire use ours, because openraft's change shape between its alphas.

use std::collections::BTreeMap;

use openraft::impls::BasicNode;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, Membership as RaftMembership};

use crate::planted::{self, Bug};
use crate::raft::config::{
    EntryOf, LogIdOf, MembershipOf, SnapshotMetaOf, StoredMembershipOf, TypeConfig, VoteOf,
};
use crate::store::state::State;
use crate::types::clock::TimestampMs;
use crate::types::ids::{LogId, Vote};
use crate::types::log::{Entry, Membership, Payload, StoredMembership};
use crate::types::peer;

type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;

pub(in crate::raft) fn log_id(theirs: &LogIdOf) -> LogId {
    LogId { term: theirs.leader_id.term, leader: theirs.leader_id.node_id, index: theirs.index }
}

pub(in crate::raft) fn raft_log_id(ours: &LogId) -> LogIdOf {
    LogIdOf::new(LeaderId::new(ours.term, ours.leader), ours.index)
}

pub(in crate::raft) fn vote(theirs: &VoteOf) -> Vote {
    Vote {
        term: theirs.leader_id.term,
        node: theirs.leader_id.node_id,
        committed: theirs.committed,
    }
}

pub(in crate::raft) fn raft_vote(ours: &Vote) -> VoteOf {
    VoteOf { leader_id: LeaderId::new(ours.term, ours.node), committed: ours.committed }
}

pub(in crate::raft) fn membership(theirs: &MembershipOf) -> Membership {
    Membership {
        voters: theirs.get_joint_config().clone(),
        urls: theirs.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
    }
}

/// Fails on a membership that openraft would refuse: it comes from a peer or a disk.
pub(in crate::raft) fn raft_membership(ours: &Membership) -> std::io::Result<MembershipOf> {
    let nodes: BTreeMap<_, _> =
        ours.urls.iter().map(|(id, url)| (*id, BasicNode::new(url.clone()))).collect();
    if ours.voters.is_empty() && nodes.is_empty() {
        return Ok(MembershipOf::default());
    }
    RaftMembership::new(ours.voters.clone(), nodes)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))
}

pub(in crate::raft) fn raft_stored_membership(
    ours: &StoredMembership,
) -> std::io::Result<StoredMembershipOf> {
    let id = ours.id.as_ref().map(raft_log_id);
    Ok(StoredMembershipOf::new(id, raft_membership(&ours.membership)?))
}

pub(in crate::raft) fn entry(theirs: EntryOf) -> Entry {
    let payload = match theirs.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(command) => Payload::Command(command),
        EntryPayload::Membership(config) => Payload::Membership(membership(&config)),
    };
    Entry { id: log_id(&theirs.log_id), payload }
}

pub(in crate::raft) fn raft_entry(ours: Entry) -> std::io::Result<EntryOf> {
    let payload = match ours.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(command) => EntryPayload::Normal(command),
        Payload::Membership(config) => EntryPayload::Membership(raft_membership(&config)?),
    };
    Ok(EntryOf { log_id: raft_log_id(&ours.id), payload })
}

pub(in crate::raft) fn append(
    theirs: AppendEntriesRequest<TypeConfig>,
    as_of: Option<TimestampMs>,
    lease_ms: Option<u32>,
) -> peer::Append {
    peer::Append {
        vote: vote(&theirs.vote),
        prev: theirs.prev_log_id.as_ref().map(log_id),
        entries: theirs.entries.into_iter().map(entry).collect(),
        committed: theirs.leader_commit.as_ref().map(log_id),
        as_of,
        lease_ms,
    }
}

pub(in crate::raft) fn raft_append(
    ours: peer::Append,
) -> std::io::Result<AppendEntriesRequest<TypeConfig>> {
    Ok(AppendEntriesRequest {
        vote: raft_vote(&ours.vote),
        prev_log_id: ours.prev.as_ref().map(raft_log_id),
        entries: ours.entries.into_iter().map(raft_entry).collect::<Result<_, _>>()?,
        leader_commit: ours.committed.as_ref().map(raft_log_id),
    })
}

/// `lease` counts only with a success.
pub(in crate::raft) fn append_reply(
    theirs: &AppendEntriesResponse<TypeConfig>,
    lease: bool,
) -> peer::AppendReply {
    match theirs {
        AppendEntriesResponse::Success => peer::AppendReply::Success { lease },
        AppendEntriesResponse::PartialSuccess(upto) => {
            peer::AppendReply::Partial { upto: upto.as_ref().map(log_id), lease }
        }
        AppendEntriesResponse::Conflict => peer::AppendReply::Conflict,
        AppendEntriesResponse::HigherVote(_) if planted::bug(Bug::SkipTermCheck) => {
            peer::AppendReply::Success { lease: false }
        }
        AppendEntriesResponse::HigherVote(higher) => peer::AppendReply::HigherVote(vote(higher)),
    }
}

pub(in crate::raft) fn raft_append_reply(
    ours: &peer::AppendReply,
) -> AppendEntriesResponse<TypeConfig> {
    match ours {
        peer::AppendReply::Success { .. } => AppendEntriesResponse::Success,
        peer::AppendReply::Partial { upto, .. } => {
            AppendEntriesResponse::PartialSuccess(upto.as_ref().map(raft_log_id))
        }
        peer::AppendReply::Conflict => AppendEntriesResponse::Conflict,
        peer::AppendReply::HigherVote(higher) => {
            AppendEntriesResponse::HigherVote(raft_vote(higher))
        }
    }
}

pub(in crate::raft) fn vote_request(theirs: &VoteRequest<TypeConfig>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: vote(&theirs.vote),
        last: theirs.last_log_id.as_ref().map(log_id),
        leadership_transfer: theirs.leadership_transfer,
    }
}

pub(in crate::raft) fn raft_vote_request(ours: &peer::VoteRequest) -> VoteRequest<TypeConfig> {
    VoteRequest {
        vote: raft_vote(&ours.vote),
        last_log_id: ours.last.as_ref().map(raft_log_id),
        leadership_transfer: ours.leadership_transfer,
    }
}

pub(in crate::raft) fn vote_reply(theirs: &VoteResponse<TypeConfig>) -> peer::VoteReply {
    peer::VoteReply {
        vote: vote(&theirs.vote),
        granted: theirs.vote_granted,
        last: theirs.last_log_id.as_ref().map(log_id),
    }
}

pub(in crate::raft) fn raft_vote_reply(ours: &peer::VoteReply) -> VoteResponse<TypeConfig> {
    VoteResponse {
        vote: raft_vote(&ours.vote),
        vote_granted: ours.granted,
        last_log_id: ours.last.as_ref().map(raft_log_id),
    }
}

pub(in crate::raft) fn transfer(
    theirs: &TransferLeaderRequest<TypeConfig>,
) -> peer::TransferLeader {
    peer::TransferLeader {
        from: vote(theirs.from_leader()),
        to: *theirs.to_node_id(),
        last: theirs.last_log_id().map(log_id),
    }
}

pub(in crate::raft) fn raft_transfer(
    ours: &peer::TransferLeader,
) -> TransferLeaderRequest<TypeConfig> {
    let last = ours.last.as_ref().map(raft_log_id);
    TransferLeaderRequest::new(raft_vote(&ours.from), ours.to, last)
}

/// The metadata that openraft wants with a snapshot of this state.
pub(in crate::raft) fn snapshot_meta(
    last: Option<&LogId>,
    membership: &StoredMembership,
) -> std::io::Result<SnapshotMetaOf> {
    Ok(SnapshotMetaOf {
        last_log_id: last.map(raft_log_id),
        last_membership: raft_stored_membership(membership)?,
    })
}

/// The position and membership that openraft wants to know of a state.
pub(in crate::raft) fn applied_state(
    state: &State,
) -> std::io::Result<(Option<LogIdOf>, StoredMembershipOf)> {
    let applied = state.applied.as_ref().map(raft_log_id);
    Ok((applied, raft_stored_membership(&state.membership)?))
}
