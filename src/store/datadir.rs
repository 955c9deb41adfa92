//! A data directory and the lock on it.
//!
//! Promises: at most one process has a directory open; one that was condemned stays so until what is
//! in it is set aside. Refuses, with a sentence, a directory that can't be made or written, before
//! anything else is touched.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::store::disk::{self, Disk as _, Real};
use crate::store::{note, rejoins};
use crate::types::clock::TimestampMs;
use crate::types::limits::{CONDEMNED_NOTE_BYTES_MAX, DATA_DAMAGED_MAX, META_DAMAGED_MAX};

const LOCK_FILE: &str = "LOCK";
/// Says that the directory may not be served from, and why: that it is there is enough.
const CONDEMNED_FILE: &str = "CONDEMNED";

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

/// Condemns what is in a data directory, for the reason given: durable when this returns.
pub fn condemn(data: &Path, reason: &str) -> Result<(), DataDirError> {
    let path = data.join(CONDEMNED_FILE);
    let written = note::write(&Real, &path, reason.as_bytes());
    written.map_err(|source| DataDirError::Io { path, source })
}

/// Why what is in a data directory was condemned, if it was.
pub fn condemned(data: &Path) -> Result<Option<String>, DataDirError> {
    let path = data.join(CONDEMNED_FILE);
    let failed = |source| DataDirError::Io { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut note = Vec::new();
    file.take(CONDEMNED_NOTE_BYTES_MAX).read_to_end(&mut note).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&note).into_owned()))
}

/// Moves everything that a replica has acknowledged out of its data directory, to
/// `<name>.damaged-<n>` beside it; returns where it is now. What is left is the directory of a
/// replica that never was, and the note that it gave up its data `now`. A crash in between leaves one
/// that is condemned: that note comes first and goes last.
pub fn set_aside(data: &Path, now: TimestampMs) -> Result<Vec<PathBuf>, DataDirError> {
    let _locked = DataDir::open(data)?;
    if condemned(data)?.is_none() {
        // A start after a crash in between shall go on here, before it makes anything.
        condemn(data, "its data was being set aside")?;
    }
    let mut aside = Vec::new();
    for (name, max) in
        [("meta", META_DAMAGED_MAX), ("snapshot", DATA_DAMAGED_MAX), ("wal", DATA_DAMAGED_MAX)]
    {
        let dir = data.join(name);
        if dir.exists() {
            let moved = move_aside(&dir, max);
            aside.push(moved.map_err(|source| DataDirError::Io { path: dir, source })?);
        }
    }
    rejoins::note(data, now)?;
    let note = data.join(CONDEMNED_FILE);
    let moved = move_aside(&note, DATA_DAMAGED_MAX);
    aside.push(moved.map_err(|source| DataDirError::Io { path: note, source })?);
    Ok(aside)
}

/// Renames `path` to the first free `<name>.damaged-<n>` beside it; the last name, the `max`th, is
/// used again, so that the first ones and the newest are kept.
pub(in crate::store) fn move_aside(path: &Path, max: u32) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = |n: u32| path.with_file_name(format!("{name}.damaged-{n}"));
    let free = (1..=max).map(aside).find(|aside| !aside.exists());
    let to = free.unwrap_or_else(|| aside(max));
    if to.is_dir() {
        fs::remove_dir_all(&to)?; // A file is replaced.
    }
    disk::replace(&Real, path, &to)?;
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
    fn what_is_condemned_stays_so_until_all_of_it_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert_eq!(condemned(data).unwrap(), None);
        condemn(data, "it differed").unwrap();
        assert_eq!(condemned(data).unwrap().as_deref(), Some("it differed"));
        // A crash has left an empty note, and another came between the moves.
        File::create(data.join(CONDEMNED_FILE)).unwrap();
        assert_eq!(condemned(data).unwrap().as_deref(), Some(""));
        for again in ["first", "second"] {
            condemn(data, again).unwrap();
            let aside = set_aside(data, 7).unwrap();
            assert_eq!(condemned(data).unwrap(), None);
            assert_eq!(fs::read_to_string(&aside[0]).unwrap(), again, "only the note was there");
        }
    }

    #[test]
    fn a_crash_while_data_is_set_aside_takes_nothing_of_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        for name in ["meta", "wal"] {
            fs::create_dir(data.join(name)).unwrap();
            fs::write(data.join(name).join("file"), name).unwrap();
        }
        // The crash comes when one of them has been moved.
        condemn(data, "its data was being set aside").unwrap();
        move_aside(&data.join("meta"), DATA_DAMAGED_MAX).unwrap();
        assert!(condemned(data).unwrap().is_some(), "a start makes nothing anew");
        set_aside(data, 7).unwrap();
        for name in ["meta", "wal"] {
            let kept = fs::read_to_string(data.join(format!("{name}.damaged-1/file")));
            assert_eq!(kept.unwrap(), name);
        }
    }

    #[test]
    fn a_note_that_can_not_be_read_is_no_acquittal() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(CONDEMNED_FILE)).unwrap();
        assert!(matches!(condemned(dir.path()), Err(DataDirError::Io { .. })));
    }

    #[test]
    fn the_first_and_the_newest_of_what_is_set_aside_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["first", "second", "third", "fourth"] {
            for name in ["meta", "wal"] {
                fs::create_dir(dir.path().join(name)).unwrap();
                fs::write(dir.path().join(name).join("file"), content).unwrap();
            }
            condemn(dir.path(), content).unwrap();
            let aside = set_aside(dir.path(), 7).unwrap();
            assert_eq!(aside.len(), 3, "there was no snapshot; a note says that it was done");
            assert_eq!(fs::read_to_string(aside[1].join("file")).unwrap(), content);
            assert!(!dir.path().join("wal").exists());
        }
        for (number, content) in [(1, "first"), (2, "fourth")] {
            let kept = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
            assert_eq!(kept(&format!("wal.damaged-{number}/file")), content);
            assert_eq!(kept(&format!("CONDEMNED.damaged-{number}")), content);
        }
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 2 + 4 + 2 + 2, "logs, metadata, notes; REJOINED and LOCK");
        assert!(!rejoins::too_often(dir.path(), u64::MAX).unwrap());
        assert!(rejoins::too_often(dir.path(), 8).unwrap(), "each is noted");
    }
}
