//! Whether coordinators waited for faults that are shorter than their clients' patience.
//!
//! A coordinator holds a session with each group, so it may send a write again until the deadline:
//! what a fault costs its clients is time. So `504` and `503` at the deadline are only right if the
//! group could hardly have served meanwhile. Here that is: whenever less than a majority of it was
//! up, for as long as an election may take after that and after each loss of a replica, which may
//! have been the leader; and whenever the coordinator itself was struck. If what is left of the
//! request's time has a stretch that is long enough to answer many requests, it gave up; and so it did if
//! nothing was broken all the time, however short that was. And whatever was
//! broken: a `504` means that the deadline has passed, so one that comes long before it is wrong.
//!
//! Which replicas a fault takes away is known of those that strike processes or cut one off. Of every
//! other fault it is assumed that it takes the whole group away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::gaps::NS_PER_MS;
use crate::checker::{Anomaly, Kind};
use crate::history::{Event, Stage};
use crate::nemesis::{Fault, Hold};
use crate::results::{Patience, Setup};

/// What an election may take, with a lease to wait for before and commits to catch up with behind.
const ELECTION: u64 = 3_000 * NS_PER_MS;
/// What a process may take to serve that was started or woken.
const WAKING: u64 = 1_500 * NS_PER_MS;
/// A group that can serve for so long answers.
const CALM: u64 = 1_500 * NS_PER_MS;

/// A stretch of time, in nanoseconds since the run began.
type Span = (u64, u64);

/// Coordinators that gave up although their group could serve, and how many had a reason to.
pub(super) fn patience(
    setup: &Setup,
    events: &[Event],
    faults: &[Fault],
) -> (Patience, Vec<Anomaly>) {
    let mut patience = Patience::default();
    let mut anomalies = Vec::new();
    let mut troubles: BTreeMap<(&str, &str), Vec<Span>> = BTreeMap::new();
    let owners: HashMap<&str, &str> =
        events.iter().filter_map(|event| Some((&*event.key, &**event.group.as_ref()?))).collect();
    let mut open: HashMap<u32, usize> = HashMap::new();
    for (at, event) in events.iter().enumerate() {
        if event.stage == Stage::Invoke {
            open.insert(event.process, at);
            continue;
        }
        let Some(began) = open.remove(&event.process) else { continue };
        if !event.node.starts_with("coordinator") || !gave_up(event) {
            continue;
        }
        // Nobody ever answered for it, so nobody knows whose faults were in its way.
        let Some(group) = owners.get(&*event.key).copied() else {
            patience.excused += 1;
            continue;
        };
        let spans = troubles
            .entry((group, &event.node))
            .or_insert_with(|| troubled(setup.replicas, (group, &event.node), faults));
        let calm = longest_calm((events[began].time, event.time), spans);
        let took_ms = (event.time - events[began].time) / NS_PER_MS;
        let early = event.stage == Stage::Info && took_ms < setup.deadline_ms / 2;
        let untroubled = calm == event.time - events[began].time;
        if calm < CALM && !untroubled && !early {
            patience.excused += 1;
            continue;
        }
        patience.gave_up += 1;
        let detail = format!(
            "{} gave up after {took_ms} of {} ms, of which {group} could serve {} ms on end: {}",
            event.node,
            setup.deadline_ms,
            calm / NS_PER_MS,
            event.error.as_deref().unwrap_or_default(),
        );
        let (kind, key) = (Kind::GaveUp, Arc::clone(&event.key));
        anomalies.push(Anomaly { kind, key, detail, events: vec![began, at] });
    }
    (patience, anomalies)
}

