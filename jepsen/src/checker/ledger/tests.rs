//! Hand-made histories: each anomaly is found, and what only looks like one is not.
//!
//! A history is a line of steps: `w1+` is a write of 1 that was acknowledged, `w1-` one that was
//! refused, `w1?` one of unknown fate, `r1` a read of 1, `f1` a final read. `w1(` and `r(` begin
//! and `w1)`, `w1!` (refused), `r1)` end what overlaps with the steps between. `s1@30` is a stale read
//! of 1 that says it is at most 30 ms old, `l1` a lease read. Events are 10 ms apart.

use super::*;
use crate::checker::unread;

/// The writer's process; readers that overlap are told apart by a letter before their `r`.
const WRITER: u32 = 0;

fn events(steps: &str) -> Vec<Event> {
    let mut events: Vec<Event> = steps.split_whitespace().flat_map(step).collect();
    for (event, time) in events.iter_mut().zip((0..).step_by(10)) {
        event.time = time * NS_PER_MS;
    }
    events
}

fn step(step: &str) -> Vec<Event> {
    let (process, step) = match step.split_at(1) {
        ("a", rest) => (2, rest),
        ("b", rest) => (3, rest),
        _ => (1, step),
    };
    let (letter, rest) = step.split_at(1);
    let (rest, lag) = rest.split_once('@').map_or((rest, None), |(rest, lag)| (rest, Some(lag)));
    let lag_ms = lag.map(|lag| lag.parse().expect("milliseconds"));
    let number = rest.trim_end_matches(|mark: char| !mark.is_ascii_digit());
    let mark = &rest[number.len()..];
    let value = number.parse().map_or(Value::None, Value::Number);
    let f = match letter {
        "w" => Action::Write,
        "r" => Action::Read,
        "f" => Action::FinalRead,
        "s" => Action::StaleRead,
        "l" => Action::LeaseRead,
        _ => panic!("{step}"),
    };
    let process = if f == Action::Write { WRITER } else { process };
    let stages: &[Stage] = match mark {
        "" | "+" => &[Stage::Invoke, Stage::Ok],
        "-" => &[Stage::Invoke, Stage::Fail],
        "?" => &[Stage::Invoke, Stage::Info],
        "(" => &[Stage::Invoke],
        ")" => &[Stage::Ok],
        "!" => &[Stage::Fail],
        _ => panic!("{step}"),
    };
    let event = |stage: &Stage| Event {
        time: 0,
        process,
        stage: *stage,
        f,
        key: "k".into(),
        value: value.clone(),
        node: "".into(),
        version: None,
        existed: None,
        group: None,
        lag_ms,
        error: None,
    };
    stages.iter().map(event).collect()
}

fn observed(steps: &str) -> Checker {
    let mut checker = Checker::default();
    for (at, event) in events(steps).iter().enumerate() {
        checker.observe(at, event);
    }
    checker
}

fn check(steps: &str) -> Vec<Kind> {
    observed(steps).anomalies().iter().map(|anomaly| anomaly.kind).collect()
}

#[test]
fn what_is_linearizable_is_valid() {
    let valid = [
        "r0 w1+ r1 w2+ r2 f2",
        // A read that overlaps a write sees it or not.
        "w1+ w2( r1 r1 w2) r2",
        "w1+ w2( r2 w2) f2",
        "w1+ ar( w2+ ar1)",
        "w1+ ar( w2+ ar2)",
        // Two reads that overlap each other may see either order.
        "w1+ w2( ar( br( br2) ar1) w2) f2",
        // A write of unknown fate takes effect late, or never.
        "w1+ w2? r1 r1 f1",
        "w1+ w2? r1 r2 f2",
        // A refused write is never there; the next one is.
        "w1- r0 w2+ r2 f2",
        "w1+ w2- r1 w3+ f3",
        // A read without an answer says nothing.
        "w1+ r-  r1 f1",
    ];
    for steps in valid {
        assert_eq!(check(steps), [], "{steps}");
    }
}

