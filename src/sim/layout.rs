//! What the cluster of a run consists of: groups of replicas, and coordinators before them, or one
//! group alone.

use std::fmt;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::sim::net::{self, Place};
use crate::sim::node::Role;

/// Coordinators: half of the runs have none.
const COORDINATORS: [usize; 6] = [0, 0, 0, 1, 1, 2];
/// The replicas of the one group without a coordinator.
const ALONE: [&[usize]; 6] = [&[1], &[3], &[3], &[3], &[3], &[5]];
/// The replicas of each group behind coordinators. Few, so that a run does not take long.
const BEHIND: [&[usize]; 8] =
    [&[3], &[1, 1], &[1, 3], &[3, 3], &[3, 3], &[1, 1, 1], &[1, 3, 1], &[5, 1]];
/// The most tokens of a group: few, so that the groups' shares differ.
const VNODES_MAX: u32 = 12;

/// Groups and coordinators. The places of replicas come first, group by group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sim) struct Layout {
    /// The replicas of each group.
    pub(in crate::sim) groups: &'static [usize],
    pub(in crate::sim) coordinators: usize,
}

impl Layout {
    /// Draws one.
    pub(in crate::sim) fn draw(rng: &mut StdRng) -> Self {
        let coordinators = COORDINATORS[rng.random_range(0..COORDINATORS.len())];
        let groups = if coordinators == 0 { &ALONE[..] } else { &BEHIND[..] };
        Self { groups: groups[rng.random_range(0..groups.len())], coordinators }
    }

    /// How many replicas there are.
    pub(in crate::sim) fn replicas(&self) -> usize {
        self.groups.iter().sum()
    }

    /// What runs at each place. A coordinator is told one replica of a group or all of them.
    pub(in crate::sim) fn roles(&self, rng: &mut StdRng) -> Vec<Role> {
        let mut roles = Vec::new();
        let mut groups: Vec<Vec<Place>> = Vec::new();
        for (group, count) in self.groups.iter().enumerate() {
            let members: Vec<Place> = (roles.len()..roles.len() + count).collect();
            roles.extend(members.iter().map(|me| {
                let others = members.iter().filter(|other| *other != me);
                Role::Replica { group, peers: others.copied().map(net::url).collect() }
            }));
            groups.push(members);
        }
        for _ in 0..self.coordinators {
            let told = groups.iter().flat_map(|members| {
                let one = members[rng.random_range(0..members.len())];
                if rng.random() { vec![one] } else { members.clone() }
            });
            let shards = told.map(net::url).collect();
            roles.push(Role::Coordinator { shards, vnodes: rng.random_range(1..=VNODES_MAX) });
        }
        roles
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "groups of {:?}, {} coordinators", self.groups, self.coordinators)
    }
}
