//! The leader's side of taking a replica in: learner first, then voter in another's place.
//!
//! A replica that lost its disk comes back with a new identity and its old URL. Its old vote is
//! gone for ever: the new identity replaces the old member in one joint change (Raft thesis §4.3)
//! once it has caught up as a learner. The same call moves a member to a new URL.
//!
//! A leader that ends in the middle of a joint change leaves the group between two configurations,
//! needing a quorum of each; [`finish`] has the next leader end that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::BasicNode;
use tokio::time::Instant;

use crate::raft::replica::Replica;
use crate::types::ids::NodeId;
use crate::types::topology::Member;

/// How long a new learner may take to catch up before the attempt ends; it asks again.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a learner may be silent before the attempt ends: it may be gone, and the next one with
/// its URL waits.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long a leader waits before it tries again to finish a change.
const FINISH_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a change of the membership is under way: one at a time.
#[derive(Debug, Default)]
pub(in crate::raft) struct Joining(AtomicBool);

/// What has to be done to take a replica in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::raft) enum Change {
    /// It is a voter under this URL.
    Nothing,
    /// It is a member; only its URL is new.
    Move,
    /// It takes the place of this voter, which had its URL.
    Replace(NodeId),
}

/// Decides how `joiner` comes in; a sentence if it can't.
pub(in crate::raft) fn change(
    joiner: &Member,
    members: &[Member],
    voters: &[NodeId],
) -> Result<Change, String> {
    let known = members.iter().find(|member| member.node == joiner.node);
    if voters.contains(&joiner.node) {
        let moved = known.is_some_and(|known| known.url != joiner.url);
        return Ok(if moved { Change::Move } else { Change::Nothing });
    }
    let former =
        members.iter().find(|member| member.url == joiner.url && voters.contains(&member.node));
    match former {
        Some(former) => Ok(Change::Replace(former.node)),
        None => Err(format!("{} is not the URL of any member of this group", joiner.url)),
    }
}

/// Learners that never will come in: `joiner` comes under their URL, or no voter has it any more. So
/// each voter has one beside it at most, and a configuration never names more than
/// [`NODES_MAX`](crate::types::limits::NODES_MAX) nodes.
fn former_joiners(joiner: &Member, members: &[Member], voters: &[NodeId]) -> BTreeSet<NodeId> {
    let (seated, learners): (Vec<&Member>, Vec<&Member>) =
        members.iter().partition(|member| voters.contains(&member.node));
    let has_seat = |learner: &Member| seated.iter().any(|voter| voter.url == learner.url);
    let former = learners.into_iter().filter(|learner| {
        learner.node != joiner.node && (learner.url == joiner.url || !has_seat(learner))
    });
    former.map(|learner| learner.node).collect()
}

/// Finishes, for as long as the replica runs, what a former leader has begun to change.
pub(in crate::raft) async fn finish(replica: Replica) {
    let mut metrics = replica.raft().server_metrics();
    loop {
        let joint = metrics.borrow_and_update().membership_config.get_joint_config().len() > 1;
        if joint && replica.leads() && !replica.joining().0.swap(true, Ordering::AcqRel) {
            let voters = replica.voters().into_iter().collect();
            match replica.change_members(ChangeMembers::ReplaceAllVoters(voters), false).await {
                Ok(()) => tracing::info!("finished a change of the members"),
                Err(reason) => tracing::debug!(%reason, "could not finish a change yet"),
            }
            replica.joining().0.store(false, Ordering::Release);
        }
        let changed = metrics.changed();
        let changed = if joint {
            tokio::time::timeout(FINISH_INTERVAL, changed).await.unwrap_or(Ok(()))
        } else {
            changed.await
        };
        if changed.is_err() {
            return;
        }
    }
}

impl Replica {
    /// Begins to take `joiner` in. Returns at once; the joiner asks again until it is a voter.
    pub(in crate::raft) fn take_in(&self, joiner: Member) -> Result<(), String> {
        if !self.leads() {
            return Err("not the leader".into());
        }
        if self.is_in_doubt() {
            return Err(
                "replicas differ, and no majority says which is right: taking nobody in".into()
            );
        }
        let change = change(&joiner, &self.members(), &self.voters())?;
        if change == Change::Nothing || self.joining().0.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let replica = self.clone();
        self.spawn(async move {
            let node = joiner.node;
            match replica.change(joiner, change).await {
                Ok(()) => tracing::info!(%node, "took a replica in"),
                Err(reason) => tracing::warn!(%node, %reason, "could not take a replica in"),
            }
            replica.joining().0.store(false, Ordering::Release);
        });
        Ok(())
    }

