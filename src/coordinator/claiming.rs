//! Decides, from what the groups say of themselves, what a coordinator does about the ring: adopt
//! the one that is there, claim a new one, finish or take back one that is half claimed. Pure.
//!
//! A claim is made in this order, each step through the group's own log: the claim at the home
//! group (the first by name), the claim at each other group by name, *confirm* at the home group
//! (the point of no return), *confirm* at the others. Whoever finds it half done does the rest:
//! every step may be repeated. Groups are claimed in the order of their names, so of two
//! coordinators that race one is refused at the first group that both want; it finds the other's
//! claim there and adopts it. A claim that some group refuses is released, at the home group first:
//! its log decides once between *confirm* and *release*, so a ring is either active or gone, never
//! both. A claim whose home group does not know it is an orphan, and is released too. A claim that
//! was confirmed at home is never released.

use std::collections::{BTreeMap, BTreeSet};

use crate::coordinator::ring::Ring;
use crate::types::ids::GroupId;
use crate::types::limits::GROUPS_MAX;
use crate::types::peer::Identity;
use crate::types::topology::{Claim, Group, Topology};

/// What one round of asking has shown: each URL, and what came back.
pub(in crate::coordinator) type Answers = BTreeMap<String, Result<Identity, String>>;

/// What to do next.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::coordinator) enum Step {
    /// Serve by this topology; it is active.
    Serve(Topology),
    /// Claim a new ring of these groups, sorted by name.
    Claim(Vec<Group>),
    /// Finish this claim, which is not confirmed yet.
    Resume(Topology),
    /// Take the claim of this topology back: it looks like an orphan at this group. Its home group
    /// has the last word.
    Release(Group, Topology),
    /// Ask again; this is what is missing or wrong.
    Wait(String),
}

/// What is known of one group.
#[derive(Clone, Debug)]
struct Known<'a> {
    group: Group,
    claim: Option<&'a Claim>,
    confirmed: bool,
}

/// Decides what to do. `given` are the URLs the user gave.
pub(in crate::coordinator) fn next(given: &[String], answers: &Answers) -> Step {
    let groups = known(answers);
    match active(&groups) {
        Err(conflict) => return Step::Wait(conflict),
        Ok(Some(topology)) => return Step::Serve(topology.clone()),
        Ok(None) => {}
    }
    if let Some(half_done) = groups.values().find(|known| known.claim.is_some()) {
        return finish_or_release(half_done, &groups);
    }
    begin(given, answers, &groups)
}

/// The groups that answered, by id. Of several members of a group the one with the newest claim
/// speaks for it: a member that is behind knows less, never more.
fn known(answers: &Answers) -> BTreeMap<GroupId, Known<'_>> {
    let mut groups: BTreeMap<GroupId, Known<'_>> = BTreeMap::new();
    for identity in answers.values().filter_map(|answer| answer.as_ref().ok()) {
        let (Some(id), Some(name)) = (identity.group, &identity.name) else { continue };
        let leads = identity.leader.as_ref() == Some(&identity.member);
        let urls = identity.members.iter().map(|member| member.url.clone()).collect();
        let this = Known {
            group: Group { id, name: name.clone(), urls },
            claim: identity.claim.as_ref(),
            confirmed: identity.confirmed,
        };
        let rank = |known: &Known<'_>| {
            (known.confirmed, known.claim.map_or(0, |claim| claim.topology.epoch))
        };
        match groups.get(&id) {
            Some(other) if !leads && rank(other) >= rank(&this) => {}
            Some(_) | None => {
                groups.insert(id, this);
            }
        }
    }
    groups
}

/// The newest confirmed topology, if there is one; a sentence if there are several rings.
fn active<'a>(groups: &BTreeMap<GroupId, Known<'a>>) -> Result<Option<&'a Topology>, String> {
    let confirmed = groups.values().filter(|known| known.confirmed);
    let topologies =
        confirmed.filter_map(|known| Some((&known.group.name, &known.claim?.topology)));
    let mut newest: Option<(&String, &Topology)> = None;
    for (name, topology) in topologies {
        match newest {
            Some((other, old)) if old.cluster != topology.cluster => {
                return Err(format!(
                    "shard {other} belongs to cluster {} and shard {name} to {}; \
                     give --shards of one cluster",
                    old.cluster, topology.cluster
                ));
            }
            Some((_, old)) if old.epoch >= topology.epoch => {}
            Some(_) | None => newest = Some((name, topology)),
        }
    }
    Ok(newest.map(|(_, topology)| topology))
}

