//! What is done to a store before it crashes, and what it must hold then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use crate::store::apply::apply;
use crate::store::crashes::options;
use crate::store::disk::Disk;
use crate::store::disk::platters::Note;
use crate::store::disk::simulated::Simulated;
use crate::store::rests::Rests;
use crate::store::snapshot::Snapshots;
use crate::store::state::State;
use crate::store::wal::Wal;
use crate::types::command::{Action, Command};
use crate::types::ids::{Index, LogId, NodeId, Term, Vote};
use crate::types::key::Key;
use crate::types::log::{Entry, Payload};
use crate::types::value::Value;

pub(super) const NODE: NodeId = NodeId(0xa);
pub(super) const WAL: &str = "/wal";
pub(super) const SNAPSHOTS: &str = "/snapshot";
/// Small, so that a few entries fill one.
pub(super) const SEGMENT_BYTES: u64 = 16 << 10;

/// Something that is asked of the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// So many entries with values of so many bytes, waited for.
    Append(u64, usize),
    /// The same; nobody waits until they are on disk.
    Queue(u64, usize),
    /// A vote in the next term.
    Vote,
    /// The commit position.
    Commit,
    /// Takes so many entries away that are not in a snapshot.
    Truncate(u64),
    /// Writes a snapshot of everything and purges up to it.
    Snapshot,
    /// Installs a snapshot that ends so far beyond the log, and purges up to it.
    Install(u64),
    /// Closes everything and opens it again.
    Restart,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let bytes = || prop_oneof![4 => 0..700_usize, 1 => 3000..9000_usize];
    prop_oneof![
        4 => (1..5_u64, bytes()).prop_map(|(n, bytes)| Op::Append(n, bytes)),
        4 => (1..5_u64, bytes()).prop_map(|(n, bytes)| Op::Queue(n, bytes)),
        2 => Just(Op::Vote),
        1 => Just(Op::Commit),
        2 => (1..4_u64).prop_map(Op::Truncate),
        2 => Just(Op::Snapshot),
        1 => (0..5_u64).prop_map(Op::Install),
        1 => Just(Op::Restart),
    ]
}

/// A change of the log that happens whole or not at all.
#[derive(Clone, Debug)]
enum Change {
    Append(Entry),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
}

/// What the log holds.
#[derive(Clone, PartialEq, Debug, Default)]
struct Log {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<Entry>,
}

impl Log {
    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.id).or(self.purged)
    }

    fn take(&mut self, change: &Change) {
        match change {
            Change::Append(entry) => self.entries.push(entry.clone()),
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Truncate(last) => {
                self.entries.retain(|entry| Some(entry.id.index) <= last.map(|last| last.index));
            }
            Change::Purge(upto) => {
                self.purged = Some(*upto);
                self.entries.retain(|entry| entry.id.index > upto.index);
            }
        }
    }
}

/// Everything that was done, in order.
#[derive(Debug, Default)]
pub(super) struct Model {
    changes: Vec<Change>,
    /// What snapshots hold, by their last entry.
    pub(super) states: BTreeMap<Index, State>,
    committed: Vec<LogId>,
}

impl Model {
    /// After how many of the changes the log is as it is: at least those that were acknowledged, and
    /// none that was not submitted.
    pub(super) async fn matching(&self, wal: &Wal, note: Note) -> Result<usize, String> {
        let entries = wal.entries(0..Index::MAX, usize::MAX).await;
        let entries = entries.map_err(|error| format!("reading: {error}"))?;
        let found = Log { vote: wal.vote(), purged: wal.purged(), entries };
        if wal.last() != found.last() {
            return Err(format!("its last entry is {:?}, not {:?}", wal.last(), found.last()));
        }
        if wal.committed().is_some_and(|committed| !self.committed.contains(&committed)) {
            return Err(format!("{:?} was never committed", wal.committed()));
        }
        let mut log = Log::default();
        for change in &self.changes[..note.acknowledged] {
            log.take(change);
        }
        let least = log.clone();
        for at in note.acknowledged..=note.submitted {
            if log == found {
                return Ok(at);
            }
            if at < note.submitted {
                log.take(&self.changes[at]);
            }
        }
        let show = |log: &Log| {
            let ids: Vec<String> = log.entries.iter().map(|entry| entry.id.to_string()).collect();
            format!("vote {:?}, purged {:?}, [{}]", log.vote, log.purged, ids.join(" "))
        };
        Err(format!("found {}; acknowledged {}", show(&found), show(&least)))
    }
}

