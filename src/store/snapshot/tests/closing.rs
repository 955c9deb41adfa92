//! A replica is closed while a thread that nobody waits for still writes a snapshot.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::*;
use crate::store::disk::DiskFile;
use crate::store::disk::simulated::Simulated;

/// A disk on which the first write waits until it is let go. Clones share it.
#[derive(Clone, Debug)]
struct Slow {
    disk: Simulated,
    arrived: SyncSender<()>,
    let_go: Arc<Mutex<Option<Receiver<()>>>>,
    /// Whether that write has ended.
    ended: Arc<AtomicBool>,
    /// Steps that have begun.
    begun: Arc<AtomicUsize>,
}

impl Slow {
    fn begin<T>(&self, step: impl FnOnce(&Simulated) -> T) -> T {
        self.begun.fetch_add(1, Ordering::SeqCst);
        step(&self.disk)
    }
}

impl Disk for Slow {
    fn open(&self, path: &Path, how: Open) -> io::Result<OpenFile> {
        let file = self.begin(|disk| disk.open(path, how))?;
        Ok(Arc::new(SlowFile { file, slow: self.clone() }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.begin(|disk| disk.list(dir))
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.begin(|disk| disk.make_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin(|disk| disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.begin(|disk| disk.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.begin(|disk| disk.sync_dir(dir))
    }
}

#[derive(Debug)]
struct SlowFile {
    file: OpenFile,
    slow: Slow,
}

impl DiskFile for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.slow.begin(|_| self.file.size())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.slow.begin(|_| self.file.read_at(bytes, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.slow.begin(|_| {
            let first = lock(&self.slow.let_go).take();
            if let Some(let_go) = &first {
                self.slow.arrived.send(()).unwrap();
                let_go.recv().unwrap();
            }
            let written = self.file.write_at(bytes, offset);
            self.slow.ended.store(true, Ordering::SeqCst);
            written
        })
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.slow.begin(|_| self.file.allocate(bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.slow.begin(|_| self.file.sync())
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.slow.begin(|_| self.file.forget_cached())
    }
}

#[test]
fn nothing_of_a_snapshot_under_way_reaches_the_disk_after_the_end() {
    let (disk, dir) = (Simulated::new(), Path::new("/data/snapshot"));
    let (arrived, arrivals) = sync_channel(1);
    let (go, let_go) = sync_channel(1);
    let let_go = Arc::new(Mutex::new(Some(let_go)));
    let (ended, begun) = (Arc::default(), Arc::default());
    let slow = Slow { disk: disk.clone(), arrived, let_go, ended, begun };
    let former = Snapshots::open(Arc::new(slow.clone()), dir).unwrap();
    let building = {
        let (former, state) = (former.clone(), state_at(20, 300, 1000));
        thread::spawn(move || former.write(&state))
    };
    arrivals.recv().unwrap();
    // The disk moves on when the end has begun, and not before.
    let letting_go = {
        let former = former.clone();
        thread::spawn(move || {
            while !former.shared.disk.is_revoked() {
                thread::yield_now();
            }
            go.send(()).unwrap();
        })
    };
    former.close();
    assert!(slow.ended.load(Ordering::SeqCst), "the step under way was waited for");
    let begun = slow.begun.load(Ordering::SeqCst);

    // The directory's next owner.
    let next = Snapshots::open(Arc::new(disk.clone()), dir).unwrap();
    let state = state_at(10, 3, 10);
    let written = next.write(&state).unwrap();
    letting_go.join().unwrap();
    let refused = building.join().unwrap().unwrap_err();
    assert!(refused.to_string().contains("closed"), "{refused}");
    assert_eq!(slow.begun.load(Ordering::SeqCst), begun, "steps of the former replica");
    assert_eq!(disk.list(dir).unwrap(), std::slice::from_ref(&written.path));
    assert_eq!(next.read(&written).unwrap(), state);
}