fn finish_or_release(half_done: &Known<'_>, groups: &BTreeMap<GroupId, Known<'_>>) -> Step {
    let Some(claim) = half_done.claim else {
        return Step::Wait(format!("shard {} has no claim", half_done.group.name));
    };
    let cluster = claim.topology.cluster;
    let Some(home) = claim.topology.home() else {
        return Step::Release(half_done.group.clone(), claim.topology.clone());
    };
    match groups.get(&home.id) {
        None => Step::Wait(format!(
            "shard {} is half claimed for cluster {cluster}, whose home shard {} does not answer",
            half_done.group.name, home.name
        )),
        Some(home) => match home.claim {
            Some(at_home) if at_home.topology.cluster == cluster => {
                Step::Resume(at_home.topology.clone())
            }
            Some(_) | None => Step::Release(half_done.group.clone(), claim.topology.clone()),
        },
    }
}

fn begin(given: &[String], answers: &Answers, groups: &BTreeMap<GroupId, Known<'_>>) -> Step {
    let members: BTreeSet<&String> = groups.values().flat_map(|known| &known.group.urls).collect();
    for url in given {
        match answers.get(url) {
            Some(Ok(identity)) if identity.group.is_none() || identity.leader.is_none() => {
                return Step::Wait(format!("the group of {url} has not formed yet"));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None if members.contains(url) => {}
            Some(Err(reason)) => return Step::Wait(format!("{url} does not answer: {reason}")),
            None => return Step::Wait(format!("{url} has not been asked yet")),
        }
    }
    let mut ring: Vec<Group> = groups.values().map(|known| known.group.clone()).collect();
    ring.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(twins) = ring.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Step::Wait(format!(
            "two groups are called {} ({} and {}); give each its own --id",
            twins[0].name, twins[0].id, twins[1].id
        ));
    }
    match ring.len() {
        0 => Step::Wait("no shard has answered yet".into()),
        1..=GROUPS_MAX => Step::Claim(ring),
        count => Step::Wait(format!("{count} groups, at most {GROUPS_MAX} make a ring")),
    }
}

/// The claim of each group of a topology, in the order of the groups.
pub(in crate::coordinator) fn claims(topology: &Topology) -> Vec<(Group, Claim)> {
    let ring = ring(topology);
    let claim = |at| Claim { topology: topology.clone(), owned: ring.ranges(at) };
    topology.groups.iter().enumerate().map(|(at, group)| (group.clone(), claim(at))).collect()
}

