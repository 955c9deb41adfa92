//! Tests of the whole log on real files: here what they share, beside it one file per story.

mod behaviour;
mod damage;
mod model;
mod script;

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::record::{self, SEGMENT_START, SegmentHeader};
use super::{Wal, WalError, WalOptions};
use crate::store::disk::Real;
use crate::types::command::{Action, Command};
use crate::types::ids::{Index, LogId, NodeId, Term, Vote};
use crate::types::key::Key;
use crate::types::limits::COUNTER_MAX;
use crate::types::log::{Entry, Payload};
use crate::types::value::Value;

/// Segments are small, so that tests see many.
pub(super) const SEGMENT_BYTES: u64 = 3 * 4096;
/// The node that writes the tests' logs.
pub(super) const NODE: NodeId = NodeId(0xa);

pub(super) fn id(term: Term, index: Index) -> LogId {
    LogId { term, leader: NodeId(1), index }
}

/// An entry that puts a value of `bytes` bytes.
pub(super) fn entry(term: Term, index: Index, bytes: usize) -> Entry {
    let value = Value::bytes(vec![u8::try_from(index % 250 + 1).unwrap(); bytes]);
    let action = Action::Put { key: Key::new("key").unwrap(), value };
    Entry { id: id(term, index), payload: Payload::Command(Command { ts: 7, action }) }
}

pub(super) fn vote(term: Term) -> Vote {
    Vote { term, node: NODE, committed: false }
}

/// Opens the log in `dir`, with nearly no memory for entries.
pub(super) fn open(dir: &Path) -> Result<Wal, WalError> {
    let dir = dir.join("wal");
    let options =
        WalOptions { disk: Arc::new(Real), dir, node: NODE, segment_bytes: SEGMENT_BYTES };
    Wal::open_with(options, 1000)
}

/// Appends entries of `bytes` bytes in one batch and waits until it is on disk.
pub(super) async fn append(wal: &Wal, term: Term, range: Range<Index>, bytes: usize) {
    let (done, written) = tokio::sync::oneshot::channel();
    let entries = range.map(|index| entry(term, index, bytes)).collect();
    let done = Box::new(|result| drop(done.send(result)));
    wal.append(entries, done).await.unwrap();
    written.await.unwrap().unwrap();
}

/// All entries' ids.
pub(super) async fn ids(wal: &Wal) -> Vec<LogId> {
    let entries = wal.entries(0..Index::MAX, usize::MAX).await.unwrap();
    entries.iter().map(|entry| entry.id).collect()
}

/// A batch in a file.
#[derive(Clone, Debug)]
pub(super) struct OnDisk {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    pub(super) segment: u64,
    pub(super) range: Range<usize>,
}

impl OnDisk {
    /// Forgets how far the log was on disk, as a loss of power may: bytes alone must tell.
    fn forget_mark(&self) {
        fs::remove_file(super::mark::path(self.path.parent().unwrap())).ok();
    }

    /// Overwrites it from byte `from` of it on; the mark is lost.
    pub(super) fn write(&self, bytes: &[u8], from: usize) {
        self.forget_mark();
        let file = OpenOptions::new().write(true).open(&self.path).unwrap();
        file.write_all_at(bytes, (self.range.start + from) as u64).unwrap();
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()[self.range.clone()].to_vec()
    }

    /// Flips the lowest bit of byte `at` of it.
    pub(super) fn flip(&self, at: usize) {
        self.write(&[self.bytes()[at] ^ 1], at);
    }

    /// Cuts its file off at byte `at` of it; the mark is lost.
    pub(super) fn cut(&self, at: usize) {
        self.forget_mark();
        let file = OpenOptions::new().write(true).open(&self.path).unwrap();
        file.set_len((self.range.start + at) as u64).unwrap();
    }
}

/// The segment files in the log of `dir`, oldest first.
pub(super) fn segments(dir: &Path) -> Vec<PathBuf> {
    let segments = super::segment::list(&Real, &dir.join("wal")).unwrap();
    segments.into_iter().map(|(_, path)| path).collect()
}

/// The batches in the log of `dir`, by walking its files.
pub(super) fn batches(dir: &Path) -> Vec<OnDisk> {
    let mut found = Vec::new();
    for path in segments(dir) {
        let bytes = fs::read(&path).unwrap();
        let header = SegmentHeader::decode(&bytes).unwrap();
        let mut offset = SEGMENT_START;
        while let Some(batch) = record::batch_at(&bytes, offset, header.identity) {
            found.push(OnDisk {
                sequence: batch.sequence,
                path: path.clone(),
                segment: header.number,
                range: offset..batch.end,
            });
            offset = batch.end;
        }
    }
    found
}

/// A directory with the same log.
pub(super) fn copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("wal")).unwrap();
    for path in segments(dir) {
        fs::copy(&path, copy.path().join("wal").join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// The name and content of every file of the log.
pub(super) fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir.join("wal"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (PathBuf::from(entry.file_name()), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}
