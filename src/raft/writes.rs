//! Writes: one command through the log, and what its failure means.
//!
//! openraft refuses a command before it appends it (`ForwardToLeader`): certainly not applied.
//! Everything that goes wrong later leaves the fate open, even when this replica has truncated
//! the entry: another may hold it and still win an election.

use std::sync::Arc;

use openraft::OptionalSend;
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader};
use openraft::raft::responder::Responder;
use serde::Serialize;
use tokio::sync::mpsc::Permit;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::planted::{self, Bug};
use crate::raft::config::TypeConfig;
use crate::raft::memory::Room;
use crate::raft::proposals::Proposal;
use crate::raft::quorum::Acknowledged;
use crate::raft::reads::position;
use crate::raft::replica::Replica;
use crate::raft::siblings::UnderWay;
use crate::store::apply::txn::read;
use crate::types::command::{Action, Command, KeyWrite, Outcome, Write};
use crate::types::deadline::Deadline;
use crate::types::error::{Decline, Error};
use crate::types::ids::Index;
use crate::types::kv::{Consistency, GroupIndex, Written};
use crate::types::once::{self, Once};
use crate::types::txn::{Txn, TxnReply};

/// What came of a command, and where it stands.
pub(in crate::raft) struct Applied {
    pub(in crate::raft) index: Index,
    pub(in crate::raft) ts: u64,
    pub(in crate::raft) outcome: Outcome,
}

/// A client's write that took effect.
struct Done {
    at: GroupIndex,
    ts: u64,
    outcome: Outcome,
    acknowledged: Acknowledged,
}

/// Where openraft leaves what came of a command. It keeps this until the entry is applied or cut
/// from the log, or until it ends, whether somebody still waits for it or not.
pub(in crate::raft) struct Answer<T> {
    to: oneshot::Sender<T>,
    room: Option<Room>,
    under_way: Option<UnderWay>,
}

impl<T> Answer<T> {
    /// One that holds this room, and where it is heard.
    pub(in crate::raft) fn new(room: Option<Room>) -> (Self, oneshot::Receiver<T>) {
        let (to, heard) = oneshot::channel();
        (Self { to, room, under_way: None }, heard)
    }

    /// It is under way until it is answered, or never will be.
    pub(in crate::raft) fn count(&mut self, under_way: UnderWay) {
        self.under_way = Some(under_way);
    }

