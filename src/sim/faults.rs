//! What goes wrong, and when: drawn from the seed, one thing after the other.
//!
//! Each run has a mix of its own, some kinds often, others never (swarm testing, Groce et al.,
//! ISSTA '12), so that rare pairs meet. Nothing here asks more of a group than it promises: a
//! disk is taken away or damaged only while no other's replacement is on its way.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::sim::net::{Delay, Net, Place};
use crate::sim::node::{End, Node};
use crate::store::disk::platters::Loss;

/// The kinds of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Kill,
    KillAll,
    /// Asked to, in good order.
    Stop,
    PowerLoss,
    PowerLossAll,
    /// At a step of the disk: between a write and its sync, for example.
    PowerLossAtStep,
    Pause,
    Isolate,
    /// Deaf or dumb.
    IsolateOneWay,
    Link,
    Reset,
    SlowLinks,
    SlowDisk,
    Skew,
    Wipe,
    /// A bit is flipped, or the end of a file is gone.
    Damage,
    HealNetwork,
}

const KINDS: [Kind; 17] = [
    Kind::Kill,
    Kind::KillAll,
    Kind::Stop,
    Kind::PowerLoss,
    Kind::PowerLossAll,
    Kind::PowerLossAtStep,
    Kind::Pause,
    Kind::Isolate,
    Kind::IsolateOneWay,
    Kind::Link,
    Kind::Reset,
    Kind::SlowLinks,
    Kind::SlowDisk,
    Kind::Skew,
    Kind::Wipe,
    Kind::Damage,
    Kind::HealNetwork,
];

/// What is to be undone, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Undo {
    Start(Place),
    Resume(Place),
}

/// The faults of a run.
pub(in crate::sim) struct Faults {
    rng: StdRng,
    mix: Vec<Kind>,
    next: u64,
    /// The longest pause between two.
    pause_max: u64,
    undo: Vec<(u64, Undo)>,
    /// How many there were.
    pub(in crate::sim) count: u64,
}

