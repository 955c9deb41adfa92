//! Every interleaving of two coordinators over a few groups, with crashes, lost and late messages,
//! old answers, and a group that refuses.
//!
//! The groups follow the rules of the store; the coordinators run the real [`next`] and [`judge`].
//! After each single message these must hold:
//!
//! - a group of an active ring holds that ring's claim, so two active rings never share a group;
//! - from here, without further faults, the coordinators end on the same ring, all of it confirmed
//!   (or, if a group refuses all the time, with every claim taken back).

use std::collections::{BTreeMap, HashSet};

use crate::coordinator::claiming::{
    Plan, Proposal, Purpose, Refused, Step, Verdict, View, judge, next,
};
use crate::types::command::{Action, Outcome, Refusal};
use crate::types::ids::{ClusterId, GroupId, NodeId};
use crate::types::peer::Identity;
use crate::types::topology::{Claim, Member, Topology};

/// A group, by the store's rules.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Place {
    claim: Option<ClusterId>,
    confirmed: bool,
}

/// One message to a group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Message {
    to: usize,
    what: What,
    cluster: ClusterId,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum What {
    Claim,
    Confirm,
    Release,
}

/// A coordinator: what it has seen, and what it is about to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Mind {
    given: Vec<usize>,
    seen: Vec<Place>,
    plan: Vec<Message>,
    beginning: bool,
    adopted: Option<ClusterId>,
    refused: Option<ClusterId>,
    doubted: Option<ClusterId>,
}

/// How many of each fault may still happen.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Faults {
    crashes: u8,
    lost: u8,
    late: u8,
    old: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    places: Vec<Place>,
    /// Each group before its last change: what a lagging follower answers.
    before: Vec<Place>,
    minds: Vec<Mind>,
    /// Sent, and not there yet; its sender has given it up.
    late: Vec<Message>,
    /// The groups of each ring that was ever begun; their identities are 1, 2, …
    rings: Vec<Vec<usize>>,
    /// Groups that hold foreign keys.
    stubborn: Vec<usize>,
    faults: Faults,
}

/// A coordinator forgets a refusal only while fewer rings than this were begun.
const RINGS_MAX: usize = 2;

/// A bound on the work of one test.
const WORLDS_MAX: usize = 60_000;

fn id(group: usize) -> GroupId {
    GroupId(group as u64 + 1)
}

fn url(group: usize) -> String {
    format!("http://{group}")
}

fn group_at(id: GroupId) -> usize {
    usize::try_from(id.0 - 1).expect("small")
}

impl World {
    fn new(groups: usize, lists: &[&[usize]]) -> Self {
        let mind = |given: &&[usize]| Mind { given: given.to_vec(), ..Mind::default() };
        Self {
            places: vec![Place::default(); groups],
            before: vec![Place::default(); groups],
            minds: lists.iter().map(mind).collect(),
            late: Vec::new(),
            rings: Vec::new(),
            stubborn: Vec::new(),
            faults: Faults::default(),
        }
    }

    fn topology(&self, cluster: ClusterId) -> Topology {
        let ring = usize::try_from(cluster.0 - 1).expect("small");
        let group = |&group: &usize| crate::types::topology::Group {
            id: id(group),
            name: format!("g{group}"),
            urls: vec![url(group)],
        };
        let groups = self.rings[ring].iter().map(group).collect();
        Topology { cluster, epoch: 1, vnodes: 1, groups }
    }

    fn identity(&self, group: usize, place: &Place) -> Identity {
        let member = Member { node: NodeId(group as u64 + 1), url: url(group) };
        let claim =
            place.claim.map(|cluster| Claim { topology: self.topology(cluster), owned: vec![] });
        Identity {
            member: member.clone(),
            group: Some(id(group)),
            name: Some(format!("g{group}")),
            fresh: false,
            seeds: Vec::new(),
            members: vec![member.clone()],
            leader: Some(member),
            claim,
            confirmed: place.confirmed,
        }
    }