/// An open store.
pub(super) type Store = (Wal, Snapshots);

/// A store that is worked on.
pub(super) struct Run {
    disk: Simulated,
    wal: Wal,
    snapshots: Snapshots,
    pub(super) model: Model,
    log: Log,
    term: Term,
    /// What was applied: the entries in snapshots are committed.
    state: State,
}

impl Run {
    /// Opens a store on an empty disk.
    pub(super) fn new(disk: &Simulated) -> Self {
        let (wal, snapshots) = try_open(disk).expect("a good disk");
        Self {
            disk: disk.clone(),
            wal,
            snapshots,
            model: Model::default(),
            log: Log::default(),
            term: 1,
            state: State::default(),
        }
    }

    /// Goes on with a store that was opened again, and holds what it did after `upto` changes.
    pub(super) fn over(
        disk: &Simulated,
        (wal, snapshots): Store,
        was: &Model,
        upto: usize,
    ) -> Self {
        let mut log = Log::default();
        was.changes[..upto].iter().for_each(|change| log.take(change));
        let newest = snapshots.newest().and_then(|newest| newest.last);
        let state = newest.and_then(|last| was.states.get(&last.index)).cloned();
        let (changes, states) = (was.changes[..upto].to_vec(), was.states.clone());
        let model = Model { changes, states, committed: was.committed.clone() };
        let term = 1000;
        Self {
            disk: disk.clone(),
            wal,
            snapshots,
            model,
            log,
            term,
            state: state.unwrap_or_default(),
        }
    }

    /// Does all of it, and closes.
    pub(super) async fn all(mut self, ops: &[Op]) -> Model {
        for op in ops {
            self.one(*op).await;
        }
        self.wal.close().await.expect("it closes");
        self.acknowledge(self.model.changes.len());
        self.model
    }

    async fn one(&mut self, op: Op) {
        match op {
            Op::Append(entries, bytes) => {
                self.append(entries, bytes).await;
                self.settle().await;
            }
            Op::Queue(entries, bytes) => self.append(entries, bytes).await,
            Op::Vote => {
                self.term += 1;
                let vote = Vote { term: self.term, node: NODE, committed: false };
                self.submit(&[Change::Vote(vote)]);
                self.wal.save_vote(vote).await.expect("the disk works");
                self.acknowledge(self.model.changes.len());
            }
            Op::Commit => {
                self.model.committed.extend(self.log.last());
                self.wal.save_committed(self.log.last()).await.expect("the disk works");
            }
            Op::Truncate(entries) => self.truncate(entries).await,
            Op::Snapshot => {
                self.apply_all();
                self.snapshot(false).await;
            }
            Op::Install(beyond) => {
                self.apply_all();
                let next = self.log.last().map_or(0, |last| last.index + 1);
                for index in next..next + beyond {
                    apply(&mut self.state, &entry(self.term, index, 100));
                }
                self.snapshot(true).await;
            }
            Op::Restart => {
                self.wal.close().await.expect("it closes");
                self.acknowledge(self.model.changes.len());
                (self.wal, self.snapshots) = try_open(&self.disk).expect("a good disk");
            }
        }
    }

    fn apply_all(&mut self) {
        let applied = self.state.applied.map(|id| id.index);
        for entry in self.log.entries.iter().filter(|entry| Some(entry.id.index) > applied) {
            apply(&mut self.state, entry);
        }
    }

