//! A snapshot file on its way in from another replica.
//!
//! Promises: what it receives becomes a snapshot of this replica only after every byte has been
//! checked and synced, and then by one rename; until that moment, a crash or a drop leaves the
//! replica as it was. Refuses more bytes than were announced, and fewer.

use std::io::{self, BufReader, Write};

use crate::store::disk::FileStream;
use crate::store::rests::Rests;
use crate::store::snapshot::format::{FormatError, bounded};
use crate::store::snapshot::temp::TempFile;
use crate::store::snapshot::write::Paced;
use crate::store::snapshot::{Snapshot, SnapshotError, Snapshots, read};
use crate::store::state::State;

/// A snapshot file on its way in; dropped unfinished, it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    temp: TempFile,
    file: Paced,
    /// Bytes still to come.
    left: u64,
    bytes: u64,
}

impl Incoming {
    pub(super) fn new(temp: TempFile, file: Paced, bytes: u64) -> Self {
        Self { temp, file, left: bytes, bytes }
    }

    /// Adds the next bytes of the file; more than were announced are refused.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        let len = bounded("a chunk", chunk.len() as u64, self.left)
            .map_err(|error| SnapshotError::format(self.temp.path(), &error))?;
        self.file.write_all(chunk).map_err(|error| self.io(error))?;
        self.left -= len;
        Ok(())
    }

    /// Checks the whole file, with these rests, and syncs it under a temporary name.
    pub fn finish(self, rests: Rests) -> Result<Received, SnapshotError> {
        let Self { temp, file, left, bytes } = self;
        if left > 0 {
            let reason = format!("{left} of {bytes} bytes are missing");
            return Err(SnapshotError::format(temp.path(), &FormatError::Malformed(reason)));
        }
        let io = |error| SnapshotError::io(temp.path(), error);
        let file = file.finish().map_err(io)?;
        let state = read::read_state(BufReader::new(FileStream::new(file)), bytes, rests)
            .map_err(|error| SnapshotError::read(temp.path(), error))?;
        Ok(Received { state, temp, bytes })
    }

    fn io(&self, error: io::Error) -> SnapshotError {
        SnapshotError::io(self.temp.path(), error)
    }
}

/// A received, checked and synced file that is not yet a snapshot of this replica.
#[derive(Debug)]
pub struct Received {
    /// What it holds.
    pub state: State,
    temp: TempFile,
    bytes: u64,
}

impl Received {
    /// Renames it into place, durably: it is the newest snapshot when this returns.
    ///
    /// Refuses with [`SnapshotError::Outdated`] when a newer one is there already: the log behind
    /// that one may be purged, so nothing older may take its place. One of the same entry takes
    /// the other's place, for it says the same.
    pub fn install(self, snapshots: &Snapshots) -> Result<(Snapshot, State), SnapshotError> {
        let Self { state, temp, bytes } = self;
        let snapshot = snapshots.adopt(temp, &state, bytes)?;
        Ok((snapshot, state))
    }
}
