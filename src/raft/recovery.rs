//! From a data directory to what a replica starts with, or a sentence why it can't.
//!
//! The identity belongs to the disk. It stands in the metadata and in every WAL segment: either
//! one is enough, and two that differ are refused, since a replica with another's vote could elect
//! two leaders. So could one that has lost its log and keeps its identity: it would vote again and
//! lack what it has acknowledged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::blocking::blocking;
use crate::store::datadir::{self, DataDir, DataDirError};
use crate::store::disk::{Disk, Real};
use crate::store::meta::{Meta, MetaError};
use crate::store::rests::Rests;
use crate::store::snapshot::{SnapshotError, Snapshots};
use crate::store::state::State;
use crate::store::wal::{Wal, WalError, WalOptions};
use crate::types::command::{Action, Command};
use crate::types::host;
use crate::types::ids::{GroupId, NodeId};
use crate::types::limits::WAL_SEGMENT_BYTES_DEFAULT;
use crate::types::log::Payload;

/// Why a replica can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory can't be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The metadata can't be used.
    #[error("metadata: {0}")]
    Meta(#[from] MetaError),
    /// The log can't be used.
    #[error("log: {0}")]
    Wal(#[from] WalError),
    /// The newest snapshot can't be used.
    #[error("snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
    /// Metadata and log are not from the same replica.
    #[error(
        "{path} holds the metadata of {meta} and the log of {wal}; were two data directories mixed?"
    )]
    Mixed {
        /// The data directory.
        path: PathBuf,
        /// The identity in the metadata.
        meta: NodeId,
        /// The identity in the log.
        wal: NodeId,
    },
    /// What the log begins after is not there.
    #[error("{path} has lost its snapshot: its log begins after index {purged}")]
    SnapshotLost {
        /// The data directory.
        path: PathBuf,
        /// The last purged entry.
        purged: u64,
    },
    /// It was part of a group, and its log is not there.
    #[error("{path} has lost its log, and with it its vote and what it has acknowledged")]
    LogLost {
        /// The data directory.
        path: PathBuf,
    },
    /// It has voted, but nothing says in which group.
    #[error("{path} has a vote but has lost its group")]
    GroupLost {
        /// The data directory.
        path: PathBuf,
    },
    /// It was taken out of its group's service while it ran: see `raft::comparison`.
    #[error("{path} was condemned: {reason}")]
    Condemned {
        /// The data directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Something of ours failed.
    #[error("{0}")]
    Internal(String),
}

impl OpenError {
    /// Whether the disk has lost or damaged what this replica had acknowledged, or what this replica
    /// made of it was wrong. Everything else is for people: a disk that can't be read or written, files of another version or another node.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::SnapshotLost { .. }
            | Self::LogLost { .. }
            | Self::GroupLost { .. }
            | Self::Condemned { .. } => true,
            Self::Wal(error) => matches!(error, WalError::Damaged { .. }),
            Self::Snapshot(error) => matches!(error, SnapshotError::Damaged { .. }),
            Self::DataDir(_) | Self::Meta(_) | Self::Mixed { .. } | Self::Internal(_) => false,
        }
    }

    pub(in crate::raft) fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }
}

/// What holds a data directory.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    /// The metadata, if it is kept elsewhere than in the directory; then that is not locked either.
    pub(crate) meta: Option<Meta>,
    /// The size of a segment of the log, in bytes.
    pub(crate) segment_bytes: u64,
}

impl Files {
    /// This machine's.
    pub(in crate::raft) fn real() -> Self {
        Self { disk: Arc::new(Real), meta: None, segment_bytes: WAL_SEGMENT_BYTES_DEFAULT }
    }
}

/// What a data directory holds.
pub(in crate::raft) struct Recovered {
    pub(in crate::raft) data: Option<DataDir>,
    pub(in crate::raft) meta: Meta,
    pub(in crate::raft) node: NodeId,
    pub(in crate::raft) wal: Wal,
    pub(in crate::raft) snapshots: Snapshots,
    pub(in crate::raft) state: State,
    pub(in crate::raft) group: Option<GroupId>,
    /// For what is left to do of the start.
    pub(in crate::raft) rests: Rests,
}

/// Opens and checks everything in `path`.
///
/// `rests` are for the whole start: what is left of them comes back.
pub(in crate::raft) async fn recover(
    path: PathBuf,
    files: Files,
    rests: Rests,
) -> Result<Recovered, OpenError> {
    let opened = {
        let path = path.clone();
        blocking(move || open(&path, files, rests)).await.map_err(OpenError::internal)?
    };
    let mut recovered = opened?;
    let wal = &recovered.wal;
    if recovered.group.is_none() {
        recovered.group = founded(wal).await?;
    }
    if recovered.group.is_none() && (wal.last().is_some() || wal.vote().is_some()) {
        return Err(OpenError::GroupLost { path });
    }
    Ok(recovered)
}

