//! Decides, from what one round of asking has shown, what a replica does next to find or found
//! its group. Pure: never founds where that could make a second group of one.

use std::collections::BTreeMap;

use crate::types::ids::{GroupId, NodeId};
use crate::types::peer::Identity;
use crate::types::topology::Member;

/// What one round of asking has shown.
#[derive(Clone, Debug)]
pub(in crate::raft) struct View {
    /// Who we are.
    pub(in crate::raft) me: Me,
    /// Every URL that was listed, and what came back.
    pub(in crate::raft) peers: Vec<(String, Result<Identity, String>)>,
}

/// Our own part of the view.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Me {
    /// Identity and URL.
    pub(in crate::raft) member: Member,
    /// The name the user gave, if any.
    pub(in crate::raft) name: Option<String>,
    /// The group we belong to or were adopted by.
    pub(in crate::raft) group: Option<GroupId>,
    /// Our group's voters and learners, as our own log has them.
    pub(in crate::raft) members: Vec<Member>,
    /// The leader we know.
    pub(in crate::raft) leader: Option<Member>,
    /// How far we are.
    pub(in crate::raft) standing: Standing,
}

/// What a replica is to its group, by its own log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::raft) enum Standing {
    /// It has no entry and no vote.
    Fresh,
    /// It has some, but is not a voter.
    Outside,
    /// It is a voter.
    Voter,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::raft) enum Step {
    /// We are a voter under our URL: Raft does the rest.
    Done,
    /// Found the group with these members.
    Found(Vec<Member>),
    /// Ask this member's group, through this URL, to take us in.
    Join(String),
    /// Ask again; this is what is missing.
    Wait(String),
    /// This can never work: a sentence for the user.
    Refuse(String),
}

/// Decides what to do. Also returns the seeds, sorted, when all of them are known.
pub(in crate::raft) fn next(view: &View) -> (Step, Vec<String>) {
    let me = &view.me;
    let answered: BTreeMap<NodeId, &Identity> = view
        .peers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .filter(|identity| identity.member.node != me.member.node)
        .map(|identity| (identity.member.node, identity))
        .collect();
    let answered: Vec<&Identity> = answered.into_values().collect();
    if let Some(conflict) = conflict(me, &answered) {
        return (Step::Refuse(conflict), Vec::new());
    }
    let unreachable = view.peers.iter().find_map(|(url, answer)| {
        answer.as_ref().err().map(|reason| format!("{url} does not answer yet: {reason}"))
    });
    let mut seeds: Vec<String> =
        answered.iter().map(|peer| &peer.member.url).chain([&me.member.url]).cloned().collect();
    seeds.sort();
    seeds.dedup();
    let seeds = if unreachable.is_none() { seeds } else { Vec::new() };

    let fresh = me.standing == Standing::Fresh;
    if me.standing == Standing::Voter {
        return (settle(me, &answered), seeds);
    }
    // The group exists, or may: join it.
    if let Some(formed) = answered.iter().find(|peer| !peer.fresh) {
        let known = formed.members.contains(&me.member);
        if fresh && known {
            return (Step::Wait("the group has formed; waiting for its leader".into()), seeds);
        }
        let url = formed.leader.as_ref().map_or(&formed.member.url, |leader| &leader.url);
        return (Step::Join(url.clone()), seeds);
    }
    if !fresh {
        let missing = unreachable.unwrap_or_else(|| "nobody knows the group any more".into());
        return (Step::Wait(missing), seeds);
    }
    match unreachable {
        Some(missing) => (Step::Wait(missing), seeds),
        None => (found_or_wait(me, &answered, &seeds), seeds),
    }
}

/// A replica that is a voter by its own log: done, unless it has moved to another URL.
fn settle(me: &Me, answered: &[&Identity]) -> Step {
    if me.members.contains(&me.member) {
        return Step::Done;
    }
    let leader = answered.iter().find_map(|peer| peer.leader.as_ref()).or(me.leader.as_ref());
    match leader {
        Some(leader) => Step::Join(leader.url.clone()),
        None => Step::Wait("waiting for a leader to tell it the new URL of this replica".into()),
    }
}

fn found_or_wait(me: &Me, answered: &[&Identity], seeds: &[String]) -> Step {
    if seeds.len() != answered.len() + 1 {
        return Step::Refuse(
            "two replicas advertise the same URL; give each its own with --advertise".into(),
        );
    }
    for peer in answered {
        if !peer.seeds.is_empty() && peer.seeds != seeds {
            return Step::Wait(format!(
                "{} lists other members ({}) than this replica ({}); \
                 --replicas of each must name all the others",
                peer.member.url,
                peer.seeds.join(", "),
                seeds.join(", ")
            ));
        }
    }
    if let Some(peer) = answered.iter().find(|peer| peer.seeds.is_empty()) {
        return Step::Wait(format!("{} has not found all members yet", peer.member.url));
    }
    if seeds.first() == Some(&me.member.url) {
        let others = answered.iter().map(|peer| peer.member.clone());
        return Step::Found(others.chain([me.member.clone()]).collect());
    }
    Step::Wait(format!("waiting for {} to found the group", seeds[0]))
}

