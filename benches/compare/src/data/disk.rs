//! What a data directory takes of the disk, by the directories in it; and what a replica's snapshots are at.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// The unit of `st_blocks`, in bytes, whatever the file system's is.
const BLOCK_BYTES: u64 = 512;

/// Bytes of some files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Usage {
    /// Their lengths.
    #[serde(rename = "apparent_bytes")]
    pub(super) apparent: u64,
    /// What the disk has set aside for them, as `du` counts.
    #[serde(rename = "allocated_bytes")]
    pub(super) allocated: u64,
}

/// The files below `directory`, added up by the directory that they are in, relative to it.
pub(super) fn usage(directory: &Path) -> Result<BTreeMap<String, Usage>> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(relative) = left.pop() {
        let path = directory.join(&relative);
        for entry in path.read_dir().with_context(|| path.display().to_string())? {
            let entry = entry?;
            // A running server may have taken it away since.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                left.push(relative.join(entry.file_name()));
            } else {
                let sum: &mut Usage = found.entry(relative.display().to_string()).or_default();
                sum.apparent += metadata.len();
                sum.allocated += metadata.blocks() * BLOCK_BYTES;
            }
        }
    }
    Ok(found)
}

/// Watches directories of snapshots for the next ones: a file `*.tmp` is one that is being written, `*.snap` is whole.
#[derive(Debug)]
pub(super) struct NextSnapshots {
    directories: Vec<(PathBuf, Option<OsString>)>,
}

impl NextSnapshots {
    /// Those that come after the ones that are there now.
    pub(super) fn after_these(directories: &[PathBuf]) -> Result<Self> {
        let look = |directory: &PathBuf| anyhow::Ok((directory.clone(), look(directory)?.newest));
        Ok(Self { directories: directories.iter().map(look).collect::<Result<_>>()? })
    }

    /// Whether one is being written, or is there.
    pub(super) fn begun(&self) -> Result<bool> {
        for (directory, before) in &self.directories {
            let seen = look(directory)?;
            if seen.unfinished || seen.newest != *before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether all are there.
    pub(super) fn done(&self) -> Result<bool> {
        Ok(self.written()? == Some(self.directories.len()))
    }

    /// How many are there; `None` while any is being written.
    pub(super) fn written(&self) -> Result<Option<usize>> {
        let mut written = 0;
        for (directory, before) in &self.directories {
            let seen = look(directory)?;
            if seen.unfinished {
                return Ok(None);
            }
            written += usize::from(seen.newest != *before);
        }
        Ok(Some(written))
    }
}

struct Seen {
    unfinished: bool,
    newest: Option<OsString>,
}

fn look(directory: &Path) -> Result<Seen> {
    let mut seen = Seen { unfinished: false, newest: None };
    for entry in directory.read_dir().with_context(|| directory.display().to_string())? {
        let name = entry?.file_name();
        match Path::new(&name).extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => seen.unfinished = true,
            // Names begin with an index of a fixed number of digits.
            Some("snap") => seen.newest = seen.newest.max(Some(name)),
            Some(_) | None => (),
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, remove_file, write};

    use super::*;

    #[test]
    fn files_are_added_up_by_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        create_dir_all(dir.path().join("member/wal")).expect("a directory");
        write(dir.path().join("LOCK"), "1").expect("a file");
        write(dir.path().join("member/wal/1"), vec![1; 5000]).expect("a file");
        write(dir.path().join("member/wal/2"), vec![1; 3]).expect("a file");
        let found = usage(dir.path()).expect("it can be read");
        assert_eq!(found[""].apparent, 1);
        assert_eq!(found["member/wal"].apparent, 5003);
        assert_eq!(found.len(), 2);
        assert!(usage(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_snapshot_has_begun_when_its_file_is_there_and_is_done_when_that_has_its_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        for one in [&first, &second] {
            create_dir_all(one).expect("a directory");
            write(one.join("00000000000000000007-1.snap"), "").expect("a file");
        }
        let next = NextSnapshots::after_these(&[first.clone(), second.clone()]).expect("there");
        let state = || (next.begun().expect("there"), next.done().expect("there"));
        assert_eq!(state(), (false, false));
        assert_eq!(next.written().expect("there"), Some(0));
        write(first.join("3.tmp"), "").expect("a file");
        assert_eq!(state(), (true, false));
        assert_eq!(next.written().expect("there"), None);
        remove_file(first.join("3.tmp")).expect("it is there");
        write(first.join("00000000000000000009-1.snap"), "").expect("a file");
        assert_eq!(state(), (true, false), "the second has only its old one");
        assert_eq!(next.written().expect("there"), Some(1));
        write(second.join("00000000000000000009-1.snap"), "").expect("a file");
        assert_eq!(state(), (true, true));
        write(second.join("4.tmp"), "").expect("a file");
        assert_eq!(state(), (true, false), "another is being written");
    }
}
