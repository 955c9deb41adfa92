//! What a coordinator knows of each group just now: members, leader, whom to ask next.
//!
//! This is knowledge, not truth: it comes from answers and hints, is corrected by the next one, and
//! at worst costs a round trip.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::rpc::Target;
use crate::types::ids::{GroupId, NodeId};
use crate::types::peer::Identity;
use crate::types::topology::{Group, Member};

/// What is known of all groups.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Groups(Mutex<HashMap<GroupId, Live>>);

#[derive(Debug, Default)]
struct Live {
    /// URLs of the members, with their node ids once they have answered.
    members: Vec<(String, Option<NodeId>)>,
    leader: Option<Member>,
    /// Whom a request without a leader asks next.
    turn: usize,
}

impl Groups {
    /// Makes sure that the group is known at all: by the URLs in the topology.
    pub(in crate::coordinator) fn learn(&self, group: &Group) {
        let mut groups = self.lock();
        let live = groups.entry(group.id).or_default();
        if live.members.is_empty() {
            live.members = group.urls.iter().map(|url| (url.clone(), None)).collect();
        }
    }

    /// Takes in what a member says of its group.
    pub(in crate::coordinator) fn heard(&self, identity: &Identity) {
        let Some(group) = identity.group else { return };
        let mut groups = self.lock();
        let live = groups.entry(group).or_default();
        if !identity.members.is_empty() {
            let members = identity.members.iter();
            live.members = members.map(|member| (member.url.clone(), Some(member.node))).collect();
            live.members.sort();
        }
        if identity.leader.is_some() {
            live.leader.clone_from(&identity.leader);
        }
    }

    /// Nobody in the group knows a leader.
    pub(in crate::coordinator) fn leaderless(&self, group: GroupId) {
        if let Some(live) = self.lock().get_mut(&group) {
            live.leader = None;
        }
    }

    /// A member named another leader.
    pub(in crate::coordinator) fn led_by(&self, group: GroupId, leader: Member) {
        self.lock().entry(group).or_default().leader = Some(leader);
    }

    /// The leader did not behave like one: ask around.
    pub(in crate::coordinator) fn leader_lost(&self, group: GroupId, target: &Target) {
        if let Some(live) = self.lock().get_mut(&group)
            && live.leader.as_ref().is_some_and(|leader| leader.url == target.url)
        {
            live.leader = None;
        }
    }

    /// The leader, if one is known.
    pub(in crate::coordinator) fn leader(&self, group: GroupId) -> Option<Member> {
        self.lock().get(&group).and_then(|live| live.leader.clone())
    }

    /// URLs of the members.
    pub(in crate::coordinator) fn urls(&self, group: GroupId) -> Vec<String> {
        let groups = self.lock();
        let members = groups.get(&group).into_iter().flat_map(|live| &live.members);
        members.map(|(url, _)| url.clone()).collect()
    }

    /// Whom to ask: the leader, or each member in turn.
    pub(in crate::coordinator) fn ask(&self, group: GroupId) -> Option<Target> {
        let leader = self.leader(group);
        match leader {
            Some(leader) => Some(target(group, &leader)),
            None => self.ask_any(group),
        }
    }

    /// Whom to ask when any member will do: each in turn.
    pub(in crate::coordinator) fn ask_any(&self, group: GroupId) -> Option<Target> {
        let mut groups = self.lock();
        let live = groups.get_mut(&group)?;
        let count = live.members.len();
        let (url, node) = live.members.get(live.turn % count.max(1))?;
        let target = Target { url: url.clone(), node: *node, group: Some(group) };
        live.turn = (live.turn + 1) % count;
        Some(target)
    }

    /// How many members are known.
    pub(in crate::coordinator) fn size(&self, group: GroupId) -> usize {
        self.lock().get(&group).map_or(0, |live| live.members.len())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupId, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member of a group as a target.
pub(in crate::coordinator) fn target(group: GroupId, member: &Member) -> Target {
    Target { url: member.url.clone(), node: Some(member.node), group: Some(group) }
}
