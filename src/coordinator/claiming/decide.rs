//! Decides, from what was seen of the groups, what a coordinator does next about its ring, and
//! from each outcome whether it goes on. Pure. The protocol and its promises are in the room's
//! header ([`super`]).

use std::collections::BTreeMap;

use crate::coordinator::claiming::view::{Seen, View};
use crate::coordinator::topology;
use crate::types::command::{Action, Outcome, Refusal};
use crate::types::ids::{ClusterId, GroupId};
use crate::types::topology::{Claim, Group, Topology};

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::coordinator) enum Step {
    /// Ask again; this is what is missing.
    Wait(String),
    /// This ring looks dead; remember that and ask again, since the answers may be of different
    /// moments.
    Doubt(ClusterId),
    /// Only a person can mend this: what, and how. Ask again all the same.
    Refuse(String),
    /// Serve by this topology: it is active, and newer than the one before.
    Adopt(Topology),
    /// Propose these, one after the other, as long as [`judge`] says so; then ask again.
    Propose(Plan),
    /// All is as it should be, as far as was seen.
    Rest,
}

/// Changes to groups, in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::coordinator) struct Plan {
    /// What they are for.
    pub(in crate::coordinator) purpose: Purpose,
    /// Which ring they are about.
    pub(in crate::coordinator) cluster: ClusterId,
    /// The changes.
    pub(in crate::coordinator) proposals: Vec<Proposal>,
}

/// What a plan is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in crate::coordinator) enum Purpose {
    /// To claim a ring that nobody has claimed.
    Begin,
    /// To finish a claim that is half done.
    Resume,
    /// To take back a claim that can't go on.
    Release,
    /// To give every group of an active ring its claim.
    Complete,
}

/// One change to one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::coordinator) struct Proposal {
    /// To which group.
    pub(in crate::coordinator) group: Group,
    /// The change.
    pub(in crate::coordinator) action: Action,
}

/// Whether a plan goes on after one outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::coordinator) enum Verdict {
    /// With the next proposal.
    Next,
    /// No: things are not as they seemed.
    AskAgain,
    /// No: the group will not have it, for this reason.
    Refused(String),
}

/// What `outcome` of `proposal` means for the rest of its plan. A proposal whose outcome is not
/// known ends its plan.
pub(in crate::coordinator) fn judge(proposal: &Proposal, outcome: &Outcome) -> Verdict {
    let releasing = match &proposal.action {
        Action::Release { .. } => true,
        Action::Found { .. }
        | Action::Put { .. }
        | Action::Delete { .. }
        | Action::Conditional { .. }
        | Action::OpenSession { .. }
        | Action::Once { .. }
        | Action::DeleteSpan { .. }
        | Action::Write(_)
        | Action::Txn { .. }
        | Action::Expire
        | Action::Claim(_)
        | Action::Confirm { .. } => false,
    };
    match outcome {
        Outcome::Done => Verdict::Next,
        Outcome::Refused(refusal) => match refusal {
            // Gone already, which is all that was wanted.
            Refusal::NotClaimed | Refusal::OtherCluster { .. } if releasing => Verdict::Next,
            Refusal::ForeignKeys { .. } => {
                Verdict::Refused(format!("group {}: {refusal}", proposal.group.name))
            }
            Refusal::NotClaimed
            | Refusal::OtherCluster { .. }
            | Refusal::OldEpoch { .. }
            | Refusal::Confirmed
            | Refusal::Founded { .. } => Verdict::AskAgain,
        },
        Outcome::Written { .. }
        | Outcome::WrongShard { .. }
        | Outcome::Mismatch { .. }
        | Outcome::Again(_)
        | Outcome::NoSession
        | Outcome::Superseded
        | Outcome::KeyReused
        | Outcome::KeysFull
        | Outcome::Deleted { .. }
        | Outcome::Lasting { .. }
        | Outcome::NoValue
        | Outcome::Counted { .. }
        | Outcome::NotAnInteger
        | Outcome::Txn(_)
        | Outcome::Aborted(_)
        | Outcome::AnswerNotKept => Verdict::AskAgain,
    }
}

type Groups = BTreeMap<GroupId, Seen>;

/// Decides what to do.
pub(in crate::coordinator) fn next(view: &View) -> Step {
    let groups = view.groups();
    let broken = groups.values().find_map(|seen| {
        let reason = topology::check(&seen.claim.as_ref()?.topology).err()?;
        Some(format!("the claim of group {} makes no ring: {reason}", seen.label()))
    });
    if let Some(broken) = broken {
        return Step::Refuse(broken);
    }
    match &view.adopted {
        Some(adopted) => keep(view, adopted, &groups),
        None => find(view, &groups),
    }
}