    /// Whether anybody still waits for it.
    pub(in crate::raft) fn is_awaited(&self) -> bool {
        !self.to.is_closed()
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Answer<T> {
    fn on_complete(self, result: T) {
        // First, so that whoever hears of his write can have its room.
        drop((self.room, self.under_way));
        // Whoever waited may have gone when his time was over.
        drop(self.to.send(result));
    }
}

/// What a client's write is in the log.
pub(in crate::raft) fn action(write: KeyWrite, once: Option<Once>) -> Action {
    let KeyWrite { key, condition, write } = write;
    match (once, condition, write) {
        (Some(once), condition, write) => {
            Action::Once { once, write: KeyWrite { key, condition, write } }
        }
        (None, Some(condition), write) => Action::Conditional { key, condition, write },
        (None, None, Write::Put { value }) => Action::Put { key, value },
        (None, None, Write::Delete) => Action::Delete { key },
        (None, None, write @ (Write::PutFor { .. } | Write::Touch { .. } | Write::Add { .. })) => {
            Action::Write(KeyWrite { key, condition: None, write })
        }
    }
}

impl Replica {
    /// Takes one command through the log, until it is applied here. Its room is given back when
    /// its fate is settled, not when `deadline` is over.
    pub(in crate::raft) async fn propose(
        &self,
        action: Action,
        room: Option<Room>,
        deadline: Deadline,
    ) -> Result<Applied, Error> {
        self.trusted()?;
        let ts = self.clock().now_ms();
        let early = planted::bug(Bug::AckMinority);
        let deadline = if early { deadline.at_most(planted::PATIENCE) } else { deadline };
        let until = deadline.instant().into();
        let place = match self.proposals().try_reserve() {
            Ok(place) => place,
            Err(_) => Box::pin(self.place_in_turn(until)).await?,
        };
        // From here on its fate may be unknown.
        let (answer, heard) = Answer::new(room);
        place.send((Command { ts, action }, answer));
        let write = async {
            let stopped = |_| Error::outcome_unknown("the replica stopped meanwhile");
            heard.await.map_err(stopped)?.map_err(|error| self.write_failed(error))
        };
        match tokio::time::timeout_at(until, write).await {
            // What a wrong state makes of a command says nothing about what the others make of it.
            Ok(Ok(_)) if self.is_condemned() => {
                Err(Error::outcome_unknown("the replica was condemned meanwhile"))
            }
            Ok(Ok(response)) => {
                Ok(Applied { index: response.log_id.index, ts, outcome: response.data })
            }
            Ok(Err(error)) => Err(error),
            Err(_) if early => Ok(self.as_if_applied(ts)),
            Err(_) => Err(Error::outcome_unknown("no quorum acknowledged it in time")),
        }
    }

    /// A place in the queue of writes, when there is none at once.
    async fn place_in_turn(&self, until: Instant) -> Result<Permit<'_, Proposal>, Error> {
        let place = tokio::time::timeout_at(until, self.proposals().reserve()).await;
        let full = |_| Error::Overloaded { queue: "the queue of writes".into() };
        place.map_err(full)?.map_err(|_| Error::unavailable("the replica is stopping"))
    }

    /// For [`Bug::AckMinority`]: what a write would come to.
    fn as_if_applied(&self, ts: u64) -> Applied {
        let (floor, index) =
            self.published().read(|state| (state.version_floor, state.next_index()));
        let outcome = Outcome::Written { version: floor + 1, existed: false };
        Applied { index, ts, outcome }
    }

    /// Writes one key; acknowledged by `max(majority, --quorum)` voters when it returns.
    pub(in crate::raft) async fn write(
        &self,
        action: Action,
        deadline: Deadline,
    ) -> Result<Written, Error> {
        let Done { at, ts, outcome, acknowledged: Acknowledged { acks, quorum } } =
            self.carry_out(action, deadline).await?;
        let (version, existed, expires, value) = match outcome {
            Outcome::Written { version, existed } => (version, existed, None, None),
            Outcome::Lasting { version, existed, expires } => (version, existed, expires, None),
            Outcome::Counted { value, version, existed, expires } => {
                (version, existed, expires, Some(value))
            }
            _ => return Err(odd_outcome()),
        };
        Ok(Written { at, ts, version, existed, expires, value, acks, quorum })
    }

    /// Carries out a transaction or batch, acknowledged likewise; one that only reads goes through no log.
    pub(in crate::raft) async fn transact(
        &self,
        txn: Txn,
        once: Option<Once>,
        deadline: Deadline,
    ) -> Result<TxnReply, Error> {
        if txn.only_reads() {
            self.prepare(Consistency::Linearizable, deadline).await?;
            let state = self.published().frozen();
            let (at, outcome) = (position(&state)?, read(&state, &txn).ok_or_else(odd_outcome)?);
            self.trusted()?;
            let Outcome::Txn(outcome) = accepted(outcome, &at)? else { return Err(odd_outcome()) };
            return Ok(TxnReply { at, ts: 0, outcome, acks: 0, quorum: 0 });
        }
        let done = self.carry_out(Action::Txn { once, txn }, deadline).await?;
        let Done { at, ts, outcome: Outcome::Txn(outcome), acknowledged } = done else {
            return Err(odd_outcome());
        };
        let Acknowledged { acks, quorum } = acknowledged;
        Ok(TxnReply { at, ts, outcome, acks, quorum })
    }

    /// Takes a client's write through the log, until it is acknowledged by as many voters as it must be.
    async fn carry_out(&self, action: Action, deadline: Deadline) -> Result<Done, Error> {
        // What is rare is boxed: each write would carry room for it.
        let applied = if let Some(outcome) = self.recalled(&action) {
            Box::pin(self.confirmed(outcome, deadline)).await?
        } else {
            let room = if self.has_bounds() {
                Box::pin(self.admit(&action, deadline)).await?
            } else {
                None
            };
            self.propose(action, room, deadline).await?
        };
        let (index, ts, outcome) = match applied.outcome {
            Outcome::Again(once::Answer { index, ts, result }) => (index, ts, result.into()),
            outcome => (applied.index, applied.ts, outcome),
        };
        let at = self.at(index)?;
        let outcome = accepted(outcome, &at)?;
        let acknowledged = self.acknowledged(index.max(applied.index), deadline).await?;
        if let Some(budget) = self.budget() {
            budget.note(self.published());
        }
        Ok(Done { at, ts, outcome, acknowledged })
    }

    /// The position of an entry that was applied, or of the state as it is if there was none.
    fn at(&self, index: Index) -> Result<GroupIndex, Error> {
        let name = self.published().name();
        let group = name.ok_or_else(|| Error::outcome_unknown("the group has not formed yet"))?;
        let newest = || self.published().applied_index().unwrap_or(0);
        let index = if index == 0 { newest() } else { index };
        Ok(GroupIndex { group: Arc::clone(group), index })
    }

    /// What a write with a name came to, if it was applied before: known without another entry, which would
    /// change nothing and be as long as the first.
    fn recalled(&self, action: &Action) -> Option<Outcome> {
        match action {
            Action::Once { once, write } => self.recall(once, write),
            Action::Txn { once: Some(once), txn } => self.recall(once, txn),
            _ => None,
        }
    }

    /// What is recalled, once it is certain that it holds.
    async fn confirmed(&self, outcome: Outcome, deadline: Deadline) -> Result<Applied, Error> {
        // As a read: only the leader may say it, of a state that is committed. If that can't be had, it has
        // taken effect all the same.
        let confirmed = self.prepare(Consistency::Linearizable, deadline).await;
        confirmed.map_err(|error| match error {
            Error::Unavailable { .. } | Error::NotLeader { leader: None } => {
                Error::outcome_unknown(format!("it was taken before, and now: {error}"))
            }
            error => error,
        })?;
        self.trusted()?;
        Ok(Applied { index: 0, ts: 0, outcome })
    }

    fn recall(&self, once: &Once, write: &impl Serialize) -> Option<Outcome> {
        match once {
            Once::Session(_) => self.published().read(|state| state.answers.recall(once, write)),
            // All of the write is hashed: not while others wait for the state.
            Once::Key(_) => {
                self.published().read(|state| state.answers.clone()).recall(once, write)
            }
        }
    }

    /// Has `action` remove keys of a span, if this replica can; acknowledged as a write is.
    pub async fn delete_span(&self, action: Action, deadline: Deadline) -> Result<Outcome, Error> {
        let _place = self.place()?;
        let applied = self.propose(action, None, deadline).await?;
        self.acknowledged(applied.index, deadline).await?;
        if let Some(budget) = self.budget() {
            budget.note(self.published());
        }
        Ok(applied.outcome)
    }

    fn write_failed(&self, error: ClientWriteError<TypeConfig>) -> Error {
        match error {
            ClientWriteError::ForwardToLeader(forward) => self.not_leader(&forward),
            ClientWriteError::LogEntryDiscarded(_) => {
                Error::outcome_unknown("the leader changed while it was replicated")
            }
            // Neither is possible for a plain command; nothing is promised then.
            ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_) => {
                Error::outcome_unknown("the group gave another answer")
            }
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

/// The outcome of a write that took effect, or why it did not: `at` is the state that decided it.
fn accepted(outcome: Outcome, at: &GroupIndex) -> Result<Outcome, Error> {
    let why = match outcome {
        Outcome::NoValue => Decline::KeyNotFound,
        Outcome::NotAnInteger => Decline::NotAnInteger,
        Outcome::Aborted(error) => error.into(),
        Outcome::KeyReused => Decline::IdempotencyKeyReused,
        Outcome::Mismatch { version } => Decline::VersionMismatch { version },
        Outcome::AnswerNotKept => Decline::AnswerNotKept,
        Outcome::NoSession => return Err(Error::NoSession),
        Outcome::Superseded => {
            return Err(Error::outcome_unknown("the coordinator has given it up"));
        }
        Outcome::KeysFull => {
            let queue = "the group's memory of idempotency keys".into();
            return Err(Error::Overloaded { queue });
        }
        Outcome::WrongShard { epoch } => return Err(Error::WrongShard { epoch }),
        Outcome::Done
        | Outcome::Written { .. }
        | Outcome::Refused(_)
        | Outcome::Again(_)
        | Outcome::Deleted { .. }
        | Outcome::Lasting { .. }
        | Outcome::Counted { .. }
        | Outcome::Txn(_) => return Ok(outcome),
    };
    Err(Error::Declined { why, at: at.clone() })
}

/// The entry is applied, so nothing may be promised.
fn odd_outcome() -> Error {
    Error::outcome_unknown("the state machine gave another answer")
}