    fn view(&self, mind: &Mind) -> View {
        let answers: BTreeMap<_, _> = mind
            .seen
            .iter()
            .enumerate()
            .map(|(group, place)| (url(group), Ok(self.identity(group, place))))
            .collect();
        let mut view = View {
            given: mind.given.iter().map(|&group| url(group)).collect(),
            vnodes: 1,
            answers,
            adopted: mind.adopted.map(|cluster| self.topology(cluster)),
            refused: mind.refused.map(|cluster| Refused { cluster, reason: "foreign".into() }),
            doubted: mind.doubted,
            unused: ClusterId(self.rings.len() as u64 + 1),
        };
        let reachable = view.urls();
        view.answers.retain(|url, _| reachable.contains(url));
        view
    }

    /// Carries one message out, as `store::apply` does.
    fn apply(&mut self, message: &Message) -> Outcome {
        let place = self.places[message.to].clone();
        let other = place.claim.filter(|&claim| claim != message.cluster);
        let refusal = match (message.what, other) {
            (_, Some(cluster)) => Some(Refusal::OtherCluster { cluster, epoch: 1 }),
            (What::Claim, None) => {
                let foreign = place.claim.is_none() && self.stubborn.contains(&message.to);
                foreign.then_some(Refusal::ForeignKeys { keys: 1 })
            }
            (What::Confirm | What::Release, None) if place.claim.is_none() => {
                Some(Refusal::NotClaimed)
            }
            (What::Release, None) if place.confirmed => Some(Refusal::Confirmed),
            (What::Confirm | What::Release, None) => None,
        };
        if let Some(refusal) = refusal {
            return Outcome::Refused(refusal);
        }
        let after = match message.what {
            What::Claim => Place { claim: Some(message.cluster), ..place },
            What::Confirm => Place { confirmed: true, ..place },
            What::Release => Place::default(),
        };
        if after != place {
            self.before[message.to] = place;
            self.places[message.to] = after;
        }
        Outcome::Done
    }

    fn check(&self) -> Result<(), String> {
        for (at, place) in self.places.iter().enumerate() {
            let Some(cluster) = place.claim.filter(|_| place.confirmed) else { continue };
            for group in &self.rings[usize::try_from(cluster.0 - 1).expect("small")] {
                if self.places[*group].claim != Some(cluster) {
                    return Err(format!(
                        "group {at} is confirmed for {cluster}, but group {group} is not its"
                    ));
                }
            }
        }
        Ok(())
    }

    /// One coordinator reads one group: as it is, or as it was.
    fn ask(&mut self, mind: usize, old: bool) {
        let group = self.minds[mind].seen.len();
        let place = if old { &self.before[group] } else { &self.places[group] };
        self.minds[mind].seen.push(place.clone());
        if self.minds[mind].seen.len() == self.places.len() {
            self.decide(mind);
        }
    }

    fn decide(&mut self, at: usize) {
        let step = next(&self.view(&self.minds[at]));
        let mind = &mut self.minds[at];
        mind.seen.clear();
        mind.doubted = None;
        match step {
            Step::Doubt(cluster) => mind.doubted = Some(cluster),
            Step::Wait(_) | Step::Refuse(_) | Step::Rest => {}
            Step::Adopt(topology) => mind.adopted = Some(topology.cluster),
            Step::Propose(Plan { purpose, cluster, proposals }) => {
                mind.plan = proposals.iter().map(|proposal| message(proposal, cluster)).collect();
                mind.beginning = purpose == Purpose::Begin;
            }
        }
    }

    /// The next message of a coordinator's plan leaves it.
    fn send(&mut self, at: usize) -> Message {
        let mind = &mut self.minds[at];
        let message = mind.plan.remove(0);
        if std::mem::take(&mut mind.beginning) {
            // Another may have begun a ring meanwhile: identities are drawn, they never meet.
            let given = mind.given.clone();
            let cluster = ClusterId(self.rings.len() as u64 + 1);
            self.rings.push(given);
            for later in &mut mind.plan {
                later.cluster = cluster;
            }
            return Message { cluster, ..message };
        }
        message
    }

