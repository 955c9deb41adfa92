//! Everything that the store does to files, so that a test can stand in for the disk.
//!
//! [`Disk`] is small on purpose: what is not in it the store does not do. [`Real`] is the
//! operating system's. What holds for both:
//!
//! - what was written is durable only after [`DiskFile::sync`], and a name that was made, changed or
//!   removed only after [`Disk::sync_dir`] of its directory. A crash may lose any of it, keep it, or
//!   tear it;
//! - a failed sync says nothing about what is durable, and is never tried again (Rebello et al.,
//!   "Can Applications Recover from fsync Failures?", ATC '20).
//!
//! Outside it are the directory's lock, which is a matter between processes, and `meta/`, which
//! `sled` keeps, and whose loss is safe.

#[cfg(any(test, feature = "simulation"))]
pub mod platters;
mod real;
pub(in crate::store) mod revocable;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::store::disk::real::Real;

/// A file that somebody has open.
pub type OpenFile = Arc<dyn DiskFile>;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// It must exist, and is only read.
    Read,
    /// It must exist, and is read and written.
    Edit,
    /// It is made if it is missing, and keeps what it has.
    Keep,
    /// It is made if it is missing, and loses what it has.
    Truncate,
    /// It is made, and must not exist.
    New,
}

/// Where files are.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<OpenFile>;

    /// The files in a directory, in any order; none if there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a directory and those above it, if they are missing. Not durable by itself.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Gives a file another name in the same directory, replacing what had that name. Use
    /// [`replace`], which is durable.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Use [`remove`], which is durable.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. It stays readable when its name is gone.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// How long it is, in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads what is at `offset`; less than asked for, or nothing, only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. Not durable by itself.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file at least `bytes` long and reserves the room, so that writing there does not
    /// run out of disk.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes durable what was written, and the length.
    fn sync(&self) -> io::Result<()>;

    /// Has what was synced read from the disk again, and not from what the system remembers of it,
    /// as far as the system can do that.
    fn forget_cached(&self) -> io::Result<()>;

    /// Reads exactly as many bytes as `bytes` has.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(bytes, offset)? == bytes.len() {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Renames `from` to `to`, replacing what is there: durable when this returns.
pub fn replace(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk.rename(from, to)?;
    disk.sync_dir(parent(to))
}

/// Removes a file: it is gone for good when this returns.
pub fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.remove(path)?;
    disk.sync_dir(parent(path))
}

/// Makes a directory if it is missing: durable when this returns.
pub fn make_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.make_dir(dir)?;
    disk.sync_dir(parent(dir))
}

/// The directory that holds the name of `path`.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that is read or written from its start to its end.
#[derive(Debug)]
pub struct FileStream {
    file: OpenFile,
    offset: u64,
}

impl FileStream {
    /// At the start of `file`.
    pub fn new(file: OpenFile) -> Self {
        Self { file, offset: 0 }
    }

    /// The file.
    pub fn file(&self) -> &OpenFile {
        &self.file
    }
}

impl Read for FileStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Write for FileStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
