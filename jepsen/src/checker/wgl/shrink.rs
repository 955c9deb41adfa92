//! Cuts a history that has no order down to what shows it.
//!
//! Everything that is left out is left out in a way that never makes a history worse that has an
//! order, so what is kept is wrong for a reason of its own. Bounded like the search: a part that
//! takes too many steps is kept whole.

use std::collections::BTreeSet;

use crate::checker::wgl::{Input, Operation, observes, search, writes};

/// A part of a history that has no order, from which nothing can be left out.
///
/// What is left out never makes a history worse that has an order: a read; or all that has to do
/// with one value, its write and whatever observed it, because what came next in an order then
/// replaces the value; or what began after everything that observes had ended.
pub(super) fn shrink(operations: &[Operation], steps_max: u64) -> Vec<usize> {
    let broken = |kept: &[usize]| {
        let part: Vec<Operation> = kept.iter().map(|at| operations[*at]).collect();
        search(&part, steps_max) == Some(false)
    };
    // First everything that begins after it is broken already, by halves.
    let (mut fine, mut enough) = (0, operations.len());
    let mut kept: Vec<usize> = (0..operations.len()).collect();
    while fine + 1 < enough {
        let middle = fine.midpoint(enough);
        let part = until(operations, middle);
        if broken(&part) {
            (enough, kept) = (middle, part);
        } else {
            fine = middle;
        }
    }
    // Removals are alike: one of them can be left out only if nobody observed any.
    let unobserved = without_observers_of_nothing(operations, &kept);
    if broken(&unobserved) {
        kept = unobserved;
    }
    for one in kept.clone().into_iter().rev() {
        if !kept.contains(&one) {
            continue;
        }
        let nothing_observed = kept.iter().all(|at| observes(operations[*at]) != Some(0));
        let without: Vec<usize> = match operations[one].input {
            Input::Read(_) => kept.iter().copied().filter(|other| *other != one).collect(),
            Input::Write(0) if nothing_observed => {
                kept.iter().copied().filter(|other| *other != one).collect()
            }
            Input::Write(value) | Input::Cas { to: value, .. } => {
                without_value(operations, &kept, value)
            }
        };
        if without.len() < kept.len() && broken(&without) {
            kept = without;
        }
    }
    kept
}

/// What is kept, less everything that observed that there was no value.
fn without_observers_of_nothing(operations: &[Operation], kept: &[usize]) -> Vec<usize> {
    let mut rest = kept.to_vec();
    for at in kept {
        match operations[*at].input {
            Input::Read(0) => rest.retain(|other| other != at),
            Input::Cas { from: 0, to } => rest = without_value(operations, &rest, to),
            Input::Read(_) | Input::Cas { .. } | Input::Write(_) => {}
        }
    }
    rest
}

/// The first `count` operations, less those that may have observed a later one.
fn until(operations: &[Operation], count: usize) -> Vec<usize> {
    let Some(first_left_out) = operations.get(count) else {
        return (0..operations.len()).collect();
    };
    let late = |one: &Operation| one.ret.is_some_and(|ret| ret > first_left_out.call);
    let mut kept: Vec<usize> = (0..count).collect();
    for (at, one) in operations[..count].iter().enumerate().filter(|(_, one)| late(one)) {
        match one.input {
            Input::Write(_) => {}
            Input::Read(_) => kept.retain(|other| *other != at),
            Input::Cas { to, .. } => kept = without_value(operations, &kept, to),
        }
    }
    kept
}

/// What is kept, less everything that has to do with `value`: who wrote it and who observed it, and
/// of a compare-and-set from it also who observed what it wrote.
fn without_value(operations: &[Operation], kept: &[usize], value: u64) -> Vec<usize> {
    let mut gone = BTreeSet::from([value]);
    loop {
        let before = gone.len();
        for at in kept {
            if let Input::Cas { from, to } = operations[*at].input
                && gone.contains(&from)
            {
                gone.insert(to);
            }
        }
        if gone.len() == before {
            break;
        }
    }
    let stays = |at: &&usize| {
        let one = operations[**at];
        let touched = [observes(one), writes(one)];
        touched.into_iter().flatten().all(|value| !gone.contains(&value))
    };
    kept.iter().filter(stays).copied().collect()
}