    fn answered(&mut self, at: usize, message: &Message, outcome: &Outcome) {
        match judge(&self.proposal(message), outcome) {
            Verdict::Next => {}
            Verdict::AskAgain => self.minds[at].plan.clear(),
            Verdict::Refused(_) => {
                self.minds[at].plan.clear();
                self.minds[at].refused = Some(message.cluster);
            }
        }
    }

    fn proposal(&self, message: &Message) -> Proposal {
        let topology = self.topology(message.cluster);
        let group = topology.groups.iter().find(|group| group_at(group.id) == message.to);
        let group = group.expect("a group of the ring").clone();
        let cluster = message.cluster;
        let action = match message.what {
            What::Claim => Action::Claim(Box::new(Claim { topology, owned: vec![] })),
            What::Confirm => Action::Confirm { cluster },
            What::Release => Action::Release { cluster },
        };
        Proposal { group, action }
    }

    fn step(&mut self, at: usize) {
        if self.minds[at].plan.is_empty() {
            self.ask(at, false);
        } else {
            let message = self.send(at);
            let outcome = self.apply(&message);
            self.answered(at, &message, &outcome);
        }
    }

    /// Everything that can happen next.
    fn futures(&self) -> Vec<World> {
        let mut futures = Vec::new();
        let mut happen = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            futures.push(world);
        };
        for at in 0..self.minds.len() {
            happen(&|world| world.step(at));
            let idle = self.minds[at].plan.is_empty();
            if self.faults.old > 0 && idle {
                happen(&|world| {
                    world.faults.old -= 1;
                    world.ask(at, true);
                });
            }
            if self.faults.lost > 0 && !idle {
                happen(&|world| {
                    world.faults.lost -= 1;
                    let message = world.send(at);
                    world.apply(&message);
                    world.minds[at].plan.clear();
                });
            }
            if self.faults.late > 0 && !idle {
                happen(&|world| {
                    world.faults.late -= 1;
                    let message = world.send(at);
                    world.late.push(message);
                    world.minds[at].plan.clear();
                });
            }
            if self.faults.crashes > 0 {
                happen(&|world| {
                    world.faults.crashes -= 1;
                    let given = world.minds[at].given.clone();
                    world.minds[at] = Mind { given, ..Mind::default() };
                });
            }
            if self.minds[at].refused.is_some() && self.rings.len() < RINGS_MAX {
                happen(&|world| world.minds[at].refused = None);
            }
        }
        if !self.stubborn.is_empty() {
            // Somebody moves the foreign keys away.
            happen(&|world| world.stubborn.clear());
        }
        for at in 0..self.late.len() {
            happen(&|world| {
                let message = world.late.remove(at);
                world.apply(&message);
            });
        }
        futures
    }

    /// What comes of this without any further fault, one coordinator after the other.
    fn settle(mut self) -> World {
        while let Some(message) = self.late.pop() {
            self.apply(&message);
        }
        if self.stubborn.is_empty() {
            self.minds.iter_mut().for_each(|mind| mind.refused = None);
        }
        for at in 0..self.minds.len() {
            // Long enough for an ask, a doubt, another ask, a release, and a claim.
            for _ in 0..40 {
                self.step(at);
                if self.minds[at].adopted.is_some() && self.all_confirmed() {
                    break;
                }
            }
        }
        self
    }

    fn all_confirmed(&self) -> bool {
        let claimed = |place: &&Place| place.claim.is_some();
        self.places.iter().filter(claimed).all(|place| place.confirmed)
    }

    fn check_end(self) -> Result<(), String> {
        let end = self.settle();
        end.check()?;
        if !end.stubborn.is_empty() && end.minds.iter().any(|mind| mind.refused.is_some()) {
            let left = end.places.iter().any(|place| place.claim.is_some());
            return if left { Err(format!("a claim is left behind: {end:?}")) } else { Ok(()) };
        }
        let adopted = end.minds[0]
            .adopted
            .filter(|&ring| end.minds.iter().all(|mind| mind.adopted == Some(ring)));
        let ring = adopted.ok_or_else(|| format!("no common ring: {end:?}"))?;
        let confirmed = Place { claim: Some(ring), confirmed: true };
        let groups = &end.rings[usize::try_from(ring.0 - 1).expect("small")];
        if groups.iter().any(|&group| end.places[group] != confirmed) {
            return Err(format!("not all is confirmed: {end:?}"));
        }
        Ok(())
    }
}