    async fn change(&self, joiner: Member, change: Change) -> Result<(), String> {
        let nodes = BTreeMap::from([(joiner.node, BasicNode::new(joiner.url.clone()))]);
        match change {
            Change::Nothing => Ok(()),
            Change::Move => self.change_members(ChangeMembers::SetNodes(nodes), true).await,
            Change::Replace(former) => {
                tracing::info!(node = %joiner.node, url = %joiner.url, %former, "taking a replica in");
                let former_joiners = former_joiners(&joiner, &self.members(), &self.voters());
                if !former_joiners.is_empty() {
                    self.change_members(ChangeMembers::RemoveNodes(former_joiners), true).await?;
                }
                self.change_members(ChangeMembers::AddNodes(nodes), true).await?;
                let caught_up = self.caught_up(joiner.node);
                tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up)
                    .await
                    .map_err(|_| "it did not catch up in time")??;
                let mut voters: BTreeSet<NodeId> = self.voters().into_iter().collect();
                voters.remove(&former);
                voters.insert(joiner.node);
                self.change_members(ChangeMembers::ReplaceAllVoters(voters), false).await
            }
        }
    }

    async fn change_members(
        &self,
        change: ChangeMembers<NodeId, BasicNode>,
        retain: bool,
    ) -> Result<(), String> {
        let changed = self.raft().change_membership(change, retain).await;
        changed.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Waits until `node` has everything that was in the log when this was called.
    async fn caught_up(&self, node: NodeId) -> Result<(), String> {
        let mut metrics = self.raft().data_metrics();
        let goal = metrics.borrow_watched().last_log;
        let begun = Instant::now();
        loop {
            {
                let metrics = metrics.borrow_and_update();
                let Some(replication) = &metrics.replication else {
                    return Err("lost leadership meanwhile".into());
                };
                if replication.get(&node).is_some_and(|matched| *matched >= goal) {
                    return Ok(());
                }
                let heartbeats = metrics.heartbeat.as_ref();
                let heard = heartbeats.and_then(|heartbeats| heartbeats.get(&node)?.as_ref());
                let silence = heard.map_or(begun.elapsed(), |heard| heard.elapsed());
                if silence.min(begun.elapsed()) > SILENCE_MAX {
                    return Err("it does not answer".into());
                }
            }
            let changed = tokio::time::timeout(SILENCE_MAX, metrics.changed()).await;
            changed.unwrap_or(Ok(())).map_err(|error| error.to_string())?;
        }
    }
}

#[cfg(test)]
mod tests {

    use openraft::EntryPayload;

    use super::*;
    use crate::raft::replica::tests::{alone, open};
    use crate::types::limits::{MEMBERS_MAX, NODES_MAX};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_joint_change_that_was_left_halfway_is_finished() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let replica = open(alone(dir.path())).await;
        replica.form().await.expect("it forms");
        // What the former leader has left behind.
        let me = replica.member().clone();
        let nodes = BTreeMap::from([(me.node, BasicNode::new(me.url))]);
        let voters = BTreeSet::from([me.node]);
        let joint = openraft::Membership::new(vec![voters.clone(), voters], nodes).expect("valid");
        let appended = replica.raft().append_membership(joint, EntryPayload::Blank, []).await;
        appended.expect("it is taken");
        let finished = async {
            let mut metrics = replica.raft().server_metrics();
            while metrics.borrow_and_update().membership_config.get_joint_config().len() > 1 {
                metrics.changed().await.expect("raft runs");
            }
        };
        tokio::time::timeout(Duration::from_secs(10), finished).await.expect("it is finished");
        replica.shutdown().await;
    }

    #[test]
    fn a_replica_comes_in_only_in_the_place_of_a_voter_with_its_url() {
        let member = |node, url: &str| Member { node: NodeId(node), url: url.into() };
        let members = [member(1, "http://a"), member(2, "http://b"), member(9, "http://l")];
        let voters = [NodeId(1), NodeId(2)];
        let decide = |joiner| change(&joiner, &members, &voters);
        assert_eq!(decide(member(1, "http://a")), Ok(Change::Nothing));
        assert_eq!(decide(member(1, "http://c")), Ok(Change::Move));
        assert_eq!(decide(member(3, "http://b")), Ok(Change::Replace(NodeId(2))));
        assert!(decide(member(3, "http://c")).is_err());
        // A learner's URL names no seat among the voters.
        assert!(decide(member(3, "http://l")).is_err());
    }

    #[test]
    fn however_often_replicas_come_and_move_a_configuration_stays_within_its_bound() {
        let member = |node, url: u64| Member { node: NodeId(node), url: format!("http://{url}") };
        let mut members: Vec<_> = (0..MEMBERS_MAX as u64).map(|node| member(node, node)).collect();
        let voters: Vec<_> = members.iter().map(|member| member.node).collect();
        for round in 0..200 {
            // A learner comes for each seat and is never heard of again; then the voter moves.
            let at = usize::try_from(round).expect("it is small") % MEMBERS_MAX;
            let joiner = Member { node: NodeId(1000 + round), url: members[at].url.clone() };
            let former = former_joiners(&joiner, &members, &voters);
            assert!(voters.iter().all(|voter| !former.contains(voter)), "{former:?}");
            members.retain(|member| !former.contains(&member.node));
            members.push(joiner);
            assert!(members.len() <= NODES_MAX, "{} nodes in round {round}", members.len());
            if round % 3 == 0 {
                members[at].url = format!("http://{}", 1000 + round);
            }
        }
    }
}
