//! Whole clusters in one thread, on virtual time, with all randomness from one seed: what groups
//! and coordinators promise, in any weather, hundreds of times a minute.
//!
//! ```text
//! run        one millisecond after the other: network, faults, nodes, clients, a look at all
//! layout     what the cluster consists of
//! node       a machine: its disk, its clocks, and on it                raft, store
//! process    the real replica or coordinator                           coordinator
//! net        connections as TCP shows them: late, held back, reset    rpc
//! faults     what goes wrong                         clients, history   what must not be seen
//! invariants what must hold inside                   trace              what happened, as one hash
//! ```
//!
//! Nothing is simulated but what surrounds a process: its disk, clocks, randomness, threads and
//! the network (`types::host`, `raft::Surroundings`). Raft, the log, snapshots, rpc with its
//! frames, handshakes and time limits, coordinators run as they are. HTTP is left out, so that a
//! coordinator answers clients over rpc, and metadata (`sled`) is a few bytes in memory.
//!
//! The same seed gives the same run, byte for byte, on any machine: [`Report::hash`] is the proof.
//! A seed that fails fails again. Compiled only for tests and with the feature `simulation`.

mod clients;
mod faults;
mod history;
mod invariants;
mod layout;
mod machine;
mod net;
mod node;
mod process;
mod trace;

#[cfg(test)]
mod seat;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sim::clients::Clients;
use crate::sim::faults::Faults;
use crate::sim::invariants::{Invariants, Rings};
use crate::sim::layout::Layout;
use crate::sim::machine::{Machine, Steps};
use crate::sim::net::Net;
use crate::sim::node::{End, Node};
use crate::sim::process::Ended;

/// How long the cluster may take to serve again when nothing is wrong any more, in milliseconds.
const HEALING_MS_MAX: u64 = 60_000;
/// The most violations that a run goes on with.
const VIOLATIONS_MAX: usize = 8;

/// How a run is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How long things go wrong, in milliseconds of virtual time.
    pub faults_ms: u64,
    /// Whether what happened is kept as lines.
    pub keep_trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { faults_ms: 20_000, keep_trace: false }
    }
}

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The hash of all that happened.
    pub hash: u64,
    /// How much that was.
    pub events: u64,
    /// What must not have been.
    pub violations: Vec<String>,
    /// What the cluster consisted of.
    pub cluster: String,
    /// Requests that were made, and those that succeeded.
    pub requests: (u64, u64),
    /// Things that went wrong.
    pub faults: u64,
    /// Leaders that were elected.
    pub elected: u64,
    /// States of replicas that were compared.
    pub compared: u64,
    /// The virtual time that went by, in milliseconds.
    pub virtual_ms: u64,
    /// What happened, if it was kept.
    pub trace: Vec<String>,
}

/// One run.
struct Run {
    now: u64,
    net: Net,
    nodes: Vec<Node>,
    steps: Steps,
    clients: Arc<Clients>,
    faults: Faults,
    /// Of each group.
    invariants: Vec<Invariants>,
    rings: Rings,
    layout: Layout,
    violations: Vec<String>,
}

/// Runs one seed.
pub fn run(seed: u64, options: Options) -> Report {
    let mut run = Run::new(seed, options);
    for task in run.clients.tasks() {
        run.steps.spawn(task);
    }
    while run.now < options.faults_ms && run.violations.len() < VIOLATIONS_MAX {
        run.advance(true);
    }
    run.heal();
    run.report()
}

