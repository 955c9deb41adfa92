//! One simulated machine and the replica that runs on it: the real one, on a simulated disk, clock
//! and network.
//!
//! Each process has a tokio runtime of its own, of one thread and with paused time, and does its
//! work only while [`Node::step`] lets it: so its clock goes as fast as we like, it can be paused,
//! and when it is killed everything of it is gone at once. What its disk has is kept apart
//! ([`Platters`]): after the process has ended, all that was written; after the machine has lost
//! its power, what was synced and any part of the rest.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::raft::{Files, Inspection, Replica, ReplicaOptions, Surroundings, Timing};
use crate::rpc::{self, Dialer};
use crate::sim::net::{self, Net, Place};
use crate::store::disk::Disk;
use crate::store::disk::platters::{Loss, Platters};
use crate::store::disk::simulated::Simulated;
use crate::store::meta::Meta;
use crate::types::clock::{Clock, TimestampMs};
use crate::types::host::{self, Host};
use crate::types::log::Entry;

/// Where a replica keeps its data.
const DATA: &str = "/data";
/// Small, so that logs rotate.
const SEGMENT_BYTES: u64 = 32 * 1024;
/// Small, so that snapshots are taken and sent.
const SNAPSHOT_LOG_BYTES: u64 = 12 * 1024;
const KEEP_LOG_ENTRIES: u64 = 40;
/// What wall clocks show at the start of a run.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// What a simulated process has from its machine.
pub(in crate::sim) struct Machine {
    rng: RefCell<StdRng>,
    /// The longest time that a batch of the log takes to be written.
    lag: Cell<Duration>,
}

impl Machine {
    /// A machine with a fast disk.
    pub(in crate::sim) fn new(seed: u64) -> Rc<Self> {
        let rng = RefCell::new(StdRng::seed_from_u64(seed));
        Rc::new(Self { rng, lag: Cell::default() })
    }
}

impl Host for Machine {
    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    fn random(&self) -> u64 {
        self.rng.borrow_mut().next_u64()
    }

    fn disk_lag(&self) -> Duration {
        let lag = self.lag.get();
        if lag.is_zero() { lag } else { self.rng.borrow_mut().random_range(Duration::ZERO..lag) }
    }
}

/// The wall clock of one machine.
#[derive(Default)]
struct Wall {
    elapsed_ms: AtomicI64,
    skew_ms: AtomicI64,
}

impl Clock for Wall {
    fn now_ms(&self) -> TimestampMs {
        let offset = self.elapsed_ms.load(Ordering::SeqCst) + self.skew_ms.load(Ordering::SeqCst);
        u64::try_from(EPOCH_MS + offset).unwrap_or_default()
    }
}

/// A runtime that does its work in steps.
pub(in crate::sim) struct Steps {
    runtime: Runtime,
    machine: Rc<Machine>,
    start: Instant,
    /// How far its clock has gone.
    elapsed: f64,
}

impl Steps {
    /// On this machine; its clock has not gone yet.
    pub(in crate::sim) fn new(machine: &Rc<Machine>) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O can be made");
        let start = runtime.block_on(async { Instant::now() });
        Self { runtime, machine: Rc::clone(machine), start, elapsed: 0.0 }
    }

    /// Spawns a task.
    pub(in crate::sim) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let _entered = host::enter(Rc::clone(&self.machine) as Rc<dyn Host>);
        drop(self.runtime.spawn(task));
    }

    /// Works for so many milliseconds by its own clock.
    pub(in crate::sim) fn step(&mut self, ms: f64) {
        let _entered = host::enter(Rc::clone(&self.machine) as Rc<dyn Host>);
        self.elapsed += ms;
        let until = self.start + Duration::from_millis(whole(self.elapsed));
        self.runtime.block_on(async move { tokio::time::sleep_until(until).await });
    }

    /// Has its clock go on without any work.
    fn skip(&mut self, ms: f64) {
        let _entered = host::enter(Rc::clone(&self.machine) as Rc<dyn Host>);
        let before = whole(self.elapsed);
        self.elapsed += ms;
        let skipped = Duration::from_millis(whole(self.elapsed) - before);
        self.runtime.block_on(async move { tokio::time::advance(skipped).await });
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are small and positive"
)]
fn whole(ms: f64) -> u64 {
    ms as u64
}

