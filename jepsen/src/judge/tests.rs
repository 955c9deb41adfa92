//! A run is valid only if enough happened, and an anomaly whatever happened.

use super::*;
use crate::history::Value;
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
        seed: 1,
    }
}

fn fault(hold: Hold, failover_ms: Option<u64>) -> Fault {
    let (begin, end) = (200 * NS_PER_MS, 300 * NS_PER_MS);
    let (kind, what) = (FaultKind::Kill, "kill g1-r1 (leader)".into());
    Fault { kind, what, begin, end, hold, leader: true, failover_ms }
}

/// Writes that end at these milliseconds, how they end, one after the other.
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
    judge(setup(), Evidence::default(), checked, &writes(&ends), faults)
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
        judge(setup, Evidence::default(), Checked::default(), &events, &faults)
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
    let evidence = Evidence { died: vec!["g1-r1 ended".into()], ..Evidence::default() };
    let results = judge(setup(), evidence, Checked::default(), &[], &[]);
    assert_eq!(results.verdict, Verdict::Anomaly);
}

#[test]
fn who_gave_up_knows_nothing() {
    let checked = Checked { unknown: vec!["too hard".into()], ..Checked::default() };
    let faults = [fault(Hold::Installed, Some(1))];
    let results = judge(setup(), Evidence::default(), checked, &writes(&[(1, Stage::Ok)]), &faults);
    assert_eq!((results.verdict, results.reasons), (Verdict::Unknown, vec!["too hard".into()]));
}

#[test]
fn a_gap_belongs_to_the_faults_that_it_overlaps() {
    let ends = [(100, Stage::Ok), (250, Stage::Fail), (290, Stage::Ok), (900, Stage::Ok)];
    let evidence = Evidence { attacked: Duration::from_secs(1), ..Evidence::default() };
    let faults = [fault(Hold::Installed, Some(7))];
    let results = judge(setup(), evidence, Checked::default(), &writes(&ends), &faults);
    let kill = &results.faults["kill"];
    // From the write at 290 ms, during the fault, to the one at 900 ms.
    assert_eq!((&kill.gaps_ms, &kill.leader_gaps_ms), (&vec![610], &vec![610]));
    assert_eq!((results.longest_gap_ms, &kill.failovers_ms), (610, &vec![7]));
}
