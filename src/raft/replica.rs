//! Everything that one member of one group is: its data directory, its Raft, and the tasks beside
//! it. Several replicas live in one process without knowing of each other.
//!
//! [`Replica::open`] recovers what the disk has and starts Raft; `formation` then finds or founds
//! the group; requests come through [`Replica::call`] and, from other processes, through the
//! [`Service`](crate::rpc::Service) in `service`. A replica that can't go on says so once through
//! [`Replica::failed`]; its process is expected to end.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::raft::as_of::AsOf;
use crate::raft::catch_up::Sends;
use crate::raft::compaction;
use crate::raft::comparison::{self, Comparison};
use crate::raft::config::{Raft, Timing, config};
use crate::raft::departure::{self, Departure};
use crate::raft::disk_room::{self, DiskRoom};
use crate::raft::expiry;
use crate::raft::formation;
use crate::raft::freshness::Freshness;
use crate::raft::joining::{self, Joining};
use crate::raft::lease::Lease;
use crate::raft::log_store::LogStore;
use crate::raft::memory::Budget;
use crate::raft::network::{Addresses, Network};
use crate::raft::proposals::{self, Proposal};
use crate::raft::published::Published;
use crate::raft::recovery::{OpenError, Recovered, recover};
use crate::raft::replay::replay;
use crate::raft::rounds::{self, Waiter};
use crate::raft::snapshot_stream::Receiving;
use crate::raft::state_machine::StateMachine;
use crate::raft::surroundings::Surroundings;
use crate::raft::watches::Watches;
use crate::raft::{scrub, slow_disk, start, writes};
use crate::rpc::Dialer;
use crate::store::blocking::blocking;
use crate::store::datadir::DataDir;
use crate::store::meta::Meta;
use crate::store::rests::shortage;
use crate::store::snapshot::{Codec, Snapshots};
use crate::store::wal::Wal;
use crate::types::clock::Clock;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::{GroupId, Index};
use crate::types::kv::{KvReply, KvRequest};
use crate::types::limits::{DRAIN_TIMEOUT, LEASE_MAX, REQUESTS_IN_FLIGHT_MAX};
use crate::types::scan::{Part, Scan};
use crate::types::topology::Member;

/// How a replica is opened.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Its data directory; made if missing.
    pub data: PathBuf,
    /// The URL that others reach it at.
    pub url: String,
    /// The URLs of the other members, while the group forms.
    pub peers: Vec<String>,
    /// The group's name, if the user gave one.
    pub name: Option<String>,
    /// The group's name if nobody gave one and this replica forms it.
    pub default_name: String,
    /// The least number of voters that must have a write on disk; the majority if that is more.
    pub quorum: u32,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Bytes of log after which a snapshot is taken.
    pub snapshot_log_bytes: u64,
    /// How its snapshots are packed.
    pub snapshot_codec: Codec,
    /// Entries kept in the log behind a snapshot, for followers that are a little behind.
    pub keep_log_entries: u64,
    /// The most memory that keys and values may take, in bytes; unbounded without it.
    pub max_memory: Option<u64>,
    /// What is kept free on the disk, in bytes.
    pub min_free_disk: u64,
    /// How often log and snapshot are read again to find damage; never for zero.
    pub scrub_interval: Duration,
    /// The changes that are kept for watchers, in bytes.
    pub watch_history: u64,
}

/// One member of one group. Clones share it.
#[derive(Clone)]
pub struct Replica(Arc<Inner>);

struct Inner {
    member: Member,
    options: ReplicaOptions,
    clock: Arc<dyn Clock>,
    raft: Raft,
    wal: Wal,
    snapshots: Snapshots,
    meta: Meta,
    proposals: mpsc::Sender<Proposal>,
    rounds: mpsc::Sender<Waiter>,
    published: Published,
    watches: Watches,
    freshness: Arc<Freshness>,
    as_of: Arc<AsOf>,
    dialer: Dialer,
    lease: Arc<Lease>,
    departure: Departure,
    receiving: Receiving,
    budget: Option<Budget>,
    disk_room: DiskRoom,
    comparison: Comparison,
    joining: Joining,
    recovered: Index,
    bound_until: Option<Instant>,
    group: Arc<Mutex<Option<GroupId>>>,
    formation: Mutex<formation::Progress>,
    permits: Semaphore,
    stopping: CancellationToken,
    tasks: TaskTracker,
    data: Mutex<Option<DataDir>>,
}