impl Run {
    fn new(seed: u64, options: Options) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let net = Net::new(rng.next_u64());
        if options.keep_trace {
            net.trace(trace::Trace::keep);
        }
        let layout = Layout::draw(&mut rng);
        let roles = layout.roles(&mut rng).into_iter().enumerate();
        let mut nodes: Vec<Node> =
            roles.map(|(place, role)| Node::new(&net, place, role, rng.next_u64())).collect();
        nodes.iter_mut().for_each(Node::start);
        let clients = Clients::new(&net, layout.replicas(), layout.coordinators);
        let steps = Steps::new(&Machine::new(rng.next_u64()));
        let faults = Faults::new(rng.next_u64());
        net.note(format_args!("{layout}, {faults:?}"));
        let invariants = layout.groups.iter().map(|_| Invariants::default()).collect();
        let (rings, violations) = (Rings::default(), Vec::new());
        Self { now: 0, net, nodes, steps, clients, faults, invariants, rings, layout, violations }
    }

    /// Lets a millisecond go by.
    fn advance(&mut self, hostile: bool) {
        self.now += 1;
        self.net.advance(self.now);
        if hostile {
            self.faults.act(self.now, &self.net, &mut self.nodes);
        }
        for node in &mut self.nodes {
            let Some(ended) = node.step() else { continue };
            let place = node.place;
            match ended {
                Ended::NoPower => {
                    self.net.note(format_args!("{place} has lost its power"));
                    let loss = self.faults.loss();
                    self.faults.end(self.now, node, End::PowerLoss(loss));
                }
                Ended::Stopped => {
                    self.net.note(format_args!("{place} has stopped"));
                    self.faults.end(self.now, node, End::Killed);
                }
                Ended::Spared => {
                    self.net.note(format_args!("{place} begins anew"));
                    self.faults.end(self.now, node, End::Killed);
                    node.wipe();
                }
                Ended::ByItself(reason) => {
                    self.net.note(format_args!("{place} has ended: {reason}"));
                    self.violations.push(format!("node {place} has ended by itself: {reason}"));
                    self.faults.end(self.now, node, End::Killed);
                }
            }
        }
        self.steps.step(1.0);
        for node in &self.nodes {
            let checked = if let Some(group) = node.group() {
                self.invariants[group].check(node)
            } else {
                let served = node.topology(|served| self.rings.check(node.place, served));
                served.unwrap_or(Ok(()))
            };
            self.violations.extend(checked.err());
        }
        self.violations.append(&mut self.clients.history().violations);
    }

    /// When nothing is wrong any more all is served, and the replicas of a group come to the same.
    fn heal(&mut self) {
        self.net.note(format_args!("nothing is wrong any more"));
        self.faults.stop(&self.net, &mut self.nodes);
        let until = self.now + HEALING_MS_MAX;
        let served = Arc::new(AtomicBool::new(false));
        self.steps.spawn(Arc::clone(&self.clients).read_all(Arc::clone(&served)));
        while self.violations.len() < VIOLATIONS_MAX {
            self.advance(false);
            let back = (0..self.invariants.len()).all(|group| self.all_vote(group));
            if served.load(Ordering::SeqCst) && back {
                return;
            }
            if self.now >= until {
                let what = if served.load(Ordering::SeqCst) {
                    "not all replicas are back"
                } else {
                    "not all is served"
                };
                let what = format!("healing: {what} after {HEALING_MS_MAX} ms");
                self.violations.push(what);
                return;
            }
            // A machine may still have been about to lose its power.
            if self.nodes.iter().any(|node| !node.is_up()) {
                self.faults.stop(&self.net, &mut self.nodes);
            }
        }
    }

    /// Whether every replica of a group votes, and has applied all but what was written just now.
    fn all_vote(&self, group: usize) -> bool {
        let members = self.nodes.iter().filter(|node| node.group() == Some(group));
        let seen: Vec<_> = members.map(|node| node.inspect(None)).collect();
        let newest = seen.iter().flatten().filter_map(|seen| seen.applied).max();
        let near = |index: u64| newest.is_some_and(|newest| newest.index <= index + 20);
        seen.iter().all(|seen| {
            let seen = seen.as_ref().filter(|seen| seen.voter);
            seen.and_then(|seen| seen.applied).is_some_and(|applied| near(applied.index))
        })
    }

    fn report(self) -> Report {
        let history = self.clients.history();
        let (hash, events, trace) =
            self.net.trace(|trace| (trace.hash(), trace.events(), trace.lines()));
        let report = Report {
            hash,
            events,
            violations: self.violations.clone(),
            cluster: self.layout.to_string(),
            requests: (history.requests(), history.answered),
            faults: self.faults.count,
            elected: self.invariants.iter().map(|group| group.elected).sum(),
            compared: self.invariants.iter().map(|group| group.compared).sum(),
            virtual_ms: self.now,
            trace,
        };
        drop(history);
        report
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Each in the order of its place, as everything.
        self.nodes.iter_mut().for_each(|node| node.end(End::Killed));
    }
}
