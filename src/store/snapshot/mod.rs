//! Snapshots on disk: `snapshot/<index>-<term>.snap`, one file for one state.
//!
//! A snapshot stands for the log up to its last entry, which may be purged as soon as the snapshot
//! is durable. So:
//!
//! - a file gets its name only when it is whole and synced, by one rename;
//! - the newest one counts. If it is damaged, that is an error; an older one never takes its
//!   place, for the log between the two may be gone;
//! - older files are removed when a newer one is durable. Whoever has one open keeps its bytes;
//! - after [`Snapshots::close`] nothing here touches the disk any more, whoever is still at it.
//!
//! `format` says what the bytes mean, `write` and `read` move them, `receive` takes in a file from
//! another replica. The bytes are drawn in `docs/formats.md`.

mod codec;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod inspect;
mod read;
mod receive;
mod temp;
mod write;

use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::planted::{self, Bug};
use crate::store::disk::revocable::Revocable;
use crate::store::disk::{self, Disk, FileStream, Open, OpenFile};
use crate::store::rests::Rests;
use crate::store::snapshot::format::FormatError;
use crate::store::snapshot::read::ReadError;
use crate::store::snapshot::temp::TempFile;
use crate::store::snapshot::write::Paced;
use crate::store::state::State;
use crate::types::ids::{Index, LogId, Term};
use crate::types::log::StoredMembership;

pub use crate::store::snapshot::codec::Codec;
pub use crate::store::snapshot::inspect::{Head, Inspection, Part, inspect, show};
pub use crate::store::snapshot::receive::{Incoming, Received};

const EXTENSION: &str = "snap";
/// The name of a snapshot of a state to which no entry was applied.
const EMPTY_NAME: &str = "empty.snap";

/// A whole snapshot on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Its file.
    pub path: PathBuf,
    /// The last entry in it.
    pub last: Option<LogId>,
    /// The membership as of that entry.
    pub membership: Arc<StoredMembership>,
    /// The file's length.
    pub bytes: u64,
}

/// Why a snapshot can't be written, read or received.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("{path}: damaged snapshot: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit, and where.
        reason: String,
    },
    /// The file is whole, but this program is too old for it.
    #[error("{path}: {reason}; use the version that wrote it, or a newer one")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it does not know.
        reason: String,
    },
    /// A snapshot can't take the place of a newer one.
    #[error("snapshot of {last:?} is older than {newest:?}, which is there already")]
    Outdated {
        /// The last entry of the one refused.
        last: Option<LogId>,
        /// The last entry of the one that stays.
        newest: Option<LogId>,
    },
}

impl SnapshotError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    fn format(path: &Path, error: &FormatError) -> Self {
        let (path, reason) = (path.to_path_buf(), error.to_string());
        if error.is_unsupported() {
            Self::Unsupported { path, reason }
        } else {
            Self::Damaged { path, reason }
        }
    }

    fn read(path: &Path, error: ReadError) -> Self {
        match error {
            ReadError::Io(source) => Self::io(path, source),
            ReadError::Format(error) => Self::format(path, &error),
        }
    }
}

/// The snapshots of one replica. Clones share them. Its methods block on the disk, but
/// [`Snapshots::newest`].
#[derive(Clone, Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
    codec: Codec,
}

#[derive(Debug)]
struct Shared {
    disk: Revocable,
    dir: PathBuf,
    /// Held while files change their names or go.
    changing: Mutex<()>,
    newest: Mutex<Option<Snapshot>>,
}

