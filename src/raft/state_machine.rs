//! openraft's state machine over `store`: applies in chunks, publishes, answers; builds and
//! installs snapshots.
//!
//! There are two copies of the state, sharing nearly everything: the one that `apply` changes, and
//! the published one that readers load without a lock. A chunk is published before any of its
//! writers hears that it was applied, so whoever was answered can read what he wrote.

use std::io::{self, Read};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot as RaftSnapshot};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::planted::{self, Bug};
use crate::raft::checkpoints::Record;
use crate::raft::config::{LogIdOf, SnapshotMetaOf, StoredMembershipOf, TypeConfig};
use crate::raft::watches::Watches;
use crate::raft::wire;
use crate::store::apply::apply;
use crate::store::blocking::{blocking, in_background};
use crate::store::disk::{FileStream, OpenFile};
use crate::store::snapshot::{Received, Snapshot, SnapshotError, Snapshots};
use crate::store::state::State;
#[cfg(test)]
use crate::types::ids::LogId;
use crate::types::limits::SNAPSHOT_CHUNK_BYTES;

type SnapshotOf = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The most entries applied before they are published.
const CHUNK_ENTRIES_MAX: usize = 1024;

/// A snapshot on its way through openraft.
#[derive(Debug)]
pub(in crate::raft) enum SnapshotData {
    /// A file of this replica, open: it can be read to its end although a newer one replaces it.
    Local(Snapshot, OpenFile),
    /// A file that this replica has just written.
    Built(Snapshot),
    /// A checked file from the leader, not yet in place.
    Received(Box<Received>),
}

/// The state that readers see.
#[derive(Clone, Debug, Default)]
pub(in crate::raft) struct Published(Arc<ArcSwap<State>>);

impl Published {
    /// The newest state; stays as it is while the caller holds it.
    pub(in crate::raft) fn load(&self) -> Arc<State> {
        self.0.load_full()
    }

    /// Shows `state` to readers from now on.
    pub(in crate::raft) fn publish(&self, state: &State) {
        self.0.store(Arc::new(state.clone()));
    }
}

/// The state machine of one replica.
#[derive(Debug)]
pub(in crate::raft) struct StateMachine {
    state: State,
    published: Published,
    record: Record,
    watches: Watches,
    snapshots: Snapshots,
    /// openraft's storage suite leaves entries out; nothing else may.
    #[cfg(test)]
    pub(in crate::raft) leaves_entries_out: bool,
}

impl StateMachine {
    /// Starts from `state`, which the newest snapshot holds, or an empty one; keeps so many bytes of changes
    /// for watchers.
    pub(in crate::raft) fn new(state: State, snapshots: Snapshots, watch_history: u64) -> Self {
        let published = Published::default();
        published.publish(&state);
        let state = State { changes: Some(Vec::new()), ..state };
        Self {
            watches: Watches::new(watch_history, state.next_index()),
            state,
            published,
            record: Record::default(),
            snapshots,
            #[cfg(test)]
            leaves_entries_out: false,
        }
    }

    /// What readers load from.
    pub(in crate::raft) fn published(&self) -> Published {
        self.published.clone()
    }

    /// What it tells watchers.
    pub(in crate::raft) fn watches(&self) -> Watches {
        self.watches.clone()
    }

    /// Where its checkpoints are.
    pub(in crate::raft) fn record(&self) -> Record {
        self.record.clone()
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogIdOf>, StoredMembershipOf)> {
        wire::applied_state(&self.state)
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.try_ready_chunks(CHUNK_ENTRIES_MAX);
        loop {
            // What was read before an error is applied all the same; the error comes next.
            let (chunk, failure) = match chunks.try_next().await {
                Ok(None) => return Ok(()),
                Ok(Some(chunk)) => (chunk, None),
                Err(futures::stream::TryReadyChunksError(chunk, error)) => (chunk, Some(error)),
            };
            // How a group forms is always shown: otherwise nothing would come that could show it later.
            let late = planted::bug(Bug::LatePublish) && !self.state.map.is_empty();
            let mut answers = Vec::with_capacity(chunk.len());
            let mut changed = Vec::with_capacity(chunk.len());
            for (entry, responder) in chunk {
                let entry = wire::entry(entry);
                #[cfg(test)]
                if self.leaves_entries_out {
                    let before = entry.id.index.checked_sub(1);
                    self.state.applied = before.map(|index| LogId { index, ..entry.id });
                }
                let outcome = apply(&mut self.state, &entry);
                self.record.note(&self.state);
                changed.push((
                    entry.id.index,
                    self.state.changes.replace(Vec::new()).unwrap_or_default(),
                ));
                answers.extend(responder.map(|responder| (responder, outcome)));
            }
            if !(late && planted::one_of(2)) {
                self.published.publish(&self.state);
            }
            self.watches.record(changed);
            for (responder, outcome) in answers {
                responder.send(outcome);
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { state: self.state.clone(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let snapshots = self.snapshots.clone();
        self.record.begin_anew();
        self.state = on_disk(move || match snapshot {
            SnapshotData::Received(received) => {
                received.install(&snapshots).map(|(_, state)| state)
            }
            SnapshotData::Local(snapshot, _) | SnapshotData::Built(snapshot)
                if snapshots.newest().as_ref() == Some(&snapshot) =>
            {
                snapshots.read(&snapshot)
            }
            SnapshotData::Local(snapshot, file) => copy(&snapshots, &snapshot, file),
            SnapshotData::Built(snapshot) => snapshots.read(&snapshot),
        })
        .await?;
        self.state.changes = Some(Vec::new());
        // First: who sees the new state must not be told of a place before it.
        self.watches.begin_anew(self.state.next_index());
        self.published.publish(&self.state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let snapshots = self.snapshots.clone();
        let newest = on_disk(move || snapshots.open_newest()).await?;
        newest
            .map(|(snapshot, file)| {
                let meta = wire::snapshot_meta(snapshot.last.as_ref(), &snapshot.membership)?;
                Ok(RaftSnapshot { meta, snapshot: SnapshotData::Local(snapshot, file) })
            })
            .transpose()
    }
}

/// Writes one frozen state to a file while the state machine goes on.
#[derive(Debug)]
pub(in crate::raft) struct SnapshotBuilder {
    state: State,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let (state, snapshots) = (self.state.clone(), self.snapshots.clone());
        let written = in_background(move || snapshots.write(&state)).await?;
        let snapshot = written.map_err(io::Error::other)?;
        let meta = wire::snapshot_meta(snapshot.last.as_ref(), &snapshot.membership)?;
        Ok(RaftSnapshot { meta, snapshot: SnapshotData::Built(snapshot) })
    }
}

/// Takes over a snapshot that lies elsewhere on this machine.
fn copy(
    snapshots: &Snapshots,
    snapshot: &Snapshot,
    file: OpenFile,
) -> Result<State, SnapshotError> {
    let failed = |source| SnapshotError::Io { path: snapshot.path.clone(), source };
    let mut incoming = snapshots.receive(snapshot.bytes)?;
    let mut file = FileStream::new(file);
    let mut chunk = vec![0; SNAPSHOT_CHUNK_BYTES];
    loop {
        match file.read(&mut chunk).map_err(failed)? {
            0 => break,
            bytes => incoming.write(&chunk[..bytes])?,
        }
    }
    incoming.finish()?.install(snapshots).map(|(_, state)| state)
}

/// Works on snapshots where it may block.
pub(in crate::raft) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> io::Result<T> {
    blocking(work).await?.map_err(io::Error::other)
}
