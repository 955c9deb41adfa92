//! What is on a simulated disk, how much of it is durable, and what a crash may leave.
//!
//! Stricter than most file systems: changes of names that were not synced are lost one by one, in
//! any combination, and a written sector of 512 bytes is old or new.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store::disk::parent;

/// What a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// A change of a file that is not durable before the file is synced.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    Grow(usize),
    Truncate,
}

/// A change of names that is not durable before their directory is synced.
#[derive(Clone, Debug)]
pub(super) struct Rename {
    /// The name that goes.
    pub(super) from: Option<PathBuf>,
    /// The name that comes, and what has it.
    pub(super) to: Option<(PathBuf, Node)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Directory,
    File(usize),
}

/// What the store did, in order.
#[derive(Clone, Debug)]
pub enum Step {
    /// A file was changed.
    Changed(usize, ChangeOf),
    /// Names were changed.
    Renamed(RenameOf),
    /// A file was synced; the functions that did it, innermost first.
    Synced(usize, Arc<str>),
    /// A file's sync failed: what was written can still be read, and no later sync writes it.
    FailedSync(usize),
    /// A directory was synced.
    SyncedDir(PathBuf, Arc<str>),
    /// What the test wanted to have noted at this moment.
    Noted(Note),
}

/// Hides what a step is made of.
#[derive(Clone, Debug)]
pub struct ChangeOf(pub(super) Change);

/// Hides what a step is made of.
#[derive(Clone, Debug)]
pub struct RenameOf(pub(super) Rename);

/// How far the test has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Note {
    /// What was handed over until now.
    pub submitted: usize,
    /// What was acknowledged until now.
    pub acknowledged: usize,
    /// The newest snapshot that was acknowledged.
    pub snapshot: Option<u64>,
}

impl Step {
    /// The place in the store that synced, if this is a sync.
    pub fn site(&self) -> Option<&Arc<str>> {
        match self {
            Self::Synced(_, site) | Self::SyncedDir(_, site) => Some(site),
            Self::Changed(..) | Self::Renamed(_) | Self::FailedSync(_) | Self::Noted(_) => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Change>,
    /// What can be read until the machine ends, although its sync has failed.
    pub(super) phantom: Vec<Change>,
}

/// What was written, and how much of it is durable.
#[derive(Clone, Debug, Default)]
pub struct Platters {
    pub(super) files: Vec<Stored>,
    pub(super) names: BTreeMap<PathBuf, Node>,
    pub(super) pending: Vec<Rename>,
}

/// What a crash takes of what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// What was written, not the names.
    Data,
    /// The names, not what was written.
    Names,
    /// Everything but the newest change of each file, and of the names.
    AllButNewest,
    /// The newest change of each file, and of the names.
    Newest,
    /// A part, torn by sectors; which follows from the seed.
    Torn(u64),
}

pub(super) fn change(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Truncate => bytes.clear(),
        Change::Grow(len) => bytes.resize(bytes.len().max(*len), 0),
        Change::Write { offset, bytes: new } => {
            let end = offset + new.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[*offset..end].copy_from_slice(new);
        }
    }
}

pub(super) fn rename(names: &mut BTreeMap<PathBuf, Node>, change: &Rename) {
    if let Some(from) = &change.from {
        names.remove(from);
    }
    if let Some((to, node)) = &change.to {
        names.insert(to.clone(), *node);
    }
}

impl Rename {
    fn is_in(&self, dir: &Path) -> bool {
        let path = self.from.as_ref().or(self.to.as_ref().map(|(to, _)| to));
        path.is_some_and(|path| parent(path) == dir)
    }
}

