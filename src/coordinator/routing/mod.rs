//! Decides, from what each attempt came to, where a request goes next. Pure.
//!
//! A write without a name is sent again only after an answer that makes it certain that it was not
//! applied: it was refused (`NotLeader`, `Unavailable`, `WrongShard`) or never sent. Overload ends it at once:
//! whoever has too much to do must not be asked again by us. So does a leader without room: no other
//! member may take the write in its place. An answer
//! that was lost, or that says so itself, ends it as `OutcomeUnknown` at once: it is never silently
//! sent twice. A read changes nothing and is asked again whatever happened.
//!
//! A write with a name takes effect once however often it is sent, so a lost answer is only a reason to
//! ask again. But from then on only the state machine's answer settles it; when there is none in time
//! it ends as `OutcomeUnknown`, whatever the last attempt came to
//! (`docs/decisions/013-exactly-once.md`). A leader that is only slow is waited for: to send its
//! writes again would be more work for one that has too much. The attempt ends when its connection
//! breaks, or when another member leads.
//!
//! Between two pauses no member is asked twice, so a request can't run in circles; pauses grow from
//! [`ROUTE_PAUSE_MIN`] to [`ROUTE_PAUSE_MAX`]. When the time left is shorter than the next pause the
//! request fails with the last reason.

use std::sync::Arc;
use std::time::Duration;

use crate::planted::{self, Bug};
use crate::rpc::CallError;
use crate::types::error::Error;
use crate::types::ids::NodeId;
use crate::types::kv::Consistency;
use crate::types::limits::{READ_ATTEMPT_MIN, ROUTE_PAUSE_MAX, ROUTE_PAUSE_MIN};
use crate::types::topology::{Epoch, Member};

/// A member as far as it is known: where it is, and which node that is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::coordinator) struct Contact {
    /// Its URL.
    pub(in crate::coordinator) url: Arc<str>,
    /// Its identity, once somebody told it.
    pub(in crate::coordinator) node: Option<NodeId>,
}

impl From<Member> for Contact {
    fn from(member: Member) -> Self {
        Self { url: member.url.into(), node: Some(member.node) }
    }
}

/// Whom a request may be sent to, best first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::coordinator) struct Candidates {
    /// The group's name, for sentences.
    pub(in crate::coordinator) group: Arc<str>,
    /// Whoever is thought to lead.
    pub(in crate::coordinator) leader: Option<Contact>,
    /// The members that answered last time; all if none did.
    pub(in crate::coordinator) members: Vec<Contact>,
}

/// What a request needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::coordinator) enum Need {
    /// The leader, and never twice: a proposal, or a write without a name.
    Write,
    /// The leader, as often as need be: a write with a name, under which it takes effect once.
    NamedWrite,
    /// The leader: a linearizable or lease read.
    LeaderRead,
    /// Any member: a stale read.
    AnyRead,
}

impl Need {
    /// What a read of this consistency needs.
    pub(in crate::coordinator) fn of_read(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Linearizable | Consistency::Lease => Self::LeaderRead,
            Consistency::Stale => Self::AnyRead,
        }
    }

    /// Whether it may be sent again when its fate is unknown.
    fn is_repeatable(self) -> bool {
        match self {
            Self::Write => planted::bug(Bug::RetryUnknown),
            Self::NamedWrite | Self::LeaderRead | Self::AnyRead => true,
        }
    }
}

/// What came of one attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::coordinator) enum Heard<T> {
    /// The member's answer.
    Answer(Result<T, Error>),
    /// It gave none.
    NoAnswer(CallError),
    /// It gave one that does not belong to the question.
    Nonsense(String),
}

impl<T> Heard<T> {
    /// An answer of another kind than was asked for. A write may have been applied nevertheless.
    pub(in crate::coordinator) fn to_another_question() -> Self {
        Self::Nonsense("the answer was to another question".into())
    }
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::coordinator) enum Step<T> {
    /// Ask this member, for at most so long.
    Ask(Contact, Duration),
    /// Wait so long, then decide again.
    Wait(Duration),
    /// The group does not own the key, and its claim is at this epoch: wait for a newer topology,
    /// at most so long, hash again, and decide again.
    Rehash(Epoch, Duration),
    /// Answer the client.
    Done(Result<T, Error>),
}