fn known(group: Arc<Mutex<Option<GroupId>>>) -> Arc<dyn Fn() -> Option<GroupId> + Send + Sync> {
    Arc::new(move || *lock(&group))
}

impl Replica {
    /// Recovers the data directory and starts Raft. Serves nothing until its group has formed:
    /// see [`Replica::form`].
    pub async fn open(options: ReplicaOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_in(options, Surroundings::real(clock)).await
    }

    /// As [`Replica::open`], elsewhere than on this machine.
    pub(crate) async fn open_in(
        options: ReplicaOptions,
        surroundings: Surroundings,
    ) -> Result<Self, OpenError> {
        let Surroundings { clock, dialer, files } = surroundings;
        let Recovered { data, meta, node, wal, snapshots, state, group, rests } =
            recover(options.data.clone(), files, start::rests(&dialer, &options)).await?;
        let recovered = wal.last().map_or(0, |id| id.index);
        let bound = options.timing.election_timeout_max.max(LEASE_MAX);
        let bound_until = wal.vote().map(|_| Instant::now() + bound);
        let member = Member { node, url: options.url.clone() };
        let group = Arc::new(Mutex::new(group));
        let as_of = Arc::new(AsOf::new(Arc::clone(&clock)));
        let lease = Arc::new(Lease::new(options.timing));
        let (dialer, addresses) = (dialer.of(Some(node)), Addresses::default());
        let log = LogStore::new(wal.clone());
        let network = Network {
            dialer: dialer.clone(),
            group: known(Arc::clone(&group)),
            addresses: addresses.clone(),
            as_of: Arc::clone(&as_of),
            lease: Arc::clone(&lease),
            appended: log.appended(),
            sends: Sends::new(options.keep_log_entries),
            stall: stall_timeout(options.timing),
        };
        let snapshots = snapshots.packed(options.snapshot_codec);
        let mut machine = StateMachine::new(state, snapshots.clone(), options.watch_history);
        let (published, record, watches) =
            (machine.published(), machine.record(), machine.watches());
        let settings = config(options.timing, options.keep_log_entries, bound_until.is_none())
            .map_err(OpenError::internal)?;
        replay(&mut machine, &wal, rests).await.map_err(OpenError::internal)?;
        let raft =
            Raft::new(node, settings, network, log, machine).await.map_err(OpenError::internal)?;
        as_of.watch(&raft);
        addresses.watch(&raft);
        let (proposals, proposed) = proposals::queue();
        let (rounds, waiting) = rounds::queue();
        let replica = Self(Arc::new(Inner {
            member,
            freshness: Arc::new(Freshness::new(Arc::clone(&clock), published.clone())),
            comparison: Comparison::new(record, dialer.clone()),
            departure: Departure::new(dialer.clone()),
            receiving: Receiving::new(snapshots.clone(), stall_timeout(options.timing)),
            budget: options.max_memory.map(Budget::new),
            disk_room: DiskRoom::new(options.min_free_disk),
            joining: Joining::default(),
            formation: Mutex::default(),
            permits: Semaphore::new(REQUESTS_IN_FLIGHT_MAX),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            recovered,
            bound_until,
            dialer,
            data: Mutex::new(data),
            options,
            clock,
            raft,
            wal,
            snapshots,
            meta,
            proposals,
            rounds,
            published,
            watches,
            as_of,
            lease,
            group,
        }));
        replica.begin(proposed, waiting);
        Ok(replica)
    }

