//! How replicas find their group, or found it. [`decide::next`] decides from what is known; [`Replica::form`]
//! asks, does what it says, and asks again.
//!
//! A group may be founded only when that can't make a second one of it: by the replica with the
//! smallest advertised URL, when **every** member that was listed answers, has the same list, and
//! is fresh (no entry, no vote). If only one of them is not fresh, the group exists or may exist:
//! then a fresh replica joins, as a learner first, under its own new identity, and takes the place
//! of the member that had its URL. It never votes as its former self. What was founded has a name
//! and an id in its own state machine, given by the first leader ([`found`]).

mod decide;

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::BasicNode;
use tokio::time::MissedTickBehavior;

use crate::raft::formation::decide::{Me, Standing, Step, View, next};
use crate::raft::replica::{Replica, lock};
use crate::rpc::{Caller, Dialer, Target};
use crate::types::command::Action;
use crate::types::deadline::Deadline;
use crate::types::host;
use crate::types::ids::GroupId;
use crate::types::limits::CONNECT_TIMEOUT;
use crate::types::peer::{Reply, Request};
use crate::types::topology::Member;

/// How often the others are asked while the group forms.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// After how many rounds without an end the reason is logged again: about each second.
const ROUNDS_PER_LOG_LINE: u32 = 10;

/// How far the formation is.
#[derive(Clone, Debug, Default)]
pub(in crate::raft) struct Progress {
    /// The advertised URLs of everybody listed, sorted, once all have answered.
    pub(in crate::raft) seeds: Vec<String>,
    /// Why the group has not formed yet.
    pub(in crate::raft) waiting: Option<String>,
    /// The name that the user gave to any of the listed, if to any.
    pub(in crate::raft) name: Option<String>,
    /// Whether this replica has found itself among the voters.
    seated: bool,
}

