//! Reads the replica's own files again, slowly and in the background, and repairs what is damaged.
//!
//! Most of a log is never read again, so that damage to it would show only after a restart, perhaps
//! when it is the last copy. What is damaged on disk is still whole in memory: the state. So a
//! damaged snapshot is written anew, and a damaged segment of the log is made superfluous by a
//! snapshot, upon which the log is purged. Entries that are not applied yet can't be replaced so; they wait until
//! they are.
//!
//! It does not see the segment that is being written, which is read from memory and synced over and
//! over, nor what the disk itself keeps in its cache.

use std::io;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::raft::compaction;
use crate::raft::replica::Replica;
use crate::store::snapshot::{Snapshot, SnapshotError};
use crate::store::wal::Scrubbed;
use crate::types::ids::Index;
use crate::types::limits::SCRUB_BYTES_PER_SECOND;

/// Between two looks at what a repair waits for.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a repair waits for what it needs, in one pass.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a pass ends early.
enum Ended {
    /// Raft, or the process, ends.
    Stopping,
    /// What can be tried again in the next pass.
    Failed(String),
}

/// Reads everything once in `--scrub-interval`, for as long as the replica runs.
pub(in crate::raft) async fn run(replica: Replica) {
    let interval = replica.options().scrub_interval;
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(interval).await;
        match pass(&replica).await {
            Ok(()) => tracing::debug!("log and snapshot were read again"),
            Err(Ended::Failed(why)) => tracing::warn!(%why, "files could not be read again"),
            Err(Ended::Stopping) => return,
        }
    }
}

async fn pass(replica: &Replica) -> Result<(), Ended> {
    let mut after = 0;
    loop {
        let wal = replica.wal().clone();
        let read = move || wal.scrub(after).map_err(|error| Ended::Failed(error.to_string()));
        let Some(segment) = blocking(read).await? else { break };
        if let Some(why) = &segment.damaged {
            do_without(replica, &segment, why).await?;
        }
        after = segment.number;
        tokio::time::sleep(time_for(segment.bytes)).await;
    }
    let (snapshots, stopping) = (replica.snapshots().clone(), replica.stopping());
    let read = move || match snapshots.scrub(|bytes| paced(bytes, &stopping)) {
        Ok(()) => Ok(None),
        Err(_) if stopping.is_cancelled() => Err(Ended::Stopping),
        Err(error @ (SnapshotError::Damaged { .. } | SnapshotError::Io { .. })) => Ok(Some(error)),
        Err(error) => Err(Ended::Failed(error.to_string())),
    };
    match blocking(read).await? {
        Some(error) => write_anew(replica, &error).await,
        None => Ok(()),
    }
}

/// How long reading so much shall take.
fn time_for(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / SCRUB_BYTES_PER_SECOND)
}

/// Makes a thread that reads wait before so many bytes, and end when the replica does.
fn paced(bytes: u64, stopping: &CancellationToken) -> io::Result<()> {
    Handle::current().block_on(async {
        tokio::select! {
            biased;
            // Not `Interrupted`: readers try that again.
            () = stopping.cancelled() => Err(io::Error::other("the replica stops")),
            () = tokio::time::sleep(time_for(bytes)) => Ok(()),
        }
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Ended> + Send + 'static,
) -> Result<T, Ended> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Ended::Stopping))
}

/// Takes a snapshot and purges the log, so that a damaged segment is not needed any more.
async fn do_without(replica: &Replica, segment: &Scrubbed, why: &str) -> Result<(), Ended> {
    let Scrubbed { number, last, .. } = *segment;
    tracing::error!(segment = number, %why, "the log is damaged on disk; taking a snapshot to do without it");
    // openraft ends the replica if it can't write one, and what is in memory may be the last copy.
    write_state(replica).await?;
    let begun = Instant::now();
    let mut asked: Option<Index> = None;
    while begun.elapsed() < PATIENCE {
        let applied = replica.published().applied_index();
        let snapshot = replica.raft().data_metrics().borrow_watched().snapshot;
        if replica.wal().purged().map(|id| id.index) >= Some(last) {
            tracing::warn!(segment = number, "the log does without the damaged segment now");
            return Ok(());
        }
        if snapshot.is_some_and(|snapshot| snapshot.index >= last) {
            compaction::purge(replica).await.map_err(|()| Ended::Stopping)?;
        } else if applied >= Some(last) && asked != applied {
            asked = applied;
            let asked = replica.raft().trigger().snapshot().await;
            asked.map_err(|_| Ended::Stopping)?;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Err(Ended::Failed(format!("nothing after entry {last} was applied yet")))
}

/// Writes the state as the newest snapshot.
async fn write_state(replica: &Replica) -> Result<Snapshot, Ended> {
    let (snapshots, state) = (replica.snapshots().clone(), replica.published().frozen());
    let write = move || snapshots.write(&state).map_err(|error| Ended::Failed(error.to_string()));
    blocking(write).await
}

/// Writes a snapshot of the state in the place of a damaged one.
async fn write_anew(replica: &Replica, error: &SnapshotError) -> Result<(), Ended> {
    tracing::error!(%error, "the snapshot is damaged on disk; writing it anew from memory");
    let written = write_state(replica).await?;
    tracing::warn!(snapshot = %written.path.display(), "the damaged snapshot is replaced");
    Ok(())
}