    /// Begins the tasks beside Raft.
    fn begin(&self, proposed: mpsc::Receiver<Proposal>, waiting: mpsc::Receiver<Waiter>) {
        let raft = self.0.raft.clone();
        let hand_over = move |command, responder| {
            let raft = raft.clone();
            async move { raft.client_write_ff(command, Some(responder)).await.is_ok() }
        };
        self.spawn(proposals::run(proposed, shortage(), hand_over));
        let (replica, patience) = (self.clone(), 2 * self.options().timing.election_timeout_max);
        let round = move |deadline| replica.clone().round(deadline);
        self.spawn(rounds::run(waiting, patience, shortage(), round));
        if self.voters() == [self.0.member.node] {
            self.0.raft.runtime_config().elect(true); // It owes nobody anything.
        } else if self.0.bound_until.is_some() {
            let bound = self.clone();
            self.spawn(async move { bound.unbound().await });
        }
        self.spawn(compaction::run(self.clone()));
        self.spawn(disk_room::watch(self.clone()));
        self.spawn(expiry::run(self.clone()));
        self.spawn(formation::found(self.clone()));
        self.spawn(formation::keep_seat(self.clone()));
        self.spawn(joining::finish(self.clone()));
        self.spawn(departure::watch(self.clone()));
        self.spawn(scrub::run(self.clone()));
        self.spawn(slow_disk::watch(self.clone()));
        self.spawn(comparison::run(self.clone()));
    }

    /// Whether this replica may still be bound by the lease that it gave a leader before it was
    /// restarted: only its former process knew until when. It helps to elect nobody meanwhile.
    pub(in crate::raft) fn bound(&self) -> bool {
        self.bound_until().is_some()
    }

    /// Until when, if it is.
    pub(in crate::raft) fn bound_until(&self) -> Option<Instant> {
        self.0.bound_until.filter(|until| Instant::now() < *until)
    }

    /// Stands for elections again once the former lease is over.
    async fn unbound(&self) {
        if let Some(until) = self.0.bound_until {
            tokio::time::sleep_until(until).await;
        }
        self.0.raft.runtime_config().elect(true);
    }

    /// Answers one request about one key, if this replica can: see [`Error::NotLeader`].
    pub async fn call(&self, request: KvRequest, deadline: Deadline) -> Result<KvReply, Error> {
        let _place = self.place()?;
        match request {
            KvRequest::Write { write, once } => {
                self.write(writes::action(write, once), deadline).await.map(KvReply::Written)
            }
            KvRequest::Txn { txn, once } => {
                Box::pin(self.transact(txn, once, deadline)).await.map(KvReply::Txn)
            }
            KvRequest::Get { key, consistency, at_least } => {
                self.read(&key, consistency, &at_least, deadline).await.map(KvReply::Read)
            }
        }
    }

    /// Answers a question about a span of keys with what this group has, if this replica can.
    pub async fn scan(&self, scan: &Scan, deadline: Deadline) -> Result<Part, Error> {
        let _place = self.place()?;
        self.read_span(scan, deadline).await
    }