impl Snapshots {
    /// Opens the directory, makes it if missing, and removes what unfinished writes left there.
    ///
    /// The header of the newest snapshot is checked here, the rest of it by [`Snapshots::read`]; if
    /// it is damaged, that is the error: an older snapshot is no substitute.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, SnapshotError> {
        disk::make_dir(&*disk, dir).map_err(|error| SnapshotError::io(dir, error))?;
        for path in list(&*disk, dir)?.into_iter().filter(|path| temp::is_temporary(path)) {
            disk.remove(&path).map_err(|error| SnapshotError::io(&path, error))?;
        }
        // A process that was killed may have left the newest name unsynced, and the log is purged
        // because of it.
        disk.sync_dir(dir).map_err(|error| SnapshotError::io(dir, error))?;
        let newest = list(&*disk, dir)?
            .into_iter()
            .filter_map(|path| Some((place_of(&path)?, path)))
            .max()
            .map(|(place, path)| read_head(&*disk, path, place))
            .transpose()?;
        let shared = Shared {
            disk: Revocable::new(disk),
            dir: dir.to_path_buf(),
            changing: Mutex::new(()),
            newest: Mutex::new(newest),
        };
        Ok(Self { shared: Arc::new(shared), codec: Codec::default() })
    }

    /// The same, which packs what it writes in this way. What it reads may be packed in any.
    #[must_use]
    pub fn packed(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// The newest snapshot, if there is one. Does not touch the disk.
    pub fn newest(&self) -> Option<Snapshot> {
        lock(&self.shared.newest).clone()
    }

    /// The newest snapshot and its file, open at its start. The bytes stay readable for as long as
    /// the file is open, also when a newer snapshot has taken its place.
    pub fn open_newest(&self) -> Result<Option<(Snapshot, OpenFile)>, SnapshotError> {
        let _unchanged = lock(&self.shared.changing);
        let Some(newest) = self.newest() else {
            return Ok(None);
        };
        let file = self.shared.disk.open(&newest.path, Open::Read);
        let file = file.map_err(|error| SnapshotError::io(&newest.path, error))?;
        Ok(Some((newest, file)))
    }

    /// Writes `state` to a new file; durable, and the newest, when it returns. Older ones are
    /// removed as soon as nobody reads them.
    ///
    /// If a newer snapshot was installed meanwhile, that one stays and is what is returned.
    pub fn write(&self, state: &State) -> Result<Snapshot, SnapshotError> {
        self.write_paced(state, Paced::new)
    }

    /// As [`Snapshots::write`], with rests in between, which are shorter after some seconds: for one that nobody is in a hurry for, so that whoever serves clients
    /// meanwhile has the processor.
    pub fn write_at_leisure(&self, state: &State) -> Result<Snapshot, SnapshotError> {
        self.write_paced(state, Paced::with_rests)
    }

    fn write_paced(
        &self,
        state: &State,
        paced: fn(OpenFile) -> Paced,
    ) -> Result<Snapshot, SnapshotError> {
        let (temp, file) = self.create_temp()?;
        let io = |error| SnapshotError::io(temp.path(), error);
        let mut out = BufWriter::new(paced(file));
        let state = if planted::bug(Bug::ShortSnapshot) { &short(state) } else { state };
        write::write_state(state, self.codec, &mut out).map_err(io)?;
        out.flush().map_err(io)?;
        let paced = out.into_inner().map_err(|error| io(error.into_error()))?;
        let file = paced.finish().map_err(io)?;
        let bytes = file.size().map_err(io)?;
        match self.adopt(temp, state, bytes) {
            Err(error @ SnapshotError::Outdated { .. }) => self.newest().ok_or(error),
            adopted => adopted,
        }
    }

    /// Reads a snapshot back, checking every byte.
    pub fn read(&self, snapshot: &Snapshot) -> Result<State, SnapshotError> {
        self.read_with(snapshot, Rests::none())
    }

    /// As [`Snapshots::read`], with rests in between.
    pub fn read_with(&self, snapshot: &Snapshot, rests: Rests) -> Result<State, SnapshotError> {
        let path = &snapshot.path;
        let (file, bytes) = open_file(&self.shared.disk, path)?;
        let state = read::read_state(BufReader::new(file), bytes, rests)
            .map_err(|error| SnapshotError::read(path, error))?;
        check_named(path, place(snapshot.last), state.applied)?;
        Ok(state)
    }

    /// Begins to receive a snapshot file of `bytes` from another replica.
    pub fn receive(&self, bytes: u64) -> Result<Incoming, SnapshotError> {
        let (temp, file) = self.create_temp()?;
        Ok(Incoming::new(temp, Paced::new(file), bytes))
    }

    /// Whatever is still being written becomes no snapshot any more, and whoever writes or reads one
    /// gets an error: nothing reaches the disk once this returns. Waits for a file that is about to become
    /// a snapshot, and for single steps under way; not for what would follow them.
    pub fn close(&self) {
        let _unchanged = lock(&self.shared.changing);
        self.shared.disk.revoke();
    }

    fn create_temp(&self) -> Result<(TempFile, OpenFile), SnapshotError> {
        TempFile::create(Arc::new(self.shared.disk.clone()), &self.shared.dir)
    }

    /// Makes a whole, synced file that holds `state` the newest snapshot, unless it is older than
    /// that, and removes the others.
    fn adopt(&self, temp: TempFile, state: &State, bytes: u64) -> Result<Snapshot, SnapshotError> {
        let _changing = lock(&self.shared.changing);
        let last = state.applied;
        if let Some(newest) = self.newest()
            && index(newest.last) > index(last)
        {
            return Err(SnapshotError::Outdated { last, newest: newest.last });
        }
        let path = self.shared.dir.join(file_name(last));
        temp.persist(&path).map_err(|error| SnapshotError::io(&path, error))?;
        let membership = Arc::clone(&state.membership);
        let snapshot = Snapshot { path, last, membership, bytes };
        *lock(&self.shared.newest) = Some(snapshot.clone());
        self.remove_all_but(&snapshot);
        Ok(snapshot)
    }

    /// An old file that stays takes room and does no harm; the next snapshot tries again.
    fn remove_all_but(&self, newest: &Snapshot) {
        let old = list(&self.shared.disk, &self.shared.dir).unwrap_or_default();
        for path in old.into_iter().filter(|path| place_of(path).is_some() && *path != newest.path)
        {
            if let Err(error) = self.shared.disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "old snapshot remains");
            }
        }
    }
}