/// The ring of a topology: groups by their position in it.
pub(in crate::coordinator) fn ring(topology: &Topology) -> Ring {
    let names: Vec<&str> = topology.groups.iter().map(|group| group.name.as_str()).collect();
    Ring::new(&names, topology.vnodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{ClusterId, NodeId};
    use crate::types::topology::Member;

    fn url(id: u64) -> String {
        format!("http://g{id}")
    }

    fn group(id: u64) -> Group {
        Group { id: GroupId(id), name: format!("shard-{id}"), urls: vec![url(id)] }
    }

    fn identity(id: u64) -> Identity {
        let member = Member { node: NodeId(id), url: url(id) };
        Identity {
            member: member.clone(),
            group: Some(GroupId(id)),
            name: Some(format!("shard-{id}")),
            fresh: false,
            seeds: Vec::new(),
            members: vec![member.clone()],
            leader: Some(member),
            claim: None,
            confirmed: false,
        }
    }

    fn topology(cluster: u64, epoch: u64, groups: &[u64]) -> Topology {
        let groups = groups.iter().copied().map(group).collect();
        Topology { cluster: ClusterId(cluster), epoch, vnodes: 4, groups }
    }

    fn claimed(id: u64, topology: &Topology, confirmed: bool) -> Identity {
        let owned = Vec::new();
        let claim = Some(Claim { topology: topology.clone(), owned });
        Identity { claim, confirmed, ..identity(id) }
    }

    fn given(ids: &[u64]) -> Vec<String> {
        ids.iter().copied().map(url).collect()
    }

    fn answers(identities: Vec<Identity>) -> Answers {
        identities.into_iter().map(|identity| (identity.member.url.clone(), Ok(identity))).collect()
    }

    fn waits(step: &Step, why: &str) {
        match step {
            Step::Wait(reason) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_ring_is_claimed_only_when_every_given_url_is_known() {
        let given = given(&[2, 1]);
        let mut all = answers(vec![identity(1), identity(2)]);
        assert_eq!(next(&given, &all), Step::Claim(vec![group(1), group(2)]));
        all.insert(url(2), Err("refused".into()));
        waits(&next(&given, &all), "http://g2 does not answer");
        // A member that is down is known by the others of its group.
        let mut first = identity(1);
        first.members.push(Member { node: NodeId(2), url: url(2) });
        all.insert(url(1), Ok(first));
        assert!(matches!(next(&given, &all), Step::Claim(groups) if groups.len() == 1));
        let forming = Identity { leader: None, ..identity(2) };
        all.insert(url(2), Ok(forming));
        waits(&next(&given, &all), "has not formed yet");
    }

    #[test]
    fn two_groups_of_one_name_make_no_ring() {
        let twin = Identity { name: Some("shard-1".into()), ..identity(2) };
        waits(&next(&given(&[1, 2]), &answers(vec![identity(1), twin])), "its own --id");
    }

    #[test]
    fn the_newest_confirmed_topology_is_served_whoever_is_down() {
        let (old, new) = (topology(7, 1, &[1, 2]), topology(7, 2, &[1, 2, 3]));
        let mut all = answers(vec![claimed(1, &old, true), claimed(2, &new, true)]);
        assert_eq!(next(&given(&[1]), &all), Step::Serve(new.clone()));
        all.insert(url(1), Err("down".into()));
        assert_eq!(next(&given(&[1]), &all), Step::Serve(new.clone()));
        // A group that is not in the topology changes nothing.
        all.insert(url(9), Ok(identity(9)));
        assert_eq!(next(&given(&[1, 9]), &all), Step::Serve(new));
        all.insert(url(9), Ok(claimed(9, &topology(8, 1, &[9]), true)));
        waits(&next(&given(&[1, 9]), &all), "--shards of one cluster");
    }

    #[test]
    fn a_half_done_claim_is_finished_or_released_as_its_home_says() {
        let half = topology(7, 1, &[1, 2]);
        let given = given(&[1, 2]);
        let at_home = answers(vec![claimed(1, &half, false), identity(2)]);
        assert_eq!(next(&given, &at_home), Step::Resume(half.clone()));
        let orphan = answers(vec![identity(1), claimed(2, &half, false)]);
        assert_eq!(next(&given, &orphan), Step::Release(group(2), half.clone()));
        let mut unknown = answers(vec![claimed(2, &half, false)]);
        unknown.insert(url(1), Err("down".into()));
        waits(&next(&given, &unknown), "does not answer");
        // Confirmed at home is active, whatever the others know yet.
        let confirmed = answers(vec![claimed(1, &half, true), claimed(2, &half, false)]);
        assert_eq!(next(&given, &confirmed), Step::Serve(half));
    }

    #[test]
    fn a_member_that_is_behind_does_not_speak_for_its_group() {
        let half = topology(7, 1, &[1]);
        let mut behind = identity(1);
        behind.member = Member { node: NodeId(5), url: "http://behind".into() };
        for order in [["a", "z"], ["z", "a"]] {
            let mut all = Answers::new();
            all.insert(order[0].into(), Ok(claimed(1, &half, true)));
            all.insert(order[1].into(), Ok(behind.clone()));
            assert_eq!(next(&given(&[1]), &all), Step::Serve(half.clone()));
        }
    }

    #[test]
    fn the_claims_of_a_topology_part_the_ring() {
        let claims = claims(&topology(7, 1, &[1, 2, 3]));
        let width: u128 =
            claims.iter().flat_map(|(_, claim)| &claim.owned).map(|range| range.width()).sum();
        assert_eq!(width, 1 << 64);
    }
}