impl Replica {
    /// Finds this replica's group or founds it; returns when it is a voter. Logs what it waits for
    /// each second and never gives up, but for what can never work: that is the error.
    pub async fn form(&self) -> Result<(), String> {
        let dialer = self.dialer().of(None);
        let callers: Vec<Caller> =
            self.options().peers.iter().map(|url| caller(&dialer, url)).collect();
        let mut ticks = tokio::time::interval(ASK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0_u32.. {
            ticks.tick().await;
            let view = self.look(&callers).await;
            let (step, seeds) = next(&view);
            self.note(&view, seeds);
            let waiting = match step {
                Step::Done => break,
                Step::Refuse(reason) => return Err(reason),
                Step::Wait(reason) => reason,
                Step::Found(members) => match self.found_group(&dialer, &members).await {
                    Ok(()) => continue,
                    Err(reason) => reason,
                },
                Step::Join(url) => match self.join(&dialer, &url).await {
                    Ok(()) => "the group is taking this replica in".into(),
                    Err(reason) => format!("waiting to join the group: {reason}"),
                },
            };
            if round % ROUNDS_PER_LOG_LINE == ROUNDS_PER_LOG_LINE - 1 {
                tracing::info!(%waiting, "forming");
            }
            lock(self.formation()).waiting = Some(waiting);
        }
        {
            let mut progress = lock(self.formation());
            (progress.waiting, progress.seated) = (None, true);
        }
        if self.voters() == [self.member().node] {
            // Nobody else could lead: no need to wait for silence.
            self.raft().trigger().elect(true).await.map_err(|error| error.to_string())?;
        }
        self.check_name().await
    }

    fn note(&self, view: &View, seeds: Vec<String>) {
        let mut peers = view.peers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let name = view.me.name.clone().or(peers.find_map(|peer| peer.name.clone()));
        let mut progress = lock(self.formation());
        progress.seeds = seeds;
        progress.name = name;
    }

    /// Waits until the group's name is known; it must be the one the user gave, if he did.
    async fn check_name(&self) -> Result<(), String> {
        let mut metrics = self.raft().data_metrics();
        let name = loop {
            if let Some(name) = self.published().name() {
                break name.to_string();
            }
            if metrics.changed().await.is_err() {
                return Ok(()); // The replica stops.
            }
        };
        match &self.options().name {
            Some(given) if *given != name => Err(format!(
                "--id {given} does not match the data directory, which belongs to group {name}"
            )),
            Some(_) | None => Ok(()),
        }
    }

    async fn look(&self, callers: &[Caller]) -> View {
        let asked = callers.iter().zip(&self.options().peers).map(async |(caller, url)| {
            let deadline = Deadline::after(CONNECT_TIMEOUT);
            let answer = match caller.call(&Request::Identify, deadline).await {
                Ok(Reply::Identity(identity)) => Ok(*identity),
                Ok(other) => Err(format!("unexpected answer {other:?}")),
                Err(error) => Err(error.to_string()),
            };
            (url.clone(), answer)
        });
        let peers = futures::future::join_all(asked).await;
        View { me: self.me(), peers }
    }

    fn me(&self) -> Me {
        Me {
            member: self.member().clone(),
            name: self.options().name.clone(),
            group: self.group(),
            members: self.members(),
            leader: self.leader(),
            standing: if self.voters().contains(&self.member().node) {
                Standing::Voter
            } else if self.fresh() {
                Standing::Fresh
            } else {
                Standing::Outside
            },
        }
    }

    /// Tells every member which group it is about to be in, then starts it.
    async fn found_group(&self, dialer: &Dialer, members: &[Member]) -> Result<(), String> {
        let group = match self.group() {
            Some(group) => group,
            None => GroupId(host::random().max(1)),
        };
        self.adopt(group).map_err(|error| error.to_string())?;
        for member in members.iter().filter(|member| member.node != self.member().node) {
            let target = Target { url: member.url.clone(), node: Some(member.node), group: None };
            let call = Caller::new(dialer.clone(), target);
            let deadline = Deadline::after(CONNECT_TIMEOUT);
            accepted(call.call(&Request::Adopt { group }, deadline).await)
                .map_err(|reason| format!("{}: {reason}", member.url))?;
        }
        let nodes: BTreeMap<_, _> = members
            .iter()
            .map(|member| (member.node, BasicNode::new(member.url.clone())))
            .collect();
        self.raft().initialize(nodes).await.map_err(|error| error.to_string())?;
        self.raft().trigger().elect(true).await.map_err(|error| error.to_string())?;
        tracing::info!(%group, members = members.len(), "founded the group");
        Ok(())
    }

    async fn join(&self, dialer: &Dialer, url: &str) -> Result<(), String> {
        if self.leads() {
            return self.take_in(self.member().clone());
        }
        let identity = match self.ask(dialer, url, Request::Identify).await? {
            Reply::Identity(identity) => identity,
            other => return Err(format!("unexpected answer {other:?}")),
        };
        let group = identity.group.ok_or_else(|| format!("{url} has no group"))?;
        if self.fresh() {
            self.adopt(group).map_err(|error| error.to_string())?;
        }
        let leader = identity.leader.ok_or_else(|| format!("{url} knows no leader"))?;
        let request = Request::Join(self.member().clone());
        accepted(Ok(self.ask(dialer, &leader.url, request).await?))
    }

    async fn ask(&self, dialer: &Dialer, url: &str, request: Request) -> Result<Reply, String> {
        let deadline = Deadline::after(CONNECT_TIMEOUT);
        caller(dialer, url).call(&request, deadline).await.map_err(|error| error.to_string())
    }
}

/// Gives the group its identity and name as soon as this replica leads a group that has none.
pub(in crate::raft) async fn found(replica: Replica) {
    let mut metrics = replica.raft().data_metrics();
    loop {
        if replica.published().name().is_some() {
            return;
        }
        if let Some(group) = replica.group()
            && replica.leads()
        {
            let options = replica.options();
            let named = lock(replica.formation()).name.clone().or_else(|| options.name.clone());
            let name = named.unwrap_or_else(|| options.default_name.clone());
            let deadline = Deadline::after(options.timing.election_timeout_max);
            match replica.propose(Action::Found { group, name }, None, deadline).await {
                Ok(_) => continue,
                Err(error) => tracing::debug!(%error, "could not name the group yet"),
            }
        }
        // Leading, applying: both show in the metrics.
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Has a replica that finds itself a voter no more ask for its seat again. What made it one may have
/// been in its log only: a leader that had not committed it is gone, and the next one overwrites it.
pub(in crate::raft) async fn keep_seat(replica: Replica) {
    let mut metrics = replica.raft().server_metrics();
    loop {
        metrics.borrow_and_update();
        let voter = replica.voters().contains(&replica.member().node);
        if !voter && std::mem::take(&mut lock(replica.formation()).seated) {
            tracing::warn!("this replica was a voter by an entry that did not last; asking again");
            if let Err(reason) = replica.form().await {
                tracing::error!(%reason, "this replica can't get its seat again");
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// To the process at `url`, whoever it is.
pub(in crate::raft) fn caller(dialer: &Dialer, url: &str) -> Caller {
    Caller::new(dialer.clone(), Target { url: url.to_owned(), node: None, group: None })
}

fn accepted(answer: Result<Reply, crate::rpc::CallError>) -> Result<(), String> {
    match answer {
        Ok(Reply::Accepted(accepted)) => accepted,
        Ok(Reply::NotReady(reason)) => Err(reason),
        Ok(other) => Err(format!("unexpected answer {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}