/// Opens everything in `path`. Blocks on the disk.
fn open(path: &Path, files: Files, rests: Rests) -> Result<Recovered, OpenError> {
    let Files { disk, meta, segment_bytes } = files;
    let (data, meta) = if let Some(meta) = meta {
        (None, meta)
    } else {
        let data = DataDir::open(path)?;
        // Before anything is made: setting a condemned directory aside may have been cut off.
        if let Some(reason) = datadir::condemned(path)? {
            return Err(OpenError::Condemned { path: path.into(), reason });
        }
        if path.join("wal.repaired").exists() && !path.join("wal").exists() {
            return Err(OpenError::LogLost { path: path.into() }); // `sage repair` was cut off.
        }
        (Some(data), Meta::open(&path.join("meta"))?)
    };
    let wal_dir = path.join("wal");
    let snapshots = Snapshots::open(Arc::clone(&disk), &path.join("snapshot"))?;
    // The log is made before a group is joined or anything is applied.
    let written_by = Wal::written_by(&*disk, &wal_dir)?;
    if written_by.is_none() && (meta.group()?.is_some() || snapshots.newest().is_some()) {
        return Err(OpenError::LogLost { path: path.into() });
    }
    let node = identity(path, &meta, written_by)?;
    // Read before the snapshot: the memory that this takes for a while, the map gets then. Opened behind it: what is on disk stays
    // as it is if the snapshot is damaged.
    let log = Wal::read(WalOptions { disk, dir: wal_dir, node, segment_bytes }, rests.clone());
    let state = match snapshots.newest() {
        Some(newest) => snapshots.read_with(&newest, rests.clone())?,
        None => State::default(),
    };
    let wal = log.open()?;
    if let Some(purged) = wal.purged()
        && state.applied.is_none_or(|applied| applied.index < purged.index)
    {
        return Err(OpenError::SnapshotLost { path: path.into(), purged: purged.index });
    }
    let group = match &state.group {
        Some((group, _)) => Some(*group),
        None => meta.group()?,
    };
    Ok(Recovered { data, meta, node, wal, snapshots, state, group, rests })
}

fn identity(path: &Path, meta: &Meta, wal: Option<NodeId>) -> Result<NodeId, OpenError> {
    let node = match (meta.node()?, wal) {
        (Some(meta), Some(wal)) if meta != wal => {
            return Err(OpenError::Mixed { path: path.into(), meta, wal });
        }
        (Some(node), _) => return Ok(node),
        (None, Some(node)) => {
            tracing::warn!(%node, "the metadata has no identity: taken from the log");
            node
        }
        (None, None) => NodeId(host::random().max(1)),
    };
    meta.set_node(node)?;
    Ok(node)
}

