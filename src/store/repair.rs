//! Goes on without what is damaged, in the data directory of a replica that is alone.
//!
//! Only by command, and only if the command names the entry after which all is lost: the loss that is
//! accepted is the one that was shown. What a member of a group has lost it gets from the others, and
//! must not do without: it has promised to keep it.
//!
//! The log is written anew beside the old one, as far as it can be trusted, then takes its place; the
//! old one is set aside. A crash in between leaves either of them, and the command goes on from there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::store::check::{CheckError, Report, check};
use crate::store::datadir::{self, DataDir, DataDirError};
use crate::store::disk::{self, Disk as _, Real};
use crate::store::wal::{Record, Wal, WalError, WalOptions};
use crate::types::ids::{Index, LogId, NodeId, Vote};
use crate::types::limits::{DATA_DAMAGED_MAX, WAL_SEGMENT_BYTES_DEFAULT};

/// Why a data directory is not repaired. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// It can't be checked.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// Nothing is wrong with it.
    #[error("{0} is not damaged; there is nothing to repair")]
    Whole(PathBuf),
    /// The replica is not alone, or nothing is left, or another loss was meant.
    #[error("{problem}; {cure}")]
    Refused {
        /// What is wrong with the data.
        problem: String,
        /// What can be done instead.
        cure: String,
    },
    /// The new log can't be written.
    #[error("{path}: {source}")]
    Io {
        /// What was written.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<DataDirError> for RepairError {
    fn from(error: DataDirError) -> Self {
        Self::Check(error.into())
    }
}

impl From<WalError> for RepairError {
    fn from(error: WalError) -> Self {
        Self::Check(error.into())
    }
}

/// Accepts that every entry after `lose_after` is lost. Returns where the damaged data is now.
pub async fn repair(dir: &Path, lose_after: Index) -> Result<Vec<PathBuf>, RepairError> {
    let [wal, fresh, snapshots] = ["wal", "wal.repaired", "snapshot"].map(|name| dir.join(name));
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RepairError::Io { path, source }
    };
    if !wal.exists() && is_whole(&fresh, lose_after)? {
        // An earlier repair was cut off when the old log had been set aside.
        let _locked = DataDir::open(dir)?;
        disk::replace(&Real, &fresh, &wal).map_err(io(&wal))?;
        return Ok(Vec::new());
    }
    let report = check(dir)?;
    let (node, keep) = accepted(&report, lose_after)?;
    let _locked = DataDir::open(dir)?;
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(io(&fresh))?;
    }
    let newest = report.snapshots.last();
    let snapshot = newest.filter(|newest| newest.ok).and_then(|newest| newest.last);
    let disk: Arc<dyn disk::Disk> = Arc::new(Real);
    let segment_bytes = WAL_SEGMENT_BYTES_DEFAULT;
    let log = Wal::open(WalOptions { disk, dir: fresh.clone(), node, segment_bytes })?;
    copy(&wal, &log, report.log.vote, snapshot, keep).await.map_err(io(&fresh))?;
    log.close().await.map_err(io(&fresh))?;
    if !is_whole(&fresh, keep)? {
        let what = "the log could not be read twice in the same way; is the disk failing?";
        return Err(RepairError::Io { path: wal, source: std::io::Error::other(what) });
    }
    let mut aside = Vec::new();
    for (damaged, set_aside) in
        [(&snapshots, newest.is_some_and(|newest| !newest.ok)), (&wal, wal.exists())]
    {
        if set_aside {
            let moved = datadir::move_aside(damaged, DATA_DAMAGED_MAX);
            aside.push(moved.map_err(io(damaged))?);
        }
    }
    disk::replace(&Real, &fresh, &wal).map_err(io(&wal))?;
    Real.sync_dir(dir).map_err(io(dir))?;
    Ok(aside)
}

/// Whether a log that was written anew is there, and ends where it should.
fn is_whole(dir: &Path, last: Index) -> Result<bool, WalError> {
    let found = Wal::inspect(&Real, dir, drop)?;
    let ends = found.last.is_some_and(|end| end.index == last);
    Ok(found.segments > 0 && found.damage.is_none() && ends)
}

/// Whose log it is, and the last entry to keep, if that is what was meant.
fn accepted(report: &Report, lose_after: Index) -> Result<(NodeId, Index), RepairError> {
    if report.ok {
        return Err(RepairError::Whole(report.dir.clone()));
    }
    let keep = report.loss.as_ref().and_then(|loss| loss.keep);
    match (report.node, keep) {
        (Some(node), Some(keep)) if report.is_alone() && keep == lose_after => Ok((node, keep)),
        _ => Err(RepairError::Refused { problem: report.problems.join("; "), cure: report.cure() }),
    }
}

/// Writes to `log` what the one in `dir` says between the snapshot and `keep`.
async fn copy(
    dir: &Path,
    log: &Wal,
    vote: Option<Vote>,
    snapshot: Option<LogId>,
    keep: Index,
) -> std::io::Result<()> {
    const RECORDS_AHEAD: usize = 64;
    if let Some(vote) = vote {
        log.save_vote(vote).await?;
    }
    if let Some(snapshot) = snapshot {
        log.purge(snapshot).await?;
    }
    let (sender, mut records) = mpsc::channel(RECORDS_AHEAD);
    let dir = dir.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        // Nobody listens any more once the writing has failed.
        Wal::inspect(&Real, &dir, |record| drop(sender.blocking_send(record)))
    });
    let covered = |index: Index| snapshot.is_some_and(|snapshot| index <= snapshot.index);
    while let Some(record) = records.recv().await {
        match record {
            Record::Entry(entry) if !covered(entry.id.index) && entry.id.index <= keep => {
                log.append(vec![entry], Box::new(drop)).await?;
            }
            Record::Truncate(last) => {
                let last = last.filter(|last| !covered(last.index)).or(snapshot);
                log.truncate_after(last).await?;
            }
            Record::Entry(_) | Record::Vote(_) | Record::Committed(_) | Record::Purge(_) => {}
        }
    }
    reading.await.map_err(std::io::Error::other)?.map_err(std::io::Error::other)?;
    Ok(())
}