/// For [`Bug::ShortSnapshot`]: the state without its last key.
fn short(state: &State) -> State {
    let mut short = state.clone();
    if let Some((last, _)) = state.map.get_max() {
        short.remove(last);
    }
    short
}

/// Where a snapshot stands in the log, as its name tells it; `None` before the first entry.
type Place = Option<(Index, Term)>;

fn place(last: Option<LogId>) -> Place {
    last.map(|last| (last.index, last.term))
}

fn index(last: Option<LogId>) -> Option<Index> {
    last.map(|last| last.index)
}

fn file_name(last: Option<LogId>) -> String {
    match last {
        Some(LogId { index, term, .. }) => format!("{index:020}-{term}.{EXTENSION}"),
        None => EMPTY_NAME.into(),
    }
}

/// What the name of a snapshot tells; `None` if it is not the name of one.
fn place_of(path: &Path) -> Option<Place> {
    let name = path.file_name()?.to_str()?;
    if name == EMPTY_NAME {
        return Some(None);
    }
    let (index, term) = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split_once('-')?;
    let place = (index.parse().ok()?, term.parse().ok()?);
    (index.len() == 20).then_some(Some(place))
}

/// Reads the header of the file at `path`, whose name says `named`.
fn read_head(disk: &dyn Disk, path: PathBuf, named: Place) -> Result<Snapshot, SnapshotError> {
    let (file, bytes) = open_file(disk, &path)?;
    let header = read::read_header(BufReader::new(file), bytes)
        .map_err(|error| SnapshotError::read(&path, error))?;
    check_named(&path, named, header.last)?;
    Ok(Snapshot { path, last: header.last, membership: header.membership, bytes })
}

fn check_named(path: &Path, named: Place, last: Option<LogId>) -> Result<(), SnapshotError> {
    if named == place(last) {
        return Ok(());
    }
    let reason = format!("it is named for {named:?}, but holds {last:?}");
    Err(SnapshotError::format(path, &FormatError::Malformed(reason)))
}

fn open_file(disk: &dyn Disk, path: &Path) -> Result<(FileStream, u64), SnapshotError> {
    let io = |error| SnapshotError::io(path, error);
    let file = disk.open(path, Open::Read).map_err(io)?;
    let bytes = file.size().map_err(io)?;
    Ok((FileStream::new(file), bytes))
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    disk.list(dir).map_err(|error| SnapshotError::io(dir, error))
}

/// What these locks guard is never left half changed, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