/// The group that the log's first entries found, when no snapshot and no metadata tells.
async fn founded(wal: &Wal) -> Result<Option<GroupId>, OpenError> {
    const FIRST_ENTRIES: u64 = 64;
    let first = wal.entries(0..FIRST_ENTRIES, usize::MAX).await;
    let first = first.map_err(OpenError::internal)?;
    Ok(first.into_iter().find_map(|entry| match entry.payload {
        Payload::Command(Command { action: Action::Found { group, .. }, .. }) => Some(group),
        Payload::Command(_) | Payload::Blank | Payload::Membership(_) => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::check::check;
    use crate::types::ids::{LogId, Vote};
    use crate::types::log::Entry;

    #[tokio::test]
    async fn a_replica_that_is_condemned_or_has_lost_its_log_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let open = async || recover(data.clone(), Files::real(), Rests::none()).await;
        let recovered = open().await.expect("a new directory");
        recovered.meta.set_group(GroupId(7)).expect("the metadata takes a group");
        recovered.wal.close().await.expect("the log closes");
        drop(recovered);

        let recovered = open().await.expect("nothing is lost");
        recovered.wal.close().await.expect("the log closes");
        drop(recovered);

        datadir::condemn(&data, "it differed").expect("it can be written");
        let refused = open().await.err().expect("it is not served from");
        assert!(matches!(refused, OpenError::Condemned { .. }), "{refused:?}");
        assert!(refused.is_damage() && refused.to_string().contains("it differed"), "{refused}");
        std::fs::remove_file(data.join("CONDEMNED")).expect("there was a note");

        std::fs::remove_dir_all(data.join("wal")).expect("there was a log");
        let refused = open().await.err();
        assert!(matches!(refused, Some(OpenError::LogLost { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_damaged_snapshot_leaves_the_log_as_it_is_and_is_told_first() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let open = async || recover(data.clone(), Files::real(), Rests::none()).await;
        let recovered = open().await.expect("a new directory");
        recovered.meta.set_group(GroupId(7)).expect("the metadata takes a group");
        let applied = Some(LogId { term: 1, leader: recovered.node, index: 3 });
        let state = State { applied, ..State::default() };
        let snapshot = recovered.snapshots.write(&state).expect("a snapshot is written").path;
        for term in 1..4 {
            let vote = Vote { term, node: recovered.node, committed: true };
            recovered.wal.save_vote(vote).await.expect("the log takes it");
        }
        recovered.wal.close().await.expect("the log closes");
        drop(recovered);
        let flip = |path: &Path, at: usize| {
            let mut bytes = std::fs::read(path).expect("it is there");
            bytes[at] ^= 4;
            std::fs::write(path, bytes).expect("it can be written");
        };
        // The heads of both are looked at before anything else.
        let batch = 4096 + 20;
        let footer = std::fs::read(&snapshot).expect("it is there").len() - 1;
        // What a start removes.
        let leftover = data.join("wal").join("7.tmp");
        std::fs::write(&leftover, "unfinished").expect("it can be written");
        flip(&snapshot, footer);
        let refused = open().await.err();
        assert!(matches!(refused, Some(OpenError::Snapshot(_))), "{refused:?}");
        assert!(leftover.exists(), "nothing is changed for a start that fails");

        let log = data.join("wal").join(format!("{:020}.log", 1));
        flip(&log, batch);
        let refused = open().await.err();
        assert!(matches!(refused, Some(OpenError::Snapshot(_))), "{refused:?}");
        flip(&snapshot, footer);
        let refused = open().await.err();
        assert!(matches!(refused, Some(OpenError::Wal(_))), "{refused:?}");
        flip(&log, batch);
        open().await.expect("all is well").wal.close().await.expect("the log closes");
        assert!(!leftover.exists());
    }

    /// Wherever a bit is flipped, `sage check` and a start are of one mind.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_check_calls_damaged_what_a_start_refuses() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let open = |data: PathBuf| recover(data, Files::real(), Rests::none());
        let recovered = open(data.clone()).await.expect("a new directory");
        recovered.meta.set_group(GroupId(7)).expect("the metadata takes a group");
        let id = |index| LogId { term: 1, leader: recovered.node, index };
        for index in 0..6 {
            let entry = Entry { id: id(index), payload: Payload::Blank };
            recovered.wal.append(vec![entry], Box::new(drop)).await.expect("the log takes it");
            // A batch for each.
            recovered.wal.save_committed(Some(id(index))).await.expect("the log takes it");
            let vote = Vote { term: 1, node: recovered.node, committed: true };
            recovered.wal.save_vote(vote).await.expect("the log takes it");
        }
        let state = State { applied: Some(id(3)), ..State::default() };
        recovered.snapshots.write(&state).expect("a snapshot is written");
        recovered.wal.close().await.expect("the log closes");
        drop(recovered);

        let wal = data.join("wal").join(format!("{:020}.log", 1));
        let snapshot = data.join("snapshot").join(format!("{:020}-1.snap", 3));
        let [log_bytes, snapshot_bytes] =
            [&wal, &snapshot].map(|path| std::fs::read(path).expect("it is there"));
        let places = (0..64).step_by(5).chain((4096..4096 + 900).step_by(23));
        let places = places.map(|at| (&wal, &log_bytes, at));
        let all = places.chain(
            (0..snapshot_bytes.len()).step_by(11).map(|at| (&snapshot, &snapshot_bytes, at)),
        );
        let (mut damaged, mut whole) = (0, 0);
        for (path, bytes, at) in all {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            std::fs::write(path, &flipped).expect("it can be written");
            let report = check(&data).expect("it can be checked");
            let opened = open(data.clone()).await;
            let why = opened.as_ref().err().map(ToString::to_string);
            assert_eq!(report.ok, opened.is_ok(), "byte {at} of {path:?}: {why:?}, {report:?}");
            match opened {
                Ok(recovered) => {
                    whole += 1;
                    recovered.wal.close().await.expect("the log closes");
                }
                Err(error) => {
                    damaged += 1;
                    assert_eq!(error.is_damage(), report.loss.is_some(), "{error}: {report:?}");
                }
            }
            std::fs::write(path, bytes).expect("it can be written");
        }
        assert!(damaged > 20 && whole > 5, "{damaged} damaged, {whole} whole");
    }
}
