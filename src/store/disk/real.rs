//! The operating system's files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use crate::store::disk::{Disk, DiskFile, Open, OpenFile};

/// The operating system's disk.
#[derive(Clone, Copy, Debug)]
pub struct Real;

impl Disk for Real {
    fn open(&self, path: &Path, how: Open) -> io::Result<OpenFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Open::Read);
        match how {
            Open::Read | Open::Edit => &mut options,
            Open::Keep => options.create(true).truncate(false),
            Open::Truncate => options.create(true).truncate(true),
            Open::New => options.create_new(true),
        };
        Ok(Arc::new(options.open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(dir) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one method that renames")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            match FileExt::read_at(self, &mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let allocate = || rustix::fs::fallocate(self, FallocateFlags::empty(), 0, bytes);
        match rustix::io::retry_on_intr(allocate) {
            // A file system without it: the file grows, and the room is not certain.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.metadata()?.len() < bytes => {
                self.set_len(bytes)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => result.map_err(io::Error::from),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(self, 0, None, Advice::DontNeed)?)
    }
}
