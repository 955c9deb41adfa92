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
/// How old the state is of a replica that is behind, in milliseconds.
const BEHIND_MS: u64 = 1000;

/// Takes snapshots and purges for as long as the replica runs.
pub(in crate::raft) async fn run(replica: Replica) {
    let limit = replica.options().snapshot_log_bytes;
    let bytes_max = limit.saturating_add(WAL_SEGMENT_BYTES_DEFAULT).saturating_mul(2);
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // What an earlier process wrote counts too, once it is applied.
    let mut log = Unsnapshotted::new(limit, replica.wal().bytes());
    let newest = || replica.snapshots().newest()?.last.map(|id| id.index);
    let mut before = newest();
    let recovered = replica.wal().last().map(|id| id.index);
    let mut seen = replica.wal().bytes_appended();
    loop {
        ticks.tick().await;
        let appended = replica.wal().bytes_appended();
        log.bytes += appended - seen;
        seen = appended;
        let applied = replica.published().applied_index();
        if newest() != before {
            before = newest();
            log.there_is_one();
        }
        // Again and again until there is one: openraft starts none while it is busy with another, and does not say so.
        let may_wait =
            replica.wal().bytes() <= bytes_max && is_behind(replica.leads(), replica.lag_ms());
        if log.is_due(may_wait) && applied > before && applied >= recovered {
            tracing::debug!(bytes = log.bytes, "a snapshot is due");
            if replica.raft().trigger().snapshot().await.is_err() {
                return;
            }
            log.one_begins();
        }
        if replica.wal().bytes() > bytes_max && purge(&replica).await.is_err() {
            return;
        }
    }
}

/// Whether another, who leads, may have much that this replica lacks, and send a snapshot. It may seem so for long where clocks differ.
fn is_behind(leads: bool, lag_ms: Option<u64>) -> bool {
    !leads && lag_ms.is_none_or(|lag_ms| lag_ms > BEHIND_MS)
}

/// The log since the newest snapshot.
struct Unsnapshotted {
    /// So many bytes are too many.
    limit: u64,
    bytes: u64,
    /// Of them, those that were there when the snapshot that is under way was begun.
    covered: Option<u64>,
    /// With so many a snapshot is due.
    due: u64,
}

impl Unsnapshotted {
    /// That of a replica that starts with so many bytes of log.
    fn new(limit: u64, bytes: u64) -> Self {
        Self { limit, bytes: bytes.min(limit), covered: None, due: earlier(limit) }
    }

    /// Whether a snapshot is due. One that may wait is put off until there is as much again: it would be work for nothing if one came from the
    /// leader, at a time when this replica has enough to do.
    fn is_due(&self, may_wait: bool) -> bool {
        self.bytes >= self.due.saturating_add(if may_wait { self.limit } else { 0 })
    }

    /// One is begun, unless it was already.
    fn one_begins(&mut self) {
        self.covered.get_or_insert(self.bytes);
    }

    /// There is a newer one: the one that was begun, or else one that the leader has sent, or that repairs a damaged file, which has nearly all.
    fn there_is_one(&mut self) {
        self.bytes -= self.covered.take().unwrap_or(self.bytes);
        self.due = earlier(self.limit);
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    #[test]
    fn a_snapshot_is_due_by_what_no_snapshot_has() {
        let mut log = Unsnapshotted::new(LIMIT, LIMIT / 2);
        assert!(!log.is_due(false), "up to a quarter before the limit, not sooner");
        log.bytes += LIMIT / 2;
        assert!(log.is_due(false));
        log.one_begins();
        log.bytes += LIMIT / 2;
        log.one_begins();
        assert!(log.is_due(false), "until it is there");
        log.there_is_one();
        assert_eq!(log.bytes, LIMIT / 2, "what came meanwhile is not in it");
        log.there_is_one();
        assert_eq!(log.bytes, 0, "the leader sent one");
        assert!(Unsnapshotted::new(LIMIT, 7 * LIMIT).is_due(false));
    }

    #[test]
    fn who_is_behind_puts_it_off_but_not_for_ever() {
        let mut log = Unsnapshotted::new(LIMIT, 7 * LIMIT);
        assert!(!log.is_due(true));
        log.bytes = log.due + LIMIT - 1;
        assert!(!log.is_due(true));
        log.bytes += 1;
        assert!(log.is_due(true));
    }

    #[test]
    fn who_leads_is_not_behind() {
        let newer = BEHIND_MS + 1;
        assert!(is_behind(false, Some(newer)) && is_behind(false, None));
        assert!(!is_behind(false, Some(BEHIND_MS)));
        assert!(!is_behind(true, Some(newer)) && !is_behind(true, None));
    }
}
