//! What requests and the keeper share: the ring that is served, the way to replicas, and the one
//! attempt that all of them are made of.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::coordinator::peers::Peers;
use crate::coordinator::ring::Ring;
use crate::coordinator::roster::Roster;
use crate::coordinator::routing::{Contact, Heard, Need, Route, Step};
use crate::coordinator::session::{NoTicket, Ticket};
use crate::rpc::CallError;
use crate::types::command::{Action, Outcome};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::hash::Token;
use crate::types::host;
use crate::types::ids::{GroupId, SessionId};
use crate::types::limits::{ANSWER_PATIENCE, ROUTE_PAUSE_MAX, SESSION_OPENING};
use crate::types::peer::{Reply, Request};
use crate::types::scan::Span;
use crate::types::topology::{Epoch, Topology};

/// The ring that is served.
#[derive(Debug)]
pub(in crate::coordinator) struct Active {
    /// Its topology, checked.
    pub(in crate::coordinator) topology: Topology,
    /// The owner of each point, in numbers of `rosters`.
    pub(in crate::coordinator) ring: Ring,
    /// Its groups, in the topology's order.
    pub(in crate::coordinator) rosters: Vec<Arc<Roster>>,
}

impl Active {
    /// The ring of `topology`; what is known of groups that were in `before` stays known.
    pub(in crate::coordinator) fn new(topology: Topology, before: Option<&Self>) -> Self {
        let rosters = topology.groups.iter().map(|group| {
            let known = before.and_then(|before| before.roster(group.id));
            let known = known.filter(|known| known.name() == group.name);
            known.map_or_else(|| Arc::new(Roster::new(group)), Arc::clone)
        });
        Self { ring: Ring::of(&topology), rosters: rosters.collect(), topology }
    }

    /// The group that owns `token`.
    pub(in crate::coordinator) fn owner(&self, token: Token) -> &Arc<Roster> {
        &self.rosters[self.ring.owner(token)]
    }

    /// The groups that may have keys of a span: one, where all its keys share a hash tag.
    pub(in crate::coordinator) fn groups_of(&self, span: &Span) -> &[Arc<Roster>] {
        match span.tag() {
            Some(key) => std::slice::from_ref(self.owner(Token::of_key(&key))),
            None => &self.rosters,
        }
    }

    /// The group `id`, if it is in the ring.
    pub(in crate::coordinator) fn roster(&self, id: GroupId) -> Option<&Arc<Roster>> {
        self.rosters.iter().find(|roster| roster.id() == id)
    }
}

/// How far the coordinator is.
#[derive(Clone, Debug)]
pub(in crate::coordinator) struct Standing {
    /// The ring that is served, once there is one.
    pub(in crate::coordinator) active: Option<Arc<Active>>,
    /// Why there is none.
    pub(in crate::coordinator) reason: String,
    /// Whether waiting can't help: a person must mend it.
    pub(in crate::coordinator) refused: bool,
}

/// What requests and the keeper share.
#[derive(Debug)]
pub(in crate::coordinator) struct Shared<P> {
    /// The way to replicas.
    pub(in crate::coordinator) peers: P,
    /// Makes the keeper ask at once.
    pub(in crate::coordinator) hurry: Notify,
    /// Wakes whoever waits for the end of a round of asking.
    pub(in crate::coordinator) rounds: Notify,
    standing: RwLock<Standing>,
    /// Wakes whoever waits for another standing, in the order in which they came: a `watch` of tokio
    /// draws the order, and a simulation could not have the same run again.
    changed: Notify,
}

/// What is asked of a group: how the request is made, for the milliseconds that are left for it,
/// and how its answer is read.
pub(in crate::coordinator) struct Errand<'a, T> {
    /// Whom it needs.
    pub(in crate::coordinator) need: Need,
    /// Makes the request.
    pub(in crate::coordinator) request: &'a (dyn Fn(u32) -> Request + Sync),
    /// Reads the answer.
    pub(in crate::coordinator) read: fn(Need, Reply) -> Heard<T>,
}

impl<P: Peers> Shared<P> {
    /// Nothing is known yet.
    pub(in crate::coordinator) fn new(peers: P) -> Self {
        let reason = "no shard has answered yet".into();
        let standing = RwLock::new(Standing { active: None, reason, refused: false });
        let [hurry, rounds, changed] = [(); 3].map(|()| Notify::new());
        Self { peers, hurry, rounds, standing, changed }
    }

    fn standing(&self) -> RwLockReadGuard<'_, Standing> {
        self.standing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ring that is served now, or why there is none.
    pub(in crate::coordinator) fn active(&self) -> Result<Arc<Active>, Error> {
        let standing = self.standing();
        standing.active.clone().ok_or_else(|| Error::unavailable(&standing.reason))
    }

    /// Changes how far the coordinator is.
    pub(in crate::coordinator) fn stand(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }

    /// Waits until it stands as `wanted`.
    async fn until(&self, wanted: impl Fn(&Standing) -> bool) {
        loop {
            // Before the look: a change right after it wakes this one too.
            let changed = self.changed.notified();
            if wanted(&self.standing()) {
                return;
            }
            changed.await;
        }
    }

    /// The ring that is served, waiting until `deadline` for one unless that is in vain.
    pub(in crate::coordinator) async fn active_by(
        &self,
        deadline: Deadline,
    ) -> Result<Arc<Active>, Error> {
        let settled = self.until(|now| now.active.is_some() || now.refused);
        // In time or not, and whatever it was: what holds now is the answer.
        drop(tokio::time::timeout_at(deadline.instant().into(), settled).await);
        self.active()
    }

