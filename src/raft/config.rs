//! The types that openraft is told to use, and the settings it runs with.
//!
//! Log ids carry the leader beside the term (openraft's `leader_id_adv`): two survivors that stand
//! for election at the same instant don't split the vote, the greater node id wins the term.

use std::sync::Arc;
use std::time::Duration;

use openraft::impls::leader_id_adv::LeaderId;
use openraft::impls::{BasicNode, BoxedErrorSource, Entry, EntryPayload, InlineBatch, Vote};
use openraft::vote::RaftLeaderId;
use openraft::{Config, ConfigError, OptionalSend, RaftTypeConfig, SnapshotPolicy};

use crate::raft::state_machine::StateMachine;
use crate::raft::writes::Answer;
use crate::types::command::{Command, Outcome};
use crate::types::ids::NodeId;
use crate::types::limits::{APPEND_ENTRIES_MAX, REQUESTS_IN_FLIGHT_MAX};

/// What openraft calls its type configuration. Its defaults but for our own types; its macro can't
/// take a [`Responder`].
///
/// [`Responder`]: RaftTypeConfig::Responder
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(in crate::raft) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Outcome;
    type NodeId = NodeId;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = LeaderId<u64, NodeId>;
    type Vote = Vote<Self::LeaderId>;
    type Payload = EntryPayload<Command, NodeId, BasicNode>;
    type Entry = Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    #[cfg(not(any(test, feature = "simulation")))]
    type AsyncRuntime = openraft::impls::TokioRuntime;
    #[cfg(any(test, feature = "simulation"))]
    type AsyncRuntime = crate::raft::runtime::Deterministic;
    type Responder<T>
        = Answer<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(in crate::raft) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(in crate::raft) type LogIdOf = openraft::alias::LogIdOf<TypeConfig>;
pub(in crate::raft) type VoteOf = openraft::alias::VoteOf<TypeConfig>;
pub(in crate::raft) type EntryOf = openraft::alias::EntryOf<TypeConfig>;
pub(in crate::raft) type MembershipOf = openraft::Membership<NodeId, BasicNode>;
pub(in crate::raft) type StoredMembershipOf = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(in crate::raft) type SnapshotMetaOf = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// The times and sizes that decide how one group behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// How often a leader lets its followers know that it is there.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower stands for election.
    pub election_timeout_min: Duration,
    /// The longest; also the length of a leader's lease.
    pub election_timeout_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(500),
            election_timeout_max: Duration::from_secs(1),
        }
    }
}

/// openraft's settings for these times. `keep_log_entries` are kept behind each snapshot for
/// followers that are a little behind. Without `elect` it does not stand for election until it is told.
pub(in crate::raft) fn config(
    timing: Timing,
    keep_log_entries: u64,
    elect: bool,
) -> Result<Arc<Config>, ConfigError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election_timeout_max = ms(timing.election_timeout_max);
    let config = Config {
        cluster_name: "sage".into(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_timeout_min),
        election_timeout_max,
        enable_pre_vote: Some(true),
        enable_elect: elect,
        quorum_loss_probe_interval: Some((3 * election_timeout_max).max(3000)),
        // A restarted leader without its last commit position would serve an old state.
        enable_leader_restore: Some(false),
        max_payload_entries: APPEND_ENTRIES_MAX as u64,
        // `raft::compaction` decides by bytes of log.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: keep_log_entries,
        replication_lag_threshold: keep_log_entries.max(1),
        purge_batch_size: 1000.min(keep_log_entries.max(1)),
        // For sending the whole of a snapshot; the network ends it sooner when nothing moves.
        install_snapshot_timeout: 10 * 60 * 1000,
        api_channel_size: Some(REQUESTS_IN_FLIGHT_MAX as u64),
        backoff: "20ms 50ms 100ms ...1s".into(),
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}
