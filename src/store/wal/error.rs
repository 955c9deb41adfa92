//! Why a log can't be opened.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::wal::record::FORMAT_VERSION;
use crate::store::wal::recovery::{Damage, Why};
use crate::store::wal::segment;
use crate::types::ids::{LogId, NodeId};

/// Why a WAL can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was acknowledged once can't be read any more. Nothing on disk was changed.
    #[error(
        "{segment} is damaged at byte {offset}, batch {sequence}: {why}; the log is good up to {}",
        or_nothing(*.last_good)
    )]
    Damaged {
        /// The segment file.
        segment: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// The sequence number of the batch that should be there.
        sequence: u64,
        /// The last entry before the damage.
        last_good: Option<LogId>,
        /// What is wrong.
        why: Why,
    },
    /// The log is another node's.
    #[error("{segment} was written by {found}, not by {node}; check which data directory this is")]
    OtherNode {
        /// The segment file.
        segment: PathBuf,
        /// Who wrote it.
        found: NodeId,
        /// Who opens it.
        node: NodeId,
    },
    /// The log was written by a program that does it in another way.
    #[error(
        "{segment} has format version {found}, this program reads version {}; use the program \
         that wrote it",
        FORMAT_VERSION
    )]
    Version {
        /// The segment file.
        segment: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl From<(PathBuf, io::Error)> for WalError {
    fn from((path, source): (PathBuf, io::Error)) -> Self {
        Self::Io { path, source }
    }
}

fn or_nothing(last_good: Option<LogId>) -> String {
    last_good.map_or("its start".to_owned(), |id| format!("entry {id}"))
}

impl WalError {
    /// What recovery found in `dir`.
    pub(super) fn damaged(dir: &Path, damage: Damage) -> Self {
        let Damage { segment, offset, sequence, last_good, why } = damage;
        let segment = segment::path(dir, segment);
        Self::Damaged { segment, offset, sequence, last_good, why }
    }
}
