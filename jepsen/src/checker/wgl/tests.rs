//! Hand-made histories of each anomaly and of what only looks like one; then random ones, against
//! a checker that tries every order.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const STEPS_MAX: u64 = 1_000_000;

/// A history in a line: `w1` writes 1, `d` removes, `r1` reads 1, `c12` replaces 1 by 2. `w1` alone
/// begins and ends there; `a:w1(` begins as `a` and `a)` ends; `a?` says that it never will.
fn history(steps: &str) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut open: Vec<(&str, usize)> = Vec::new();
    for (step, time) in steps.split_whitespace().zip((0..).step_by(2)) {
        if let Some(name) = step.strip_suffix(')') {
            let at = open.iter().find(|(known, _)| *known == name).expect("it began").1;
            operations[at].ret = Some(time);
        } else if let Some((name, what)) = step.split_once(':') {
            open.push((name, operations.len()));
            let input = input(what.trim_end_matches('('));
            operations.push(Operation { call: time, ret: None, input });
        } else {
            let input = input(step);
            operations.push(Operation { call: time, ret: Some(time + 1), input });
        }
    }
    operations
}

fn input(what: &str) -> Input {
    let digit = |at: usize| u64::from(what.as_bytes()[at] - b'0');
    match &what[..1] {
        "w" => Input::Write(digit(1)),
        "d" => Input::Write(0),
        "r" => Input::Read(digit(1)),
        "c" => Input::Cas { from: digit(1), to: digit(2) },
        _ => panic!("{what}"),
    }
}

fn violation(steps: &str) -> Vec<usize> {
    match check(&history(steps), STEPS_MAX) {
        Verdict::Violation(minimal) => minimal,
        other => panic!("{steps}: {other:?}"),
    }
}

fn is_fine(steps: &str) {
    assert_eq!(check(&history(steps), STEPS_MAX), Verdict::Linearizable, "{steps}");
}

#[test]
fn a_stale_read_is_found() {
    assert_eq!(violation("w1 w2 r1"), [0, 1, 2]);
    // Of much that is fine, only what matters is shown.
    assert_eq!(violation("r0 w3 r3 r3 w1 r1 w2 r2 r1 w4 r4"), [4, 6, 8]);
    is_fine("w1 a:w2( r1 r2 a)");
    is_fine("w1 a:r1( w2 a)");
}

#[test]
fn a_lost_update_is_found() {
    assert_eq!(violation("w1 a:c12( b:c13( a) b)"), [0, 1, 2]);
    is_fine("w1 a:c12( b:c23( a) b) r3");
    is_fine("w1 c12 a:w1( c13 a) r3");
}

#[test]
fn a_removed_key_that_comes_back_is_found() {
    assert_eq!(violation("w1 d r1"), [0, 1, 2]);
    // Other removals, observed or not, are not part of it.
    assert_eq!(violation("w2 d r0 d w3 d r0 w1 d r1"), [7, 8, 9]);
    is_fine("w1 a:d( r1 r0 a) r0");
}

#[test]
fn two_orders_at_a_time_are_found() {
    // Two leaders: one client sees 1 then 2, the other 2 then 1.
    violation("a:w1( b:w2( p:r1( p) q:r2( q) s:r1( s) a) b)");
    is_fine("a:w1( b:w2( p:r1( p) q:r2( q) a) b)");
    is_fine("a:w1( b:w2( p:r1( q:r2( s:r1( q) p) s) a) b)");
}

#[test]
fn a_value_from_nowhere_is_found() {
    assert_eq!(violation("w1 r2"), [1]);
    assert_eq!(violation("r1 w1"), [0]);
}