impl Faults {
    /// The mix of this seed.
    pub(in crate::sim) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut mix = Vec::new();
        for kind in KINDS {
            let weight = rng.random_range(0..4_usize);
            mix.extend(std::iter::repeat_n(kind, weight));
        }
        mix.push(Kind::HealNetwork);
        let pause_max = rng.random_range(300..2500);
        Self { rng, mix, next: 1500, pause_max, undo: Vec::new(), count: 0 }
    }

    /// Undoes what is due and does the next thing if it is time.
    pub(in crate::sim) fn act(&mut self, now: u64, net: &Net, nodes: &mut [Node]) {
        self.undo_until(now, net, nodes);
        if now < self.next {
            return;
        }
        self.next = now + self.rng.random_range(20..self.pause_max);
        let kind = self.mix[self.rng.random_range(0..self.mix.len())];
        let at = self.rng.random_range(0..nodes.len());
        self.count += 1;
        net.note(format_args!("fault {kind:?} at {at}"));
        self.carry_out(kind, at, (now, net, nodes));
    }

    fn carry_out(&mut self, kind: Kind, at: Place, (now, net, nodes): (u64, &Net, &mut [Node])) {
        // Whoever is cut off from the others may still hear clients, or not.
        let ends = nodes.len() + usize::from(self.rng.random::<bool>());
        let others = (0..ends).filter(|other| *other != at);
        let others: Vec<Place> = others.collect();
        match kind {
            Kind::Kill => self.end(now, &mut nodes[at], End::Killed),
            Kind::Stop => nodes[at].stop(),
            Kind::KillAll => nodes.iter_mut().for_each(|node| self.end(now, node, End::Killed)),
            Kind::PowerLoss => {
                let loss = self.loss();
                self.end(now, &mut nodes[at], End::PowerLoss(loss));
            }
            Kind::PowerLossAll => {
                for node in nodes {
                    let loss = self.loss();
                    self.end(now, node, End::PowerLoss(loss));
                }
            }
            Kind::PowerLossAtStep => nodes[at].end_after(self.rng.random_range(0..30)),
            Kind::Pause => {
                if nodes[at].is_up() && !nodes[at].is_paused() {
                    nodes[at].pause();
                    let pause = self.rng.random_range(50..4000);
                    self.undo.push((now + pause, Undo::Resume(at)));
                }
            }
            Kind::Isolate => {
                for other in others {
                    net.block(at, other, true);
                    net.block(other, at, true);
                }
            }
            Kind::IsolateOneWay => {
                let deaf = self.rng.random();
                for other in others {
                    net.block(if deaf { other } else { at }, if deaf { at } else { other }, true);
                }
            }
            Kind::Link => {
                if let Some(other) = self.one_of(&others) {
                    net.block(at, other, true);
                }
            }
            Kind::Reset => {
                if let Some(other) = self.one_of(&others) {
                    net.reset(at, other);
                }
            }
            Kind::SlowLinks => {
                let min = self.rng.random_range(1..100);
                let delay = Delay { min, max: min + self.rng.random_range(1..200) };
                for other in others {
                    net.slow(at, other, delay);
                    net.slow(other, at, delay);
                }
            }
            Kind::SlowDisk => {
                let lag = [0, 5, 50, 400][self.rng.random_range(0..4)];
                nodes[at].slow_disk(Duration::from_millis(lag));
            }
            Kind::Skew => {
                let rate = 1.0 + self.rng.random_range(-0.05..0.05);
                nodes[at].skew(rate, self.rng.random_range(-5000..5000));
            }
            Kind::Wipe => self.wipe(at, now, net, nodes),
            Kind::Damage => self.damage(at, now, nodes),
            Kind::HealNetwork => net.heal(),
        }
    }

    fn one_of(&mut self, places: &[Place]) -> Option<Place> {
        let at = self.rng.random_range(0..places.len().max(1));
        places.get(at).copied()
    }

    /// A replica was lost with all it had acknowledged; the rest of the group must have it all.
    fn wipe(&mut self, at: Place, now: u64, net: &Net, nodes: &mut [Node]) {
        if !can_spare_one(nodes[at].group(), nodes) {
            return;
        }
        net.note(format_args!("the disk of {at} is gone"));
        self.end(now, &mut nodes[at], End::Killed);
        nodes[at].wipe();
    }

    /// A disk lies about what a replica had acknowledged; the rest of the group must have it all.
    fn damage(&mut self, at: Place, now: u64, nodes: &mut [Node]) {
        if !can_spare_one(nodes[at].group(), nodes) {
            return;
        }
        self.end(now, &mut nodes[at], End::Killed);
        nodes[at].damage(|bound| self.rng.random_range(0..bound));
    }

    /// Ends a process and has it started again later.
    pub(in crate::sim) fn end(&mut self, now: u64, node: &mut Node, end: End) {
        if !node.is_up() {
            return;
        }
        let place = node.place;
        node.end(end);
        self.undo.retain(|(_, undo)| *undo != Undo::Resume(place));
        let pause = self.rng.random_range(10..3000);
        self.undo.push((now + pause, Undo::Start(place)));
    }

    /// What a loss of power takes.
    pub(in crate::sim) fn loss(&mut self) -> Loss {
        match self.rng.random_range(0..10) {
            0 => Loss::Everything,
            1 => Loss::Nothing,
            2 => Loss::AllButNewest,
            3 => Loss::Newest,
            4 => Loss::Data,
            5 => Loss::Names,
            _ => Loss::Torn(self.rng.random()),
        }
    }

    /// Makes everything well again.
    pub(in crate::sim) fn stop(&mut self, net: &Net, nodes: &mut [Node]) {
        self.undo_until(u64::MAX, net, nodes);
        net.heal();
        for node in nodes {
            node.slow_disk(Duration::ZERO);
            node.skew(1.0, 0);
        }
    }

    fn undo_until(&mut self, now: u64, net: &Net, nodes: &mut [Node]) {
        let undo = std::mem::take(&mut self.undo);
        let (due, rest) = undo.into_iter().partition(|(at, _)| *at <= now);
        self.undo = rest;
        let due: Vec<(u64, Undo)> = due;
        for (_, undo) in due {
            net.note(format_args!("{undo:?}"));
            match undo {
                Undo::Start(at) => {
                    net.power_on(at);
                    nodes[at].start();
                }
                Undo::Resume(at) => nodes[at].resume(),
            }
        }
    }
}

/// Whether any disk of this group may be lost. It must have formed, not be this one alone, and be
/// between no two configurations: of a joint one, both need their majority, and the old one counts
/// whoever was wiped before.
fn can_spare_one(group: Option<usize>, nodes: &[Node]) -> bool {
    let members = nodes.iter().filter(|node| group.is_some() && node.group() == group);
    let seen: Vec<_> = members.map(|node| node.inspect(None)).collect();
    let settled = seen.iter().all(|one| {
        let one = one.as_ref().filter(|one| one.voter);
        one.is_some_and(|one| seen[0].as_ref().is_some_and(|of| of.membership == one.membership))
    });
    seen.len() > 1 && settled
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("mix", &self.mix).finish_non_exhaustive()
    }
}
