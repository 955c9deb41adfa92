//! A disk that can be taken away from whoever still has it.
//!
//! Threads that write a snapshot can't be ended, only outlived. Once [`Revocable::revoke`] has
//! returned, none of their steps reaches the disk any more: the one under way was waited for, and all
//! later ones fail. So who opens the same directory next never meets them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::store::disk::{Disk, DiskFile, Open, OpenFile};

/// Another disk, until it is revoked. Clones, and the files that were opened on it, go with it.
#[derive(Clone, Debug)]
pub(in crate::store) struct Revocable {
    disk: Arc<dyn Disk>,
    grant: Arc<Grant>,
}

#[derive(Debug, Default)]
struct Grant {
    revoked: AtomicBool,
    /// Shared by the steps under way.
    steps: RwLock<()>,
}

impl Grant {
    /// Begins a step, which lasts as long as what is returned.
    fn step(&self) -> io::Result<RwLockReadGuard<'_, ()>> {
        let step = self.steps.read().unwrap_or_else(PoisonError::into_inner);
        if self.revoked.load(Ordering::Acquire) {
            return Err(io::Error::other("the replica that this belongs to is closed"));
        }
        Ok(step)
    }
}

impl Revocable {
    pub(in crate::store) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, grant: Arc::default() }
    }

    /// Has every step from now on fail, and waits for those under way.
    pub(in crate::store) fn revoke(&self) {
        self.grant.revoked.store(true, Ordering::Release);
        drop(self.grant.steps.write().unwrap_or_else(PoisonError::into_inner));
    }

    #[cfg(test)]
    pub(in crate::store) fn is_revoked(&self) -> bool {
        self.grant.revoked.load(Ordering::Acquire)
    }
}

impl Disk for Revocable {
    fn open(&self, path: &Path, how: Open) -> io::Result<OpenFile> {
        let _step = self.grant.step()?;
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(File { file, grant: Arc::clone(&self.grant) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let _step = self.grant.step()?;
        self.disk.list(dir)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let _step = self.grant.step()?;
        self.disk.make_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _step = self.grant.step()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let _step = self.grant.step()?;
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let _step = self.grant.step()?;
        self.disk.sync_dir(dir)
    }
}

#[derive(Debug)]
struct File {
    file: OpenFile,
    grant: Arc<Grant>,
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        let _step = self.grant.step()?;
        self.file.size()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let _step = self.grant.step()?;
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _step = self.grant.step()?;
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let _step = self.grant.step()?;
        self.file.allocate(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let _step = self.grant.step()?;
        self.file.sync()
    }

    fn forget_cached(&self) -> io::Result<()> {
        let _step = self.grant.step()?;
        self.file.forget_cached()
    }
}