#[test]
fn what_is_of_unknown_fate_happens_once_late_or_never() {
    is_fine("w1 a:w2( r1 r1");
    is_fine("w1 a:w2( r1 r2 r2");
    is_fine("w1 a:c12( r1 r2");
    is_fine("w1 a:d( r1 r0 w2 r2");
    // Twice.
    violation("a:w1( w2 r1 w3 r1");
    violation("w1 a:d( r0 w2 r0");
    is_fine("w1 a:d( b:d( r0 w2 r0");
    // Not before it began.
    violation("w1 r2 a:w2(");
    // Nobody saw it, so it costs nothing: there are many.
    let steps: Vec<String> = (0..40).map(|at| format!("{at}:w2( ")).collect();
    is_fine(&format!("{} w1 r1 w3 r3", steps.concat()));
}

#[test]
fn who_takes_too_many_steps_gives_up() {
    assert_eq!(check(&history("w1 w2 r1"), 2), Verdict::Unknown);
}

/// The value after an operation, if it can happen with this value.
fn after(value: u64, input: Input) -> Option<u64> {
    match input {
        Input::Write(new) => Some(new),
        Input::Cas { from, to } => (from == value).then_some(to),
        Input::Read(read) => (read == value).then_some(value),
    }
}

/// Tries every order of every choice of the open operations.
fn brute_force(operations: &[Operation]) -> bool {
    fn extend(operations: &[Operation], taken: u32, value: u64) -> bool {
        let left = |at: &usize| taken & (1 << at) == 0;
        let all = 0..operations.len();
        if all.clone().filter(left).all(|at| operations[at].ret.is_none()) {
            return true;
        }
        let first_end = all.clone().filter(left).filter_map(|at| operations[at].ret).min();
        all.filter(left).any(|at| {
            let may = first_end.is_none_or(|end| operations[at].call < end);
            may && after(value, operations[at].input)
                .is_some_and(|value| extend(operations, taken | (1 << at), value))
        })
    }
    extend(operations, 0, 0)
}

