//! Keeps the log bounded: a snapshot after so many bytes of it, then the log before the snapshot
//! is purged.
//!
//! openraft purges by entries, and keeps some behind a snapshot for slow followers; with large
//! values that may be too many bytes, so beyond about twice the bound everything in the snapshot goes.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::MissedTickBehavior;

use crate::raft::replica::Replica;
use crate::types::host;
use crate::types::limits::WAL_SEGMENT_BYTES_DEFAULT;

/// How often the size of the log is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Takes snapshots and purges for as long as the replica runs.
pub(in crate::raft) async fn run(replica: Replica) {
    let limit = replica.options().snapshot_log_bytes;
    let bytes_max = limit.saturating_add(WAL_SEGMENT_BYTES_DEFAULT).saturating_mul(2);
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // What an earlier process wrote counts too, once it is applied.
    let mut unsnapshotted = replica.wal().bytes().min(limit);
    // Of it, what was written before the snapshot that is under way.
    let mut covered = None;
    let mut due = earlier(limit);
    let newest = || replica.snapshots().newest()?.last.map(|id| id.index);
    let mut before = newest();
    let recovered = replica.wal().last().map(|id| id.index);
    let mut seen = replica.wal().bytes_appended();
    loop {
        ticks.tick().await;
        let appended = replica.wal().bytes_appended();
        unsnapshotted += appended - seen;
        seen = appended;
        let applied = replica.published().applied_index();
        if newest() != before {
            unsnapshotted -= covered.take().unwrap_or(0);
            (before, due) = (newest(), earlier(limit));
        }
        // Again and again until there is one: openraft starts none while it is busy with another, and does not say so.
        if unsnapshotted >= due && applied > before && applied >= recovered {
            tracing::debug!(bytes = unsnapshotted, "a snapshot is due");
            if replica.raft().trigger().snapshot().await.is_err() {
                return;
            }
            covered.get_or_insert(unsnapshotted);
        }
        if replica.wal().bytes() > bytes_max && purge(&replica).await.is_err() {
            return;
        }
    }
}

/// The limit or up to a quarter less, drawn anew each time: replicas that have the same log would all write their
/// snapshots at the same moment, and nobody would be left who is not busy with that.
fn earlier(limit: u64) -> u64 {
    limit - host::random() % (limit / 4 + 1)
}

/// Purges everything that the newest snapshot holds.
pub(in crate::raft) async fn purge(replica: &Replica) -> Result<(), ()> {
    let (snapshot, purged) = {
        let metrics = replica.raft().data_metrics();
        let metrics = metrics.borrow_watched();
        (metrics.snapshot, metrics.purged)
    };
    match snapshot {
        Some(snapshot) if purged.is_none_or(|purged| purged.index < snapshot.index) => {
            replica.raft().trigger().purge_log(snapshot.index).await.map_err(|_| ())
        }
        Some(_) | None => Ok(()),
    }
}
