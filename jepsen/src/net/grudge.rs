//! Who does not hear whom: sets of directed links, each (from, to), as a partition cuts them.
//! Pure; what is drawn follows from the generator.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Directed links.
pub(crate) type Links = Vec<(usize, usize)>;

/// Every link between two of these.
pub(crate) fn all_links(nodes: &[usize]) -> Links {
    let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
    pairs.filter(|(from, to)| from != to).collect()
}

/// Two parts that don't hear each other; one of them is a majority.
pub(crate) fn halves(rng: &mut StdRng, nodes: &[usize]) -> Links {
    let mut nodes = nodes.to_vec();
    nodes.shuffle(rng);
    let (one, other) = nodes.split_at(nodes.len() / 2);
    between(one, other)
}

/// Two parts that don't hear each other, and one node that hears both and is heard by both.
pub(crate) fn bridge(rng: &mut StdRng, nodes: &[usize]) -> Links {
    let mut nodes = nodes.to_vec();
    nodes.shuffle(rng);
    nodes.pop();
    let (one, other) = nodes.split_at(nodes.len() / 2);
    between(one, other)
}

/// One node hears nobody and is heard by nobody.
pub(crate) fn isolate(node: usize, nodes: &[usize]) -> Links {
    let others: Vec<usize> = nodes.iter().copied().filter(|other| *other != node).collect();
    between(&[node], &others)
}

/// One node is heard by nobody but hears all, or hears nobody but is heard by all.
pub(crate) fn one_way(rng: &mut StdRng, node: usize, nodes: &[usize]) -> Links {
    let out = rng.random_bool(0.5);
    let mut links = isolate(node, nodes);
    links.retain(|(from, _)| (*from == node) == out);
    links
}

/// Each link with this probability.
pub(crate) fn random_links(rng: &mut StdRng, nodes: &[usize], probability: f64) -> Links {
    let mut links = all_links(nodes);
    links.retain(|_| rng.random_bool(probability));
    links
}

/// Every link between a node of one part and one of the other.
fn between(one: &[usize], other: &[usize]) -> Links {
    let pairs = one.iter().flat_map(|a| other.iter().flat_map(move |b| [(*a, *b), (*b, *a)]));
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    const NODES: [usize; 5] = [2, 3, 5, 7, 11];

    /// Who hears `node`, if these links are cut.
    fn heard_by(node: usize, cut: &Links) -> BTreeSet<usize> {
        let others = NODES.iter().copied().filter(|to| *to != node);
        others.filter(|to| !cut.contains(&(node, *to))).collect()
    }

    fn draws(mut draw: impl FnMut(&mut StdRng)) {
        for seed in 0..200 {
            draw(&mut StdRng::seed_from_u64(seed));
        }
    }

    #[test]
    fn halves_hear_themselves_and_nobody_else() {
        draws(|rng| {
            let cut = halves(rng, &NODES);
            for node in NODES {
                let mut side = heard_by(node, &cut);
                side.insert(node);
                assert!(side.len() == 2 || side.len() == 3, "{cut:?}");
                for friend in &side {
                    let mut theirs = heard_by(*friend, &cut);
                    theirs.insert(*friend);
                    assert_eq!(theirs, side, "{cut:?}");
                }
            }
        });
    }

    #[test]
    fn a_bridge_is_heard_by_all_and_everybody_by_a_majority() {
        draws(|rng| {
            let cut = bridge(rng, &NODES);
            let bridges = NODES.iter().filter(|node| heard_by(**node, &cut).len() == 4);
            assert_eq!(bridges.count(), 1, "{cut:?}");
            assert!(NODES.iter().all(|node| heard_by(*node, &cut).len() >= 2), "{cut:?}");
        });
    }

    #[test]
    fn who_is_isolated_hears_nobody() {
        let cut = isolate(5, &NODES);
        assert_eq!(heard_by(5, &cut), BTreeSet::new());
        assert_eq!(heard_by(2, &cut), BTreeSet::from([3, 7, 11]));
    }

    #[test]
    fn one_way_cuts_one_way() {
        let mut ways = BTreeSet::new();
        draws(|rng| {
            let cut = one_way(rng, 5, &NODES);
            let out = heard_by(5, &cut).len();
            let into = NODES.iter().filter(|node| heard_by(**node, &cut).contains(&5)).count();
            assert_eq!(out + into, 4, "{cut:?}");
            ways.insert(out);
        });
        assert_eq!(ways, BTreeSet::from([0, 4]));
    }

    #[test]
    fn links_are_drawn_with_their_probability() {
        let mut rng = StdRng::seed_from_u64(1);
        let all = all_links(&NODES).len();
        assert_eq!(all, 20);
        let drawn: usize = (0..100).map(|_| random_links(&mut rng, &NODES, 0.3).len()).sum();
        assert!((400..800).contains(&drawn), "{drawn} of {}", all * 100);
    }
}
