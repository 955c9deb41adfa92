//! One simulated machine and what runs on it, a replica or a coordinator: the real one, on a
//! simulated disk, clock and network.
//!
//! Each process has a tokio runtime of its own, of one thread and with paused time, and does its
//! work only while [`Node::step`] lets it: so its clock goes as fast as we like, it can be paused,
//! and when it is killed everything of it is gone at once. What its disk has is kept apart
//! ([`Platters`]): after the process has ended, all that was written; after the machine has lost
//! its power, what was synced and any part of the rest.

use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::coordinator::CoordinatorOptions;
use crate::raft::{Files, Inspection, ReplicaOptions, Surroundings, Timing};
use crate::rpc::Dialer;
use crate::sim::machine::{Machine, Steps, Wall};
use crate::sim::net::{self, Net, Place};
use crate::sim::process::{self, Ended, Face, Outside, lock};
use crate::store::disk::platters::{Loss, Platters};
use crate::store::disk::simulated::Simulated;
use crate::store::disk::{Disk, Open};
use crate::store::meta::Meta;
use crate::store::snapshot::Codec;
use crate::types::clock::Clock;
use crate::types::host::{self, Host};
use crate::types::log::Entry;
use crate::types::topology::Topology;

/// Where a replica keeps its data.
const DATA: &str = "/data";
/// Small, so that logs rotate.
const SEGMENT_BYTES: u64 = 32 * 1024;
/// Small, so that snapshots are taken and sent.
const SNAPSHOT_LOG_BYTES: u64 = 12 * 1024;
const KEEP_LOG_ENTRIES: u64 = 40;
/// What runs on a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Role {
    /// A replica of the group with this number, whose others are at these URLs.
    Replica { group: usize, peers: Vec<String> },
    /// A coordinator of the groups behind these URLs.
    Coordinator { shards: Vec<String>, vnodes: u32 },
}

/// A process that runs, or is paused.
struct Process {
    steps: Steps,
    disk: Simulated,
    off: Arc<AtomicBool>,
    face: Arc<Mutex<Face>>,
    stop: CancellationToken,
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

/// One machine and what runs on it.
pub(in crate::sim) struct Node {
    pub(in crate::sim) place: Place,
    /// Counts its processes.
    pub(in crate::sim) incarnation: u64,
    role: Role,
    net: Net,
    machine: Rc<Machine>,
    wall: Arc<Wall>,
    /// How fast its clock goes.
    rate: f64,
    platters: Platters,
    meta: Meta,
    /// What its disk said at the start of its process of how far the log was on it.
    mark: Vec<u8>,
    /// Whether something on its disk was damaged since it was last opened.
    damaged: bool,
    process: Option<Process>,
}

impl Node {
    /// A machine whose disk is empty, and no process yet.
    pub(in crate::sim) fn new(net: &Net, place: Place, role: Role, seed: u64) -> Self {
        Self {
            place,
            incarnation: 0,
            role,
            net: net.clone(),
            machine: Machine::new(seed),
            wall: Arc::default(),
            rate: 1.0,
            platters: empty_disk(),
            meta: Meta::in_memory(),
            mark: Vec::new(),
            damaged: false,
            process: None,
        }
    }

