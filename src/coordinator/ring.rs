//! Consistent hashing: which group owns which piece of the hash space. Pure.
//!
//! Each group stands on the ring with one token for each of its vnodes; a key belongs to the group
//! of the first token at or after its own, wrapping over the end (Karger et al., 1997; virtual
//! nodes as in Dynamo, SOSP '07). Tokens follow from names alone, so every coordinator computes the
//! same ring, whatever order it was given the groups in; equal tokens go to the smaller name.

use crate::types::hash::{HashRange, Token};

/// The ring of some groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::coordinator) struct Ring {
    /// Each token with the position of its group in the list the ring was made from; ascending.
    tokens: Vec<(Token, usize)>,
}

impl Ring {
    /// The ring of these group names, with `vnodes` tokens each. Names must be unique.
    pub(in crate::coordinator) fn new<S: AsRef<str>>(names: &[S], vnodes: u32) -> Self {
        let mut tokens: Vec<(Token, usize)> = names
            .iter()
            .enumerate()
            .flat_map(|(at, name)| {
                (0..vnodes).map(move |vnode| (Token::of_vnode(name.as_ref(), vnode), at))
            })
            .collect();
        tokens.sort_by(|(a, group_a), (b, group_b)| {
            a.cmp(b).then_with(|| names[*group_a].as_ref().cmp(names[*group_b].as_ref()))
        });
        tokens.dedup_by_key(|(token, _)| *token);
        Self { tokens }
    }

    /// The group that owns `token`; `None` on an empty ring. Takes O(log n).
    pub(in crate::coordinator) fn owner(&self, token: Token) -> Option<usize> {
        let at = self.tokens.partition_point(|(other, _)| *other < token);
        self.tokens.get(at).or_else(|| self.tokens.first()).map(|(_, group)| *group)
    }

    /// The ranges that `group` owns, by their upper end; neighbours are merged.
    pub(in crate::coordinator) fn ranges(&self, group: usize) -> Vec<HashRange> {
        let count = self.tokens.len();
        if count > 0 && self.tokens.iter().all(|(_, owner)| *owner == group) {
            let (last, _) = self.tokens[count - 1];
            return vec![HashRange { after: last, upto: last }];
        }
        let mut ranges = Vec::new();
        for at in 0..count {
            let (upto, owner) = self.tokens[at];
            let (_, next_owner) = self.tokens[(at + 1) % count];
            if owner != group || next_owner == group {
                continue;
            }
            // Back over the tokens of the same group that stand right before.
            let mut first = at;
            while self.tokens[(first + count - 1) % count].1 == group {
                first = (first + count - 1) % count;
            }
            let (after, _) = self.tokens[(first + count - 1) % count];
            ranges.push(HashRange { after, upto });
        }
        ranges
    }

    /// The part of the hash space that `group` owns, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub(in crate::coordinator) fn share(&self, group: usize) -> f64 {
        let width: u128 = self.ranges(group).into_iter().map(HashRange::width).sum();
        width as f64 / (1_u128 << 64) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::ids::ClusterId;
    use crate::types::key::Key;
    use crate::types::topology::{Claim, Topology};

    const KEYS: usize = 100_000;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|i| format!("shard-410{i}")).collect()
    }

    fn owners(ring: &Ring) -> Vec<usize> {
        let key = |i| Key::new(format!("key-{i}")).expect("key");
        (0..KEYS).map(|i| ring.owner(Token::of_key(&key(i))).expect("an owner")).collect()
    }

    #[test]
    fn a_fourth_group_takes_its_share_and_nothing_else_moves() {
        let before = owners(&Ring::new(&names(3), 100));
        let after = owners(&Ring::new(&names(4), 100));
        let moved: Vec<usize> =
            before.iter().zip(&after).filter(|(a, b)| a != b).map(|(_, b)| *b).collect();
        assert!(moved.iter().all(|owner| *owner == 3), "a key moved between old groups");
        let percent = moved.len() * 100 / KEYS;
        assert!((15..=35).contains(&percent), "{percent} % moved");
    }

    #[test]
    fn a_hundred_vnodes_balance_eight_groups() {
        let mut counts = [0_usize; 8];
        for owner in owners(&Ring::new(&names(8), 100)) {
            counts[owner] += 1;
        }
        let fullest = *counts.iter().max().expect("eight");
        assert!(fullest * 8 * 100 <= KEYS * 135, "the fullest has {fullest} of {KEYS}");
    }

    #[test]
    fn one_group_owns_everything() {
        let ring = Ring::new(&["only"], 100);
        assert_eq!(ring.ranges(0).len(), 1);
        assert!((ring.share(0) - 1.0).abs() < f64::EPSILON);
        assert_eq!(Ring::new::<&str>(&[], 100).owner(Token(1)), None);
    }

    proptest! {
        #[test]
        fn ranges_part_the_ring_as_owners_do(
            count in 1_usize..6, vnodes in 1_u32..20, tokens in prop::collection::vec(any::<u64>(), 50)
        ) {
            let names = names(count);
            let ring = Ring::new(&names, vnodes);
            let topology = Topology { cluster: ClusterId(1), epoch: 1, vnodes, groups: Vec::new() };
            let claims: Vec<Claim> = (0..count)
                .map(|at| Claim { topology: topology.clone(), owned: ring.ranges(at) })
                .collect();
            for token in tokens.into_iter().map(Token).chain(ring.tokens.iter().map(|(t, _)| *t)) {
                let owner = ring.owner(token).expect("an owner");
                for (at, claim) in claims.iter().enumerate() {
                    prop_assert_eq!(claim.owns(token), at == owner);
                }
            }
            let whole: f64 = (0..count).map(|at| ring.share(at)).sum();
            prop_assert!((whole - 1.0).abs() < 1e-9, "{}", whole);
        }

        #[test]
        fn the_order_of_the_groups_changes_nothing(
            order in Just(names(6)).prop_shuffle(), token in any::<u64>()
        ) {
            let plain = names(6);
            let (a, b) = (Ring::new(&plain, 50), Ring::new(&order, 50));
            let owner = |ring: &Ring, names: &[String]| {
                names[ring.owner(Token(token)).expect("an owner")].clone()
            };
            prop_assert_eq!(owner(&a, &plain), owner(&b, &order));
        }
    }
}