/// Up to seven operations at random times with few values, some of unknown fate. Values may be
/// written twice, which the search does not mind.
fn small_history() -> impl Strategy<Value = Vec<Operation>> {
    let one = (0..4_u8, 0..4_u64, 0..4_u64, any::<u16>(), any::<u16>(), 0..4_u8);
    proptest::collection::vec(one, 1..8).prop_map(|drawn| {
        let mut times: Vec<(u16, usize)> = Vec::new();
        for (at, (_, _, _, call, ret, _)) in drawn.iter().enumerate() {
            times.push((*call.min(ret), 2 * at));
            times.push((*call.max(ret), 2 * at + 1));
        }
        times.sort_unstable();
        let place = |id: usize| times.iter().position(|(_, known)| *known == id).expect("there");
        let operations = drawn.iter().enumerate().map(|(at, (f, a, b, _, _, fate))| {
            let input = match f {
                0 => Input::Write(*a),
                1 => Input::Cas { from: *a, to: *b },
                _ => Input::Read(*a),
            };
            let unknown = *fate == 0 && !matches!(input, Input::Read(_));
            let ret = (!unknown).then(|| place(2 * at + 1));
            Operation { call: place(2 * at), ret, input }
        });
        let mut operations: Vec<Operation> = operations.collect();
        operations.sort_unstable_by_key(|one| one.call);
        operations
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn it_says_what_trying_every_order_says(operations in small_history()) {
        match check(&operations, STEPS_MAX) {
            Verdict::Linearizable => prop_assert!(brute_force(&operations)),
            Verdict::Violation(minimal) => {
                prop_assert!(!brute_force(&operations));
                let part: Vec<Operation> = minimal.iter().map(|at| operations[*at]).collect();
                prop_assert!(!brute_force(&part), "the part is fine: {part:?}");
            }
            Verdict::Unknown => prop_assert!(false, "seven operations are few"),
        }
    }
}

/// A real register with clients that wait a random time before and after each operation happens;
/// one in fifty writes is of unknown fate, and half of those happen, perhaps much later.
fn simulated(seed: u64, clients: usize, count: usize) -> Vec<Operation> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut free_at = vec![0_u64; clients];
    // (when it happens, operation, whether it answers, its end)
    let mut plans = Vec::new();
    let mut begun = Vec::new();
    for number in 0..count {
        let client = rng.random_range(0..clients);
        let call = free_at[client] + rng.random_range(1..100);
        let happens = call + rng.random_range(1..1_000);
        let mut end = Some(happens + rng.random_range(1..1_000));
        let kind = rng.random_range(0..10);
        let mut when = Some(happens);
        if kind < 4 && rng.random_ratio(1, 50) {
            end = None;
            when = rng.random_bool(0.5).then(|| happens + rng.random_range(0..100_000));
        }
        free_at[client] = end.unwrap_or(call + 2_000);
        begun.push((call, end, kind, number));
        plans.extend(when.map(|when| (when, number)));
    }
    plans.sort_unstable();
    let (mut value, mut inputs) = (0, vec![None; count]);
    for (_, number) in plans {
        let new = u64::try_from(number).expect("small") + 1;
        let input = match begun[number].2 {
            0..3 => Input::Write(new),
            3 => Input::Write(0),
            4 if begun[number].1.is_some() => Input::Cas { from: value, to: new },
            _ => Input::Read(value),
        };
        value = after(value, input).expect("it fits");
        inputs[number] = Some(input);
    }
    let mut times: Vec<(u64, usize, bool)> = Vec::new();
    for (call, end, _, number) in &begun {
        times.push((*call, *number, false));
        times.extend(end.map(|end| (end, *number, true)));
    }
    times.sort_unstable();
    let mut operations: Vec<Option<Operation>> = vec![None; count];
    for (order, (_, number, is_end)) in times.into_iter().enumerate() {
        if is_end {
            operations[number].as_mut().expect("it began").ret = Some(order);
        } else {
            let new = u64::try_from(number).expect("small") + 1;
            let input = inputs[number].unwrap_or(Input::Write(new));
            operations[number] = Some(Operation { call: order, ret: None, input });
        }
    }
    let mut operations: Vec<Operation> = operations.into_iter().flatten().collect();
    operations.sort_unstable_by_key(|one| one.call);
    operations
}

#[test]
fn what_a_real_register_did_is_linearizable() {
    for seed in 0..40 {
        let operations = simulated(seed, 20, 1_000);
        assert_eq!(check(&operations, 100_000_000), Verdict::Linearizable, "seed {seed}");
    }
}

#[test]
fn a_wrong_answer_among_many_is_found() {
    let mut found = 0;
    for seed in 0..20 {
        let mut operations = simulated(seed, 5, 400);
        let read = |one: &Operation| matches!(one.input, Input::Read(value) if value > 1);
        let at = operations.iter().rposition(read).expect("there are reads");
        // What was there long before.
        let first = operations.iter().find_map(|one| match one.input {
            Input::Write(value) if value > 0 => Some(value),
            Input::Write(_) | Input::Cas { .. } | Input::Read(_) => None,
        });
        operations[at].input = Input::Read(first.expect("there are writes"));
        match check(&operations, 100_000_000) {
            Verdict::Violation(minimal) => {
                assert!(minimal.contains(&at) && minimal.len() < 12, "{minimal:?}");
                found += 1;
            }
            Verdict::Linearizable => {}
            Verdict::Unknown => panic!("seed {seed}"),
        }
    }
    assert!(found >= 18, "{found} of 20");
}

/// `cargo test --release -p jepsen -- --ignored --nocapture how_long`.
#[test]
#[ignore = "prints how long it takes; only a release build says something"]
fn how_long_it_takes() {
    for (keys, count) in [(100, 1_000), (10, 10_000), (1, 100_000)] {
        let histories: Vec<_> = (0..keys).map(|seed| simulated(seed, 20, count)).collect();
        let start = std::time::Instant::now();
        let unknown = histories.iter().filter(|one| check(one, 1_000_000_000) == Verdict::Unknown);
        let unknown = unknown.count();
        let took = start.elapsed();
        eprintln!("{keys} keys of {count} operations, 20 clients: {took:?}, {unknown} unknown");
    }
}
