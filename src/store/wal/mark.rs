//! How far the log was certainly on disk: the sequence number of a synced batch, in a small file.
//!
//! Bytes alone can't tell a last batch that was being written when the power failed from one that
//! was synced, acknowledged and damaged or cut off later. This tells them apart, unless the mark
//! itself was lost: a batch up to the mark that can't be read is damage (Alagappan et al.,
//! "Protocol-Aware Recovery for Consensus-Based Storage", FAST '18, keep such a mark apart from the
//! data for the same reason).
//!
//! It is written after each sync and not synced before the log is found damaged: it survives the end of
//! the process, and sooner or later reaches the disk. It only ever falls behind, so an old one claims too little and never
//! too much.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::disk::{Disk, Open, OpenFile};
use crate::store::wal::segment::{At, at};

/// Magic, sequence number, CRC-32C of both.
const BYTES: usize = 20;
const MAGIC: [u8; 8] = *b"sagemark";

/// The mark of an open log.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: OpenFile,
}

impl Mark {
    /// Opens the mark in `dir`; makes it if it is missing.
    pub(super) fn open(disk: &dyn Disk, dir: &Path) -> At<Self> {
        let path = path(dir);
        let file = at(&path, disk.open(&path, Open::Keep))?;
        Ok(Self { path, file })
    }

    /// Every batch up to and with `sequence` is on disk.
    pub(super) fn set(&self, sequence: u64) -> At<()> {
        at(&self.path, self.file.write_at(&encode(sequence), 0))
    }
}

/// The sequence number of a batch that was on disk with all before it; `None` where nothing, or
/// nothing that can be read, says so.
pub(super) fn read(disk: &dyn Disk, dir: &Path) -> At<Option<u64>> {
    let path = path(dir);
    // A longer file is no mark, however long it is.
    let mut bytes = [0; BYTES + 1];
    match disk.open(&path, Open::Read).and_then(|file| file.read_at(&mut bytes, 0)) {
        Ok(read) => Ok(decode(&bytes[..read])),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((path, error)),
    }
}

/// Makes what the mark says outlast a loss of power, if there is one: where the log is damaged, it may
/// be all that tells damage from a torn tail.
pub(super) fn keep(disk: &dyn Disk, dir: &Path) -> At<()> {
    let path = path(dir);
    match disk.open(&path, Open::Read).and_then(|file| file.sync()) {
        Ok(()) => at(dir, disk.sync_dir(dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err((path, error)),
    }
}

/// Where it is.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("synced")
}

pub(super) fn encode(sequence: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Option<u64> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let sequence = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    (encode(sequence) == *bytes).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Real;

    #[test]
    fn a_mark_is_read_back_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(&Real, dir.path()).expect("no mark is fine"), None);
        let mark = Mark::open(&Real, dir.path()).expect("it opens");
        assert_eq!(read(&Real, dir.path()).expect("an empty one too"), None);
        for sequence in [1, 2, u64::MAX] {
            mark.set(sequence).expect("it is written");
            assert_eq!(read(&Real, dir.path()).expect("it can be read"), Some(sequence));
        }
        drop(Mark::open(&Real, dir.path()).expect("it opens again"));
        let good = encode(77);
        assert_eq!(decode(&good), Some(77));
        for at in 0..BYTES {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "byte {at}");
            assert_eq!(decode(&good[..at]), None, "{at} bytes");
        }
    }
}
