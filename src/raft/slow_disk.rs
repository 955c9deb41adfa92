//! A leader whose disk has become slow hands leadership over.
//!
//! Every write of the group waits for the leader's own log or, if a quorum of others is quicker, for
//! its memory to drain into it; a follower that is slow only lags. So a leader whose syncs have been
//! slow for a while asks the voter that is the furthest to lead. It stays a voter. If all disks are slow nothing is
//! won, so a replica does this only now and then.

use tokio::time::{Instant, MissedTickBehavior};

use crate::raft::replica::Replica;
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
        tracing::warn!(?slow, "the disk is slow: another shall lead");
        replica.hand_over().await;
        if !replica.leads() {
            handed_over = Some(Instant::now());
        }
    }
}
