//! Work on the disk, done where it may block.
//!
//! On a thread beside the async ones; in a simulation, which has one thread and no disk to wait
//! for, right here.

use std::{io, thread};

use tokio::sync::oneshot;

use crate::types::host;

/// Runs `work`; an error only if it panicked or the runtime ends.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if host::is_simulated() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// How much a thread in the background lets others go first: `nice` of Unix, from -20 to 19.
#[cfg(target_os = "linux")]
const BACKGROUND_NICENESS: i32 = 10;

/// Runs `work`, which takes long and which nobody waits for, on a thread of its own that lets others go first; an error
/// only if it panicked or there can be no more threads.
pub async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if host::is_simulated() {
        return Ok(work());
    }
    let (done, result) = oneshot::channel();
    thread::Builder::new().name("background".into()).spawn(move || {
        // Only there it holds for one thread. Without it the work is done as well.
        #[cfg(target_os = "linux")]
        drop(rustix::process::nice(BACKGROUND_NICENESS));
        drop(done.send(work()));
    })?;
    result.await.map_err(io::Error::other)
}
