//! Reads: how each consistency level makes sure of what it promises, then a look-up in the
//! published map. Reads never go through the log.
//!
//! A linearizable read is confirmed by a `ReadIndex` round (Raft thesis §6.4), which it shares with all
//! that wait for one (`raft::rounds`). A lease read skips the round while a majority
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
use crate::store::state::State;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::Index;
use crate::types::key::Key;
use crate::types::kv::{Consistency, GroupIndex, Read};
use crate::types::limits::MIN_INDEX_PATIENCE;

impl Replica {
    /// Reads one key of this group, once the positions `at_least` are reached. Errors mean nothing about
    /// other replicas.
    pub(in crate::raft) async fn read(
        &self,
        key: &Key,
        consistency: Consistency,
        at_least: &[GroupIndex],
        deadline: Deadline,
    ) -> Result<Read, Error> {
        self.make_fresh(consistency, deadline).await?;
        match consistency {
            Consistency::Linearizable | Consistency::Lease => self.check_at_least(at_least)?,
            Consistency::Stale => {
                let patience = deadline.at_most(MIN_INDEX_PATIENCE.min(deadline.left() / 2));
                if let Some(index) = self.missing(at_least) {
                    self.until_applied(index, patience).await?;
                }
            }
        }
        self.look_up(key, consistency)
    }

    /// Makes sure that the published state is as fresh as that; for a stale read returns how old it may
    /// be, in milliseconds, if that is known.
    pub(in crate::raft) async fn prepare(
        &self,
        consistency: Consistency,
        deadline: Deadline,
    ) -> Result<Option<u64>, Error> {
        self.make_fresh(consistency, deadline).await?;
        // The age is taken before the state, so that it never flatters it.
        Ok((consistency == Consistency::Stale).then(|| self.lag_ms()).flatten())
    }

    async fn make_fresh(&self, consistency: Consistency, deadline: Deadline) -> Result<(), Error> {
        match consistency {
            Consistency::Linearizable if planted::bug(Bug::SkipReadIndex) && self.leads() => Ok(()),
            Consistency::Lease if planted::bug(Bug::StaleLease) && self.leads() => Ok(()),
            Consistency::Linearizable => self.confirm_in_a_round(deadline).await,
            Consistency::Lease => self.confirm_by_lease(deadline).await,
            Consistency::Stale => Ok(()),
        }
    }

    /// As a linearizable read, on a follower: what the leader had applied at some moment after the
    /// request came must be applied here too, and then it is all here that the leader would have read.
    pub async fn read_at(
        &self,
        key: &Key,
        index: Index,
        at_least: &[GroupIndex],
        deadline: Deadline,
    ) -> Result<Read, Error> {
        self.until_applied(index, deadline).await?;
        self.check_at_least(at_least)?;
        self.look_up(key, Consistency::Linearizable)
    }

    /// Up to where a state must be applied that is not older than this call; only the leader knows.
    pub(in crate::raft) async fn read_index(&self, deadline: Deadline) -> Result<Index, Error> {
        self.formed()?;
        self.confirm_in_a_round(deadline).await?;
        let index = self.published().applied_index().unwrap_or(0);
        self.trusted()?;
        Ok(index)
    }

    /// The greatest of the positions of this group that is not applied here yet.
    fn missing(&self, at_least: &[GroupIndex]) -> Option<Index> {
        let next = self.published().next_index();
        let ours = self.published().name();
        let ours = at_least.iter().filter(|at| Some(&at.group) == ours).map(|at| at.index);
        ours.max().filter(|index| *index >= next)
    }

    /// What a state that was just confirmed has not reached was never shown to anybody.
    fn check_at_least(&self, at_least: &[GroupIndex]) -> Result<(), Error> {
        match self.missing(at_least) {
            Some(index) => Err(Error::unavailable(format!("the group has no entry {index} yet"))),
            None => Ok(()),
        }
    }