impl Platters {
    /// Takes note of a step.
    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Changed(file, ChangeOf(change)) => {
                if self.files.len() <= *file {
                    self.files.resize_with(file + 1, Stored::default);
                }
                self.files[*file].pending.push(change.clone());
            }
            Step::Renamed(RenameOf(rename)) => {
                if let Some((_, Node::File(file))) = rename.to
                    && self.files.len() <= file
                {
                    self.files.resize_with(file + 1, Stored::default);
                }
                self.pending.push(rename.clone());
            }
            Step::Synced(file, _) => {
                let Stored { durable, pending, .. } = &mut self.files[*file];
                for one in pending.drain(..) {
                    change(durable, &one);
                }
            }
            Step::SyncedDir(dir, _) => {
                let (synced, rest) = self.pending.drain(..).partition(|one| one.is_in(dir));
                self.pending = rest;
                let synced: Vec<Rename> = synced;
                for one in &synced {
                    rename(&mut self.names, one);
                }
            }
            Step::FailedSync(file) => {
                let Stored { pending, phantom, .. } = &mut self.files[*file];
                phantom.append(pending);
            }
            Step::Noted(_) => {}
        }
    }

    /// What is on the disk after a crash that takes `loss`; all of it durable.
    #[must_use]
    pub fn after_crash(&self, loss: Loss) -> Self {
        let mut rng = StdRng::seed_from_u64(if let Loss::Torn(seed) = loss { seed } else { 0 });
        let mut left = Self { names: self.names.clone(), ..Self::default() };
        for file in &self.files {
            let mut durable = file.durable.clone();
            let last = file.pending.len().saturating_sub(1);
            for (at, one) in file.pending.iter().enumerate() {
                let stays = match loss {
                    Loss::Everything | Loss::Data => false,
                    Loss::Nothing | Loss::Names => true,
                    Loss::AllButNewest => at == last,
                    Loss::Newest => at < last,
                    Loss::Torn(_) => {
                        tear(&mut durable, one, &mut rng);
                        continue;
                    }
                };
                if stays {
                    change(&mut durable, one);
                }
            }
            left.files.push(Stored { durable, ..Stored::default() });
        }
        let last = self.pending.len().saturating_sub(1);
        for (at, one) in self.pending.iter().enumerate() {
            let stays = match loss {
                Loss::Everything | Loss::Names => false,
                Loss::Nothing | Loss::Data => true,
                Loss::AllButNewest => at == last,
                Loss::Newest => at < last,
                Loss::Torn(_) => rng.random(),
            };
            if stays {
                rename(&mut left.names, one);
            }
        }
        let there = left.names.clone();
        left.names.retain(|path, _| {
            let dir = parent(path);
            dir == Path::new("/") || there.get(dir) == Some(&Node::Directory)
        });
        left
    }

    /// Flips a bit of the byte at `offset` of a file, as it is on the disk.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn flip(&mut self, path: &Path, offset: usize) {
        let Some(Node::File(file)) = self.names.get(path) else {
            panic!("no file {}", path.display())
        };
        self.files[*file].durable[offset] ^= 1;
    }

    /// Cuts the end of a file off, as it is on the disk: only so many bytes are left.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn cut(&mut self, path: &Path, bytes: usize) {
        let Some(Node::File(file)) = self.names.get(path) else {
            panic!("no file {}", path.display())
        };
        self.files[*file].durable.truncate(bytes);
    }

    /// The durable files and what is in them.
    pub fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::File(file) => Some((path.clone(), self.files[*file].durable.clone())),
            Node::Directory => None,
        };
        self.names.iter().filter_map(file).collect()
    }
}

/// Does a part of a change: whole or not at all, or, of a write, some of its sectors.
fn tear(bytes: &mut Vec<u8>, one: &Change, rng: &mut StdRng) {
    let Change::Write { offset, bytes: new } = one else {
        if rng.random() {
            change(bytes, one);
        }
        return;
    };
    let mut from = 0;
    while from < new.len() {
        let sector_end = (offset + from + 1).next_multiple_of(SECTOR_BYTES) - offset;
        let to = sector_end.min(new.len());
        if rng.random() {
            let part = Change::Write { offset: offset + from, bytes: new[from..to].into() };
            change(bytes, &part);
        }
        from = to;
    }
}