/// What contradicts itself and no waiting can mend.
fn conflict(me: &Me, answered: &[&Identity]) -> Option<String> {
    let fresh = me.standing == Standing::Fresh;
    answered.iter().find_map(|peer| {
        let url = &peer.member.url;
        if let (Some(mine), Some(theirs)) = (&me.name, &peer.name)
            && mine != theirs
        {
            return Some(format!("--id {mine} does not match {url}, which is {theirs}"));
        }
        match (me.group, peer.group) {
            (Some(mine), Some(theirs)) if mine != theirs && !fresh && !peer.fresh => Some(format!(
                "the data directory belongs to group {mine}, but {url} is a member of {theirs}; \
                     check --data and --replicas"
            )),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const URLS: [&str; 3] = ["http://a", "http://b", "http://c"];

    fn member(node: u64) -> Member {
        Member {
            node: NodeId(node),
            url: URLS
                .iter()
                .cycle()
                .nth(usize::try_from(node).expect("small") - 1)
                .map(|url| (*url).into())
                .expect("endless"),
        }
    }

    fn seeds() -> Vec<String> {
        URLS.map(String::from).to_vec()
    }

    fn fresh(node: u64) -> Identity {
        Identity {
            member: member(node),
            group: None,
            name: None,
            fresh: true,
            seeds: seeds(),
            members: Vec::new(),
            leader: None,
            claim: None,
            confirmed: false,
        }
    }

    fn formed(node: u64, members: &[u64]) -> Identity {
        Identity {
            group: Some(GroupId(7)),
            fresh: false,
            members: members.iter().copied().map(member).collect(),
            leader: Some(member(node)),
            ..fresh(node)
        }
    }

    fn view(node: u64, peers: Vec<Result<Identity, String>>) -> View {
        let me = Me {
            member: member(node),
            name: None,
            group: None,
            members: Vec::new(),
            leader: None,
            standing: Standing::Fresh,
        };
        let url = |answer: &Result<Identity, String>| {
            answer.as_ref().map_or("http://down".into(), |peer| peer.member.url.clone())
        };
        View { me, peers: peers.into_iter().map(|answer| (url(&answer), answer)).collect() }
    }

    fn step(view: &View) -> Step {
        next(view).0
    }

    fn waits(view: &View, why: &str) {
        match step(view) {
            Step::Wait(reason) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_smallest_url_founds_and_only_when_all_are_fresh_and_agree() {
        let all = view(1, vec![Ok(fresh(2)), Ok(fresh(3))]);
        assert_eq!(step(&all), Step::Found(vec![member(2), member(3), member(1)]));
        waits(&view(2, vec![Ok(fresh(1)), Ok(fresh(3))]), "waiting for http://a");
        waits(&view(1, vec![Ok(fresh(2)), Err("refused".into())]), "does not answer yet");
        let unsure = Identity { seeds: Vec::new(), ..fresh(3) };
        waits(&view(1, vec![Ok(fresh(2)), Ok(unsure)]), "has not found all members");
        let other = Identity { seeds: vec!["http://a".into(), "http://c".into()], ..fresh(3) };
        waits(&view(1, vec![Ok(fresh(2)), Ok(other)]), "lists other members");
        assert_eq!(step(&view(1, vec![])), Step::Found(vec![member(1)]));
    }

    #[test]
    fn a_fresh_replica_joins_wherever_one_peer_is_not_fresh() {
        // Its disk was wiped: the group knows its URL under another identity.
        let wiped = view(4, vec![Ok(formed(2, &[1, 2, 3])), Err("down".into())]);
        assert_eq!(step(&wiped), Step::Join("http://b".into()));
        // Two of three wiped: the one that is left is enough to never found a second group.
        let two = view(4, vec![Ok(fresh(5)), Ok(formed(3, &[1, 2, 3]))]);
        assert_eq!(step(&two), Step::Join("http://c".into()));
        // A peer that has only voted counts as formed.
        let voted = Identity { fresh: false, ..fresh(2) };
        assert_eq!(step(&view(1, vec![Ok(voted), Ok(fresh(3))])), Step::Join("http://b".into()));
        // The founder was faster: its entries are on their way.
        waits(&view(2, vec![Ok(formed(1, &[1, 2, 3])), Ok(fresh(3))]), "has formed");
    }

    #[test]
    fn a_voter_needs_nobody_unless_it_has_moved() {
        let mut voter = view(1, vec![Err("down".into()), Ok(formed(2, &[1, 2, 3]))]);
        voter.me.standing = Standing::Voter;
        voter.me.members = vec![member(1), member(2), member(3)];
        voter.me.group = Some(GroupId(7));
        assert_eq!(step(&voter), Step::Done);
        voter.me.member.url = "http://moved".into();
        assert_eq!(step(&voter), Step::Join("http://b".into()));
        voter.peers.clear();
        waits(&voter, "the new URL");
        voter.me.leader = Some(member(1));
        assert_eq!(step(&voter), Step::Join("http://a".into()));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |view: &View, why: &str| match step(view) {
            Step::Refuse(reason) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        };
        let mut named = view(1, vec![Ok(Identity { name: Some("x".into()), ..fresh(2) })]);
        named.me.name = Some("y".into());
        refused(&named, "--id y does not match");
        let mut stranger = view(1, vec![Ok(formed(2, &[2, 3]))]);
        stranger.me.standing = Standing::Voter;
        stranger.me.group = Some(GroupId(8));
        refused(&stranger, "check --data and --replicas");
        let twin = Identity { member: Member { node: NodeId(9), ..member(1) }, ..fresh(2) };
        refused(&view(1, vec![Ok(twin)]), "--advertise");
    }
}
