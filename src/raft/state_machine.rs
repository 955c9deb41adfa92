//! openraft's state machine over `store`: applies in chunks, publishes, answers; builds and
//! installs snapshots.
//!
//! A chunk is published before any of its writers hears that it was applied, so whoever was answered
//! can read what he wrote.

use std::io::{self, Read};
use std::mem;
use std::panic::{self, AssertUnwindSafe};

use futures::{Stream, TryStreamExt};
use openraft::storage::{
    ApplyResponder, EntryResponder, RaftStateMachine, Snapshot as RaftSnapshot,
};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::raft::checkpoints::Record;
use crate::raft::config::{LogIdOf, SnapshotMetaOf, StoredMembershipOf, TypeConfig};
use crate::raft::published::Published;
use crate::raft::watches::Watches;
use crate::raft::wire;
use crate::store::apply::apply;
use crate::store::blocking::{blocking, in_background};
use crate::store::disk::{FileStream, OpenFile};
use crate::store::rests::Rests;
use crate::store::snapshot::{Received, Snapshot, SnapshotError, Snapshots};
use crate::store::state::State;
use crate::types::command::{Action, Outcome};
use crate::types::host;
#[cfg(test)]
use crate::types::ids::LogId;
use crate::types::limits::{EXPIRIES_MAX, FREE_LONG_RESTS, SNAPSHOT_CHUNK_BYTES, SPAN_DELETES_MAX};
use crate::types::log::{Entry, Payload};

type SnapshotOf = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The most entries that are taken together.
const CHUNK_ENTRIES_MAX: usize = 1024;
/// How many keys are touched before what comes of it is published, and the last entry whole: readers wait for it.
const WORK_MAX: usize = 128;

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

/// The state machine of one replica.
#[derive(Debug)]
pub(in crate::raft) struct StateMachine {
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
        let watches = Watches::new(watch_history, state.next_index());
        let published = Published::default();
        published.change(|empty| *empty = State { changes: Some(Vec::new()), ..state });
        Self {
            watches,
            published,
            record: Record::default(),
            snapshots,
            #[cfg(test)]
            leaves_entries_out: false,
        }
    }

    /// What readers look at.
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

/// Who waits for what came of an entry, and that.
type Answers = Vec<(ApplyResponder<TypeConfig>, Outcome)>;
type Entries = std::vec::IntoIter<EntryResponder<TypeConfig>>;

impl StateMachine {
    /// Applies the first of these entries, one at least and no more than [`WORK_MAX`], and publishes what comes of them;
    /// how much work that was comes back, too. An error if that panics: Raft must hear of it.
    fn apply_some(&self, entries: &mut Entries) -> io::Result<(Answers, usize)> {
        let apply = || self.published.change(|state| self.apply_to(state, entries));
        // A state that is half changed is shown to nobody: its lock is poisoned then.
        panic::catch_unwind(AssertUnwindSafe(apply))
            .map_err(|_| io::Error::other("applying an entry has panicked"))
    }

    fn apply_to(&self, state: &mut State, entries: &mut Entries) -> (Answers, usize) {
        let (mut answers, mut changed, mut done) = (Vec::new(), Vec::new(), 0);
        while done < WORK_MAX
            && let Some((entry, responder)) = entries.next()
        {
            let entry = wire::entry(entry);
            #[cfg(test)]
            if self.leaves_entries_out {
                let before = entry.id.index.checked_sub(1);
                state.applied = before.map(|index| LogId { index, ..entry.id });
            }
            let outcome = apply(state, &entry);
            self.record.note(state);
            let events = state.changes.replace(Vec::new()).unwrap_or_default();
            changed.push((entry.id.index, events));
            answers.extend(responder.map(|responder| (responder, outcome)));
            done += work(&entry);
        }
        self.watches.record(changed);
        (answers, done)
    }
}

/// How many keys an entry may touch.
fn work(entry: &Entry) -> usize {
    let Payload::Command(command) = &entry.payload else { return 1 };
    match &command.action {
        Action::Txn { txn, .. } => txn.keys().count().max(1),
        Action::DeleteSpan { limit, .. } => (*limit as usize).clamp(1, SPAN_DELETES_MAX),
        Action::Expire => EXPIRIES_MAX,
        _ => 1,
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogIdOf>, StoredMembershipOf)> {
        wire::applied_state(&self.published.live())
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
            let mut chunk = chunk.into_iter();
            while !chunk.as_slice().is_empty() {
                let (answers, work) = self.apply_some(&mut chunk)?;
                for (responder, outcome) in answers {
                    responder.send(outcome);
                }
                if work >= WORK_MAX {
                    // There may be no other thread for those who wait.
                    tokio::task::yield_now().await;
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: Some(self.published.live().clone()),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let snapshots = self.snapshots.clone();
        self.record.begin_anew();
        let state = on_disk(move || match snapshot {
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
        let state = State { changes: Some(Vec::new()), ..state };
        // First: who sees the new state must not be told of a place before it.
        self.watches.begin_anew(state.next_index());
        let old = self.published.change(|now| mem::replace(now, state));
        // It takes as long as there are keys.
        if host::is_simulated() {
            drop(old);
        } else {
            let free = move || old.free(Rests::when_short(FREE_LONG_RESTS));
            drop(tokio::spawn(in_background(free)));
        }
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
    /// Until it is written; then the thread that wrote it frees what nobody else has any more.
    state: Option<State>,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let snapshots = self.snapshots.clone();
        let state = self.state.take().ok_or_else(|| io::Error::other("it was written already"))?;
        let written = in_background(move || snapshots.write_at_leisure(&state)).await?;
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
    incoming.finish(Rests::none())?.install(snapshots).map(|(_, state)| state)
}

/// Works on snapshots where it may block.
pub(in crate::raft) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> io::Result<T> {
    blocking(work).await?.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::disk::Real;
    use crate::types::command::Command;
    use crate::types::ids::{ClusterId, NodeId};
    use crate::types::scan::Span;

    fn entry(index: u64, action: Action) -> Entry {
        let id = LogId { term: 1, leader: NodeId(1), index };
        Entry { id, payload: Payload::Command(Command { ts: 1, action }) }
    }

    #[tokio::test]
    async fn a_panic_while_an_entry_is_applied_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let snapshots = Snapshots::open(Arc::new(Real), dir.path()).expect("a new directory");
        let mut machine = StateMachine::new(State::default(), snapshots, 0);
        let behind_a_hole = wire::raft_entry(entry(7, Action::Expire)).expect("an entry");
        let applied = machine.apply(futures::stream::iter([Ok((behind_a_hole, None))])).await;
        assert!(applied.is_err_and(|error| error.to_string().contains("panicked")));
    }

    #[test]
    fn what_touches_many_keys_is_much_work() {
        let span = Span::new("", "");
        let delete = |limit| Action::DeleteSpan { span: span.clone(), limit, once: None };
        assert_eq!(work(&entry(0, delete(1000))), 1000);
        assert_eq!(work(&entry(0, delete(u32::MAX))), SPAN_DELETES_MAX);
        assert_eq!(work(&entry(0, Action::Confirm { cluster: ClusterId(1) })), 1);
    }
}