/// What a process shows of itself.
#[derive(Default)]
struct Face {
    replica: Option<Replica>,
    ended: Option<String>,
}

/// A process that runs, or is paused.
struct Process {
    steps: Steps,
    disk: Simulated,
    off: Arc<AtomicBool>,
    face: Arc<Mutex<Face>>,
    paused: Option<f64>,
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum End {
    /// Alone; what it has written is there, synced or not.
    Killed,
    /// With its machine.
    PowerLoss(Loss),
}

/// How a process has ended that nobody has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Ended {
    /// Its machine has lost its power.
    NoPower,
    /// It can't go on, and says why.
    ByItself(String),
}

/// One machine with its replica.
pub(in crate::sim) struct Node {
    pub(in crate::sim) place: Place,
    /// Counts its processes.
    pub(in crate::sim) incarnation: u64,
    net: Net,
    machine: Rc<Machine>,
    wall: Arc<Wall>,
    /// How fast its clock goes.
    rate: f64,
    platters: Platters,
    meta: Meta,
    peers: Vec<String>,
    process: Option<Process>,
}

impl Node {
    /// A machine whose disk is empty, and no process yet.
    pub(in crate::sim) fn new(net: &Net, place: Place, nodes: usize, seed: u64) -> Self {
        let others = (0..nodes).filter(|other| *other != place);
        Self {
            place,
            incarnation: 0,
            net: net.clone(),
            machine: Machine::new(seed),
            wall: Arc::default(),
            rate: 1.0,
            platters: empty_disk(),
            meta: Meta::in_memory(),
            peers: others.map(net::url).collect(),
            process: None,
        }
    }

    /// Whether it has a process, paused or not.
    pub(in crate::sim) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its process is paused.
    pub(in crate::sim) fn is_paused(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.paused.is_some())
    }

    /// Starts a process over what is on the disk.
    pub(in crate::sim) fn start(&mut self) {
        let disk = Simulated::on(&self.platters);
        let off = disk.power();
        self.incarnation += 1;
        self.net.listen(self.place, Arc::clone(&off));
        let connect = net::From { net: self.net.clone(), place: self.place };
        let surroundings = Surroundings {
            clock: Arc::clone(&self.wall) as Arc<dyn Clock>,
            dialer: Dialer::over(Arc::new(connect), None),
            files: Files {
                disk: Arc::new(disk.clone()),
                meta: Some(self.meta.clone()),
                segment_bytes: SEGMENT_BYTES,
            },
        };
        let face = Arc::<Mutex<Face>>::default();
        let steps = Steps::new(&self.machine);
        let live = live(
            (options(self.place, self.peers.clone()), surroundings),
            (self.net.clone(), self.place),
            Arc::clone(&face),
        );
        steps.spawn(live);
        self.process = Some(Process { steps, disk, off, face, paused: None });
    }

    /// Lets a millisecond go by; whether the process has ended meanwhile.
    pub(in crate::sim) fn step(&mut self) -> Option<Ended> {
        self.wall.elapsed_ms.fetch_add(1, Ordering::SeqCst);
        let process = self.process.as_mut()?;
        if let Some(paused) = &mut process.paused {
            *paused += self.rate;
            return None;
        }
        process.steps.step(self.rate);
        for step in process.disk.take_steps() {
            self.platters.take(&step);
        }
        if process.off.load(Ordering::SeqCst) {
            return Some(Ended::NoPower);
        }
        lock(&process.face).ended.clone().map(Ended::ByItself)
    }

    /// Ends the process.
    pub(in crate::sim) fn end(&mut self, end: End) {
        let Some(process) = self.process.take() else { return };
        self.net.end(self.place, matches!(end, End::PowerLoss(_)));
        let _entered = host::enter(Rc::clone(&self.machine) as Rc<dyn Host>);
        // What it still does while it is taken apart was never done.
        process.off.store(true, Ordering::SeqCst);
        drop(process);
        if let End::PowerLoss(loss) = end {
            self.platters = self.platters.after_crash(loss);
        }
    }

    /// Has the machine lose its power after so many more steps on its disk.
    pub(in crate::sim) fn end_after(&self, steps: usize) {
        if let Some(process) = &self.process {
            process.disk.end_after(steps);
        }
    }

    /// Takes the disk away and puts an empty one in its place.
    pub(in crate::sim) fn wipe(&mut self) {
        assert!(self.process.is_none(), "a disk is not taken from under a process");
        self.platters = empty_disk();
        self.meta = Meta::in_memory();
    }

    /// Stops the process where it is.
    pub(in crate::sim) fn pause(&mut self) {
        if let Some(process) = &mut self.process {
            process.paused.get_or_insert(0.0);
        }
    }

    /// Lets it go on; its clock has gone on meanwhile.
    pub(in crate::sim) fn resume(&mut self) {
        if let Some(process) = &mut self.process
            && let Some(paused) = process.paused.take()
        {
            process.steps.skip(paused);
        }
    }

    /// Has each batch of the log take up to so long.
    pub(in crate::sim) fn slow_disk(&self, lag: Duration) {
        self.machine.lag.set(lag);
    }

    /// Has its clock go faster or slower, and its wall clock show another time.
    pub(in crate::sim) fn skew(&mut self, rate: f64, wall_ms: i64) {
        self.rate = rate;
        self.wall.skew_ms.store(wall_ms, Ordering::SeqCst);
    }

    /// Its replica as it is now, once it has one; `before` is what its process showed before.
    pub(in crate::sim) fn inspect(&self, before: Option<&Inspection>) -> Option<Inspection> {
        let process = self.process.as_ref()?;
        let face = lock(&process.face);
        face.replica.as_ref().map(|replica| replica.inspect(before))
    }

    /// The entries of its log that are in memory, from `index` on.
    pub(in crate::sim) fn entries_from(&self, index: u64) -> Vec<Entry> {
        let entries = |process: &Process| {
            let face = lock(&process.face);
            face.replica.as_ref().map(|replica| replica.entries_from(index))
        };
        self.process.as_ref().and_then(entries).unwrap_or_default()
    }
}

