//! A disk in memory that keeps apart what is durable and what is not, and takes down every step.
//!
//! A test lets the store run on it, and then asks, after each step, what a crash may have left:
//! [`Platters::after_crash`] loses, keeps or tears what was not synced. A lost process without a
//! lost machine keeps everything, and still has it unsynced: [`Simulated::on`] goes on from there.
//! The disk may also lie ([`Fault`]): fail, drop a write, or put it elsewhere.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::store::disk::platters::{
    Change, ChangeOf, Node, Note, Platters, Rename, RenameOf, Step, Stored, change, rename,
};
use crate::store::disk::{Disk, DiskFile, Open, OpenFile, parent};

/// What one step does instead of what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails with this.
    Fail(ErrorKind),
    /// A write that never happens and says that it did; of other steps, nothing.
    Drop,
    /// A write that lands so many bytes further on; of other steps, nothing.
    Misdirect(usize),
}

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Simulated(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What the processes see.
    files: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, Node>,
    steps: Vec<Step>,
    /// By the number of the step, counted from the start.
    faults: BTreeMap<usize, Fault>,
    done: usize,
    /// Bytes that all files may have together.
    room: Option<usize>,
    /// Whether syncs say where they come from.
    sites: bool,
    /// The step at which the machine loses its power, and what tells of that.
    end: Option<usize>,
    off: Arc<AtomicBool>,
}

impl Simulated {
    /// An empty disk.
    pub fn new() -> Self {
        Self::on(&Platters::default())
    }

    /// The disk as a process finds it that is started over `platters`.
    pub fn on(platters: &Platters) -> Self {
        let seen = |file: &Stored| {
            let mut bytes = file.durable.clone();
            for one in file.phantom.iter().chain(&file.pending) {
                change(&mut bytes, one);
            }
            bytes
        };
        let mut names = platters.names.clone();
        for one in &platters.pending {
            rename(&mut names, one);
        }
        let files = platters.files.iter().map(seen).collect();
        Self(Arc::new(Mutex::new(Inner { files, names, ..Inner::default() })))
    }

    /// Has the step with this number, counted from 0, go wrong.
    pub fn plan(&self, step: usize, fault: Fault) {
        self.lock().faults.insert(step, fault);
    }

    /// Has syncs say from now on which functions they come from; that takes its time.
    pub fn name_sites(&self) {
        self.lock().sites = true;
    }

    /// Lets all files have at most so many bytes.
    pub fn limit(&self, bytes: Option<usize>) {
        self.lock().room = bytes;
    }

    /// The bytes of all files that have a name.
    pub fn used(&self) -> usize {
        self.lock().used()
    }

    /// Notes how far the test has come.
    pub fn note(&self, note: impl FnOnce(&mut Note)) {
        let mut inner = self.lock();
        let noted = inner.steps.iter().rev().find_map(|step| match step {
            Step::Noted(note) => Some(*note),
            Step::Changed(..)
            | Step::Renamed(_)
            | Step::Synced(..)
            | Step::FailedSync(_)
            | Step::SyncedDir(..) => None,
        });
        let mut new = noted.unwrap_or_default();
        note(&mut new);
        inner.steps.push(Step::Noted(new));
    }

    /// Has the machine lose its power at the step with this number from now on, counted from 0:
    /// that one and all later ones fail and leave nothing.
    pub fn end_after(&self, steps: usize) {
        let mut inner = self.lock();
        inner.end = Some(inner.done + steps);
    }

    /// Whether the machine has lost its power.
    pub fn power(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lock().off)
    }

    /// Takes away what was done since the last time.
    pub fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut self.lock().steps)
    }

    /// Everything that was done until now.
    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic under the lock")
    }
}

impl Inner {
    /// Begins a step; what goes wrong with it.
    fn begin(&mut self) -> io::Result<Option<Fault>> {
        if self.end.is_some_and(|end| end <= self.done) {
            self.off.store(true, Ordering::SeqCst);
        }
        if self.off.load(Ordering::SeqCst) {
            return Err(io::Error::other("the machine is off"));
        }
        let fault = self.faults.remove(&self.done);
        self.done += 1;
        match fault {
            Some(Fault::Fail(kind)) => Err(io::Error::new(kind, "the simulated disk fails")),
            fault => Ok(fault),
        }
    }

    fn rename(&mut self, change: Rename) {
        rename(&mut self.names, &change);
        self.steps.push(Step::Renamed(RenameOf(change)));
    }

