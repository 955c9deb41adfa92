//! A run is valid only if enough happened, and an anomaly whatever happened.

use super::gaps::NS_PER_MS;
use super::*;
use crate::checker::Kind;
use crate::history::Told;
use crate::nemesis::FaultKind;

fn setup() -> Setup {
    Setup {
        workload: "register".into(),
        nemesis: vec!["kill".into()],
        target: "any".into(),
        bug: None,
        groups: 1,
        replicas: 3,
        coordinators: 1,
        clients: 1,
        duration_ms: 1000,
        deadline_ms: 2_000,
        seed: 1,
    }
}

fn fault(hold: Hold, failover_ms: Option<u64>) -> Fault {
    let (begin, end) = (200 * NS_PER_MS, 300 * NS_PER_MS);
    let (kind, what) = (FaultKind::Kill, "kill g1-r1 (leader)".into());
    let groups = vec!["g1".into()];
    Fault { kind, what, begin, end, groups, away: None, hold, leader: true, failover_ms }
}

/// Writes to a key of g1 that end at these milliseconds, how they end, one after the other.
fn writes(ends: &[(u64, Stage)]) -> Vec<Event> {
    let events = ends.iter().flat_map(|(end, stage)| {
        let event = |time, stage| Event {
            time,
            process: 0,
            stage,
            f: Action::Write,
            key: "k".into(),
            value: Value::Number(1),
            node: "n".into(),
            version: None,
            existed: None,
            group: Some("g1".into()),
            lag_ms: None,
            error: None,
        };
        [event(end * NS_PER_MS, Stage::Invoke), event(end * NS_PER_MS, *stage)]
    });
    events.collect()
}

fn judged(stages: &[Stage], faults: &[Fault], unread: usize) -> Results {
    let ends: Vec<(u64, Stage)> = (1..).zip(stages.iter().copied()).collect();
    let checked = Checked { unread, ..Checked::default() };
    judge(setup(), Some(Evidence::default()), checked, &writes(&ends), faults)
}

#[test]
fn a_run_is_valid_only_if_enough_happened() {
    let good = [fault(Hold::Installed, Some(100))];
    assert_eq!(judged(&[Stage::Ok], &good, 0).verdict, Verdict::Valid);
    let mostly_failed = [Stage::Ok, Stage::Fail, Stage::Fail, Stage::Info];
    assert_eq!(judged(&mostly_failed, &good, 0).verdict, Verdict::Void);
    assert_eq!(judged(&[Stage::Ok, Stage::Fail, Stage::Fail], &good, 0).verdict, Verdict::Valid);
    assert_eq!(judged(&[], &good, 0).verdict, Verdict::Void);
    assert_eq!(judged(&[Stage::Ok], &[], 0).verdict, Verdict::Void);
    assert_eq!(judged(&[Stage::Ok], &good, 1).verdict, Verdict::Void);
    for hold in [Hold::Skipped, Hold::Indeterminate] {
        assert_eq!(judged(&[Stage::Ok], &[fault(hold, Some(1))], 0).verdict, Verdict::Void);
    }
    let not_replaced = [fault(Hold::Installed, None)];
    let void = judged(&[Stage::Ok], &not_replaced, 0);
    assert_eq!(
        (void.verdict, void.reasons),
        (Verdict::Void, vec!["no leader was replaced".into()])
    );
}

#[test]
fn a_kind_that_was_asked_for_must_take_hold() {
    let nemesis = |names: &[&str]| {
        let nemesis = names.iter().map(|name| (*name).to_string()).collect();
        let setup = Setup { nemesis, ..setup() };
        let faults = [fault(Hold::Installed, Some(1))];
        let events = writes(&[(1, Stage::Ok)]);
        judge(setup, Some(Evidence::default()), Checked::default(), &events, &faults)
    };
    assert_eq!(nemesis(&["kill"]).verdict, Verdict::Valid);
    let void = nemesis(&["kill", "pause"]);
    let reasons = vec!["no fault of the kind pause took hold".to_string()];
    assert_eq!((void.verdict, void.reasons), (Verdict::Void, reasons));
    // Which kinds of a mix are drawn, and whether at all, is left to the seed.
    assert_eq!(nemesis(&["mix"]).verdict, Verdict::Valid);
}

#[test]
fn an_anomaly_is_one_also_when_little_happened() {
    let (kind, key, events) = (Kind::ServerDied, "g1-r1".into(), Vec::new());
    let died = Anomaly { kind, key, detail: "it ended".into(), events };
    let evidence = Some(Evidence { anomalies: vec![died.clone()], ..Evidence::default() });
    let results = judge(setup(), evidence, Checked::default(), &[], &[]);
    assert_eq!((results.verdict, results.anomalies), (Verdict::Anomaly, vec![died]));
}

#[test]
fn a_run_that_was_broken_off_shows_nothing_but_what_was_wrong() {
    let good = [fault(Hold::Installed, Some(1))];
    let events = writes(&[(1, Stage::Ok)]);
    let results = judge(setup(), None, Checked::default(), &events, &good);
    assert_eq!(results.verdict, Verdict::Unknown);
    let broken = crate::page::synthetic::anomaly("k", Vec::new());
    let checked = Checked { anomalies: vec![broken], ..Checked::default() };
    assert_eq!(judge(setup(), None, checked, &events, &good).verdict, Verdict::Anomaly);
}

