//! The coordinator: a stateless router that hashes keys to groups.
//!
//! ```text
//!            request                            every member of every group
//!               │                                          ▲  who are you?
//!   ┌───────────▼───────────┐   who leads?   ┌─────────────┴─────────────┐
//!   │ Coordinator: Kv       │◄───── roster ──┤ keeper, a loop that asks  │
//!   │ ring: key → group     │                │ claiming: what it then does│
//!   │ routing: attempt→next │─── doubts ────►│ about the ring            │
//!   └───────────┬───────────┘                └───────────────────────────┘
//!               ▼ peers: one lane of calls for each member
//! ```
//!
//! - **One request.** [`Token::of_key`] gives the key's point, [`ring`] its group, [`roster`] the
//!   group's leader as far as anybody knows. The request goes there; [`routing`], which is pure,
//!   says from the outcome what comes next: another member, a pause, a newer ring, or the end. A
//!   write has a name from this coordinator's [`session`] with the group, or from its client, so it is
//!   sent again until the group has answered, and takes effect once.
//! - **One scan.** [`scan`] asks all groups at once and puts their parts together; [`delete_span`] has each
//!   of them remove its keys of a span.
//! - **Watchers.** [`watch`] follows the leader of each group that somebody watches, once for all of them.
//! - **The ring.** [`keeper`] asks the URLs of `--shards`, and every member that it hears of, who
//!   they are. [`claiming`], which is pure, decides from the answers: wait, claim the ring for fresh
//!   groups, finish or take back what another coordinator left half done, or serve by what is
//!   there. The header of that module is the protocol and why it is safe.
//!
//! It promises that two coordinators with the same groups behind them route every key alike, in
//! whatever order their URLs were given; that a write takes effect once, and one whose fate is still
//! unknown at its deadline is reported so; that a wrong ring costs an attempt and can't put a key into
//! the wrong group, since each group checks its ranges itself; that groups which are up are served
//! while others are down; and that each request ends before its deadline.
//!
//! It keeps nothing on disk, knows neither Raft nor the store, and refuses to serve before a ring
//! is active: until then requests wait, and end as `503` with the reason that `/ready` shows.

mod batch;
mod claiming;
mod delete_span;
mod keeper;
mod peers;
pub mod ring;
mod roster;
mod routing;
mod scan;
mod scatter;
mod session;
mod shared;
mod topology;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::api::{CoordinatorFace, Kv};
use crate::coordinator::keeper::Keeper;
use crate::coordinator::peers::Lanes;
use crate::coordinator::roster::Roster;
use crate::coordinator::routing::{Heard, Need, Route, Step};
use crate::coordinator::session::Ticket;
use crate::coordinator::shared::{Active, Errand, Shared};
use crate::coordinator::watch::Watchers;
use crate::planted::{self, Bug};
use crate::rpc::Dialer;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::hash::Token;
use crate::types::http::{ClusterBody, ReadyBody, RingStatus, RouteBody};
use crate::types::ids::GroupId;
use crate::types::key::Key;
use crate::types::kv::{KvReply, KvRequest};
use crate::types::limits::ROUTE_MARGIN;
use crate::types::once::{Once, WriteId};
use crate::types::peer::{Reply, Request};
use crate::types::scan::{Deleted, Scan, Scanned, Span};
#[cfg(any(test, feature = "simulation"))]
use crate::types::topology::Topology;
use crate::types::txn::{Batched, Op};
use crate::types::watch::Watch;
use crate::watch::Watching;

pub use self::peers::Peers;

/// What a coordinator is told at its start.
#[derive(Clone, Debug)]
pub struct CoordinatorOptions {
    /// URLs of members of the groups, `http://host:port`: any of each group, several if liked.
    pub shards: Vec<String>,
    /// Tokens of each group, if this coordinator is the first.
    pub vnodes: u32,
}

/// A running coordinator. Dropping it ends it.
#[derive(Debug)]
pub struct Coordinator<P = Lanes> {
    shared: Arc<Shared<P>>,
    watchers: Watchers,
    _keeper: AbortOnDropHandle<()>,
}

impl Coordinator {
    /// Starts a coordinator, which is not ready at first: it looks for its ring in the background,
    /// until `shutdown` is cancelled.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(options: CoordinatorOptions, dialer: Dialer, shutdown: CancellationToken) -> Self {
        Self::over(Lanes::new(dialer), options, shutdown)
    }
}