/// One request on its way.
#[derive(Clone, Debug)]
pub(in crate::coordinator) struct Route {
    need: Need,
    /// Whom the last member named as the leader.
    hint: Option<Contact>,
    /// Who was asked since the last pause.
    asked: Vec<Contact>,
    pause: Duration,
    /// Why the last attempt failed.
    last: Option<Error>,
    /// Why the fate of an attempt to write is unknown, if it is: then what becomes of the next one says
    /// nothing about it, unless it is the answer of the state machine.
    lost: Option<String>,
}

/// What one attempt means for the request.
enum Verdict<T> {
    Done(Result<T, Error>),
    /// Not applied; somebody else leads, perhaps this one.
    Leader(Option<Member>),
    /// Not applied, or only a read; ask another.
    Another(Error),
    /// Of unknown fate, but may be sent again.
    Lost(String),
    /// Not applied; the key is another group's.
    NotOwner(Epoch),
}

impl Route {
    /// A request that was not sent yet.
    pub(in crate::coordinator) fn new(need: Need) -> Self {
        Self { need, hint: None, asked: Vec::new(), pause: ROUTE_PAUSE_MIN, last: None, lost: None }
    }

    /// What to do after `heard`, the outcome of the attempt before, if there was one; with `left`
    /// until the deadline. Whom to ask is looked up only if somebody is.
    pub(in crate::coordinator) fn next<T>(
        &mut self,
        heard: Option<Heard<T>>,
        candidates: impl FnOnce() -> Candidates,
        left: Duration,
    ) -> Step<T> {
        match heard.map(|heard| judge(self.need, heard)).map(|verdict| self.qualify(verdict)) {
            Some(Verdict::Done(result)) => return Step::Done(result),
            Some(Verdict::Lost(reason)) => {
                self.hint = None;
                self.lost = Some(reason);
            }
            Some(Verdict::Leader(leader)) => {
                self.hint = leader.map(Contact::from);
                self.last = None;
            }
            Some(Verdict::Another(error)) => self.last = Some(error),
            Some(Verdict::NotOwner(epoch)) => {
                self.hint = None;
                self.last = Some(Error::unavailable("it does not own the key"));
                return match self.take_pause(left) {
                    Some(pause) => Step::Rehash(epoch, pause),
                    None => Step::Done(Err(self.give_up(&candidates()))),
                };
            }
            None => {}
        }
        let candidates = candidates();
        if left.is_zero() {
            return Step::Done(Err(self.give_up(&candidates)));
        }
        if let Some(contact) = self.choose(&candidates) {
            self.asked.push(contact.clone());
            return Step::Ask(contact, self.attempt_time(left));
        }
        match self.take_pause(left) {
            Some(pause) => Step::Wait(pause),
            None => Step::Done(Err(self.give_up(&candidates))),
        }
    }

    /// What a verdict on the last attempt is worth when the fate of an earlier one is unknown.
    fn qualify<T>(&self, verdict: Verdict<T>) -> Verdict<T> {
        let Some(reason) = &self.lost else { return verdict };
        let unknown = || Verdict::Done(Err(Error::OutcomeUnknown { reason: reason.clone() }));
        match verdict {
            Verdict::Done(Err(error)) if error.is_settled() => Verdict::Done(Err(error)),
            // What the session knew of it is gone, or the group that owns the key now never knew it.
            Verdict::Done(Err(Error::NoSession)) | Verdict::NotOwner(_) => unknown(),
            Verdict::Done(Err(error)) => Verdict::Another(error),
            Verdict::Done(Ok(_)) | Verdict::Lost(_) | Verdict::Leader(_) | Verdict::Another(_) => {
                verdict
            }
        }
    }

    /// What the request fails with when it can't go on for this reason.
    pub(in crate::coordinator) fn refused(&self, error: Error) -> Error {
        match &self.lost {
            Some(reason) => Error::OutcomeUnknown { reason: reason.clone() },
            None => error,
        }
    }

