//! Damages files of a data directory.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The files in a part of a data directory, in the order of their names.
pub(crate) fn files(data: &Path, part: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join(part)).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort();
    paths
}

/// Flips a bit of the byte at `offset`.
pub(crate) fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("it is as long");
    byte[0] ^= 1;
    file.write_all_at(&byte, offset).expect("it can be written");
}