impl<P: Peers> Coordinator<P> {
    /// As [`Coordinator::start`], with any way to the replicas.
    pub fn over(peers: P, options: CoordinatorOptions, shutdown: CancellationToken) -> Self {
        let shared = Arc::new(Shared::new(peers));
        let CoordinatorOptions { shards, vnodes } = options;
        let given = shards.iter().map(|url| url.trim_end_matches('/').to_owned());
        let keeper = Keeper::new(Arc::clone(&shared), given.collect(), vnodes);
        let watchers = Watchers::new(shutdown.clone());
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run(shutdown)));
        Self { shared, watchers, _keeper: keeper }
    }

    /// Looks at the topology that is served by, if there is one.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn topology<T>(&self, look: impl FnOnce(&Topology) -> T) -> Option<T> {
        self.shared.active().ok().map(|active| look(&active.topology))
    }

    /// Waits until requests for every key can succeed.
    pub async fn until_ready(&self) {
        loop {
            let ended = self.shared.rounds.notified();
            let state = self.ready();
            if state.ready && state.reason.is_none() {
                return;
            }
            self.shared.hurry.notify_one();
            ended.await;
        }
    }
}

impl<P: Peers> Kv for Coordinator<P> {
    async fn call(&self, request: KvRequest, deadline: Deadline) -> Result<KvReply, Error> {
        let deadline = deadline.earlier_by(ROUTE_MARGIN);
        let nameless = request.is_write() && !request.is_repeatable();
        let gives_name = nameless && !planted::bug(Bug::RetryUnknown);
        let need = if gives_name { Need::NamedWrite } else { need(&request) };
        let mut active = self.shared.active_by(deadline).await?;
        let mut route = Route::new(need);
        let mut heard = None;
        // A name is known in one group only.
        let mut ticket: Option<(GroupId, Ticket)> = None;
        loop {
            let roster = owner(&active, &request).map_err(|error| route.refused(error))?;
            ticket.take_if(|(group, _)| *group != roster.id());
            if gives_name && ticket.is_none() {
                // Before anybody is chosen: it may take time, and another may lead then.
                ticket = Some((roster.id(), self.shared.ticket(roster, deadline).await?));
            }
            match route.next(heard.take(), || roster.candidates(need), deadline.left()) {
                Step::Ask(contact, within) => {
                    let name = ticket.as_ref().map(|(_, ticket)| ticket.write());
                    let ask =
                        |timeout_ms| Request::Kv { request: named_as(&request, name), timeout_ms };
                    let errand = Errand { need, request: &ask, read: kv_reply };
                    heard = Some(self.shared.attempt(roster, &errand, &contact, within).await);
                }
                Step::Wait(pause) => tokio::time::sleep(pause).await,
                Step::Rehash(epoch, pause) => {
                    roster.doubt();
                    active = self.shared.newer(&active, epoch, pause).await;
                }
                // Nothing was lost before: with another session it is tried again.
                Step::Done(Err(Error::NoSession)) => {
                    if let Some((_, ticket)) = ticket.take() {
                        roster.session().ended(&ticket);
                    }
                }
                Step::Done(result) => return result,
            }
        }
    }

    async fn batch(
        &self,
        ops: Vec<Op>,
        once: Option<Once>,
        deadline: Deadline,
    ) -> Result<Batched, Error> {
        batch::batch(self, ops, once, deadline).await
    }

    async fn scan(&self, scan: Scan, deadline: Deadline) -> Result<Scanned, Error> {
        scan::scan(&self.shared, scan, deadline.earlier_by(ROUTE_MARGIN)).await
    }

    async fn watch(&self, watch: Watch, deadline: Deadline) -> Result<Watching, Error> {
        self.watchers.watch(&self.shared, watch, deadline.earlier_by(ROUTE_MARGIN)).await
    }

    async fn delete_span(&self, span: Span, deadline: Deadline) -> Result<Deleted, Error> {
        delete_span::delete_span(&self.shared, &span, deadline.earlier_by(ROUTE_MARGIN)).await
    }
}

