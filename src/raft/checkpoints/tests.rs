//! Nobody is condemned but by a majority of all voters, and nobody that a majority agrees with.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::store::apply::apply;
use crate::types::ids::{LogId, StateHash};
use crate::types::log::{Entry, Payload};

fn checkpoint(index: Index, hash: u64) -> Checkpoint {
    Checkpoint { id: LogId { term: 1, leader: NodeId(1), index }, hash: StateHash(hash) }
}

/// `at` are indexes and hashes.
fn checkpoints(at: &[(Index, u64)]) -> Checkpoints {
    let taken = at.iter().map(|(index, hash)| checkpoint(*index, *hash)).collect();
    Checkpoints { digest: digest::VERSION, taken }
}

fn voters(sets: &[&[u64]]) -> Vec<BTreeSet<NodeId>> {
    sets.iter().map(|set| set.iter().copied().map(NodeId).collect()).collect()
}

/// What node 1 hears about itself; the others that answered are nodes 2, 3, ….
fn judged(mine: &[(Index, u64)], others: &[&[(Index, u64)]], sets: &[&[u64]]) -> Judgement {
    let others = (2..).map(NodeId).zip(others.iter().map(|at| checkpoints(at))).collect();
    judge((NodeId(1), &checkpoints(mine)), &others, &voters(sets))
}

/// Where a majority agrees, and what this replica is condemned for.
type Verdict = (Option<Index>, Option<(Index, u64)>);

fn verdict(judgement: Judgement) -> Verdict {
    let condemned = judgement.condemned;
    (judgement.agreed, condemned.map(|found| (found.theirs.id.index, found.theirs.hash.0)))
}

#[test]
fn only_a_majority_of_all_voters_condemns() {
    const THREE: &[&[u64]] = &[&[1, 2, 3]];
    const FIVE: &[&[u64]] = &[&[1, 2, 3, 4, 5]];
    type Case<'a> = (&'a [(Index, u64)], &'a [&'a [(Index, u64)]], &'a [&'a [u64]]);
    type Expected<'a> = (Case<'a>, Option<Index>, Option<(Index, u64)>);
    let one = |at: Index| Some((at, 1));
    let cases: [Expected<'_>; 19] = [
        // A group of one, and one of two: there is never a majority against one.
        ((&[(512, 1)], &[], &[&[1]]), Some(512), None),
        ((&[(512, 1)], &[&[(512, 1)]], &[&[1, 2]]), Some(512), None),
        ((&[(512, 2)], &[&[(512, 1)]], &[&[1, 2]]), None, None),
        // Of three.
        ((&[(512, 1)], &[&[(512, 1)]], THREE), Some(512), None),
        ((&[(512, 2)], &[&[(512, 1)], &[(512, 1)]], THREE), None, one(512)),
        ((&[(512, 2)], &[&[(512, 1)]], THREE), None, None),
        ((&[(512, 2)], &[&[(512, 1)], &[(512, 3)]], THREE), None, None),
        ((&[(512, 2)], &[&[(512, 2)], &[(512, 1)]], THREE), Some(512), None),
        // At different indexes nothing can be compared.
        ((&[(512, 2)], &[&[(1024, 1)], &[(1024, 1)]], THREE), None, None),
        ((&[(512, 2)], &[&[(512, 1)], &[(1024, 1)]], THREE), None, None),
        ((&[], &[&[(512, 1)], &[(512, 1)]], THREE), None, None),
        // The first difference, the newest agreement.
        (
            (
                &[(512, 1), (1024, 2), (1536, 2)],
                &[&[(512, 1), (1024, 1), (1536, 1)], &[(512, 1), (1024, 1), (1536, 1)]],
                THREE,
            ),
            Some(512),
            one(1024),
        ),
        ((&[(512, 1), (1024, 1)], &[&[(512, 1), (1024, 1)]], THREE), Some(1024), None),
        // Two of five that answer are no majority, though all that answered agree.
        ((&[(512, 2)], &[&[(512, 1)], &[(512, 1)]], FIVE), None, None),
        ((&[(512, 2)], &[&[(512, 1)], &[(512, 1)], &[(512, 1)]], FIVE), None, one(512)),
        // Half of four is none either.
        ((&[(512, 2)], &[&[(512, 1)], &[(512, 1)], &[(512, 2)]], &[&[1, 2, 3, 4]]), None, None),
        // Learners (4 and 5) say nothing.
        ((&[(512, 2)], &[&[(512, 1)], &[], &[(512, 1)], &[(512, 1)]], THREE), None, None),
        // Two configurations at a time: a majority of each.
        ((&[(512, 2)], &[&[(512, 1)], &[(512, 1)]], &[&[1, 2, 3], &[1, 4, 5]]), None, None),
        // Nobody votes yet.
        ((&[(512, 2)], &[&[(512, 1)], &[(512, 1)]], &[]), None, None),
    ];
    for (at, ((mine, others, sets), agreed, condemned)) in cases.into_iter().enumerate() {
        assert_eq!(verdict(judged(mine, others, sets)), (agreed, condemned), "case {at}");
    }
}

#[test]
fn one_that_listens_is_judged_by_the_voters() {
    let sets: &[&[u64]] = &[&[2, 3, 4]];
    let agree: &[&[(Index, u64)]] = &[&[(512, 1)], &[(512, 1)]];
    assert_eq!(verdict(judged(&[(512, 1)], agree, sets)), (Some(512), None));
    assert_eq!(verdict(judged(&[(512, 2)], agree, sets)), (None, Some((512, 1))));
}