    fn change(&mut self, file: usize, one: Change) {
        change(&mut self.files[file], &one);
        self.steps.push(Step::Changed(file, ChangeOf(one)));
    }

    fn used(&self) -> usize {
        let files = self.names.values().filter_map(|node| match node {
            Node::File(file) => Some(self.files[*file].len()),
            Node::Directory => None,
        });
        files.sum()
    }

    fn need(&self, file: usize, end: usize) -> io::Result<()> {
        let more = end.saturating_sub(self.files[file].len());
        match self.room {
            Some(room) if more > 0 && self.used() + more > room => {
                Err(ErrorKind::StorageFull.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Directory) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }
}

/// The functions of the store that are running, innermost first.
fn site(named: bool) -> Arc<str> {
    if !named {
        return "".into();
    }
    let trace = Backtrace::force_capture().to_string();
    let functions = trace.lines().filter_map(|line| line.split_once(": ").map(|(_, name)| name));
    let ours = functions.filter(|name| name.contains("sagedb::store::"));
    let ours = ours.filter(|name| !name.contains("simulated") && !name.contains("crashes"));
    let short = ours.map(|name| name.trim_start_matches("sagedb::store::")).take(3);
    short.collect::<Vec<_>>().join(" < ").into()
}

impl Disk for Simulated {
    fn open(&self, path: &Path, how: Open) -> io::Result<OpenFile> {
        let mut inner = self.lock();
        let found = inner.file(path);
        let file = match (found, how) {
            (Ok(_), Open::New) => return Err(ErrorKind::AlreadyExists.into()),
            (Ok(file), Open::Truncate) => {
                inner.begin()?;
                inner.change(file, Change::Truncate);
                file
            }
            (Ok(file), Open::Read | Open::Edit | Open::Keep) => file,
            (Err(error), Open::Read | Open::Edit) => return Err(error),
            (Err(_), Open::Keep | Open::Truncate | Open::New) => {
                let dir = parent(path);
                if dir != Path::new("/") && inner.names.get(dir) != Some(&Node::Directory) {
                    return Err(ErrorKind::NotFound.into());
                }
                inner.begin()?;
                let file = inner.files.len();
                inner.files.push(Vec::new());
                inner.rename(Rename { from: None, to: Some((path.into(), Node::File(file))) });
                file
            }
        };
        Ok(Arc::new(Opened { disk: self.clone(), file, writable: how != Open::Read }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = self.lock();
        let here = inner.names.keys().filter(|path| parent(path) == dir);
        Ok(here.cloned().collect())
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.names.contains_key(dir) {
            return Ok(());
        }
        inner.begin()?;
        inner.rename(Rename { from: None, to: Some((dir.into(), Node::Directory)) });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let file = inner.file(from)?;
        inner.begin()?;
        let to = Some((to.into(), Node::File(file)));
        inner.rename(Rename { from: Some(from.into()), to });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.file(path)?;
        inner.begin()?;
        inner.rename(Rename { from: Some(path.into()), to: None });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let site = site(inner.sites);
        inner.begin()?;
        inner.steps.push(Step::SyncedDir(dir.into(), site));
        Ok(())
    }
}

#[derive(Debug)]
struct Opened {
    disk: Simulated,
    file: usize,
    writable: bool,
}

impl DiskFile for Opened {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.file].len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.lock();
        let content = &inner.files[self.file];
        let from = usize::try_from(offset).map_or(content.len(), |from| from.min(content.len()));
        let read = bytes.len().min(content.len() - from);
        bytes[..read].copy_from_slice(&content[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let mut inner = self.disk.lock();
        let mut offset = usize::try_from(offset).map_err(io::Error::other)?;
        match inner.begin()? {
            Some(Fault::Drop) => return Ok(()),
            Some(Fault::Misdirect(by)) => offset += by,
            Some(Fault::Fail(_)) | None => {}
        }
        inner.need(self.file, offset + bytes.len())?;
        inner.change(self.file, Change::Write { offset, bytes: bytes.into() });
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        inner.begin()?;
        inner.need(self.file, bytes)?;
        inner.change(self.file, Change::Grow(bytes));
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(()) // It has no cache beside what is not yet durable.
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let site = site(inner.sites);
        if let Err(error) = inner.begin() {
            if !inner.off.load(Ordering::SeqCst) {
                inner.steps.push(Step::FailedSync(self.file));
            }
            return Err(error);
        }
        inner.steps.push(Step::Synced(self.file, site));
        Ok(())
    }
}