/// Whether a server answered that it can't say, or can't serve. That it has too much to do may be said at any
/// time.
fn gave_up(event: &Event) -> bool {
    let error = event.error.as_deref().unwrap_or_default();
    let refused = error.starts_with("503 ") && !error.contains(r#""code":"overloaded""#);
    error.starts_with("504 ") || refused
}

/// When it could not be expected of `group` that it answers what `coordinator` asks; in order.
fn troubled(replicas: u16, (group, coordinator): (&str, &str), faults: &[Fault]) -> Vec<Span> {
    let mut spans = Vec::new();
    // By time: the replicas that a fault takes away and gives back.
    let mut steps: Vec<(u64, i32, &str)> = Vec::new();
    let struck = |fault: &&Fault| {
        let names_it = fault.groups.is_empty() || fault.groups.iter().any(|name| name == group);
        fault.hold != Hold::Skipped && names_it
    };
    for fault in faults.iter().filter(struck) {
        let back = fault.end + WAKING;
        let Some(away) = &fault.away else {
            spans.push((fault.begin, back + ELECTION));
            continue;
        };
        if away.iter().any(|name| name == coordinator) {
            spans.push((fault.begin, back));
        }
        for name in away.iter().filter(|name| is_of(name, group)) {
            steps.extend([(fault.begin, 1, name.as_str()), (back, -1, name.as_str())]);
            spans.push((fault.begin, fault.begin + ELECTION));
        }
    }
    steps.sort_unstable();
    let spare = usize::from((replicas - 1) / 2);
    // How many faults each is struck by: two of one replica take one away.
    let mut struck_by: BTreeMap<&str, i32> = BTreeMap::new();
    let mut since = None;
    for (time, step, name) in steps {
        *struck_by.entry(name).or_default() += step;
        let away = struck_by.values().filter(|faults| **faults > 0).count();
        match since {
            None if away > spare => since = Some(time),
            Some(begin) if away <= spare => {
                spans.push((begin, time + ELECTION));
                since = None;
            }
            Some(_) | None => {}
        }
    }
    spans.sort_unstable();
    spans
}

/// Whether a process is a replica of this group: `g1-r2` is one of `g1`.
fn is_of(name: &str, group: &str) -> bool {
    name.strip_prefix(group).is_some_and(|rest| rest.starts_with('-'))
}

/// The longest part of a stretch that none of these spans, in order, overlaps.
fn longest_calm((from, to): Span, spans: &[Span]) -> u64 {
    let (mut longest, mut calm_since) = (0, from);
    for (begin, end) in spans.iter().filter(|(begin, end)| *end > from && *begin < to) {
        longest = longest.max(begin.saturating_sub(calm_since));
        calm_since = calm_since.max(*end);
    }
    longest.max(to.saturating_sub(calm_since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Value};
    use crate::nemesis::FaultKind;
    use crate::page::synthetic::setup;

    /// A write to g1 through `coordinator-1` from 10,000 ms on that ends so after ten seconds.
    fn write(error: Option<&str>) -> Vec<Event> {
        let event = |time, stage, group: Option<&str>, error: Option<&str>| Event {
            time: time * NS_PER_MS,
            process: 0,
            stage,
            f: Action::Write,
            key: "k".into(),
            value: Value::Number(1),
            node: "coordinator-1".into(),
            version: None,
            existed: None,
            group: group.map(Into::into),
            lag_ms: None,
            error: error.map(Into::into),
        };
        vec![
            event(0, Stage::Invoke, None, None),
            event(1, Stage::Ok, Some("g1"), None),
            event(10_000, Stage::Invoke, None, None),
            event(20_000, Stage::Info, None, error),
        ]
    }

    fn fault((begin, end): (u64, u64), away: Option<&[&str]>, groups: &[&str]) -> Fault {
        Fault {
            kind: FaultKind::Kill,
            what: "kill".into(),
            begin: begin * NS_PER_MS,
            end: end * NS_PER_MS,
            groups: groups.iter().map(ToString::to_string).collect(),
            away: away.map(|names| names.iter().map(ToString::to_string).collect()),
            hold: Hold::Installed,
            leader: false,
            failover_ms: None,
        }
    }

    #[test]
    fn only_a_deadline_that_has_passed_makes_a_write_unknown() {
        let broken = [fault((9_000, 19_000), None, &[])];
        let ends = |after_ms: u64, stage, error: &str| {
            let mut events = write(Some(error));
            events[3].time = (10_000 + after_ms) * NS_PER_MS;
            events[3].stage = stage;
            let setup = Setup { deadline_ms: 10_000, ..setup() };
            patience(&setup, &events, &broken).0.gave_up
        };
        assert_eq!(ends(4_000, Stage::Info, "504 Gateway Timeout {}"), 1);
        assert_eq!(ends(9_000, Stage::Info, "504 Gateway Timeout {}"), 0);
        assert_eq!(ends(4_000, Stage::Fail, "503 Service Unavailable {}"), 0);
    }

    fn found(error: Option<&str>, faults: &[Fault]) -> (u64, u64) {
        let (patience, anomalies) = patience(&setup(), &write(error), faults);
        assert_eq!(anomalies.len() as u64, patience.gave_up);
        (patience.gave_up, patience.excused)
    }

    #[test]
    fn who_gives_up_while_nothing_is_broken_has_no_excuse() {
        assert_eq!(found(Some("504 Gateway Timeout {}"), &[]), (1, 0));
        assert_eq!(found(Some("503 Service Unavailable {}"), &[]), (1, 0));
        assert_eq!(found(Some("connection reset"), &[]), (0, 0));
        assert_eq!(found(None, &[]), (0, 0));
        assert_eq!(found(Some(r#"503 Service Unavailable {"code":"overloaded"}"#), &[]), (0, 0));
    }

    #[test]
    fn a_short_time_without_trouble_is_no_excuse() {
        let quick = |faults: &[Fault]| {
            let mut events = write(Some("503 Service Unavailable {}"));
            (events[3].time, events[3].stage) = (10_005 * NS_PER_MS, Stage::Fail);
            patience(&setup(), &events, faults).0.gave_up
        };
        assert_eq!(quick(&[]), 1);
        assert_eq!(quick(&[fault((9_000, 11_000), Some(&["g1-r1"]), &["g1"])]), 0);
    }

    #[test]
    fn a_key_that_nobody_ever_answered_for_says_nothing() {
        let mut events = write(Some("504 Gateway Timeout {}"));
        events[1].group = None;
        let (patience, anomalies) = patience(&setup(), &events, &[]);
        assert_eq!((patience.gave_up, patience.excused, anomalies.len()), (0, 1, 0));
    }

    #[test]
    fn the_loss_of_one_replica_excuses_as_long_as_an_election_takes() {
        let one = |begin, end| fault((begin, end), Some(&["g1-r1"]), &["g1"]);
        let gave_up = |faults: &[Fault]| found(Some("504 Gateway Timeout {}"), faults).0;
        assert_eq!(gave_up(&[one(9_000, 30_000)]), 1);
        assert_eq!(gave_up(&[one(12_000, 15_000)]), 1);
        // One after the other, so that elections take all the time.
        assert_eq!(gave_up(&[one(9_000, 9_100), one(12_500, 12_600), one(16_000, 16_500)]), 0);
        // Of another group.
        let other = fault((10_000, 20_000), Some(&["g2-r1", "g2-r2"]), &["g2"]);
        assert_eq!(gave_up(&[other]), 1);
    }

    #[test]
    fn a_group_without_a_majority_can_not_serve() {
        let gave_up = |faults: &[Fault]| found(Some("504 Gateway Timeout {}"), faults).0;
        let two = |end| fault((9_000, end), Some(&["g1-r1", "g1-r2"]), &["g1"]);
        assert_eq!(gave_up(&[two(19_000)]), 0);
        assert_eq!(gave_up(&[two(12_000)]), 1);
        // Of two faults each takes one.
        let one = |name, end| fault((9_000, end), Some(&[name]), &["g1"]);
        assert_eq!(gave_up(&[one("g1-r1", 19_000), one("g1-r3", 18_000)]), 0);
        assert_eq!(gave_up(&[one("g1-r1", 19_000), one("g1-r3", 11_000)]), 1);
        // Both take the same.
        assert_eq!(gave_up(&[one("g1-r1", 19_000), one("g1-r1", 18_000)]), 1);
        // Of all groups, or with nobody knows what result.
        assert_eq!(gave_up(&[fault((9_000, 19_000), None, &[])]), 0);
        assert_eq!(gave_up(&[fault((9_000, 19_000), None, &["g1"])]), 0);
        assert_eq!(gave_up(&[fault((9_000, 19_000), None, &["g10"])]), 1);
        let skipped = Fault { hold: Hold::Skipped, ..fault((9_000, 19_000), None, &[]) };
        assert_eq!(gave_up(&[skipped]), 1);
    }

    #[test]
    fn a_coordinator_that_is_struck_answers_nothing() {
        let gave_up = |faults: &[Fault]| found(Some("504 Gateway Timeout {}"), faults).0;
        let struck = |name, end| fault((9_000, end), Some(&[name]), &[]);
        assert_eq!(gave_up(&[struck("coordinator-1", 18_000)]), 0);
        assert_eq!(gave_up(&[struck("coordinator-1", 14_000)]), 1);
        assert_eq!(gave_up(&[struck("coordinator-2", 18_000)]), 1);
    }
}
