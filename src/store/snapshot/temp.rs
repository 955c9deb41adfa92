//! A file under a temporary name, on its way to become a snapshot.
//!
//! Promises: dropped before [`TempFile::persist`], it leaves nothing behind; what a crash leaves
//! behind is known by its name and removed by the next start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::datadir;
use crate::store::snapshot::SnapshotError;

const EXTENSION: &str = "tmp";

/// The name of a file that goes when this does.
#[derive(Debug)]
pub(super) struct TempFile {
    path: PathBuf,
}

impl TempFile {
    /// Makes an empty file, number `number` of this process.
    pub(super) fn create(dir: &Path, number: u64) -> Result<(Self, File), SnapshotError> {
        let path = dir.join(format!("{number}.{EXTENSION}"));
        let file = File::options().create_new(true).read(true).write(true).open(&path);
        let file = file.map_err(|error| SnapshotError::io(&path, error))?;
        Ok((Self { path }, file))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name, durably. Its content must have been synced.
    pub(super) fn persist(self, to: &Path) -> io::Result<()> {
        datadir::replace(&self.path, to)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
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
