//! Looks at snapshots without opening their directory for use. Changes nothing on disk.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::store::answers::Remembered;
use crate::store::disk::{Disk, FileStream};
use crate::store::snapshot::format::FormatError;
use crate::store::snapshot::read;
use crate::store::snapshot::{SnapshotError, Snapshots, check_named, list, open_file, place_of};
use crate::types::clock::TimestampMs;
use crate::types::ids::{GroupId, LogId};
use crate::types::item::{Item, Version};
use crate::types::key::Key;
use crate::types::log::StoredMembership;
use crate::types::topology::Claim;

/// Bytes that are read at once to see whether they are damaged.
const SCRUB_READ_BYTES: usize = 256 * 1024;

/// What a snapshot says of itself.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Head {
    /// How its blocks are packed.
    pub codec: &'static str,
    /// The last entry in it.
    pub last: Option<LogId>,
    /// The membership as of that entry.
    pub membership: Arc<StoredMembership>,
    /// The group's identity and name.
    pub group: Option<(GroupId, Arc<str>)>,
    /// The ring the group is part of.
    pub claim: Option<Arc<Claim>>,
    /// Whether that claim is final.
    pub confirmed: bool,
    /// The version after which a new key starts.
    pub version_floor: Version,
    /// How many keys it holds.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The time as the log tells it.
    pub clock: TimestampMs,
    /// How many sessions and answers it remembers.
    pub remembered: u64,
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, Debug)]
pub enum Part {
    /// Comes first, once.
    Head(Box<Head>),
    /// A key and what it holds; keys rise.
    Record(Key, Item),
    /// Something remembered of a write; comes after the keys.
    Remembered(Remembered),
}

/// A snapshot file, and whether it is whole.
#[derive(Debug)]
pub struct Inspection {
    /// The file.
    pub path: PathBuf,
    /// What it says of itself, or why it can't be read.
    pub head: Result<Head, SnapshotError>,
}

/// Reads every snapshot in `dir` as a whole, the newest last; a replica uses only that one. Fails
/// only if the directory can't be listed.
pub fn inspect(disk: &dyn Disk, dir: &Path) -> Result<Vec<Inspection>, SnapshotError> {
    let mut named: Vec<_> =
        list(disk, dir)?.into_iter().filter_map(|path| Some((place_of(&path)?, path))).collect();
    named.sort();
    let check = |(place, path): (_, PathBuf)| {
        let mut heads = Vec::new();
        let shown = show(disk, &path, |part| {
            if let Part::Head(head) = part {
                heads.push(*head);
            }
        });
        let head = shown.and_then(|()| {
            let missing = || FormatError::Malformed("it has no head".into());
            let head = heads.pop().ok_or_else(|| SnapshotError::format(&path, &missing()))?;
            check_named(&path, place, head.last)?;
            Ok(head)
        });
        Inspection { path, head }
    };
    Ok(named.into_iter().map(check).collect())
}

impl Snapshots {
    /// Reads the newest snapshot, if there is one, from the disk again, past the system's cache, and
    /// checks every byte. `read` is told of the bytes of each read before it happens, to pace it, or to end it
    /// with an error. Blocks.
    pub fn scrub(&self, read: impl FnMut(u64) -> io::Result<()>) -> Result<(), SnapshotError> {
        let Some((newest, file)) = self.open_newest()? else { return Ok(()) };
        let failed = |error| SnapshotError::io(&newest.path, error);
        file.forget_cached().map_err(failed)?;
        let bytes = file.size().map_err(failed)?;
        let file = Told { file: FileStream::new(file), read };
        let file = BufReader::with_capacity(SCRUB_READ_BYTES, file);
        let scrubbed = read::visit(file, bytes, |_| {});
        scrubbed.map_err(|error| SnapshotError::read(&newest.path, error))
    }
}

/// A file that tells of each read.
struct Told<F> {
    file: FileStream,
    read: F,
}

impl<F: FnMut(u64) -> io::Result<()>> Read for Told<F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (self.read)(bytes.len() as u64)?;
        self.file.read(bytes)
    }
}

/// Shows a snapshot part by part, checking every byte. What was seen before an error is what the
/// file says, but not all that was once in it.
pub fn show(disk: &dyn Disk, path: &Path, mut see: impl FnMut(Part)) -> Result<(), SnapshotError> {
    let (file, bytes) = open_file(disk, path)?;
    let visited = read::visit(BufReader::new(file), bytes, |part| match part {
        read::Part::Header(header, codec) => {
            let header = header.clone();
            see(Part::Head(Box::new(Head {
                codec: codec.name(),
                last: header.last,
                membership: header.membership,
                group: header.group,
                claim: header.claim,
                confirmed: header.confirmed,
                version_floor: header.version_floor,
                keys: header.keys,
                bytes: header.bytes,
                clock: header.clock,
                remembered: header.remembered,
            })));
        }
        read::Part::Record(key, item) => see(Part::Record(key, item)),
        read::Part::Remembered(thing) => see(Part::Remembered(thing)),
    });
    visited.map_err(|error| SnapshotError::read(path, error))
}
