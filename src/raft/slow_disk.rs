//! A leader whose disk has become slow hands leadership over.
//!
//! Every write of the group waits for the leader's own log or, if a quorum of others is quicker, for
//! its memory to drain into it; a follower that is slow only lags. So a leader whose syncs have been
//! slow for a while asks the voter that is the furthest to lead, if the others need not wait for its vote. It
//! stays a voter. If all disks are slow nothing is won, so a replica does this only now and then.

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, MissedTickBehavior};

use crate::raft::replica::Replica;
use crate::types::ids::NodeId;
use crate::types::limits::{
    SLOW_DISK_HAND_OVER_PAUSE, SLOW_DISK_LOOK_INTERVAL, SLOW_DISK_PATIENCE,
};

/// Looks at the disk for as long as the replica runs.
pub(in crate::raft) async fn watch(replica: Replica) {
    let mut ticks = tokio::time::interval(SLOW_DISK_LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut handed_over: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let slow = replica.wal().slow_for();
        let lately = handed_over.is_some_and(|at| at.elapsed() < SLOW_DISK_HAND_OVER_PAUSE);
        if slow < SLOW_DISK_PATIENCE || lately || !replica.leads() || replica.voters().len() < 2 {
            continue;
        }
        if !replica.others_can_elect() {
            continue;
        }
        tracing::warn!(?slow, "the disk is slow: another shall lead");
        // Also if it fails: openraft refuses writes from the attempt to the next term.
        handed_over = Some(Instant::now());
        replica.hand_over().await;
    }
}

impl Replica {
    /// Whether the other voters are a majority by themselves and have all but now answered: an heir
    /// that needs this one's vote waits for its disk.
    fn others_can_elect(&self) -> bool {
        let patience = self.options().timing.election_timeout_min;
        let voters = self.voters();
        let metrics = self.raft().data_metrics();
        let metrics = metrics.borrow_watched();
        let heard = |node: &NodeId| {
            let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(node)?.as_ref());
            heard.is_some_and(|heard| heard.elapsed() < patience)
        };
        let others = voters.iter().filter(|node| **node != self.member().node);
        others.filter(|node| heard(node)).count() > voters.len() / 2
    }
}
