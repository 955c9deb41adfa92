//! The dull loop behind [`super::claiming`]: asks everybody who they are, lets the pure function
//! decide, does what it says, and tells requests who leads.
//!
//! Before a ring is served every known URL is asked every [`ASK_PAUSE_SEEKING`]. Afterwards each
//! member is asked once in [`ASK_ROUNDS_CALM`] rounds of [`ASK_PAUSE_SERVING`], and all members of a
//! group at once when something about it is in doubt. It never ends before it is told to, logs at
//! most one line a second about what it waits for, and holds nothing that is not found again by
//! asking.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::coordinator::claiming::{
    Plan, Proposal, Purpose, Refused, Seen, Step, Verdict, View, judge, next,
};
use crate::coordinator::peers::Peers;
use crate::coordinator::roster::Roster;
use crate::coordinator::routing::Need;
use crate::coordinator::shared::{Active, Errand, Shared, outcome};
use crate::rpc::Target;
use crate::types::command::Outcome;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::host;
use crate::types::ids::{ClusterId, GroupId};
use crate::types::limits::{
    ASK_PAUSE_MIN, ASK_PAUSE_SEEKING, ASK_PAUSE_SERVING, ASK_ROUNDS_CALM, ASK_TIMEOUT,
    CLAIM_RETRY_PAUSE, REQUEST_TIMEOUT_DEFAULT,
};
use crate::types::peer::{Identity, Reply, Request};
use crate::types::topology::Topology;

/// The loop and what it knows.
pub(in crate::coordinator) struct Keeper<P> {
    shared: Arc<Shared<P>>,
    view: View,
    /// Counts the rounds.
    round: usize,
    /// Groups that were changed since they were asked.
    changed: BTreeSet<GroupId>,
    /// When a refused claim is tried again.
    retry: Instant,
    /// When the last line about waiting was logged.
    logged: Option<Instant>,
    /// What was warned about already.
    warned: BTreeSet<GroupId>,
}

impl<P: Peers> Keeper<P> {
    /// A keeper of the ring behind the URLs `given`.
    pub(in crate::coordinator) fn new(
        shared: Arc<Shared<P>>,
        given: Vec<String>,
        vnodes: u32,
    ) -> Self {
        Self {
            shared,
            view: View { given, vnodes, ..View::default() },
            round: 0,
            changed: BTreeSet::new(),
            retry: Instant::now(),
            logged: None,
            warned: BTreeSet::new(),
        }
    }

