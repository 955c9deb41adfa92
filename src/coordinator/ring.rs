//! The ring: which group owns which point of the hash space, computed from names alone.
//!
//! Each group has `vnodes` tokens; a point belongs to the group of the first token at or after it,
//! wrapping over the end. It promises the same ring for the same names in any order, on every
//! machine, for ever; that every point has exactly one owner; and that a name that is added takes
//! points from the others and moves nothing else. Of two equal tokens the smaller name's counts.
//! Pure.

use crate::types::hash::{HashRange, Token};
use crate::types::topology::Topology;

/// The owner of every point. Groups are numbered as they were given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ring {
    /// By token, each token once; never empty.
    points: Vec<Point>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Point {
    token: Token,
    group: usize,
}

impl Ring {
    /// The ring of the groups called `names`, which differ, with `vnodes` tokens each.
    ///
    /// # Panics
    /// Without a name or without tokens: nobody would own anything. A checked topology has both.
    pub fn new<S: AsRef<str>>(names: &[S], vnodes: u32) -> Self {
        let tokens = |(group, name): (usize, &S)| {
            let name = name.as_ref().to_owned();
            (0..vnodes).map(move |vnode| Point { token: Token::of_vnode(&name, vnode), group })
        };
        Self::arrange(names.iter().enumerate().flat_map(tokens).collect(), names)
    }

    fn arrange<S: AsRef<str>>(mut points: Vec<Point>, names: &[S]) -> Self {
        assert!(!points.is_empty(), "a ring without tokens");
        points.sort_by_key(|point| (point.token, names[point.group].as_ref()));
        points.dedup_by_key(|point| point.token);
        Self { points }
    }

    /// The ring of `topology`, whose groups it numbers in their order.
    pub(in crate::coordinator) fn of(topology: &Topology) -> Self {
        let names: Vec<&str> = topology.groups.iter().map(|group| group.name.as_str()).collect();
        Self::new(&names, topology.vnodes)
    }

    /// Which group owns `token`. Takes O(log n) for n tokens.
    pub fn owner(&self, token: Token) -> usize {
        let at = self.points.partition_point(|point| point.token < token);
        self.points.get(at).unwrap_or(&self.points[0]).group
    }

    /// What `group` owns, by upper end, neighbours merged.
    pub fn ranges_of(&self, group: usize) -> Vec<HashRange> {
        if self.points.iter().all(|point| point.group == group) {
            let end = self.points[0].token;
            return vec![HashRange { after: end, upto: end }];
        }
        let last = self.points.len() - 1;
        let mut ranges = Vec::new();
        // The last point that was another's: what follows up to one of ours is ours.
        let mut after = self.points.iter().rfind(|point| point.group != group).map(|p| p.token);
        for (at, point) in self.points.iter().enumerate() {
            let next = &self.points[if at == last { 0 } else { at + 1 }];
            if point.group != group {
                after = Some(point.token);
            } else if next.group != group
                && let Some(after) = after
            {
                ranges.push(HashRange { after, upto: point.token });
            }
        }
        ranges
    }

