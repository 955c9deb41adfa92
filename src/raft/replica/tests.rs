//! A replica that is its whole group, for tests of what it does alone.

use std::path::Path;

use super::*;
use crate::types::clock::SystemClock;

/// How it is opened.
pub(in crate::raft) fn alone(data: &Path) -> ReplicaOptions {
    ReplicaOptions {
        data: data.into(),
        url: "http://a".into(),
        peers: Vec::new(),
        name: None,
        default_name: "a".into(),
        quorum: 1,
        timing: Timing::default(),
        snapshot_log_bytes: 1 << 20,
        snapshot_codec: Codec::default(),
        keep_log_entries: 10,
        max_memory: None,
        min_free_disk: 0,
        scrub_interval: Duration::ZERO,
        watch_history: crate::types::limits::WATCH_HISTORY_BYTES_DEFAULT,
    }
}

/// Opens it.
pub(in crate::raft) async fn open(options: ReplicaOptions) -> Replica {
    Replica::open(options, Arc::new(SystemClock)).await.expect("it opens")
}