    /// The ring after `old`, under which a group whose claim is at `epoch` was not the owner; at
    /// most `pause` is waited for it.
    pub(in crate::coordinator) async fn newer(
        &self,
        old: &Arc<Active>,
        epoch: Epoch,
        pause: Duration,
    ) -> Arc<Active> {
        self.hurry.notify_one();
        let wanted = epoch.max(old.topology.epoch + 1);
        let newer = self
            .until(|now| now.active.as_ref().is_some_and(|active| active.topology.epoch >= wanted));
        // The pause is over or it is there: both go on with what is there.
        drop(tokio::time::timeout(pause, newer).await);
        self.active().unwrap_or_else(|_| Arc::clone(old))
    }

    /// Asks one member of `roster`, once, and takes note of what that shows.
    pub(in crate::coordinator) async fn attempt<T>(
        &self,
        roster: &Roster,
        errand: &Errand<'_, T>,
        contact: &Contact,
        within: Duration,
    ) -> Heard<T> {
        let deadline = Deadline::after(within);
        let request = (errand.request)(deadline.left_ms());
        let target = roster.target(contact);
        let call = pin!(self.peers.call(&target, &request, deadline));
        let answer = match errand.need {
            // The latter is sent once, whoever leads.
            Need::AnyRead | Need::Write => call.await,
            Need::NamedWrite | Need::LeaderRead => self.while_leading(roster, contact, call).await,
        };
        let heard = match answer {
            Ok(reply) => (errand.read)(errand.need, reply),
            Err(error) => Heard::NoAnswer(error),
        };
        if roster.observe(errand.need, contact, &heard) {
            self.hurry.notify_one();
        }
        heard
    }

    /// The answer of a leader, unless another leads meanwhile: one that is cut off from its group may
    /// not know that, and never answer.
    async fn while_leading(
        &self,
        roster: &Roster,
        contact: &Contact,
        mut call: Pin<&mut impl Future<Output = Result<Reply, CallError>>>,
    ) -> Result<Reply, CallError> {
        if let Ok(answer) = tokio::time::timeout(ANSWER_PATIENCE, &mut call).await {
            return answer;
        }
        loop {
            roster.doubt();
            self.hurry.notify_one();
            tokio::select! {
                biased;
                answer = &mut call => return answer,
                () = roster.led_by_another(contact) => {
                    return Err(CallError::Lost(format!("{} does not lead any more", contact.url)));
                }
                () = tokio::time::sleep(ANSWER_PATIENCE) => {}
            }
        }
    }

    /// Takes a request to one group, until there is an answer or `deadline` has passed.
    pub(in crate::coordinator) async fn ask<T>(
        &self,
        roster: &Roster,
        errand: &Errand<'_, T>,
        deadline: Deadline,
    ) -> Result<T, Error> {
        let mut route = Route::new(errand.need);
        let mut heard = None;
        loop {
            match route.next(heard.take(), || roster.candidates(errand.need), deadline.left()) {
                Step::Ask(contact, within) => {
                    heard = Some(self.attempt(roster, errand, &contact, within).await);
                }
                Step::Wait(pause) | Step::Rehash(_, pause) => tokio::time::sleep(pause).await,
                Step::Done(result) => return result,
            }
        }
    }

    /// A name for one write in this group, for which a session is opened if there is none.
    pub(in crate::coordinator) async fn ticket(
        &self,
        roster: &Roster,
        deadline: Deadline,
    ) -> Result<Ticket, Error> {
        loop {
            match roster.session().ticket() {
                Ok(ticket) => return Ok(ticket),
                Err(NoTicket::Full) => {
                    let queue = format!("this coordinator's session with group {}", roster.name());
                    return Err(Error::Overloaded { queue });
                }
                // Boxed, as it is rare and large, and every write would carry room for it.
                Err(NoTicket::NoSession) => Box::pin(self.open_session(roster, deadline)).await?,
            }
        }
    }

    /// Opens a session, if nobody else does just now. Each attempt has a name of its own: one that
    /// comes late must not open a session again that has ended meanwhile.
    async fn open_session(&self, roster: &Roster, deadline: Deadline) -> Result<(), Error> {
        let late =
            || Error::unavailable(format!("group {} opened no session in time", roster.name()));
        let opening = roster.session().opening.lock();
        let opening = tokio::time::timeout_at(deadline.instant().into(), opening).await;
        let _opening = opening.map_err(|_| late())?;
        if roster.session().is_open() {
            return Ok(());
        }
        let newest = AtomicU64::new(0);
        let request = |timeout_ms| {
            let session = SessionId(host::random());
            newest.store(session.0, Ordering::Relaxed);
            Request::Propose { action: Action::OpenSession { session }, timeout_ms }
        };
        let errand = Errand { need: Need::NamedWrite, request: &request, read: outcome };
        loop {
            // Others wait for it: one who can't answer must not take all the time that this one has.
            let soon = deadline.at_most(SESSION_OPENING);
            match self.ask(roster, &errand, soon).await {
                Ok(Outcome::Done) => {
                    roster.session().opened(SessionId(newest.load(Ordering::Relaxed)));
                    return Ok(());
                }
                Ok(other) => {
                    let name = roster.name();
                    let reason = format!("group {name} opens no session: {other:?}");
                    return Err(Error::unavailable(reason));
                }
                Err(Error::OutcomeUnknown { .. } | Error::Unavailable { .. })
                    if deadline.left() > ROUTE_PAUSE_MAX => {}
                // No write was sent yet, whatever became of the session.
                Err(Error::OutcomeUnknown { .. }) => return Err(late()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Reads the answer to a proposal.
pub(in crate::coordinator) fn outcome(_need: Need, reply: Reply) -> Heard<Outcome> {
    let Reply::Proposed(answer) = reply else { return Heard::to_another_question() };
    Heard::Answer(answer)
}