    /// The group of its replica, if it runs one.
    pub(in crate::sim) fn group(&self) -> Option<usize> {
        match &self.role {
            Role::Replica { group, .. } => Some(*group),
            Role::Coordinator { .. } => None,
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
        self.mark = mark(&disk);
        let face = Arc::<Mutex<Face>>::default();
        let stop = CancellationToken::new();
        let outside = Outside {
            net: self.net.clone(),
            place: self.place,
            face: Arc::clone(&face),
            stop: stop.clone(),
        };
        let connect = Arc::new(net::From { net: self.net.clone(), place: self.place });
        let dialer = Dialer::over(connect, None);
        let steps = Steps::new(&self.machine);
        match self.role.clone() {
            Role::Replica { group, peers } => {
                let surroundings = Surroundings {
                    clock: Arc::clone(&self.wall) as Arc<dyn Clock>,
                    dialer,
                    files: Files {
                        disk: Arc::new(disk.clone()),
                        meta: Some(self.meta.clone()),
                        segment_bytes: SEGMENT_BYTES,
                    },
                };
                let options = options(self.place, group, peers);
                steps.spawn(process::shard(options, surroundings, outside));
            }
            Role::Coordinator { shards, vnodes } => {
                let options = CoordinatorOptions { shards, vnodes };
                steps.spawn(process::coordinator(options, dialer, outside));
            }
        }
        self.process = Some(Process { steps, disk, off, face, stop, paused: None });
    }

    /// Lets a millisecond go by; whether the process has ended meanwhile.
    pub(in crate::sim) fn step(&mut self) -> Option<Ended> {
        self.wall.go_on();
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
        let face = lock(&process.face);
        self.damaged &= face.replica.is_none();
        face.ended.clone()
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
            // How far the log was on the disk is written, not synced. Where that is lost too, damage of
            // the last batch looks like a crash: one fault at a time.
            let loss = if self.damaged { Loss::Nothing } else { loss };
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
        self.damaged = false;
    }

    /// Flips a bit of a file, or cuts its end off; `draw` draws a number below its bound. Not if that
    /// could look like a crash: before the process wrote how far its log was on the disk.
    pub(in crate::sim) fn damage(&mut self, mut draw: impl FnMut(usize) -> usize) {
        assert!(self.process.is_none(), "a disk is not damaged from under a process");
        let files = self.platters.contents();
        let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let files = files.iter().map(|(path, bytes)| (path, used(bytes)));
        let files: Vec<_> = files.filter(|(_, used)| *used > 0).collect();
        if files.is_empty() || mark(&Simulated::on(&self.platters)) == self.mark {
            return;
        }
        let (path, used) = files[draw(files.len())];
        let at = draw(used);
        let cut = draw(3) == 0;
        let (what, name) = (if cut { "cut" } else { "flipped" }, path.display());
        self.net.note(format_args!("{name} of {} is {what} at {at} of {used}", self.place));
        if cut {
            self.platters.cut(path, at);
        } else {
            self.platters.flip(path, at);
        }
        self.damaged = true;
    }

    /// Asks the process to stop.
    pub(in crate::sim) fn stop(&self) {
        if let Some(process) = &self.process {
            process.stop.cancel();
        }
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
        self.machine.slow_disk(lag);
    }

    /// Has its clock go faster or slower, and its wall clock show another time.
    pub(in crate::sim) fn skew(&mut self, rate: f64, wall_ms: i64) {
        self.rate = rate;
        self.wall.skew(wall_ms);
    }

    /// Its replica as it is now, once it has one; `before` is what its process showed before.
    pub(in crate::sim) fn inspect(&self, before: Option<&Inspection>) -> Option<Inspection> {
        let process = self.process.as_ref()?;
        let face = lock(&process.face);
        face.replica.as_ref().map(|replica| replica.inspect(before))
    }

    /// The entries of its log from `index` on.
    pub(in crate::sim) fn entries_from(&self, index: u64) -> Vec<Entry> {
        let entries = |process: &Process| {
            let face = lock(&process.face);
            face.replica.as_ref().map(|replica| replica.entries_from(index))
        };
        self.process.as_ref().and_then(entries).unwrap_or_default()
    }

    /// Looks at the topology that its coordinator serves by, if it does.
    pub(in crate::sim) fn topology<T>(&self, look: impl FnOnce(&Topology) -> T) -> Option<T> {
        let process = self.process.as_ref()?;
        let face = lock(&process.face);
        face.coordinator.as_ref()?.0.topology(look)
    }
}

/// What a disk says of how far the log is on it.
fn mark(disk: &Simulated) -> Vec<u8> {
    let mut bytes = [0; 64];
    let file = disk.open(&Path::new(DATA).join("wal/synced"), Open::Read);
    let read = file.and_then(|file| file.read_at(&mut bytes, 0)).unwrap_or_default();
    bytes[..read].to_vec()
}

fn empty_disk() -> Platters {
    let disk = Simulated::new();
    let made = disk.make_dir(DATA.as_ref()).and_then(|()| disk.sync_dir("/".as_ref()));
    made.expect("an empty disk takes a directory");
    let mut platters = Platters::default();
    disk.take_steps().iter().for_each(|step| platters.take(step));
    platters
}

fn options(place: Place, group: usize, peers: Vec<String>) -> ReplicaOptions {
    ReplicaOptions {
        data: DATA.into(),
        url: net::url(place),
        peers,
        name: None,
        default_name: format!("sim-{group}"),
        quorum: 1,
        timing: Timing::default(),
        snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
        snapshot_codec: Codec::default(),
        keep_log_entries: KEEP_LOG_ENTRIES,
        max_memory: None,
        min_free_disk: 0,
        scrub_interval: Duration::ZERO,
        watch_history: crate::types::limits::WATCH_HISTORY_BYTES_DEFAULT,
    }
}