fn message(proposal: &Proposal, cluster: ClusterId) -> Message {
    let what = match &proposal.action {
        Action::Claim(_) => What::Claim,
        Action::Confirm { .. } => What::Confirm,
        Action::Release { .. } => What::Release,
        Action::Found { .. }
        | Action::Put { .. }
        | Action::Delete { .. }
        | Action::Conditional { .. }
        | Action::OpenSession { .. }
        | Action::Once { .. }
        | Action::DeleteSpan { .. }
        | Action::Write(_)
        | Action::Txn { .. }
        | Action::Expire => {
            panic!("not a change of the ring: {proposal:?}")
        }
    };
    Message { to: group_at(proposal.group.id), what, cluster }
}

/// Visits every world that can come of `start`; returns how many there are.
fn explore(start: World) -> usize {
    let mut seen = HashSet::from([start.clone()]);
    let mut ended = HashSet::new();
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        assert!(seen.len() <= WORLDS_MAX, "too many worlds: is there an end to {world:#?}");
        if let Err(broken) = world.check() {
            panic!("{broken}\n  in {world:#?}");
        }
        let calm = World { faults: Faults::default(), ..world.clone() };
        if ended.insert(calm.clone())
            && let Err(broken) = calm.check_end()
        {
            panic!("{broken}\n  from {world:#?}");
        }
        for future in world.futures() {
            if seen.insert(future.clone()) {
                open.push(future);
            }
        }
    }
    seen.len()
}

fn faults(crashes: u8, lost: u8, late: u8, old: u8) -> Faults {
    Faults { crashes, lost, late, old }
}

#[test]
fn two_coordinators_end_with_one_ring_in_every_order() {
    let worlds = explore(World::new(2, &[&[0, 1], &[0, 1]]));
    assert!(worlds > 100, "only {worlds} orders");
}

#[test]
fn a_crash_at_any_step_is_taken_over() {
    let mut world = World::new(2, &[&[0, 1], &[0, 1]]);
    world.faults = faults(2, 0, 0, 0);
    explore(world);
}

#[test]
fn lost_late_and_old_messages_never_make_two_rings() {
    for faults in [faults(0, 1, 1, 0), faults(1, 0, 1, 0), faults(0, 0, 0, 2), faults(0, 0, 1, 1)] {
        let mut world = World::new(2, &[&[0, 1], &[0, 1]]);
        world.faults = faults;
        explore(world);
    }
}

#[test]
fn lists_that_overlap_end_with_one_ring() {
    for lists in [[&[0, 1][..], &[1, 2]], [&[0, 1, 2], &[1, 2]], [&[0, 2], &[1, 2]]] {
        let mut world = World::new(3, &lists);
        world.faults = faults(1, 0, 0, 0);
        explore(world);
    }
}

#[test]
fn a_claim_that_is_refused_is_taken_back_in_every_order() {
    for (stubborn, faults) in [(0, faults(0, 0, 1, 0)), (1, faults(0, 0, 0, 0))] {
        let mut world = World::new(2, &[&[0, 1], &[0, 1]]);
        world.stubborn = vec![stubborn];
        world.faults = faults;
        explore(world);
    }
}
