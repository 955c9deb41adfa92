//! What a coordinator has been told: the last answer from every URL, and the groups that follow
//! from them. Pure.
//!
//! Answers may be old: a follower can lag, a leader can have been deposed without knowing. The view
//! promises only that what it shows of a group was true of it once. [`super::decide`] is made so
//! that this is enough.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::ids::{ClusterId, GroupId};
use crate::types::limits::MEMBERS_MAX;
use crate::types::peer::Identity;
use crate::types::topology::{Claim, Member, Topology};

/// Everything that a decision follows from.
#[derive(Clone, Debug, Default)]
pub(in crate::coordinator) struct View {
    /// The URLs of `--shards`.
    pub(in crate::coordinator) given: Vec<String>,
    /// Tokens of each group, should this coordinator found the ring.
    pub(in crate::coordinator) vnodes: u32,
    /// The last answer from each URL that was asked, or why there was none.
    pub(in crate::coordinator) answers: BTreeMap<String, Result<Identity, String>>,
    /// The topology that this coordinator serves by.
    pub(in crate::coordinator) adopted: Option<Topology>,
    /// A claim that a group has refused, for as long as none is tried again.
    pub(in crate::coordinator) refused: Option<Refused>,
    /// The ring that looked dead before these answers came.
    pub(in crate::coordinator) doubted: Option<ClusterId>,
    /// An identity that no ring has yet; another one for every decision.
    pub(in crate::coordinator) unused: ClusterId,
}

/// A claim that a group has refused.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::coordinator) struct Refused {
    /// The ring that it was for.
    pub(in crate::coordinator) cluster: ClusterId,
    /// Which group, and why.
    pub(in crate::coordinator) reason: String,
}

/// One group, put together from what its members answered.
#[derive(Clone, Debug)]
pub(in crate::coordinator) struct Seen {
    /// Its identity.
    pub(in crate::coordinator) id: GroupId,
    /// Its name, once founded.
    pub(in crate::coordinator) name: Option<String>,
    /// Its members as they know each other, by URL.
    pub(in crate::coordinator) members: Vec<Member>,
    /// The leader that most of those that answered know.
    pub(in crate::coordinator) leader: Option<Member>,
    /// The ring it is part of.
    pub(in crate::coordinator) claim: Option<Claim>,
    /// Whether that is final.
    pub(in crate::coordinator) confirmed: bool,
}

impl Seen {
    /// The ring it is part of.
    pub(in crate::coordinator) fn cluster(&self) -> Option<ClusterId> {
        self.claim.as_ref().map(|claim| claim.topology.cluster)
    }

    /// The ring it is part of for good, as far as it knows.
    pub(in crate::coordinator) fn final_topology(&self) -> Option<&Topology> {
        self.claim.as_ref().filter(|_| self.confirmed).map(|claim| &claim.topology)
    }

    /// Its name, or what else to call it.
    pub(in crate::coordinator) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }

    fn has_member(&self, url: &str) -> bool {
        self.members.iter().any(|member| member.url == url)
    }

    fn of(id: GroupId, answers: &[&Identity]) -> Self {
        let speaker = speaker(answers);
        let mut members: Vec<Member> = if speaker.members.is_empty() {
            answers.iter().map(|answer| answer.member.clone()).collect()
        } else {
            speaker.members.clone()
        };
        members.sort_by(|a, b| a.url.cmp(&b.url).then(a.node.cmp(&b.node)));
        members.truncate(MEMBERS_MAX);
        Self {
            id,
            name: speaker.name.clone(),
            members,
            leader: leader(answers),
            claim: speaker.claim.clone(),
            confirmed: speaker.confirmed,
        }
    }
}

/// Whose word counts: one that knows a final claim, since that never changes back; else the leader.
fn speaker<'a>(answers: &[&'a Identity]) -> &'a Identity {
    let weight = |answer: &&&Identity| {
        let epoch = answer.claim.as_ref().map(|claim| claim.topology.epoch);
        let leads = answer.leader.as_ref() == Some(&answer.member);
        (answer.confirmed, epoch.filter(|_| answer.confirmed), leads, epoch)
    };
    answers.iter().max_by_key(weight).expect("a group is seen because of an answer")
}

/// The leader that most of them know; of two with as many, the one that says so itself.
fn leader(answers: &[&Identity]) -> Option<Member> {
    let mut votes: BTreeMap<&Member, (usize, bool)> = BTreeMap::new();
    for answer in answers {
        if let Some(leader) = &answer.leader {
            let vote = votes.entry(leader).or_default();
            vote.0 += 1;
            vote.1 |= *leader == answer.member;
        }
    }
    votes.into_iter().max_by_key(|(_, vote)| *vote).map(|(leader, _)| leader.clone())
}

impl View {
    /// The groups that were seen.
    pub(in crate::coordinator) fn groups(&self) -> BTreeMap<GroupId, Seen> {
        let mut answers: BTreeMap<GroupId, Vec<&Identity>> = BTreeMap::new();
        for identity in self.answers.values().flatten() {
            if let Some(group) = identity.group {
                answers.entry(group).or_default().push(identity);
            }
        }
        answers.into_iter().map(|(id, answers)| (id, Seen::of(id, &answers))).collect()
    }

    /// Every URL at which one of the groups may be found: the given ones, those of all members,
    /// and those in every topology.
    pub(in crate::coordinator) fn urls(&self) -> BTreeSet<String> {
        let groups = self.groups();
        let members = groups.values().flat_map(|seen| &seen.members).map(|member| &member.url);
        let claims = groups.values().filter_map(|seen| seen.claim.as_ref());
        let topologies = claims.map(|claim| &claim.topology).chain(&self.adopted);
        let listed = topologies.flat_map(|topology| &topology.groups).flat_map(|group| &group.urls);
        self.given.iter().chain(members).chain(listed).cloned().collect()
    }

    /// Whether one of the given URLs is a member of the group.
    pub(in crate::coordinator) fn is_given(&self, seen: &Seen) -> bool {
        self.given.iter().any(|url| {
            let there = self.answers.get(url).and_then(|answer| answer.as_ref().ok());
            there.is_some_and(|identity| identity.group == Some(seen.id)) || seen.has_member(url)
        })
    }

    /// The first given URL of which nobody knows what is there, and why.
    pub(in crate::coordinator) fn unresolved(
        &self,
        groups: &BTreeMap<GroupId, Seen>,
    ) -> Option<String> {
        let member = |url: &str| groups.values().any(|seen| seen.has_member(url));
        self.given.iter().find_map(|url| match self.answers.get(url) {
            Some(Ok(identity)) if identity.group.is_some() => None,
            Some(Ok(_)) => Some(format!("{url}: its group has not formed yet")),
            Some(Err(_)) | None if member(url) => None,
            Some(Err(reason)) => Some(format!("{url} does not answer: {reason}")),
            None => Some(format!("{url} has not answered yet")),
        })
    }
}