/// Nothing is adopted yet.
fn find(view: &View, groups: &Groups) -> Step {
    let active = active(groups);
    let mut rings = active.values();
    match (rings.next(), rings.next()) {
        (Some(topology), None) => Step::Adopt((*topology).clone()),
        (Some(one), Some(two)) => Step::Refuse(format!(
            "the shards belong to more than one ring: {} ({}) and {} ({}); \
             give --shards of one ring only",
            one.cluster,
            names(one),
            two.cluster,
            names(two)
        )),
        (None, _) => half_done(view, groups).unwrap_or_else(|| begin(view, groups)),
    }
}

/// `adopted` is served.
fn keep(view: &View, adopted: &Topology, groups: &Groups) -> Step {
    let newest = active(groups).remove(&adopted.cluster);
    if let Some(newer) = newest.filter(|topology| topology.epoch > adopted.epoch) {
        return Step::Adopt(newer.clone());
    }
    let half_done = claimed(groups);
    let dead = half_done
        .values()
        .find(|topology| topology.cluster != adopted.cluster && is_dead(view, topology, groups));
    if let Some(dead) = dead {
        return doubt_or_release(view, dead, groups);
    }
    complete(adopted, groups).map_or(Step::Rest, Step::Propose)
}

/// The rings that are active, each with its newest topology.
fn active(groups: &Groups) -> BTreeMap<ClusterId, &Topology> {
    let mut active: BTreeMap<ClusterId, &Topology> = BTreeMap::new();
    for topology in groups.values().filter_map(Seen::final_topology) {
        let newest = active.entry(topology.cluster).or_insert(topology);
        if topology.epoch > newest.epoch {
            *newest = topology;
        }
    }
    active
}

/// The rings that some group is claimed for and nobody knows to be active.
fn claimed(groups: &Groups) -> BTreeMap<ClusterId, &Topology> {
    let active = active(groups);
    let claims = groups.values().filter_map(|seen| seen.claim.as_ref());
    claims
        .map(|claim| (claim.topology.cluster, &claim.topology))
        .filter(|(cluster, _)| !active.contains_key(cluster))
        .collect()
}

/// What to do about claims that are half done, if there are any.
fn half_done(view: &View, groups: &Groups) -> Option<Step> {
    let claimed = claimed(groups);
    let topologies = || claimed.values().copied();
    let orphan = topologies().find(|topology| is_orphan(topology, groups));
    let dead = || topologies().find(|topology| is_dead(view, topology, groups));
    if let Some(dead) = orphan.or_else(dead) {
        return Some(doubt_or_release(view, dead, groups));
    }
    let missing = |topology: &Topology| {
        let group = topology.groups.iter().find(|group| !groups.contains_key(&group.id))?;
        Some(format!(
            "the claim of ring {} is half done, and group {} ({}) does not answer",
            topology.cluster,
            group.name,
            group.urls.join(", ")
        ))
    };
    match topologies().find(|topology| missing(topology).is_none()) {
        Some(topology) => Some(Step::Propose(resume(topology, groups))),
        None => topologies().find_map(missing).map(Step::Wait),
    }
}

/// Whether its home group answers, and does not hold it.
fn is_orphan(topology: &Topology, groups: &Groups) -> bool {
    home(topology, groups).is_some_and(|home| home.cluster() != Some(topology.cluster))
}

/// Whether a half-done claim can't go on.
fn is_dead(view: &View, topology: &Topology, groups: &Groups) -> bool {
    let refused = view.refused.as_ref().map(|refused| refused.cluster) == Some(topology.cluster);
    // Taken by a ring that lives: its home group holds it, or it is active.
    let taken = |seen: &Seen| {
        seen.claim.as_ref().is_some_and(|claim| {
            let other = &claim.topology;
            let lives = || home(other, groups).is_some_and(|home| home.cluster() == seen.cluster());
            other.cluster != topology.cluster && (seen.confirmed || lives())
        })
    };
    let mut members = topology.groups.iter().filter_map(|group| groups.get(&group.id));
    home(topology, groups).is_some()
        && (refused || is_orphan(topology, groups) || members.any(taken))
}

/// A ring is taken for dead when it looks so in two rounds of asking: in the second, its home group
/// answers after the claim was seen, so that a claim that was under way in the first is no orphan.
fn doubt_or_release(view: &View, topology: &Topology, groups: &Groups) -> Step {
    let cluster = topology.cluster;
    let refused = view.refused.as_ref().is_some_and(|refused| refused.cluster == cluster);
    if refused || view.doubted == Some(cluster) {
        Step::Propose(release(topology, groups))
    } else {
        Step::Doubt(cluster)
    }
}

