//! Keeps a coordinator's view of the ring: asks, lets [`claiming`] decide, does what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::coordinator::claiming::{self, Answers, Step};
use crate::coordinator::inner::{Inner, Serving};
use crate::coordinator::peers::Peers;
use crate::coordinator::routing::pause;
use crate::rpc::{CallError, Target};
use crate::types::command::{Action, Outcome, Refusal};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::ClusterId;
use crate::types::limits::CONNECT_TIMEOUT;
use crate::types::peer::{Reply, Request};
use crate::types::topology::{Claim, Group, Topology};

/// How often everybody is asked while there is no ring to serve by.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);
/// How often once there is.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two rounds, however many wish for one.
const REFRESH_PAUSE: Duration = Duration::from_millis(20);
/// After how many searches without an end the reason is logged again: about each second.
const SEARCHES_PER_LOG_LINE: u32 = 10;
/// How long one step of a claim may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

impl<P: Peers> Inner<P> {
    /// Finds or claims the ring, then keeps up with it, for as long as it is polled.
    pub(in crate::coordinator) async fn keep(&self) {
        let mut ticks = tokio::time::interval(SEARCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_refresh = tokio::time::Instant::now();
        for round in 0_u32.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.refresh_wanted() => {}
            }
            let serving = self.serving().is_some();
            let wished = self.take_refresh_wish();
            if serving && last_refresh.elapsed() < REFRESH_INTERVAL && !wished {
                continue;
            }
            tokio::time::sleep_until(last_refresh + REFRESH_PAUSE).await;
            last_refresh = tokio::time::Instant::now();
            self.round(round).await;
            self.refreshed();
        }
    }

    /// Asks once and does what follows.
    pub(in crate::coordinator) async fn round(&self, round: u32) {
        let answers = self.ask_all().await;
        let step = claiming::next(&self.options().shards, &answers);
        let waiting = match step {
            Step::Serve(topology) => {
                self.serve(&topology, &answers);
                self.complete(&topology, &answers).await;
                return;
            }
            Step::Claim(groups) => self.claim(groups).await,
            Step::Resume(topology) => self.resume(&topology).await,
            Step::Release(group, topology) => self.release_orphan(&group, &topology).await,
            Step::Wait(reason) => Err(reason),
        };
        if let Err(reason) = waiting {
            if round.is_multiple_of(SEARCHES_PER_LOG_LINE) {
                tracing::info!(%reason, "waiting for the ring");
            }
            self.set_waiting(reason);
        }
    }

    /// Asks every URL that is known: given, in the topology, or named by a member.
    async fn ask_all(&self) -> Answers {
        let mut answers = Answers::new();
        let mut urls: BTreeSet<String> = self.options().shards.iter().cloned().collect();
        if let Some(serving) = self.serving() {
            for group in &serving.topology.groups {
                urls.extend(group.urls.iter().cloned());
                urls.extend(self.groups().urls(group.id));
            }
        }
        // A second time for those that only an answer has named: the rest of a half-known ring.
        for _ in 0..2 {
            let asked = urls.iter().map(async |url| (url.clone(), self.identify(url).await));
            let new: Answers = futures::future::join_all(asked).await.into_iter().collect();
            for identity in new.values().filter_map(|answer| answer.as_ref().ok()) {
                self.groups().heard(identity);
            }
            answers.extend(new);
            urls = answers
                .values()
                .filter_map(|answer| answer.as_ref().ok()?.claim.as_ref())
                .flat_map(|claim| &claim.topology.groups)
                .flat_map(|group| &group.urls)
                .filter(|url| !answers.contains_key(*url))
                .cloned()
                .collect();
            if urls.is_empty() {
                break;
            }
        }
        self.forget_leaders(&answers);
        answers
    }

    /// Forgets the leader of each group whose members know none.
    fn forget_leaders(&self, answers: &Answers) {
        let Some(serving) = self.serving() else { return };
        for group in &serving.topology.groups {
            let mut members = answers.values().filter_map(|answer| answer.as_ref().ok());
            let named = members
                .any(|identity| identity.group == Some(group.id) && identity.leader.is_some());
            if !named {
                self.groups().leaderless(group.id);
            }
        }
    }

    async fn identify(&self, url: &str) -> Result<crate::types::peer::Identity, String> {
        let target = Target { url: url.to_owned(), node: None, group: None };
        let deadline = Deadline::after(CONNECT_TIMEOUT);
        match self.peers().call(&target, &Request::Identify, deadline).await {
            Ok(Reply::Identity(identity)) => Ok(*identity),
            Ok(other) => Err(format!("unexpected answer {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn serve(&self, topology: &Topology, answers: &Answers) {
        let known = self.serving().map(|serving| serving.topology.epoch);
        if known.is_some_and(|epoch| epoch >= topology.epoch) {
            return;
        }
        for group in &topology.groups {
            self.groups().learn(group);
        }
        if topology.vnodes != self.options().vnodes {
            tracing::warn!(
                given = self.options().vnodes,
                ring = topology.vnodes,
                "--vnodes differs from the ring's: the ring's is used"
            );
        }
        let ring: BTreeSet<_> = topology.groups.iter().map(|group| group.id).collect();
        for identity in answers.values().filter_map(|answer| answer.as_ref().ok()) {
            if identity.group.is_some_and(|group| !ring.contains(&group)) {
                tracing::warn!(
                    url = %identity.member.url,
                    "not part of the cluster; ignored until it is added"
                );
            }
        }
        tracing::info!(
            cluster = %topology.cluster,
            epoch = topology.epoch,
            groups = topology.groups.len(),
            "serving the ring"
        );
        self.set_serving(Serving::new(topology.clone()));
    }

    /// Makes sure that every group of an active ring has its part of it: a coordinator before may
    /// have ended halfway.
    async fn complete(&self, topology: &Topology, answers: &Answers) {
        let identities = || answers.values().filter_map(|answer| answer.as_ref().ok());
        for (group, claim) in claiming::claims(topology) {
            let mut members = identities().filter(|identity| identity.group == Some(group.id));
            let done = |identity: &crate::types::peer::Identity| {
                let claimed = identity.claim.as_ref();
                identity.confirmed
                    && claimed.is_some_and(|claim| claim.topology.epoch >= topology.epoch)
            };
            let answered = identities().any(|identity| identity.group == Some(group.id));
            if !answered || members.any(done) {
                continue;
            }
            let completed = async {
                self.propose_claim(&group, &claim).await?;
                self.propose_confirm(&group, topology.cluster).await
            };
            if let Err(reason) = completed.await {
                tracing::warn!(shard = %group.name, %reason, "could not complete its claim");
            }
        }
    }

    async fn claim(&self, groups: Vec<Group>) -> Result<(), String> {
        let cluster = ClusterId(getrandom::u64().map_err(|error| error.to_string())?.max(1));
        let vnodes = self.options().vnodes;
        tracing::info!(%cluster, groups = groups.len(), vnodes, "claiming a new ring");
        self.resume(&Topology { cluster, epoch: 1, vnodes, groups }).await
    }

    async fn resume(&self, topology: &Topology) -> Result<(), String> {
        let claims = claiming::claims(topology);
        for (group, _) in &claims {
            self.groups().learn(group);
        }
        for (group, claim) in &claims {
            if let Err(refused) = self.propose_claim(group, claim).await {
                let reason = format!("shard {} can't be claimed: {refused}", group.name);
                tracing::warn!(%reason, "releasing the claim");
                self.release(topology).await?;
                return Err(reason);
            }
        }
        for (group, _) in &claims {
            self.propose_confirm(group, topology.cluster).await?;
        }
        Ok(())
    }

    /// Takes a claim back everywhere: first at home, whose log decides whether it may be.
    async fn release(&self, topology: &Topology) -> Result<(), String> {
        for group in &topology.groups {
            match self.propose(group, Action::Release { cluster: topology.cluster }).await? {
                Ok(())
                | Err(
                    Refusal::NotClaimed
                    | Refusal::OtherCluster { .. }
                    | Refusal::OldEpoch { .. }
                    | Refusal::ForeignKeys { .. }
                    | Refusal::Founded { .. },
                ) => {}
                Err(refusal @ Refusal::Confirmed) => return Err(refusal.to_string()),
            }
        }
        Ok(())
    }

    async fn release_orphan(&self, group: &Group, topology: &Topology) -> Result<(), String> {
        tracing::info!(shard = %group.name, cluster = %topology.cluster, "releasing an orphaned claim");
        for group in topology.groups.iter().chain([group]) {
            self.groups().learn(group);
        }
        self.release(topology).await
    }

    async fn propose_claim(&self, group: &Group, claim: &Claim) -> Result<(), String> {
        let claimed = self.propose(group, Action::Claim(Box::new(claim.clone()))).await?;
        claimed.map_err(|refusal| refusal.to_string())
    }

    async fn propose_confirm(&self, group: &Group, cluster: ClusterId) -> Result<(), String> {
        let confirmed = self.propose(group, Action::Confirm { cluster }).await?;
        confirmed.map_err(|refusal| format!("shard {}: {refusal}", group.name))
    }

    /// Takes an action through a group's log. Every one of them may be repeated, so whatever goes
    /// wrong is tried again until the time is up.
    async fn propose(&self, group: &Group, action: Action) -> Result<Result<(), Refusal>, String> {
        let deadline = Deadline::after(STEP_TIMEOUT);
        let mut failures = BTreeMap::new();
        for round in 1_u32.. {
            if let Some(asked) = self.groups().ask(group.id) {
                let request = Request::Propose {
                    action: action.clone(),
                    timeout_ms: deadline.at_most(STEP_TIMEOUT / 2).left_ms(),
                };
                let attempt = deadline.at_most(STEP_TIMEOUT / 2);
                match self.peers().call(&asked, &request, attempt).await {
                    Ok(Reply::Proposed(Ok(Outcome::Refused(refusal)))) => return Ok(Err(refusal)),
                    Ok(Reply::Proposed(Ok(
                        Outcome::Done | Outcome::Written { .. } | Outcome::WrongShard { .. },
                    ))) => return Ok(Ok(())),
                    Ok(Reply::Proposed(Err(Error::NotLeader { leader: Some(leader) }))) => {
                        self.groups().led_by(group.id, leader.clone());
                        failures.insert(asked.url, format!("it is led by {}", leader.url));
                    }
                    Ok(Reply::Proposed(Err(error))) => {
                        self.groups().leader_lost(group.id, &asked);
                        failures.insert(asked.url, error.to_string());
                    }
                    Ok(other) => return Err(format!("unexpected answer {other:?}")),
                    Err(
                        CallError::NotSent(reason)
                        | CallError::Overloaded(reason)
                        | CallError::Lost(reason),
                    ) => {
                        self.groups().leader_lost(group.id, &asked);
                        failures.insert(asked.url, reason);
                    }
                }
            }
            if deadline.left() <= pause(round) {
                break;
            }
            tokio::time::sleep(pause(round)).await;
        }
        let reasons: Vec<String> =
            failures.into_iter().map(|(url, reason)| format!("{url}: {reason}")).collect();
        Err(format!("shard {} did not take it: {}", group.name, reasons.join("; ")))
    }
}
