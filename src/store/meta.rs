//! A replica's identity, in `sled`.
//!
//! Promises: a value that was set is on disk; what is read has been set at some time, or it is
//! nothing (damage may bring back an earlier group or lose both values, never invent one); and
//! whatever the files of `sled` contain, this process neither ends nor hangs over them. `sled`
//! 0.34 panics on damaged files, so it is let in here only: each visit opens the database, does
//! one thing and closes it again, on a thread of its own, whose panic is caught and whose silence
//! is bounded. Between visits nothing of it is open; its few idle threads serve the whole process.
//!
//! Refuses to guess: files that `sled` can't make sense of are moved aside, with a warning, and
//! the metadata starts afresh. That is safe because of what is kept here (see [`Meta`] and
//! `docs/decisions/005-sled.md`).

use std::any::Any;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::store::datadir;
use crate::types::ids::{GroupId, NodeId};
use crate::types::limits::{META_ANSWER_TIMEOUT, META_CACHE_BYTES, META_DAMAGED_MAX};

const NODE: &str = "node";
const GROUP: &str = "group";
/// The version of the values' format.
const FORMAT: u8 = 1;
/// Format, value, checksum.
const VALUE_BYTES: usize = 1 + 8 + 4;

/// Why metadata can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// `sled` said no.
    #[error("{0}")]
    Sled(String),
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory has another identity already.
    #[error("this data directory belongs to node {ours}; it can't become {other}")]
    OtherNode {
        /// Its identity.
        ours: NodeId,
        /// The one refused.
        other: NodeId,
    },
}

/// Why metadata can't be looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// It is damaged: a start moves it aside and goes on.
    Damaged(String),
    /// A start would end with this, too.
    Other(String),
}

/// The small facts about a replica. Nothing whose loss is unsafe: a lost identity is found again
/// in the WAL's headers, or, without a WAL, only means joining as a new member. Clones share it.
#[derive(Clone, Debug)]
pub struct Meta {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Nowhere in a simulation: it keeps a clone over the ends of the process.
    dir: Option<PathBuf>,
    /// What is on disk.
    facts: Mutex<Facts>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Facts {
    node: Option<NodeId>,
    group: Option<GroupId>,
}

impl Meta {
    /// Opens `dir`; damaged metadata is moved aside, with a warning, and started afresh.
    pub fn open(dir: &Path) -> Result<Self, MetaError> {
        let facts = or_start_afresh(dir, || visit(dir, load))?;
        let shared = Shared { dir: Some(dir.to_path_buf()), facts: Mutex::new(facts) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Identity and group as `dir` has them, without a change to it: `sled` writes when it opens, so
    /// it opens a copy. None of both if there is no such directory.
    pub fn peek(dir: &Path) -> Result<(Option<NodeId>, Option<GroupId>), Unreadable> {
        if !dir.is_dir() {
            return Ok((None, None));
        }
        let copied = copy_to_temporary(dir);
        let copied = copied.map_err(|error| Unreadable::Other(error.to_string()))?;
        match visit(copied.path(), load) {
            Ok(Facts { node, group }) => Ok((node, group)),
            Err(Trouble::Damaged(reason)) => Err(Unreadable::Damaged(reason)),
            Err(Trouble::Other(reason)) => Err(Unreadable::Other(reason)),
        }
    }

    /// Metadata that is in memory only, for a simulation.
    #[cfg(any(test, feature = "simulation"))]
    pub fn in_memory() -> Self {
        Self { shared: Arc::new(Shared { dir: None, facts: Mutex::default() }) }
    }

    /// The identity of this data directory.
    pub fn node(&self) -> Result<Option<NodeId>, MetaError> {
        Ok(self.facts().node)
    }

    /// Saves it; once. On disk when it returns.
    pub fn set_node(&self, node: NodeId) -> Result<(), MetaError> {
        match self.facts().node {
            Some(ours) if ours == node => Ok(()),
            Some(ours) => Err(MetaError::OtherNode { ours, other: node }),
            None => self.save(|facts| facts.node = Some(node)),
        }
    }

    /// The group that has adopted this replica.
    pub fn group(&self) -> Result<Option<GroupId>, MetaError> {
        Ok(self.facts().group)
    }

    /// Saves it. On disk when it returns.
    pub fn set_group(&self, group: GroupId) -> Result<(), MetaError> {
        self.save(|facts| facts.group = Some(group))
    }

    fn facts(&self) -> Facts {
        *self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, change: impl FnOnce(&mut Facts)) -> Result<(), MetaError> {
        let mut held = self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut facts = *held;
        change(&mut facts);
        // All of them: if the files turn out to be damaged, new ones take their place.
        if let Some(dir) = &self.shared.dir {
            or_start_afresh(dir, || store_and_read_back(dir, facts))?;
            sync(dir)?;
        }
        *held = facts;
        Ok(())
    }
}

/// Why a visit to `sled` came to nothing.
#[derive(Debug)]
enum Trouble {
    /// The files make no sense.
    Damaged(String),
    /// Something that new files would not cure.
    Other(String),
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        match &error {
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => Self::Damaged(error.to_string()),
            sled::Error::Io(io) => match io.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput => Self::Damaged(error.to_string()),
                _ => Self::Other(error.to_string()),
            },
        }
    }
}

fn load(db: &sled::Db) -> Result<Facts, Trouble> {
    let node = get(db, NODE)?.map(NodeId);
    let group = get(db, GROUP)?.map(GroupId);
    Ok(Facts { node, group })
}

fn store(db: &sled::Db, facts: Facts) -> Result<(), Trouble> {
    let node = facts.node.map(|NodeId(id)| (NODE, id));
    let group = facts.group.map(|GroupId(id)| (GROUP, id));
    for (name, id) in [node, group].into_iter().flatten() {
        db.insert(name, &encode(name, id))?;
    }
    db.flush()?;
    Ok(())
}

fn get(db: &sled::Db, name: &str) -> Result<Option<u64>, Trouble> {
    db.get(name)?.map(|bytes| decode(name, &bytes)).transpose()
}

fn encode(name: &str, id: u64) -> [u8; VALUE_BYTES] {
    let mut bytes = [0; VALUE_BYTES];
    bytes[0] = FORMAT;
    bytes[1..9].copy_from_slice(&id.to_le_bytes());
    let checksum = checksum(name, &bytes[..9]);
    bytes[9..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(name: &str, bytes: &[u8]) -> Result<u64, Trouble> {
    let damaged = || Trouble::Damaged(format!("the value of {name} is not what was written"));
    let (content, written) = bytes.split_last_chunk().ok_or_else(damaged)?;
    if *written != checksum(name, content).to_le_bytes() {
        return Err(damaged());
    }
    match content {
        [FORMAT, id @ ..] => id.try_into().map(u64::from_le_bytes).map_err(|_| damaged()),
        [format, ..] => {
            let cure = "use the version of sage that wrote it, or a newer one";
            Err(Trouble::Other(format!("the value of {name} has format {format}; {cure}")))
        }
        [] => Err(damaged()),
    }
}

/// Covers the name too: a value that turns up under another name is damage.
fn checksum(name: &str, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(name.as_bytes()), content)
}

fn copy_to_temporary(dir: &Path) -> io::Result<tempfile::TempDir> {
    let copy = tempfile::tempdir()?;
    for entry in dir.read_dir()? {
        let entry = entry?;
        // `blobs/` stays empty: values are 13 bytes long.
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
        }
    }
    Ok(copy)
}

/// `sled` can come up on damaged files without a word, take a write, flush it, and not find it
/// again the next time. So each write is looked for by opening the database anew.
fn store_and_read_back(dir: &Path, facts: Facts) -> Result<(), Trouble> {
    visit(dir, move |db| store(db, facts))?;
    if visit(dir, load)? == facts {
        return Ok(());
    }
    Err(Trouble::Damaged("what was written is not there".into()))
}

/// Tries; if the files are damaged, moves them aside and tries once more.
fn or_start_afresh<T>(
    dir: &Path,
    attempt: impl Fn() -> Result<T, Trouble>,
) -> Result<T, MetaError> {
    let done = match attempt() {
        Err(Trouble::Damaged(reason)) => {
            let aside = datadir::move_aside(dir, META_DAMAGED_MAX)
                .map_err(|source| MetaError::Io { path: dir.to_path_buf(), source })?;
            tracing::warn!(%reason, aside = %aside.display(), "damaged metadata moved aside");
            attempt()
        }
        done => done,
    };
    done.map_err(|trouble| match trouble {
        Trouble::Damaged(reason) | Trouble::Other(reason) => {
            MetaError::Sled(format!("metadata in {}: {reason}", dir.display()))
        }
    })
}

fn visit<T: Send + 'static>(
    dir: &Path,
    job: impl FnOnce(&sled::Db) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    visit_within(META_ANSWER_TIMEOUT, dir, job)
}

