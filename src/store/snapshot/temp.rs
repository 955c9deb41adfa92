//! A file under a temporary name, on its way to become a snapshot.
//!
//! Promises: dropped before [`TempFile::persist`], it leaves nothing behind; what a crash leaves
//! behind, or a replica that was closed meanwhile, is known by its name and removed by the next start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::disk::{self, Disk, Open, OpenFile};
use crate::store::snapshot::SnapshotError;
use crate::types::host;

const EXTENSION: &str = "tmp";

/// The name of a file that goes when this does.
#[derive(Debug)]
pub(super) struct TempFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl TempFile {
    /// Makes an empty file. Its name is drawn: what an earlier owner of the directory still writes
    /// is never taken for it.
    pub(super) fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
    ) -> Result<(Self, OpenFile), SnapshotError> {
        let path = dir.join(format!("{:016x}.{EXTENSION}", host::random()));
        let file = disk.open(&path, Open::New);
        let file = file.map_err(|error| SnapshotError::io(&path, error))?;
        Ok((Self { disk, path }, file))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name, durably. Its content must have been synced.
    pub(super) fn persist(self, to: &Path) -> io::Result<()> {
        disk::replace(&*self.disk, &self.path, to)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        match self.disk.remove(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it was persisted
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "temporary file remains");
            }
        }
    }
}

/// Whether a file of that name is one of ours.
pub(super) fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}