    /// A place for one more request.
    pub(in crate::raft) fn place(&self) -> Result<SemaphorePermit<'_>, Error> {
        let full = |_| Error::Overloaded { queue: "the replica's request queue".into() };
        let permit = self.0.permits.try_acquire().map_err(full)?;
        self.formed()?;
        Ok(permit)
    }

    /// Waits until this replica can't go on, and says why: its disk failed, or Raft did.
    pub async fn failed(&self) -> String {
        tokio::select! {
            biased;
            error = self.0.wal.failed() => format!("the log can't be written: {error}"),
            reason = self.raft_failed() => reason,
            () = self.abandoned() => self.end_of_raft("a task that takes requests to raft has ended"),
        }
    }

    /// Ends when nobody takes writes or reads to Raft any more, though nobody has said that they should stop.
    async fn abandoned(&self) {
        tokio::select! {
            () = self.0.proposals.closed() => {}
            () = self.0.rounds.closed() => {}
        }
        if self.0.stopping.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }

    async fn raft_failed(&self) -> String {
        // They change seldom, and end when Raft does; all metrics together change with each write.
        let mut metrics = self.0.raft.server_metrics();
        while metrics.changed().await.is_ok() {}
        self.end_of_raft("raft has ended")
    }

    /// Why Raft has ended, or this if it does not say.
    fn end_of_raft(&self, otherwise: &str) -> String {
        match &self.0.raft.metrics().borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => otherwise.into(),
        }
    }

    /// Stops: nothing is served afterwards, all that was written is on disk, and the data directory
    /// is free.
    pub async fn shutdown(&self) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("tasks of the replica did not end in time");
        }
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end well");
        }
        if let Err(error) = self.0.wal.close().await {
            tracing::warn!(%error, "the log did not close well");
        }
        // A snapshot may still be written by a thread that nobody waits for: it gets no further.
        let snapshots = self.0.snapshots.clone();
        drop(blocking(move || snapshots.close()).await);
        // Whoever still holds this replica, such as a connection that does not end, uses it no more.
        drop(lock(&self.0.data).take());
    }

    /// Runs `task` until the replica stops.
    pub(in crate::raft) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.0.stopping.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Where writes wait for their way into Raft.
    pub(in crate::raft) fn proposals(&self) -> &mpsc::Sender<Proposal> {
        &self.0.proposals
    }

    /// Where reads wait for the next round.
    pub(in crate::raft) fn rounds(&self) -> &mpsc::Sender<Waiter> {
        &self.0.rounds
    }

    /// Cancelled when the replica stops.
    pub(in crate::raft) fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// The group this replica belongs to or was adopted by.
    pub fn group(&self) -> Option<GroupId> {
        *lock(&self.0.group)
    }

    /// Makes this replica a member of `group`, for as long as its disk lives.
    pub(in crate::raft) fn adopt(&self, group: GroupId) -> Result<(), OpenError> {
        let mut mine = lock(&self.0.group);
        if *mine != Some(group) {
            self.0.meta.set_group(group)?;
            *mine = Some(group);
        }
        Ok(())
    }

    /// Whether this replica has neither entries nor state nor a vote: it has promised nothing.
    pub(in crate::raft) fn fresh(&self) -> bool {
        let voted = self.0.wal.vote().is_some_and(|vote| vote.term > 0 || vote.committed);
        self.0.wal.last().is_none() && !voted && self.0.published.applied_index().is_none()
    }

    /// The last entry that was in the log when the replica was opened.
    pub(in crate::raft) fn recovered_index(&self) -> Index {
        self.0.recovered
    }

    /// This replica as others reach it.
    pub fn member(&self) -> &Member {
        &self.0.member
    }

    /// Its data directory, if it holds one on this machine.
    pub(in crate::raft) fn directory(&self) -> Option<PathBuf> {
        lock(&self.0.data).as_ref().map(|data| data.path.clone())
    }

    pub(in crate::raft) fn options(&self) -> &ReplicaOptions {
        &self.0.options
    }

    pub(in crate::raft) fn clock(&self) -> &dyn Clock {
        self.0.clock.as_ref()
    }

    pub(in crate::raft) fn raft(&self) -> &Raft {
        &self.0.raft
    }

    pub(in crate::raft) fn wal(&self) -> &Wal {
        &self.0.wal
    }

    pub(in crate::raft) fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    pub(in crate::raft) fn published(&self) -> &Published {
        &self.0.published
    }

    pub(in crate::raft) fn watches(&self) -> &Watches {
        &self.0.watches
    }

    pub(in crate::raft) fn freshness(&self) -> &Arc<Freshness> {
        &self.0.freshness
    }

    pub(in crate::raft) fn as_of(&self) -> &AsOf {
        &self.0.as_of
    }

    pub(in crate::raft) fn lease(&self) -> &Arc<Lease> {
        &self.0.lease
    }

    /// Opens connections that say whom they come from.
    pub(in crate::raft) fn dialer(&self) -> &Dialer {
        &self.0.dialer
    }

    pub(in crate::raft) fn departure(&self) -> &Departure {
        &self.0.departure
    }

    pub(in crate::raft) fn receiving(&self) -> &Receiving {
        &self.0.receiving
    }

    pub(in crate::raft) fn disk_room(&self) -> &DiskRoom {
        &self.0.disk_room
    }

    pub(in crate::raft) fn comparison(&self) -> &Comparison {
        &self.0.comparison
    }

    pub(in crate::raft) fn budget(&self) -> Option<&Budget> {
        self.0.budget.as_ref()
    }

    pub(in crate::raft) fn joining(&self) -> &Joining {
        &self.0.joining
    }

    pub(in crate::raft) fn formation(&self) -> &Mutex<formation::Progress> {
        &self.0.formation
    }
}

/// How long a peer may owe an answer on a stream before it is given up.
fn stall_timeout(timing: Timing) -> Duration {
    (timing.election_timeout_max * 2).max(Duration::from_secs(1))
}

/// A poisoned lock of ours holds plain data that is never half changed.
pub(in crate::raft) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(in crate::raft) mod tests;