/// The group whose keys the request is about.
fn owner<'a>(active: &'a Active, request: &KvRequest) -> Result<&'a Arc<Roster>, Error> {
    let owner = |key: &Key| active.owner(Token::of_key(key));
    let KvRequest::Txn { txn, .. } = request else {
        let key = request.key().ok_or(Error::MissingKey)?;
        return Ok(owner(key));
    };
    let mut groups: Vec<&Arc<Roster>> = txn.keys().map(owner).collect();
    groups.sort_by_key(|roster| roster.name());
    groups.dedup_by_key(|roster| roster.id());
    match groups[..] {
        [group] => Ok(group),
        [] => Err(Error::MissingKey),
        _ => {
            let names: Vec<&str> = groups.iter().map(|roster| roster.name()).collect();
            Err(Error::CrossShard { groups: names.join(", ") })
        }
    }
}

/// The request as it is sent: a write without a name gets this one.
fn named_as(request: &KvRequest, name: Option<WriteId>) -> KvRequest {
    match (request, name) {
        (KvRequest::Write { write, once: None }, Some(name)) => {
            KvRequest::Write { write: write.clone(), once: Some(Once::Session(name)) }
        }
        (KvRequest::Txn { txn, once: None }, Some(name)) => {
            KvRequest::Txn { txn: txn.clone(), once: Some(Once::Session(name)) }
        }
        (request, _) => request.clone(),
    }
}

fn need(request: &KvRequest) -> Need {
    match request {
        KvRequest::Get { consistency, .. } => Need::of_read(*consistency),
        KvRequest::Txn { txn, .. } if txn.only_reads() => Need::LeaderRead,
        KvRequest::Write { once: Some(_), .. } | KvRequest::Txn { once: Some(_), .. } => {
            Need::NamedWrite
        }
        KvRequest::Write { once: None, .. } | KvRequest::Txn { once: None, .. } => Need::Write,
    }
}

fn kv_reply(need: Need, reply: Reply) -> Heard<KvReply> {
    let Reply::Kv(answer) = reply else { return Heard::to_another_question() };
    match (need, answer) {
        (_, Err(error)) => Heard::Answer(Err(error)),
        (Need::Write | Need::NamedWrite, Ok(reply @ (KvReply::Written(_) | KvReply::Txn(_))))
        | (Need::LeaderRead, Ok(reply @ (KvReply::Txn(_) | KvReply::Read(_))))
        | (Need::AnyRead, Ok(reply @ KvReply::Read(_))) => Heard::Answer(Ok(reply)),
        (Need::Write | Need::NamedWrite, Ok(KvReply::Read(_)))
        | (Need::LeaderRead, Ok(KvReply::Written(_)))
        | (Need::AnyRead, Ok(KvReply::Written(_) | KvReply::Txn(_))) => {
            Heard::to_another_question()
        }
    }
}

impl<P: Peers> CoordinatorFace for Coordinator<P> {
    fn route(&self, key: &Key) -> Result<RouteBody, Error> {
        let active = self.shared.active()?;
        let token = Token::of_key(key);
        let roster = active.owner(token);
        let replicas: Vec<String> =
            roster.members().iter().map(|member| member.url.to_string()).collect();
        let leader = roster.leader().map(|leader| leader.url.to_string());
        Ok(RouteBody {
            key: key.as_str().to_owned(),
            shard: roster.name().to_owned(),
            url: leader.or_else(|| replicas.first().cloned()).unwrap_or_default(),
            replicas,
            hash: format!("{:016x}", token.0),
            epoch: active.topology.epoch,
        })
    }

    async fn cluster(&self, deadline: Deadline) -> Result<ClusterBody, Error> {
        scatter::cluster(&self.shared, deadline).await
    }

    fn ring(&self) -> Option<RingStatus> {
        let active = self.shared.active().ok()?;
        let leaderless = active.rosters.iter().filter(|roster| roster.leader().is_none()).count();
        let groups = active.rosters.len() as u64;
        Some(RingStatus { epoch: active.topology.epoch, groups, leaderless: leaderless as u64 })
    }

    fn ready(&self) -> ReadyBody {
        let active = match self.shared.active() {
            Ok(active) => active,
            Err(error) => return ReadyBody { ready: false, reason: Some(error.to_string()) },
        };
        let leaderless = active.rosters.iter().filter(|roster| roster.leader().is_none());
        let missing: Vec<&str> = leaderless.map(|roster| roster.name()).collect();
        let reason = format!("no leader is known of {}", missing.join(", "));
        ReadyBody {
            ready: missing.len() < active.rosters.len(),
            reason: (!missing.is_empty()).then_some(reason),
        }
    }
}