#[test]
fn a_lost_write_is_found() {
    assert_eq!(check("w1+ f0"), [Kind::LostWrite]);
    assert_eq!(check("w1+ w2+ r2 f1"), [Kind::LostWrite]);
}

#[test]
fn a_stale_read_is_found() {
    assert_eq!(check("w1+ r0 f1"), [Kind::StaleRead]);
    assert_eq!(check("w1+ w2+ w3( r1 w3) f3"), [Kind::StaleRead]);
    // It began before the second write, but after the first.
    assert_eq!(check("w1+ ar( w2+ ar0)"), [Kind::StaleRead]);
}

#[test]
fn a_read_that_goes_back_is_found() {
    // The write is still under way, but somebody has seen it already.
    assert_eq!(check("w1+ w2( ar2 br1 w2)"), [Kind::ReadWentBack]);
    // Its fate is unknown, but it was seen: it has taken effect for good.
    assert_eq!(check("w1+ w2? r2 r1"), [Kind::ReadWentBack]);
    assert_eq!(check("w1? r1 f0"), [Kind::ReadWentBack]);
}

#[test]
fn a_lease_read_is_as_fresh_as_any() {
    assert_eq!(check("w1+ l1 w2+ l2 f2"), []);
    assert_eq!(check("w1+ l0 f1"), [Kind::StaleRead]);
    assert_eq!(check("w1+ w2( l2 l1 w2)"), [Kind::ReadWentBack]);
}

#[test]
fn a_stale_read_is_as_old_as_it_says() {
    // The writes are acknowledged at 10 and 30 ms, the read begins at 40 ms.
    assert_eq!(check("w1+ w2+ s2@0 f2"), []);
    assert_eq!(check("w1+ w2+ s1@10 f2"), []);
    assert_eq!(check("w1+ w2+ s1@8 f2"), [Kind::StaleRead]);
    assert_eq!(check("w1+ w2+ s0@30 f2"), []);
    assert_eq!(check("w1+ w2+ s0@28 f2"), [Kind::StaleRead]);
    // It may go back, and what it has seen stays.
    assert_eq!(check("w1+ w2( r2 s1@0 w2) f2"), []);
    assert_eq!(check("w1+ w2( s2@0 r1 w2) f2"), [Kind::ReadWentBack]);
    // But it sees nothing that is not there.
    assert_eq!(check("w1+ s2@1000"), [Kind::ReadFromFuture]);
    assert_eq!(check("w1- s1@1000"), [Kind::FailedWriteSeen]);
}

#[test]
fn a_refused_write_that_is_seen_is_found() {
    assert_eq!(check("w1- r1"), [Kind::FailedWriteSeen]);
    assert_eq!(check("w1+ w2- w3+ f2"), [Kind::FailedWriteSeen]);
    // Seen first, refused afterwards.
    assert_eq!(check("w1( r1 w1!"), [Kind::FailedWriteSeen]);
}

#[test]
fn values_from_nowhere_are_found() {
    assert_eq!(check("w1+ r2"), [Kind::ReadFromFuture]);
    assert_eq!(check("r1"), [Kind::ReadFromFuture]);
    let mut checker = Checker::default();
    for mut event in events("r0") {
        if event.stage == Stage::Ok {
            event.value = Value::Foreign { foreign: "what another key holds".into() };
        }
        checker.observe(0, &event);
    }
    assert_eq!(checker.anomalies()[0].kind, Kind::ForeignValue);
}

#[test]
fn keys_without_a_final_read_are_known() {
    let unread = |steps: &str| unread(&events(steps));
    assert_eq!(unread("w1+ r1"), 1);
    assert_eq!(unread("w1? f-"), 1);
    assert_eq!(unread("w1- f0"), 0);
    assert_eq!(unread("w1+ f1"), 0);
    assert_eq!(unread("r0"), 0);
}