/// Opens the database, does `job`, and closes it, on a thread of its own: what a panic leaves
/// behind goes with the thread, and a thread that never answers is left to itself.
fn visit_within<T: Send + 'static>(
    timeout: Duration,
    dir: &Path,
    job: impl FnOnce(&sled::Db) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let dir = dir.to_path_buf();
    let (answer, answered) = sync_channel(1);
    let work = move || {
        // Nothing that this closure could leave half done is looked at after a panic. The
        // database is closed within it, for that may panic too.
        let done = catch_unwind(AssertUnwindSafe(|| {
            wait_until_closed(&dir)?;
            let db = config(&dir).open()?;
            job(&db)
        }));
        let done = done.unwrap_or_else(|panic| Err(Trouble::Damaged(message(&*panic))));
        drop(answer.send(done)); // nobody waits any more after the timeout
    };
    let thread = thread::Builder::new().name("sage-meta".into()).spawn(work);
    if let Err(error) = thread {
        return Err(Trouble::Other(format!("no thread could be started: {error}")));
    }
    match answered.recv_timeout(timeout) {
        Ok(done) => done,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let cure = "is it in use? if not, move it away: the replica finds its identity again";
            Err(Trouble::Other(format!("no answer in {timeout:?}; {cure}")))
        }
    }
}

/// Threads of `sled` may hold its file for a moment after the database was dropped, and it does
/// not wait for them. The lock is the same one (`flock`).
fn wait_until_closed(dir: &Path) -> Result<(), Trouble> {
    match File::open(dir.join("db")) {
        Ok(db) => db.lock().map_err(|error| Trouble::Other(error.to_string())),
        Err(_) => Ok(()), // it is new, or `sled` will say what is wrong
    }
}

fn config(dir: &Path) -> sled::Config {
    // No thread that flushes from time to time: each change is flushed as it is made.
    sled::Config::new().path(dir).cache_capacity(META_CACHE_BYTES).flush_every_ms(None)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("sled panicked: {}", text.unwrap_or("without a word"))
}

/// `sled`'s own flush is mostly `sync_file_range`, which leaves the disk's cache and the file's
/// length aside.
fn sync(dir: &Path) -> Result<(), MetaError> {
    let synced = |path: &Path| {
        File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(|source| MetaError::Io { path: path.to_path_buf(), source })
    };
    for name in ["db", "conf", "."] {
        synced(&dir.join(name))?;
    }
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), synced)
}

#[cfg(test)]
mod tests;
