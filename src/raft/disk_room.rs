//! Keeps a reserve on the disk: a leader whose disk is nearly full refuses puts before they are in any
//! log.
//!
//! A log that can't grow ends the replica, and a snapshot, which would let the log shrink, needs room
//! beside the one before. So puts are refused while less is free than a reserve and another snapshot;
//! reads go on, and so do deletes, votes and what the group has to say of itself, out of the
//! reserve. Only the leader's own disk counts: a follower whose disk fills up ends, and the group
//! goes on without it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::MissedTickBehavior;

use crate::raft::replica::Replica;
use crate::store::blocking::blocking;
use crate::store::datadir::free_bytes;
use crate::store::state::WrongShard;
use crate::types::error::{Error, Space};
use crate::types::key::Key;
use crate::types::limits::DISK_LOOK_INTERVAL;

/// Whether there is room for puts.
#[derive(Debug)]
pub(in crate::raft) struct DiskRoom {
    reserve: u64,
    full: AtomicBool,
}

impl DiskRoom {
    /// Keeps `reserve` bytes free.
    pub(in crate::raft) fn new(reserve: u64) -> Self {
        Self { reserve, full: AtomicBool::new(false) }
    }

    /// Whether puts are refused.
    pub(in crate::raft) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Takes note of how much is free, and says so when that changes what is done.
    fn note(&self, free: u64, snapshot: u64) {
        let needed = self.reserve.saturating_add(snapshot);
        let full = free < needed;
        if self.full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::warn!(free, needed, "the disk is nearly full: refusing puts");
            } else {
                tracing::warn!(free, needed, "there is room on the disk again");
            }
        }
    }
}

/// Looks at the disk for as long as the replica runs.
pub(in crate::raft) async fn watch(replica: Replica) {
    let mut ticks = tokio::time::interval(DISK_LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let data = replica.options().data.clone();
        match blocking(move || free_bytes(&data)).await {
            Ok(Ok(free)) => {
                let snapshot = replica.snapshots().newest().map_or(0, |newest| newest.bytes);
                replica.disk_room().note(free, snapshot);
            }
            Ok(Err(error)) => tracing::debug!(%error, "how full the disk is can't be told"),
            Err(_) => return, // The runtime ends.
        }
    }
}

impl Replica {
    /// Refuses a put of `key` while the disk is nearly full.
    pub(in crate::raft) fn admit_on_disk(&self, key: &Key) -> Result<(), Error> {
        if !self.disk_room().is_full() {
            return Ok(());
        }
        let owned = self.published().read(|state| state.check_owned(key));
        owned.map_err(|WrongShard { epoch }| Error::WrongShard { epoch })?;
        Err(Error::NoRoom(Space::Disk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_and_another_snapshot_are_kept_free() {
        let room = DiskRoom::new(100);
        for (free, snapshot, full) in
            [(100, 0, false), (99, 0, true), (100, 1, true), (101, 1, false), (0, u64::MAX, true)]
        {
            room.note(free, snapshot);
            assert_eq!(room.is_full(), full, "{free} free, {snapshot} for a snapshot");
        }
    }
}