    /// Keeps going until `shutdown` is cancelled.
    pub(in crate::coordinator) async fn run(mut self, shutdown: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let rounds = async {
            loop {
                let pause = self.round().await;
                shared.rounds.notify_waiters();
                tokio::time::sleep(pause.min(ASK_PAUSE_MIN)).await;
                let rest = pause.saturating_sub(ASK_PAUSE_MIN);
                // Woken early or not, another round follows.
                drop(tokio::time::timeout(rest, shared.hurry.notified()).await);
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = rounds => {}
        }
    }

    /// Asks, decides, does. Returns the pause before the next round.
    async fn round(&mut self) -> Duration {
        self.round += 1;
        let asked = self.ask().await;
        let groups = self.view.groups();
        self.tell_rosters(&groups, &asked);
        self.warn_of_strangers(&groups);
        if self.view.refused.is_some() && Instant::now() >= self.retry {
            self.view.refused = None;
        }
        self.view.unused = ClusterId(host::random());
        let step = next(&self.view);
        self.view.doubted = None;
        match step {
            Step::Wait(reason) => {
                self.waiting(reason, false);
                ASK_PAUSE_SEEKING
            }
            Step::Refuse(reason) => {
                self.waiting(reason, true);
                ASK_PAUSE_SERVING
            }
            Step::Doubt(cluster) => {
                self.view.doubted = Some(cluster);
                ASK_PAUSE_MIN
            }
            Step::Adopt(topology) => {
                self.adopt(topology, &groups);
                Duration::ZERO
            }
            Step::Propose(plan) => {
                self.carry_out(&plan, &groups).await;
                ASK_PAUSE_MIN
            }
            Step::Rest if self.doubts() => ASK_PAUSE_SEEKING,
            Step::Rest => ASK_PAUSE_SERVING,
        }
    }

    /// Asks all that should be asked now; returns whom. URLs that come to light are asked at once.
    async fn ask(&mut self) -> BTreeSet<String> {
        let asked = self.due();
        self.ask_each(&asked).await;
        let known = self.view.urls();
        let new: BTreeSet<String> =
            known.iter().filter(|url| !self.view.answers.contains_key(*url)).cloned().collect();
        self.ask_each(&new).await;
        self.view.answers.retain(|url, _| known.contains(url));
        self.changed.clear();
        self.forget_lanes(&known);
        asked.into_iter().chain(new).collect()
    }

    async fn ask_each(&mut self, urls: &BTreeSet<String>) {
        let shared = &self.shared;
        let asking = urls.iter().map(|url| async move {
            let target = Target { url: url.clone(), node: None, group: None };
            let deadline = Deadline::after(ASK_TIMEOUT);
            let answer = shared.peers.call(&target, &Request::Identify, deadline).await;
            (url.clone(), answer.map_err(|error| error.to_string()).and_then(identity))
        });
        self.view.answers.extend(join_all(asking).await);
    }

    /// Whom to ask in this round.
    fn due(&self) -> BTreeSet<String> {
        let active = self.shared.active().ok();
        let due = |(at, url): &(usize, String)| {
            let Some(active) = &active else { return true };
            let Some(Ok(identity)) = self.view.answers.get(url) else { return true };
            let group = identity.group;
            let roster = group.and_then(|group| active.roster(group));
            group.is_some_and(|group| self.changed.contains(&group))
                || roster.is_some_and(|roster| roster.is_doubtful())
                || (self.round + at).is_multiple_of(ASK_ROUNDS_CALM)
        };
        self.view.urls().into_iter().enumerate().filter(due).map(|(_, url)| url).collect()
    }

    fn forget_lanes(&self, known: &BTreeSet<String>) {
        let mut targets: BTreeSet<Target> =
            known.iter().map(|url| Target { url: url.clone(), node: None, group: None }).collect();
        if let Ok(active) = self.shared.active() {
            for roster in &active.rosters {
                let contacts = roster.members().into_iter().chain(roster.leader());
                targets.extend(contacts.map(|contact| roster.target(&contact)));
            }
        }
        self.shared.peers.keep(&targets);
    }

    /// Tells requests who leads. A group of which only some members were asked is believed to be
    /// as it was, unless one of them says otherwise: then all are asked.
    fn tell_rosters(&self, groups: &BTreeMap<GroupId, Seen>, asked: &BTreeSet<String>) {
        let Ok(active) = self.shared.active() else { return };
        let silent = |url: &str| matches!(self.view.answers.get(url), Some(Err(_)));
        for roster in &active.rosters {
            for contact in roster.members() {
                if let Some(url) = asked.get(&*contact.url) {
                    roster.note(url, silent(url));
                }
            }
            let Some(seen) = groups.get(&roster.id()) else {
                roster.forget_leader();
                continue;
            };
            let mut seen = seen.clone();
            seen.leader.take_if(|leader| silent(&leader.url));
            if seen.members.iter().all(|member| asked.contains(&member.url)) {
                roster.learn(&seen);
                continue;
            }
            let known = roster.leader().map(|leader| leader.url.to_string());
            let mut answers =
                asked.iter().filter_map(|url| self.view.answers.get(url)?.as_ref().ok());
            let differs = answers.any(|identity| {
                identity.group == Some(roster.id())
                    && identity.leader.as_ref().map(|leader| &leader.url) != known.as_ref()
            });
            if differs || known.as_deref().is_some_and(silent) {
                roster.doubt();
                self.shared.hurry.notify_one();
            }
        }
    }

    fn doubts(&self) -> bool {
        let active = self.shared.active();
        active.is_ok_and(|active| active.rosters.iter().any(|roster| roster.is_doubtful()))
    }

    fn warn_of_strangers(&mut self, groups: &BTreeMap<GroupId, Seen>) {
        let Some(topology) = &self.view.adopted else { return };
        for seen in groups.values().filter(|seen| self.view.is_given(seen)) {
            let member = topology.groups.iter().any(|group| group.id == seen.id);
            if !member && self.warned.insert(seen.id) {
                tracing::warn!(
                    group = seen.label(),
                    id = %seen.id,
                    "not part of the cluster; ignored until it is added"
                );
            }
        }
    }

    fn waiting(&mut self, reason: String, refused: bool) {
        if self.logged.is_none_or(|logged| logged.elapsed() >= ASK_PAUSE_SERVING) {
            self.logged = Some(Instant::now());
            if refused {
                tracing::warn!(reason, "the ring can't be served");
            } else {
                tracing::info!(reason, "waiting for the ring");
            }
        }
        self.shared.stand(|standing| {
            standing.refused = refused;
            standing.reason = reason;
        });
    }

    fn adopt(&mut self, topology: Topology, groups: &BTreeMap<GroupId, Seen>) {
        let Topology { cluster, epoch, vnodes, .. } = topology;
        if self.view.adopted.is_none() && vnodes != self.view.vnodes {
            tracing::warn!(
                vnodes,
                ignored = self.view.vnodes,
                "the ring has other --vnodes than given; those of the ring count"
            );
        }
        self.view.adopted = Some(topology.clone());
        let before = self.shared.active().ok();
        let active = Active::new(topology, before.as_deref());
        for roster in &active.rosters {
            if let Some(seen) = groups.get(&roster.id()) {
                roster.learn(seen);
            }
        }
        tracing::info!(%cluster, epoch, vnodes, groups = active.rosters.len(), "serving the ring");
        self.shared.stand(|standing| {
            standing.active = Some(Arc::new(active));
            standing.refused = false;
        });
    }

    /// Proposes one after the other, until one does not come out as planned.
    async fn carry_out(&mut self, plan: &Plan, groups: &BTreeMap<GroupId, Seen>) {
        let cluster = plan.cluster;
        tracing::info!(%cluster, purpose = ?plan.purpose, "changing the groups' claims");
        for proposal in &plan.proposals {
            self.changed.insert(proposal.group.id);
            let roster = Roster::new(&proposal.group);
            if let Some(seen) = groups.get(&proposal.group.id) {
                roster.learn(seen);
            }
            let group = &proposal.group.name;
            let outcome = match self.propose(&roster, proposal).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    return self.waiting(format!("the claim of the ring: {error}"), false);
                }
            };
            match judge(proposal, &outcome) {
                Verdict::Next => {}
                Verdict::AskAgain => {
                    tracing::info!(%cluster, group, ?outcome, "things have changed; asking again");
                    return;
                }
                Verdict::Refused(reason) => {
                    // Shown as soon as the claim is released.
                    tracing::warn!(%cluster, reason, "a claim was refused");
                    self.retry = Instant::now() + CLAIM_RETRY_PAUSE;
                    self.view.refused = Some(Refused { cluster, reason });
                    return;
                }
            }
        }
        match plan.purpose {
            Purpose::Begin | Purpose::Resume => tracing::info!(%cluster, "the ring is claimed"),
            Purpose::Release => {
                tracing::info!(%cluster, "a claim that could not go on is released");
            }
            Purpose::Complete => tracing::info!(%cluster, "every group has its claim"),
        }
    }

    async fn propose(&self, roster: &Roster, proposal: &Proposal) -> Result<Outcome, Error> {
        let request = |timeout_ms| Request::Propose { action: proposal.action.clone(), timeout_ms };
        let errand = Errand { need: Need::Write, request: &request, read: outcome };
        self.shared.ask(roster, &errand, Deadline::after(REQUEST_TIMEOUT_DEFAULT)).await
    }
}

fn identity(reply: Reply) -> Result<Identity, String> {
    if let Reply::NotReady(reason) = reply {
        return Err(reason);
    }
    let Reply::Identity(identity) = reply else { return Err("it did not say who it is".into()) };
    Ok(*identity)
}
