//! How many clusters run on this machine at a time, over all test processes.
//!
//! A test holds one slot, or all of them when it measures time or loads the machine. Slots are
//! locked files in the temporary directory, so the system takes them back from a test that died.

use std::fs::File;
use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

/// Slots that are held until this is dropped.
#[derive(Debug)]
pub(crate) struct Slots {
    _held: Vec<File>,
}

impl Slots {
    /// One slot: the test runs beside others.
    pub(crate) async fn one() -> Self {
        Self::hold(1).await
    }

    /// Every slot: the test runs alone.
    pub(crate) async fn all() -> Self {
        Self::hold(count()).await
    }

    /// Whether somebody could have a slot now.
    pub(crate) fn is_one_free() -> bool {
        let directory = std::env::temp_dir().join("sage-slots");
        (0..count()).any(|slot| open(&directory, &slot.to_string()).try_lock().is_ok())
    }

    /// Takes slots behind a turnstile, so that whoever wants all of them gets his turn.
    async fn hold(wanted: usize) -> Self {
        let directory = std::env::temp_dir().join("sage-slots");
        std::fs::create_dir_all(&directory).expect("the temporary directory can be written");
        let turnstile = open(&directory, "turnstile");
        turnstile.lock().expect("a file can be locked");
        let mut held = Vec::new();
        let mut free: Vec<File> =
            (0..count()).map(|slot| open(&directory, &slot.to_string())).collect();
        while held.len() < wanted {
            let at = free.iter().position(|slot| slot.try_lock().is_ok());
            match at {
                Some(at) => held.push(free.swap_remove(at)),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Self { _held: held }
    }
}

fn open(directory: &Path, name: &str) -> File {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(directory.join(name));
    file.expect("a lock file can be opened")
}

fn count() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}
