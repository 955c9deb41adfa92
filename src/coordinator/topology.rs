//! The topology as a value: drafting one from groups, checking one that came from outside, and
//! what each group's claim follows from it. Pure.
//!
//! It promises that a checked topology makes a ring: at least one group and one token, all within
//! their bounds, names and ids unique, groups by name. It refuses two groups of one name, since
//! they would share their tokens.

use crate::coordinator::ring::Ring;
use crate::types::ids::ClusterId;
use crate::types::limits::{GROUP_NAME_BYTES_MAX, GROUPS_MAX, VNODES_MAX};
use crate::types::topology::{Claim, Epoch, Group, Topology};

/// The epoch of a ring's first topology.
const FIRST_EPOCH: Epoch = 1;

/// The first topology of a new ring of these groups, or why there can be none.
pub(in crate::coordinator) fn draft(
    mut groups: Vec<Group>,
    cluster: ClusterId,
    vnodes: u32,
) -> Result<Topology, String> {
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    let topology = Topology { cluster, epoch: FIRST_EPOCH, vnodes, groups };
    check(&topology)?;
    Ok(topology)
}

/// Why `topology` makes no ring, if so.
pub(in crate::coordinator) fn check(topology: &Topology) -> Result<(), String> {
    let Topology { vnodes, groups, .. } = topology;
    if *vnodes == 0 || *vnodes > VNODES_MAX {
        return Err(format!("{vnodes} vnodes: use --vnodes 1 to {VNODES_MAX}"));
    }
    if groups.is_empty() || groups.len() > GROUPS_MAX {
        return Err(format!("{} groups: a ring has 1 to {GROUPS_MAX}", groups.len()));
    }
    for group in groups {
        if group.name.is_empty() || group.name.len() > GROUP_NAME_BYTES_MAX {
            return Err(format!(
                "group {} has a name of {} bytes: use --id with 1 to {GROUP_NAME_BYTES_MAX}",
                group.id,
                group.name.len()
            ));
        }
    }
    for pair in groups.windows(2) {
        let [a, b] = pair else { continue };
        if a.name == b.name {
            return Err(format!(
                "two groups are called {}: {} at {} and {} at {}; give one another --id",
                a.name,
                a.id,
                a.urls.join(", "),
                b.id,
                b.urls.join(", ")
            ));
        }
        if a.name > b.name {
            return Err(format!("the groups {} and {} are not in order", a.name, b.name));
        }
    }
    let mut ids: Vec<_> = groups.iter().map(|group| group.id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("group {} is listed twice", pair[0])),
        None => Ok(()),
    }
}

/// The claims of all groups of a checked topology, in its order.
pub(in crate::coordinator) fn claims(topology: &Topology) -> impl Iterator<Item = (&Group, Claim)> {
    let ring = Ring::of(topology);
    topology.groups.iter().enumerate().map(move |(at, group)| {
        (group, Claim { topology: topology.clone(), owned: ring.ranges_of(at) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::HashRange;
    use crate::types::ids::GroupId;

    fn group(id: u64, name: &str) -> Group {
        Group { id: GroupId(id), name: name.into(), urls: vec![format!("http://{name}:{id}")] }
    }

    fn drafted(groups: Vec<Group>, vnodes: u32) -> Result<Topology, String> {
        draft(groups, ClusterId(1), vnodes)
    }

    #[test]
    fn the_first_by_name_is_the_home_group() {
        let topology = drafted(vec![group(1, "b"), group(2, "a")], 3).expect("a ring");
        assert_eq!(topology.home().map(|home| home.id), Some(GroupId(2)));
        let owned: u128 =
            claims(&topology).flat_map(|(_, claim)| claim.owned).map(HashRange::width).sum();
        assert_eq!(owned, 1 << 64);
    }

    #[test]
    fn what_makes_no_ring_is_refused() {
        let refused = |groups, vnodes| drafted(groups, vnodes).expect_err("no ring");
        let twins = refused(vec![group(1, "a"), group(2, "a")], 3);
        assert!(twins.contains("two groups are called a") && twins.contains("--id"), "{twins}");
        assert!(refused(vec![group(1, "a"), group(1, "b")], 3).contains("listed twice"));
        assert!(refused(vec![], 3).contains("0 groups"));
        assert!(refused(vec![group(1, "a")], 0).contains("--vnodes"));
        assert!(refused(vec![group(1, "a")], VNODES_MAX + 1).contains("--vnodes"));
        assert!(refused(vec![group(1, "")], 1).contains("--id"));
        let mut turned = drafted(vec![group(1, "a"), group(2, "b")], 3).expect("a ring");
        turned.groups.reverse();
        assert!(check(&turned).is_err());
    }
}