fn empty_disk() -> Platters {
    let disk = Simulated::new();
    let made = disk.make_dir(DATA.as_ref()).and_then(|()| disk.sync_dir("/".as_ref()));
    made.expect("an empty disk takes a directory");
    let mut platters = Platters::default();
    disk.take_steps().iter().for_each(|step| platters.take(step));
    platters
}

fn options(place: Place, peers: Vec<String>) -> ReplicaOptions {
    ReplicaOptions {
        data: DATA.into(),
        url: net::url(place),
        peers,
        name: None,
        default_name: "sim".into(),
        quorum: 1,
        timing: Timing::default(),
        snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
        keep_log_entries: KEEP_LOG_ENTRIES,
        max_memory: None,
        min_free_disk: 0,
        scrub_interval: Duration::ZERO,
    }
}

/// What a `sage shard` does.
async fn live(
    (options, surroundings): (ReplicaOptions, Surroundings),
    (net, place): (Net, Place),
    face: Arc<Mutex<Face>>,
) {
    let replica = match Replica::open_in(options, surroundings).await {
        Ok(replica) => replica,
        Err(error) => {
            lock(&face).ended = Some(format!("it does not open: {error}"));
            return;
        }
    };
    lock(&face).replica = Some(replica.clone());
    let service = Arc::new(replica.clone());
    let (forming, shown) = (replica.clone(), Arc::clone(&face));
    tokio::spawn(async move {
        if let Err(reason) = forming.form().await {
            lock(&shown).ended = Some(reason);
        }
    });
    tokio::spawn(async move {
        let reason = replica.failed().await;
        lock(&face).ended = Some(reason);
    });
    loop {
        let io = net.accept(place).await;
        tokio::spawn(rpc::serve(io, Arc::clone(&service), CancellationToken::new()));
    }
}

fn lock(face: &Mutex<Face>) -> MutexGuard<'_, Face> {
    face.lock().unwrap_or_else(PoisonError::into_inner)
}
