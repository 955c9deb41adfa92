//! Reads: how each consistency level makes sure of what it promises, then a look-up in the
//! published map. Reads never go through the log.
//!
//! A linearizable read is confirmed by a `ReadIndex` round (Raft thesis §6.4); openraft serves all
//! reads that arrive while one round runs by the next. A lease read skips the round while a majority
//! has granted the leader a lease (`raft::lease`), and is like a linearizable one otherwise: the
//! first, whose round asks for the lease, and those of a leader that is about to lose it. A stale
//! read asks nobody and says how old it may be.

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};

use crate::planted::{self, Bug};
use crate::raft::config::TypeConfig;
use crate::raft::replica::Replica;
use crate::raft::wire;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::key::Key;
use crate::types::kv::{Consistency, GroupIndex, Read};

impl Replica {
    /// Reads one key of this group. Errors mean nothing about other replicas.
    pub(in crate::raft) async fn read(
        &self,
        key: &Key,
        consistency: Consistency,
        deadline: Deadline,
    ) -> Result<Read, Error> {
        match consistency {
            Consistency::Linearizable if planted::bug(Bug::SkipReadIndex) && self.leads() => {}
            Consistency::Lease if planted::bug(Bug::StaleLease) && self.leads() => {}
            Consistency::Linearizable => self.confirm(ReadPolicy::ReadIndex, deadline).await?,
            Consistency::Lease => self.confirm_by_lease(deadline).await?,
            Consistency::Stale => {}
        }
        // The age is taken before the state, so that it never flatters it.
        let lag_ms = (consistency == Consistency::Stale).then(|| self.lag_ms()).flatten();
        let state = self.published().load();
        let item =
            state.read(key).map_err(|wrong| Error::WrongShard { epoch: wrong.epoch })?.cloned();
        let Some((_, group)) = &state.group else {
            return Err(Error::unavailable("the group has not formed yet"));
        };
        let index = state.applied.map_or(0, |id| id.index);
        self.trusted()?;
        Ok(Read { at: GroupIndex { group: Arc::clone(group), index }, item, lag_ms })
    }

    /// How old the state of this replica may be, in milliseconds.
    pub(in crate::raft) fn lag_ms(&self) -> Option<u64> {
        if self.leads() {
            if self.voters().len() == 1 {
                return Some(0); // It is its own quorum.
            }
            let applied = self.published().load().applied.map(|id| id.index);
            let as_of = self.as_of().of_leader(applied)?;
            return Some(self.clock().now_ms().saturating_sub(as_of));
        }
        self.freshness().lag_ms()
    }

    /// As [`Replica::confirm`], without a round if a majority has granted a lease: while that
    /// holds nobody else can be elected, so nobody else has acknowledged anything.
    async fn confirm_by_lease(&self, deadline: Deadline) -> Result<(), Error> {
        self.lease().want();
        // openraft's own check sees that this replica still leads and is not handing over; then
        // its followers may elect at once. It has no lease to offer while it waits for its quorum.
        let by_lease =
            self.holds_lease() && self.confirm(ReadPolicy::LeaseRead, deadline).await.is_ok();
        if by_lease { Ok(()) } else { self.confirm(ReadPolicy::ReadIndex, deadline).await }
    }

    fn holds_lease(&self) -> bool {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let vote = wire::vote(&metrics.vote);
        let leads = vote.committed && vote.node == self.member().node;
        leads && self.lease().valid(&vote, metrics.membership_config.get_joint_config())
    }

    /// Returns once the published state holds everything that was committed when this was called.
    pub(in crate::raft) async fn confirm(
        &self,
        policy: ReadPolicy,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let late = || Error::unavailable("no quorum confirmed the leader in time");
        let confirmed = async {
            let linearizer = self
                .raft()
                .get_read_linearizer(policy)
                .await
                .map_err(|error| self.refused(error))?;
            linearizer.await_ready(self.raft()).await.map_err(|error| self.stopped(&error))
        };
        let confirmed = tokio::time::timeout_at(deadline.instant().into(), confirmed).await;
        confirmed.map_err(|_| late())?.map(|_| ())
    }

    fn refused(&self, error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> Error {
        match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                self.not_leader(&forward)
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
                Error::unavailable("no quorum of the group answers")
            }
            RaftError::Fatal(fatal) => self.stopped(&fatal),
        }
    }
}
