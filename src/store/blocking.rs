//! Work on the disk, done where it may block.
//!
//! On a thread beside the async ones; in a simulation, which has one thread and no disk to wait
//! for, right here.

use std::sync::mpsc::{self, SendError};
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

/// Runs `work`, which takes long and which nobody waits for, on a thread of its own that lets others go first, or as
/// [`blocking`] does if there can be no more threads; an error only if it panicked or the runtime ends.
pub async fn in_background<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if host::is_simulated() {
        return Ok(work());
    }
    let (hand_over, handed_over) = mpsc::sync_channel::<F>(1);
    let (done, result) = oneshot::channel();
    let started = thread::Builder::new().name("background".into()).spawn(move || {
        // Only there it holds for one thread.
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::nice(BACKGROUND_NICENESS) {
            tracing::debug!(%error, "a thread in the background is as fast as any other");
        }
        if let Ok(work) = handed_over.recv() {
            drop(done.send(work()));
        }
    });
    // Whoever has too many threads is not to lose a snapshot for it.
    if let Err(error) = started {
        tracing::warn!(%error, "no thread for work in the background");
        return blocking(work).await;
    }
    if let Err(SendError(work)) = hand_over.send(work) {
        return blocking(work).await;
    }
    result.await.map_err(io::Error::other)
}