    /// The best member that was not asked since the last pause.
    fn choose(&self, candidates: &Candidates) -> Option<Contact> {
        let leaders = match self.need {
            Need::Write | Need::NamedWrite | Need::LeaderRead => {
                [self.hint.as_ref(), candidates.leader.as_ref()]
            }
            Need::AnyRead => [None, None],
        };
        let mut best = leaders.into_iter().flatten().chain(&candidates.members);
        best.find(|contact| self.asked.iter().all(|asked| asked.url != contact.url)).cloned()
    }

    /// Nobody can stand in for a leader: it gets all the time there is. Others leave time for one
    /// another.
    fn attempt_time(&self, left: Duration) -> Duration {
        match self.need {
            Need::Write | Need::NamedWrite | Need::LeaderRead => left,
            Need::AnyRead => (left / 3).max(READ_ATTEMPT_MIN).min(left),
        }
    }

    /// The next pause, if there is time for it.
    fn take_pause(&mut self, left: Duration) -> Option<Duration> {
        let pause = self.pause;
        self.asked.clear();
        self.pause = (pause * 2).min(ROUTE_PAUSE_MAX);
        (pause < left).then_some(pause)
    }

    fn give_up(&self, candidates: &Candidates) -> Error {
        let group = &candidates.group;
        if let Some(reason) = &self.lost {
            return Error::OutcomeUnknown { reason: reason.clone() };
        }
        match &self.last {
            Some(Error::Overloaded { queue }) => Error::Overloaded { queue: queue.clone() },
            Some(error) => Error::unavailable(format!("group {group}: {error}")),
            None => Error::unavailable(format!("group {group} has no leader")),
        }
    }
}

fn judge<T>(need: Need, heard: Heard<T>) -> Verdict<T> {
    let lost = |reason: String| match need {
        Need::NamedWrite if planted::bug(Bug::Impatient) => {
            Verdict::Done(Err(Error::OutcomeUnknown { reason }))
        }
        Need::NamedWrite => Verdict::Lost(reason),
        _ if need.is_repeatable() => Verdict::Another(Error::Unavailable { reason }),
        Need::Write | Need::LeaderRead | Need::AnyRead => {
            Verdict::Done(Err(Error::OutcomeUnknown { reason }))
        }
    };
    match heard {
        Heard::Answer(Ok(reply)) => Verdict::Done(Ok(reply)),
        Heard::Answer(Err(error)) => match error {
            Error::NotLeader { leader } => Verdict::Leader(leader),
            Error::WrongShard { epoch } => Verdict::NotOwner(epoch),
            Error::OutcomeUnknown { reason } => lost(reason),
            error @ Error::Unavailable { .. } => Verdict::Another(error),
            error @ (Error::Overloaded { .. }
            | Error::Declined { .. }
            | Error::MissingKey
            | Error::InvalidJson(_)
            | Error::InvalidUtf8(_)
            | Error::InvalidParameter { .. }
            | Error::BadRequest(_)
            | Error::UnknownPath
            | Error::MethodNotAllowed
            | Error::KeyTooLarge { .. }
            | Error::ValueTooLarge { .. }
            | Error::Compacted { .. }
            | Error::CrossShard { .. }
            | Error::NoSession
            | Error::NoRoom(_)) => Verdict::Done(Err(error)),
        },
        Heard::NoAnswer(CallError::NotSent(reason)) => {
            Verdict::Another(Error::Unavailable { reason })
        }
        Heard::NoAnswer(CallError::Overloaded(url)) => {
            let error = Error::Overloaded { queue: format!("the queue of calls to {url}") };
            match need {
                Need::AnyRead => Verdict::Another(error),
                Need::Write | Need::NamedWrite | Need::LeaderRead => Verdict::Done(Err(error)),
            }
        }
        Heard::NoAnswer(CallError::Lost(reason) | CallError::Late(reason))
        | Heard::Nonsense(reason) => lost(reason),
    }
}

#[cfg(test)]
mod tests;