#[test]
fn every_action_must_succeed_now_and_then() {
    let faults = [fault(Hold::Installed, Some(1))];
    let verdict = |failed: usize, ok: usize, lag_ms: Option<u64>| {
        let stages = [vec![Stage::Fail; failed], vec![Stage::Ok; ok]].concat();
        let ends: Vec<(u64, Stage)> = (1000..).zip(stages).collect();
        let mut events = writes(&ends);
        for event in &mut events {
            event.f = Action::StaleRead;
            event.lag_ms = lag_ms;
        }
        let many: Vec<(u64, Stage)> = (1..).zip([Stage::Ok; 200]).collect();
        let events = [writes(&many), events].concat();
        judge(setup(), Some(Evidence::default()), Checked::default(), &events, &faults).verdict
    };
    assert_eq!(verdict(100, 1, Some(1)), Verdict::Void);
    assert_eq!(verdict(40, 0, Some(1)), Verdict::Valid);
    assert_eq!(verdict(100, 3, Some(1)), Verdict::Valid);
    assert_eq!(verdict(0, 100, Some(1)), Verdict::Valid);
    assert_eq!(verdict(0, 100, None), Verdict::Void);
}

#[test]
fn who_gave_up_knows_nothing() {
    let checked = Checked { unknown: vec!["too hard".into()], ..Checked::default() };
    let faults = [fault(Hold::Installed, Some(1))];
    let results =
        judge(setup(), Some(Evidence::default()), checked, &writes(&[(1, Stage::Ok)]), &faults);
    assert_eq!((results.verdict, results.reasons), (Verdict::Unknown, vec!["too hard".into()]));
}

#[test]
fn a_gap_belongs_to_the_faults_that_it_overlaps() {
    let ends = [(100, Stage::Ok), (250, Stage::Fail), (290, Stage::Ok), (900, Stage::Ok)];
    let evidence = Some(Evidence { attacked: 1_000 * NS_PER_MS, ..Evidence::default() });
    let faults = [fault(Hold::Installed, Some(7))];
    let results = judge(setup(), evidence, Checked::default(), &writes(&ends), &faults);
    let kill = &results.faults["kill"];
    // From the write at 290 ms, during the fault, to the one at 900 ms.
    assert_eq!((&kill.gaps_ms, &kill.leader_gaps_ms), (&vec![610], &vec![610]));
    assert_eq!((results.longest_gap_ms, &kill.failovers_ms), (610, &vec![7]));
}

#[test]
fn another_group_hides_no_gap() {
    let mut of_other = writes(&[(150, Stage::Ok), (400, Stage::Ok), (900, Stage::Ok)]);
    for event in &mut of_other {
        (event.key, event.group) = ("other".into(), Some("g2".into()));
    }
    let mut events = [writes(&[(100, Stage::Ok), (700, Stage::Ok)]), of_other].concat();
    events.sort_by_key(|event| event.time);
    let evidence = Evidence { attacked: 1_000 * NS_PER_MS, ..Evidence::default() };
    let judged = |groups: &[&str]| {
        let groups = groups.iter().map(|group| (*group).to_string()).collect();
        let faults = [Fault { groups, ..fault(Hold::Installed, Some(7)) }];
        judge(setup(), Some(evidence.clone()), Checked::default(), &events, &faults)
    };
    assert_eq!(judged(&["g1"]).faults["kill"].gaps_ms, [600]);
    assert_eq!(judged(&["g2"]).faults["kill"].gaps_ms, [250]);
    assert_eq!(judged(&[]).faults["kill"].gaps_ms, [600]);
    assert_eq!(judged(&[]).longest_gap_ms, 600);
}

#[test]
fn a_group_that_stalls_while_nothing_is_broken_has_failed() {
    let verdict = |tries: u64, begin: u64, end: u64| {
        let refused = (0..tries).map(|at| (12_000 + at, Stage::Fail));
        let ends = [vec![(50, Stage::Ok)], refused.collect(), vec![(20_000, Stage::Ok)]].concat();
        let stalled = Fault {
            begin: begin * NS_PER_MS,
            end: end * NS_PER_MS,
            ..fault(Hold::Installed, Some(7))
        };
        let many: Vec<(u64, Stage)> = (1..).zip([Stage::Ok; 40]).collect();
        let events = [writes(&many), writes(&ends)].concat();
        let evidence = Some(Evidence { attacked: 20_000 * NS_PER_MS, ..Evidence::default() });
        judge(setup(), evidence, Checked::default(), &events, &[stalled]).verdict
    };
    assert_eq!(verdict(30, 100, 300), Verdict::Anomaly);
    // Nobody tried, or the fault lasted.
    assert_eq!(verdict(10, 100, 300), Verdict::Valid);
    assert_eq!(verdict(30, 9_000, 12_000), Verdict::Valid);
    assert_eq!(verdict(30, 100, 10_000), Verdict::Valid);
}

#[test]
fn what_watchers_were_told_is_counted() {
    let event = |f, stage, value| {
        let mut event = writes(&[(1, stage)]).remove(1);
        (event.f, event.value) = (f, value);
        event
    };
    let told = Told {
        key: "k".into(),
        kind: "put".into(),
        value: Value::Number(1),
        version: 1,
        id: "id".into(),
    };
    let told = Value::Told { told: vec![told.clone(), told] };
    let events = [
        event(Action::WatchBegin, Stage::Fail, Value::None),
        event(Action::WatchBegin, Stage::Ok, Value::None),
        event(Action::Watch, Stage::Ok, told),
        event(Action::WatchResume, Stage::Fail, Value::None),
        event(Action::WatchResume, Stage::Ok, Value::None),
        event(Action::WatchBegin, Stage::Ok, Value::None),
    ];
    let expected = Watched { watchers: 1, changes: 2, resumed: 1, gaps: 1 };
    assert_eq!(watched(&events), Some(expected));
    assert_eq!(watched(&writes(&[(1, Stage::Ok)])), None);
}
