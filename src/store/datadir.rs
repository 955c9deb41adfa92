//! A data directory and the lock on it.
//!
//! Promises: at most one process has a directory open. Refuses, with a sentence, a directory that
//! can't be made or written, before anything else is touched.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::store::disk::{self, Disk as _, Real};
use crate::types::limits::DATA_DAMAGED_MAX;

const LOCK_FILE: &str = "LOCK";

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error(
        "data directory {0} is in use by another process; stop that one or choose another directory"
    )]
    InUse(PathBuf),
    /// It can't be made or written.
    #[error("data directory {path}: {source}; it must be a directory that this user can write")]
    Io {
        /// What was tried.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It can't be read.
    #[error("data directory {path}: {source}")]
    Unreadable {
        /// What was tried.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An open, locked data directory: `LOCK`, `meta/`, `wal/`, `snapshot/`.
#[derive(Debug)]
pub struct DataDir {
    /// Its path.
    pub path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if missing, checks that it can be written, and locks it until dropped.
    ///
    /// The lock is the operating system's (`flock`): it ends with the process, however that ends,
    /// and the file that stays behind means nothing.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_path_buf(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse(path.to_path_buf())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // For people: who has it. It also shows that the disk takes a byte.
        lock.set_len(0).map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        Real.sync_dir(path).map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }
}

/// Makes sure that no process uses a data directory, for as long as the answer is kept, without
/// changing anything in it. One that nobody ever used has no lock.
pub fn unused(path: &Path) -> Result<Option<File>, DataDirError> {
    let failed = |source| DataDirError::Unreadable { path: path.to_path_buf(), source };
    fs::read_dir(path).map_err(failed)?;
    let lock = match File::open(path.join(LOCK_FILE)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_path_buf())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// What this user may still write on the file system of a directory, in bytes.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stats = rustix::fs::statvfs(dir)?;
    Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
}

/// Moves everything that a replica has acknowledged out of its data directory, to
/// `<name>.damaged-<n>` beside it; returns where it is now. What is left is the directory of a
/// replica that never was. A crash in between leaves one that has lost its log or snapshot.
pub fn set_aside(data: &Path) -> Result<Vec<PathBuf>, DataDirError> {
    let _locked = DataDir::open(data)?;
    let mut aside = Vec::new();
    for name in ["meta", "snapshot", "wal"] {
        let dir = data.join(name);
        if dir.exists() {
            let moved = move_aside(&dir, DATA_DAMAGED_MAX);
            aside.push(moved.map_err(|source| DataDirError::Io { path: dir, source })?);
        }
    }
    Ok(aside)
}

/// Renames `dir` to the first free `<name>.damaged-<n>` beside it; the last name, the `max`th, is
/// used again.
pub(in crate::store) fn move_aside(dir: &Path, max: u32) -> io::Result<PathBuf> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let aside = |n: u32| dir.with_file_name(format!("{name}.damaged-{n}"));
    let free = (1..=max).map(aside).find(|path| !path.exists());
    let to = free.unwrap_or_else(|| aside(max));
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    disk::replace(&Real, dir, &to)?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_until_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse(at)) if at == path));
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn what_can_not_be_a_directory_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        for path in [file.clone(), file.join("below")] {
            let refused = DataDir::open(&path).unwrap_err();
            assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"text");
    }

    #[test]
    fn what_is_free_can_be_told_of_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(dir.path()).unwrap() > 0);
        assert!(free_bytes(&dir.path().join("nowhere")).is_err());
    }

    #[test]
    fn what_is_set_aside_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["first", "second", "third"] {
            for name in ["meta", "wal"] {
                fs::create_dir(dir.path().join(name)).unwrap();
                fs::write(dir.path().join(name).join("file"), content).unwrap();
            }
            let aside = set_aside(dir.path()).unwrap();
            assert_eq!(aside.len(), 2, "there was no snapshot");
            assert_eq!(fs::read_to_string(aside[1].join("file")).unwrap(), content);
            assert!(!dir.path().join("wal").exists());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "two, and the lock");
    }
}