fn home<'a>(topology: &Topology, groups: &'a Groups) -> Option<&'a Seen> {
    topology.home().and_then(|home| groups.get(&home.id))
}

/// The home group first, always: whether the ring is dead is decided there. Then those that hold
/// the claim.
fn release(topology: &Topology, groups: &Groups) -> Plan {
    let cluster = topology.cluster;
    let holds =
        |group: &&Group| groups.get(&group.id).is_some_and(|seen| seen.cluster() == Some(cluster));
    let others = topology.groups.iter().skip(1).filter(holds);
    let proposals = topology
        .home()
        .into_iter()
        .chain(others)
        .map(|group| Proposal { group: group.clone(), action: Action::Release { cluster } })
        .collect();
    Plan { purpose: Purpose::Release, cluster, proposals }
}

/// Never `Claim` at home: that is done, or the ring is dead.
fn resume(topology: &Topology, groups: &Groups) -> Plan {
    let open =
        |group: &Group| groups.get(&group.id).and_then(Seen::cluster) != Some(topology.cluster);
    let claims = topology::claims(topology).skip(1).filter(|(group, _)| open(group));
    let mut proposals: Vec<Proposal> = claims.map(claim).collect();
    proposals.extend(topology.groups.iter().map(|group| confirm(group, topology)));
    Plan { purpose: Purpose::Resume, cluster: topology.cluster, proposals }
}

/// The claims that groups of an active ring lack.
fn complete(adopted: &Topology, groups: &Groups) -> Option<Plan> {
    let state = |group: &Group| {
        let seen = groups.get(&group.id).filter(|seen| seen.leader.is_some())?;
        if seen.final_topology().is_some_and(|other| other.cluster != adopted.cluster) {
            return None;
        }
        let current = seen.claim.as_ref().is_some_and(|claim| {
            claim.topology.cluster == adopted.cluster && claim.topology.epoch >= adopted.epoch
        });
        Some((current, seen.confirmed))
    };
    let open = |group: &&Group| state(group).is_some_and(|state| state != (true, true));
    adopted.groups.iter().find(open)?;
    let mut proposals = Vec::new();
    for (group, whole) in topology::claims(adopted) {
        match state(group) {
            None | Some((true, true)) => {}
            Some((true, false)) => proposals.push(confirm(group, adopted)),
            Some((false, _)) => {
                proposals.push(claim((group, whole)));
                proposals.push(confirm(group, adopted));
            }
        }
    }
    Some(Plan { purpose: Purpose::Complete, cluster: adopted.cluster, proposals })
}

/// No group that answers is claimed: claim them all, once all are known.
fn begin(view: &View, groups: &Groups) -> Step {
    if view.given.is_empty() {
        return Step::Refuse("no shards are given; use --shards URL,URL".into());
    }
    if let Some(missing) = view.unresolved(groups) {
        return Step::Wait(missing);
    }
    let mut founded = Vec::new();
    for seen in groups.values().filter(|seen| view.is_given(seen)) {
        let (Some(name), Some(_)) = (&seen.name, &seen.leader) else {
            return Step::Wait(format!("group {} has no name or no leader yet", seen.label()));
        };
        let urls = seen.members.iter().map(|member| member.url.clone()).collect();
        founded.push(Group { id: seen.id, name: name.clone(), urls });
    }
    let topology = match topology::draft(founded, view.unused, view.vnodes) {
        Ok(topology) => topology,
        Err(reason) => return Step::Refuse(reason),
    };
    if let Some(refused) = &view.refused {
        return Step::Wait(refused.reason.clone());
    }
    let mut proposals: Vec<Proposal> = topology::claims(&topology).map(claim).collect();
    proposals.extend(topology.groups.iter().map(|group| confirm(group, &topology)));
    Step::Propose(Plan { purpose: Purpose::Begin, cluster: topology.cluster, proposals })
}

fn claim((group, claim): (&Group, Claim)) -> Proposal {
    Proposal { group: group.clone(), action: Action::Claim(Box::new(claim)) }
}

fn confirm(group: &Group, topology: &Topology) -> Proposal {
    Proposal { group: group.clone(), action: Action::Confirm { cluster: topology.cluster } }
}

fn names(topology: &Topology) -> String {
    let names: Vec<&str> = topology.groups.iter().map(|group| group.name.as_str()).collect();
    names.join(", ")
}
