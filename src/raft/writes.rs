//! Writes: one command through the log, and what its failure means.
//!
//! openraft refuses a command before it appends it (`ForwardToLeader`): certainly not applied.
//! Everything that goes wrong later leaves the fate open, even when this replica has truncated
//! the entry: another may hold it and still win an election.

use std::sync::Arc;

use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader, RaftError};

use crate::planted::{self, Bug};
use crate::raft::config::TypeConfig;
use crate::raft::replica::Replica;
use crate::types::command::{Action, Command, Outcome};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::Index;
use crate::types::kv::{GroupIndex, Written};

/// What came of a command, and where it stands.
pub(in crate::raft) struct Applied {
    pub(in crate::raft) index: Index,
    pub(in crate::raft) ts: u64,
    pub(in crate::raft) outcome: Outcome,
}

impl Replica {
    /// Takes one command through the log, until it is applied here.
    pub(in crate::raft) async fn propose(
        &self,
        action: Action,
        deadline: Deadline,
    ) -> Result<Applied, Error> {
        let ts = self.clock().now_ms();
        let early = planted::bug(Bug::AckMinority);
        let deadline = if early { deadline.at_most(planted::PATIENCE) } else { deadline };
        let write = self.raft().client_write(Command { ts, action });
        match tokio::time::timeout_at(deadline.instant().into(), write).await {
            Ok(Ok(response)) => {
                Ok(Applied { index: response.log_id.index, ts, outcome: response.data })
            }
            Ok(Err(error)) => Err(self.write_failed(error)),
            Err(_) if early => Ok(self.as_if_applied(ts)),
            Err(_) => Err(Error::outcome_unknown("no quorum acknowledged it in time")),
        }
    }

    /// For [`Bug::AckMinority`]: what a write would come to.
    fn as_if_applied(&self, ts: u64) -> Applied {
        let state = self.published().load();
        let outcome = Outcome::Written { version: state.version_floor + 1, existed: false };
        Applied { index: state.next_index(), ts, outcome }
    }

    /// Writes one key; acknowledged by `max(majority, --quorum)` voters when it returns.
    pub(in crate::raft) async fn write(
        &self,
        action: Action,
        deadline: Deadline,
    ) -> Result<Written, Error> {
        let applied = self.propose(action, deadline).await?;
        let (version, existed) = match applied.outcome {
            Outcome::Written { version, existed } => (version, existed),
            Outcome::WrongShard { epoch } => return Err(Error::WrongShard { epoch }),
            Outcome::Mismatch { version } => return Err(Error::VersionMismatch { version }),
            // Not answers to a put or delete; the entry is applied, so nothing may be promised.
            Outcome::Done | Outcome::Refused(_) => {
                return Err(Error::outcome_unknown("the state machine gave another answer"));
            }
        };
        let acks = self.acknowledged(applied.index, deadline).await?;
        let state = self.published().load();
        let Some((_, group)) = &state.group else {
            return Err(Error::outcome_unknown("the group has no name"));
        };
        Ok(Written {
            at: GroupIndex { group: Arc::clone(group), index: applied.index },
            ts: applied.ts,
            version,
            existed,
            acks,
            quorum: self.quorum(),
        })
    }

    fn write_failed(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Error {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                self.not_leader(&forward)
            }
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                Error::outcome_unknown("the leader changed while it was replicated")
            }
            // Neither is possible for a plain command; nothing is promised then.
            RaftError::APIError(
                ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => Error::outcome_unknown("the group gave another answer"),
            RaftError::Fatal(_) => Error::outcome_unknown("the replica stopped meanwhile"),
        }
    }

    /// Who leads instead, as far as openraft knows.
    pub(in crate::raft) fn not_leader(&self, forward: &ForwardToLeader<TypeConfig>) -> Error {
        // Not one that has been silent for long; and a replica that is told to forward to itself
        // leads, but has not heard from a quorum yet.
        let leader = self.leader().filter(|leader| {
            Some(leader.node) == forward.leader_id && leader.node != self.member().node
        });
        Error::NotLeader { leader }
    }

    #[expect(clippy::unused_self, reason = "reads like its siblings")]
    pub(in crate::raft) fn stopped(&self, fatal: &Fatal<TypeConfig>) -> Error {
        Error::unavailable(format!("the replica has stopped: {fatal}"))
    }
}