#[test]
fn another_entry_at_the_same_index_is_another_state() {
    let mut other = checkpoints(&[(512, 1)]);
    other.taken[0].id.term = 2;
    let others = [(NodeId(2), other.clone()), (NodeId(3), other.clone())].into();
    let mine = checkpoints(&[(512, 1)]);
    let judgement = judge((NodeId(1), &mine), &others, &voters(&[&[1, 2, 3]]));
    assert_eq!(judgement.condemned.map(|found| found.theirs), Some(other.taken[0]));
    assert!(matches!(compare(&mine, &other), Compared::Differ(_)));
}

#[test]
fn hashes_of_another_version_say_nothing() {
    let mut other = checkpoints(&[(512, 1)]);
    other.digest += 1;
    let others = [(NodeId(2), other.clone()), (NodeId(3), other.clone())].into();
    let mine = checkpoints(&[(512, 2)]);
    let judgement = judge((NodeId(1), &mine), &others, &voters(&[&[1, 2, 3]]));
    assert_eq!(judgement, Judgement::default());
    assert_eq!(compare(&mine, &other), Compared::Nothing);
}

#[test]
fn two_are_compared_at_the_newest_index_that_both_have() {
    let mine = checkpoints(&[(512, 1), (1024, 2), (1536, 3)]);
    for (theirs, same) in [
        (vec![], None),
        (vec![(2048, 3)], None),
        (vec![(512, 1)], Some(true)),
        (vec![(512, 9), (1024, 2)], Some(true)),
        (vec![(512, 1), (1024, 9)], Some(false)),
        (vec![(1536, 3), (2048, 9)], Some(true)),
    ] {
        let found = match compare(&mine, &checkpoints(&theirs)) {
            Compared::Nothing => None,
            Compared::Same => Some(true),
            Compared::Differ(_) => Some(false),
        };
        assert_eq!(found, same, "{theirs:?}");
    }
}

#[test]
fn a_checkpoint_is_taken_at_each_due_index_and_the_newest_are_kept() {
    let (record, mut state) = (Record::default(), State::default());
    let mut expected = Vec::new();
    let entries = CHECKPOINT_ENTRIES * (CHECKPOINTS_MAX as u64 + 3) + 7;
    for index in 0..entries {
        let id = LogId { term: 1, leader: NodeId(1), index };
        state.version_floor = index;
        apply(&mut state, &Entry { id, payload: Payload::Blank });
        record.note(&state);
        if index.is_multiple_of(CHECKPOINT_ENTRIES) {
            expected.push(Checkpoint { id, hash: state.hash() });
        }
    }
    let newest = expected.split_off(expected.len() - CHECKPOINTS_MAX);
    assert_eq!(record.checkpoints().taken, newest);
    record.begin_anew();
    assert_eq!(record.checkpoints().taken, []);
}

/// What each of seven nodes says: at a few indexes, one of three states.
fn said() -> impl Strategy<Value = Vec<BTreeMap<u64, u64>>> {
    vec(btree_map(0..4_u64, 1..4_u64, 0..4), 7)
}

proptest! {
    /// Counted by hand, in the plainest way.
    #[test]
    fn a_verdict_has_a_majority_behind_it(said in said(), size in 1..=7_usize) {
        let set: Vec<u64> = (1..=size as u64).collect();
        let mine: Vec<_> = said[0].clone().into_iter().collect();
        let others: Vec<Vec<_>> =
            said[1..].iter().map(|one| one.clone().into_iter().collect()).collect();
        let others: Vec<&[_]> = others.iter().map(Vec::as_slice).collect();
        let judgement = judged(&mine, &others, &[&set]);
        let behind = |index: Index, hash: u64| {
            let voters = said[..size].iter();
            voters.filter(|one| one.get(&index) == Some(&hash)).count() * 2 > size
        };
        let condemned = said[0].iter().find_map(|(index, own)| {
            (1..4).find(|hash| hash != own && behind(*index, *hash)).map(|hash| (*index, hash))
        });
        let agreed = said[0].iter().rev().find(|(index, own)| behind(**index, **own));
        prop_assert_eq!(verdict(judgement), (agreed.map(|(index, _)| *index), condemned));
    }

    /// However many differ, those that are condemned leave a majority that is not.
    #[test]
    fn a_majority_is_never_condemned(said in said(), size in 1..=7_usize) {
        let all: BTreeMap<NodeId, Checkpoints> = (1..).map(NodeId).zip(said.iter().map(|one| {
            checkpoints(&one.clone().into_iter().collect::<Vec<_>>())
        })).collect();
        let set: Vec<u64> = (1..=size as u64).collect();
        for index in 0..4 {
            // At one index; what follows from several is the sum of what follows from each.
            let at_index = |all: &Checkpoints| Checkpoints {
                taken: all.taken.iter().copied().filter(|one| one.id.index == index).collect(),
                ..*all
            };
            let all: BTreeMap<NodeId, Checkpoints> =
                all.iter().map(|(node, one)| (*node, at_index(one))).collect();
            let condemned = set.iter().filter(|node| {
                let me = NodeId(**node);
                judge((me, &all[&me]), &all, &voters(&[&set])).condemned.is_some()
            });
            prop_assert!(condemned.count() * 2 < size);
        }
    }
}