    async fn append(&mut self, entries: u64, bytes: usize) {
        let next = self.log.last().map_or(0, |last| last.index + 1);
        let entries: Vec<Entry> =
            (next..next + entries).map(|index| entry(self.term, index, bytes)).collect();
        let changes: Vec<Change> = entries.iter().cloned().map(Change::Append).collect();
        self.submit(&changes);
        let (disk, upto) = (self.disk.clone(), self.model.changes.len());
        let done = move |done: std::io::Result<()>| {
            done.expect("the disk works");
            disk.note(|note| note.acknowledged = note.acknowledged.max(upto));
        };
        self.wal.append(entries, Box::new(done)).await.expect("the disk works");
    }

    /// Waits until everything is on disk.
    async fn settle(&self) {
        let (done, wait) = tokio::sync::oneshot::channel();
        let done = move |result| drop(done.send(result));
        self.wal.append(Vec::new(), Box::new(done)).await.expect("the disk works");
        wait.await.expect("it is told").expect("the disk works");
    }

    async fn truncate(&mut self, entries: u64) {
        let applied = self.state.applied.map(|id| id.index);
        let loose = self.log.entries.iter().filter(|entry| Some(entry.id.index) > applied).count();
        let keep = self.log.entries.len() - loose.min(usize::try_from(entries).expect("few"));
        if keep == self.log.entries.len() {
            return;
        }
        let last = keep.checked_sub(1).map(|at| self.log.entries[at].id).or(self.log.purged);
        self.term += 1;
        self.submit(&[Change::Truncate(last)]);
        self.wal.truncate_after(last).await.expect("the disk works");
        self.acknowledge(self.model.changes.len());
    }

    /// Makes the state durable, by writing it or as if it came from a leader; then purges.
    async fn snapshot(&mut self, received: bool) {
        let Some(last) = self.state.applied else { return };
        self.model.states.insert(last.index, self.state.clone());
        if received {
            let elsewhere: Arc<dyn Disk> = Arc::new(Simulated::new());
            let theirs = Snapshots::open(elsewhere, Path::new(SNAPSHOTS)).expect("a disk");
            let sent = theirs.write(&self.state).expect("the disk works");
            let mut incoming = self.snapshots.receive(sent.bytes).expect("the disk works");
            let (_, file) = theirs.open_newest().expect("the disk works").expect("one");
            let mut bytes = vec![0; usize::try_from(sent.bytes).expect("short")];
            file.read_exact_at(&mut bytes, 0).expect("the disk works");
            bytes.chunks(100).for_each(|chunk| incoming.write(chunk).expect("the disk works"));
            let received = incoming.finish(Rests::none()).expect("it is whole");
            received.install(&self.snapshots).expect("it is newer");
        } else {
            self.snapshots.write(&self.state).expect("the disk works");
        }
        self.disk.note(|note| note.snapshot = note.snapshot.max(Some(last.index)));
        if self.log.purged.is_none_or(|purged| purged.index < last.index) {
            self.submit(&[Change::Purge(last)]);
            self.wal.purge(last).await.expect("the disk works");
            self.acknowledge(self.model.changes.len());
        }
    }

    fn submit(&mut self, changes: &[Change]) {
        for change in changes {
            self.log.take(change);
        }
        self.model.changes.extend_from_slice(changes);
        let submitted = self.model.changes.len();
        self.disk.note(|note| note.submitted = submitted);
    }

    fn acknowledge(&self, upto: usize) {
        self.disk.note(|note| note.acknowledged = note.acknowledged.max(upto));
    }
}

/// Opens the store over a disk.
pub(super) fn try_open(disk: &Simulated) -> Result<Store, String> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let snapshots = Snapshots::open(Arc::clone(&disk), Path::new(SNAPSHOTS));
    let snapshots = snapshots.map_err(|error| format!("snapshots: {error}"))?;
    let wal = Wal::open(options(disk)).map_err(|error| format!("log: {error}"))?;
    Ok((wal, snapshots))
}

pub(super) fn entry(term: Term, index: Index, bytes: usize) -> Entry {
    let value = vec![u8::try_from(index % 251).expect("small"); bytes];
    let key = Key::new(format!("key-{}", index % 5)).expect("a key");
    let action = Action::Put { key, value: Value::bytes(value) };
    let payload = Payload::Command(Command { ts: 1000 * term + index, action });
    Entry { id: LogId { term, leader: NODE, index }, payload }
}
