//! How many files and sockets this process may have open: as many as the system lets it.
//!
//! Many systems begin at 1,024 and allow far more to who asks: each client, each watcher above all, is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to the most that is allowed without privileges. Where that fails, what is there must do.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!(%error, ?limit, "could not raise the limit of open files");
    }
}
