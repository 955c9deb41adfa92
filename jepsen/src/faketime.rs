//! What libfaketime leaves behind.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The variable of the environment that loads it into a process.
pub(crate) const PRELOAD: &str = "LD_PRELOAD";
/// Where it keeps what the threads of a process share.
const SHARED_MEMORY: &str = "/dev/shm";

/// Processes whose clocks it fakes. What it has made for one that is killed stays behind in files of their own: they are
/// removed when this is dropped, after the processes have ended.
#[derive(Debug)]
pub(crate) struct Faked {
    directory: PathBuf,
    pids: Mutex<Vec<u32>>,
}

impl Default for Faked {
    fn default() -> Self {
        Self { directory: SHARED_MEMORY.into(), pids: Mutex::default() }
    }
}

impl Faked {
    /// This process was started with it.
    pub(crate) fn add(&self, pid: u32) {
        self.pids.lock().expect("nobody panics while he adds").push(pid);
    }
}

impl Drop for Faked {
    fn drop(&mut self) {
        for pid in self.pids.get_mut().unwrap_or_else(PoisonError::into_inner) {
            for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
                // Who ended by himself has removed them.
                fs::remove_file(self.directory.join(name)).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_our_processes_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let names = ["faketime_shm_11", "sem.faketime_sem_11", "faketime_shm_1", "faketime_shm_12"];
        for name in names {
            fs::write(directory.path().join(name), "").expect("a file");
        }
        let faked = Faked { directory: directory.path().into(), pids: Mutex::default() };
        faked.add(11);
        faked.add(12);
        drop(faked);
        let left = fs::read_dir(directory.path()).expect("it can be listed");
        let left: Vec<_> = left.map(|entry| entry.expect("a name").file_name()).collect();
        assert_eq!(left, ["faketime_shm_1"]);
    }
}