    /// Waits until entry `index` is applied here.
    pub(in crate::raft) async fn until_applied(
        &self,
        index: Index,
        deadline: Deadline,
    ) -> Result<(), Error> {
        if self.published().next_index() > index {
            return Ok(());
        }
        let waiting = self.raft().wait(Some(deadline.left()));
        let applied =
            Box::pin(waiting.applied_index_at_least(Some(index), "a read needs it")).await;
        // It is published before it is announced.
        applied.map(|_| ()).map_err(|_| {
            Error::unavailable(format!("this replica has not applied entry {index} in time"))
        })
    }

    fn look_up(&self, key: &Key, consistency: Consistency) -> Result<Read, Error> {
        // The age is taken before the state, so that it never flatters it.
        let lag_ms = (consistency == Consistency::Stale).then(|| self.lag_ms()).flatten();
        let (item, at) = self.published().read(|state| {
            let item = state.read(key).map_err(|wrong| Error::WrongShard { epoch: wrong.epoch })?;
            Ok::<_, Error>((item.cloned(), position(state)?))
        })?;
        self.trusted()?;
        Ok(Read { at, item, lag_ms })
    }

    /// How old the state of this replica may be, in milliseconds.
    pub(in crate::raft) fn lag_ms(&self) -> Option<u64> {
        if self.leads() {
            if self.voters().len() == 1 {
                return Some(0); // It is its own quorum.
            }
            let applied = self.published().applied_index();
            let as_of = self.as_of().of_leader(applied)?;
            return Some(self.clock().now_ms().saturating_sub(as_of));
        }
        self.freshness().lag_ms()
    }

    /// As [`Replica::confirm_in_a_round`], without a round if a majority has granted a lease: while that
    /// holds nobody else can be elected, so nobody else has acknowledged anything.
    async fn confirm_by_lease(&self, deadline: Deadline) -> Result<(), Error> {
        self.lease().want();
        // openraft's own check sees that this replica still leads and is not handing over; then
        // its followers may elect at once. It has no lease to offer while it waits for its quorum.
        if self.holds_lease() {
            // Boxed, as it is large, and every write would carry room for it.
            let by_lease = Box::pin(self.confirm_by(ReadPolicy::LeaseRead, deadline));
            if by_lease.await.is_ok() {
                return Ok(());
            }
        }
        self.confirm_in_a_round(deadline).await
    }

    fn holds_lease(&self) -> bool {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let vote = wire::vote(&metrics.vote);
        let leads = vote.committed && vote.node == self.member().node;
        leads && self.lease().valid(&vote, metrics.membership_config.get_joint_config())
    }

    /// As [`Replica::confirm_in_a_round`], by the lease.
    async fn confirm_by(&self, policy: ReadPolicy, deadline: Deadline) -> Result<(), Error> {
        let index = self.read_log_index(policy, deadline).await?;
        self.until_applied(index, deadline).await
    }

    /// Up to where a state must be applied that is not older than this call, if this replica leads.
    pub(in crate::raft) async fn read_log_index(
        &self,
        policy: ReadPolicy,
        deadline: Deadline,
    ) -> Result<Index, Error> {
        let late = || Error::unavailable("no quorum confirmed the leader in time");
        let confirmed = self.raft().get_read_log_id(policy);
        let confirmed = tokio::time::timeout_at(deadline.instant().into(), confirmed).await;
        let (id, _) = confirmed.map_err(|_| late())?.map_err(|error| self.refused(error))?;
        Ok(id.index())
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

/// Which state of the group that is, as clients see it.
pub(in crate::raft) fn position(state: &State) -> Result<GroupIndex, Error> {
    let Some((_, group)) = &state.group else {
        return Err(Error::unavailable("the group has not formed yet"));
    };
    let index = state.applied.map_or(0, |id| id.index);
    Ok(GroupIndex { group: Arc::clone(group), index })
}
