//! Work on the disk, done where it may block.
//!
//! On a thread beside the async ones; in a simulation, which has one thread and no disk to wait
//! for, right here.

use std::io;

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