    /// The part of the ring that `group` owns, 0 to 1, to six places.
    pub(in crate::coordinator) fn share_of(&self, group: usize) -> f64 {
        const MILLION: u128 = 1_000_000;
        let width: u128 = self.ranges_of(group).iter().map(|range| range.width()).sum();
        // At most a million: exact in 32 bits.
        let millionths = u32::try_from((width * MILLION + (1 << 63)) >> 64).unwrap_or(u32::MAX);
        f64::from(millionths) / 1e6
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::types::ids::ClusterId;
    use crate::types::key::Key;
    use crate::types::topology::Claim;

    fn names(upto: u32) -> Vec<String> {
        (1..=upto).map(|n| format!("shard-{}", 4100 + n)).collect()
    }

    fn key_tokens(count: u32) -> impl Iterator<Item = Token> {
        (0..count).map(|n| Token::of_key(&Key::new(format!("user:{n}")).expect("key")))
    }

    fn claim(ring: &Ring, group: usize) -> Claim {
        let topology = Topology { cluster: ClusterId(1), epoch: 1, vnodes: 1, groups: Vec::new() };
        Claim { topology, owned: ring.ranges_of(group) }
    }

    #[test]
    fn a_fourth_name_takes_its_share_and_moves_nothing_else() {
        let (three, four) = (Ring::new(&names(3), 100), Ring::new(&names(4), 100));
        let mut moved = 0;
        for token in key_tokens(100_000) {
            let (before, after) = (three.owner(token), four.owner(token));
            if before != after {
                assert_eq!(after, 3, "moved to a name that was there before");
                moved += 1;
            }
        }
        assert!((15_000..=35_000).contains(&moved), "{moved} of 100000 keys moved");
    }

    /// Of the names that users give, by default or by hand.
    #[test]
    fn with_100_vnodes_the_fullest_of_8_groups_is_near_the_mean() {
        let letters: Vec<String> = ('a'..='h').map(String::from).collect();
        let words: Vec<String> = (1..=8).map(|n| format!("shard-{n}")).collect();
        let short: Vec<String> = (1..=8).map(|n| format!("s{n}")).collect();
        for names in [names(8), letters, words, short] {
            let ring = Ring::new(&names, 100);
            let mut keys = vec![0_u32; 8];
            key_tokens(100_000).for_each(|token| keys[ring.owner(token)] += 1);
            let fullest = f64::from(*keys.iter().max().expect("eight")) / 12_500.0;
            assert!(fullest <= 1.35, "{names:?}: the fullest holds {fullest} x the mean: {keys:?}");
        }
    }

    #[test]
    fn the_order_of_groups_does_not_matter() {
        let mut turned = names(5);
        let ring = Ring::new(&turned, 100);
        let owners: Vec<String> =
            key_tokens(10_000).map(|token| turned[ring.owner(token)].clone()).collect();
        turned.rotate_left(2);
        turned.swap(0, 3);
        let ring = Ring::new(&turned, 100);
        for (token, owner) in key_tokens(10_000).zip(owners) {
            assert_eq!(turned[ring.owner(token)], owner);
        }
    }

    #[test]
    fn the_ring_never_changes() {
        // By `sha256sum` over the texts a#0, a#1, a#2, b#0, b#1 and b#2.
        let golden = [
            "0ab14df98e9ade65 1",
            "0f902cf93256f2de 0",
            "38f8c89003c6dd20 1",
            "41794772eab729f3 1",
            "9fd357443296a7d1 0",
            "a090a256cb93456a 0",
        ];
        let ring = Ring::new(&["a", "b"], 3);
        let shown: Vec<String> =
            ring.points.iter().map(|p| format!("{:016x} {}", p.token.0, p.group)).collect();
        assert_eq!(shown, golden);
    }

    #[test]
    fn of_two_equal_tokens_the_smaller_name_counts() {
        let point = |token, group| Point { token: Token(token), group };
        let tied = || vec![point(7, 0), point(7, 1), point(9, 1)];
        assert_eq!(Ring::arrange(tied(), &["a", "b"]).owner(Token(7)), 0);
        assert_eq!(Ring::arrange(tied(), &["b", "a"]).owner(Token(7)), 1);
    }

    #[test]
    fn one_group_owns_the_whole_ring_in_one_range() {
        let ring = Ring::new(&["a"], 100);
        let owned = ring.ranges_of(0);
        assert_eq!(owned.len(), 1);
        assert_eq!(owned[0].width(), 1 << 64);
        assert!((ring.share_of(0) - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn ranges_partition_the_ring_as_owner_says(
            names in prop::collection::btree_set("[a-z]{1,6}", 1..9),
            vnodes in 1_u32..40,
            tokens in prop::collection::vec(any::<u64>(), 50),
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let ring = Ring::new(&names, vnodes);
            let claims: Vec<Claim> = (0..names.len()).map(|group| claim(&ring, group)).collect();
            let width: u128 =
                claims.iter().flat_map(|claim| &claim.owned).map(|range| range.width()).sum();
            prop_assert_eq!(width, 1 << 64);
            let mut ends = BTreeMap::new();
            for claim in &claims {
                prop_assert!(claim.owned.is_sorted_by(|a, b| a.upto < b.upto));
                for range in &claim.owned {
                    prop_assert!(ends.insert(range.after, range.upto).is_none());
                    // Merged: the range before is another's.
                    prop_assert!(
                        claim.owned.len() == 1
                            || claim.owned.iter().all(|other| other.upto != range.after)
                    );
                }
            }
            let edges = ring.points.iter().flat_map(|point| {
                let token = point.token.0;
                [token.wrapping_sub(1), token, token.wrapping_add(1)]
            });
            for token in edges.chain(tokens).chain([0, u64::MAX]).map(Token) {
                let owner = ring.owner(token);
                for (group, claim) in claims.iter().enumerate() {
                    prop_assert_eq!(claim.owns(token), group == owner);
                }
            }
            let shares: f64 = (0..names.len()).map(|group| ring.share_of(group)).sum();
            prop_assert!((shares - 1.0).abs() < 1e-5);
        }
    }
}
