//! Runs that never were, for tests and for a look at the page.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ops;
use crate::checker::{Anomaly, Kind};
use crate::history::{Action, Counts, Event, Stage, Value};
use crate::nemesis::{Fault, FaultKind, Hold};
use crate::results::{FaultFigures, Patience, Results, Setup, Verdict};

const MS: u64 = 1_000_000;
const KEYS: usize = 10;

/// An event of the key `k`.
pub(crate) fn event(time: u64, process: u32, stage: Stage, f: Action, value: Value) -> Event {
    let (key, node) = ("k".into(), "c1".into());
    let (version, existed, group, lag_ms, error) = Default::default();
    Event { time, process, stage, f, key, value, node, version, existed, group, lag_ms, error }
}

/// A stale read that these events show.
pub(crate) fn anomaly(key: &str, events: Vec<usize>) -> Anomaly {
    let detail = "read 41, but 43 was acknowledged before it began".into();
    Anomaly { kind: Kind::StaleRead, key: key.into(), detail, events }
}

/// How the run was started.
pub(crate) fn setup() -> Setup {
    Setup {
        workload: "register".into(),
        nemesis: ["kill", "pause", "partition"].map(String::from).into(),
        target: "any".into(),
        bug: None,
        groups: 2,
        replicas: 3,
        coordinators: 2,
        clients: 20,
        duration_ms: 60_000,
        deadline_ms: 2_000,
        seed: 42,
    }
}

/// A run of 60 s with faults of several kinds and about this many operations.
pub(crate) fn run(operations: u64) -> (Results, Vec<Event>, Vec<Fault>) {
    let mut rng = StdRng::seed_from_u64(7);
    let faults = faults(&mut rng);
    let mut history = history(&mut rng, &faults, operations);
    let events = make_stale(&mut history);
    let mut anomaly = anomaly("register-3", events);
    let [write, _, read] = anomaly.events[..] else { unreachable!("three events show it") };
    let (written, read) = (ops::full(&history[write].value), ops::full(&history[read].value));
    anomaly.detail = format!("read {read}, but {written} was acknowledged before it began");
    (results(&history, &faults, anomaly), history, faults)
}

fn faults(rng: &mut StdRng) -> Vec<Fault> {
    let kinds = [
        (FaultKind::Kill, "kill -9 the leader of shard-1"),
        (FaultKind::Pause, "SIGSTOP the leader of shard-2"),
        (FaultKind::Partition, "cut n3 off, both ways"),
        (FaultKind::Slow, "80 ms ± 40 ms between n1 and n2"),
        (FaultKind::Clock, "n2 jumps 5 s ahead"),
    ];
    let mut faults = Vec::new();
    let mut begin = 3_000 * MS;
    while begin < 57_000 * MS {
        let (kind, what) = kinds[rng.random_range(0..kinds.len())];
        let end = begin + rng.random_range(500..4_000) * MS;
        let hold = match (kind, faults.len() % 7) {
            (FaultKind::Clock, _) => Hold::Skipped,
            (_, 6) => Hold::Indeterminate,
            (_, _) => Hold::Installed,
        };
        let failover_ms = (kind == FaultKind::Kill).then(|| rng.random_range(120..900));
        let end = if hold == Hold::Skipped { begin } else { end };
        let leader = failover_ms.is_some();
        let what = what.into();
        let groups = Vec::new();
        faults.push(Fault {
            kind,
            what,
            begin,
            end,
            groups,
            away: None,
            hold,
            leader,
            failover_ms,
        });
        begin += rng.random_range(1_000..4_500) * MS;
    }
    faults
}

/// Trouble at this time: how likely an operation fails, and how much longer it takes.
fn trouble(faults: &[Fault], time: u64) -> (f64, u64) {
    let now = faults.iter().filter(|fault| fault.begin <= time && time < fault.end);
    let each = now.map(|fault| match fault.kind {
        FaultKind::Kill if time < fault.begin + fault.failover_ms.unwrap_or(0) * MS => (0.8, 4),
        FaultKind::Pause if time < fault.begin + 1_500 * MS => (0.5, 300),
        FaultKind::Slow => (0.0, 40),
        FaultKind::Partition => (0.1, 10),
        _ => (0.0, 1),
    });
    each.fold((0.0, 1), |(p, slow), (q, more)| (f64::max(p, q), slow.max(more)))
}

fn history(rng: &mut StdRng, faults: &[Fault], operations: u64) -> Vec<Event> {
    let mut begins: Vec<(u64, u32)> = Vec::new();
    let pause = 60_000 * MS * 20 / operations;
    let mut ops = Vec::new();
    for client in 0..20_u32 {
        begins.push((rng.random_range(0..pause), client));
    }
    let mut numbers = [0; KEYS];
    let keys: Vec<Arc<str>> = (0..KEYS).map(|key| format!("register-{key}").into()).collect();
    let nodes: [Arc<str>; 2] = ["c1".into(), "c2".into()];
    while let Some(at) = (0..begins.len()).min_by_key(|at| begins[*at].0) {
        let (time, process) = begins[at];
        if time > 60_000 * MS {
            break;
        }
        let (p, slow) = trouble(faults, time);
        let key = rng.random_range(0..KEYS);
        let write = rng.random_bool(0.4);
        let node = &nodes[process as usize % 2];
        let took = rng.random_range(300_000..2 * MS) * rng.random_range(1..=slow)
            + if rng.random_bool(0.01) { rng.random_range(0..30 * MS) } else { 0 };
        let stage = match rng.random_bool(p) {
            true if rng.random_bool(0.3) => Stage::Info,
            true => Stage::Fail,
            false => Stage::Ok,
        };
        let mut begin = event(time, process, Stage::Invoke, Action::Read, Value::None);
        (begin.key, begin.node) = (Arc::clone(&keys[key]), Arc::clone(node));
        if write {
            numbers[key] += 1;
            (begin.f, begin.value) = (Action::Write, Value::Number(numbers[key]));
        }
        let mut end = Event { time: time + took, stage, ..begin.clone() };
        if stage == Stage::Ok {
            end.value = Value::Number(numbers[key]);
            end.version = Some(numbers[key]);
        } else {
            end.error = Some("503 Service Unavailable {\"error\":\"no_leader\"}".into());
        }
        let next = if stage == Stage::Info { process + 20 } else { process };
        begins[at] = (end.time + rng.random_range(0..pause), next);
        ops.extend([begin, end]);
    }
    ops.sort_by_key(|event| event.time);
    ops
}

/// Makes one read of `register-3` stale and says which events show it.
fn make_stale(history: &mut [Event]) -> Vec<usize> {
    let of_key = |event: &Event| &*event.key == "register-3" && event.stage == Stage::Ok;
    let write = history
        .iter()
        .position(|event| event.time > 34_000 * MS && of_key(event) && event.f == Action::Write);
    let write = write.expect("somebody writes");
    let begins = |event: &Event| &*event.key == "register-3" && event.f == Action::Read;
    let begin = write + 1 + history[write + 1..].iter().position(begins).expect("and reads");
    let process = history[begin].process;
    let end = history[begin + 1..].iter().position(|event| event.process == process);
    let end = begin + 1 + end.expect("and the read ends");
    let Value::Number(written) = history[write].value else { unreachable!("a write") };
    history[begin].stage = Stage::Invoke;
    history[end].stage = Stage::Ok;
    history[end].error = None;
    history[end].value = Value::Number(written.saturating_sub(2));
    vec![write, begin, end]
}

fn results(history: &[Event], faults: &[Fault], anomaly: Anomaly) -> Results {
    let count = |stage| history.iter().filter(|event| event.stage == stage).count() as u64;
    let mut figures: BTreeMap<String, FaultFigures> = BTreeMap::new();
    for fault in faults {
        let of_kind = figures.entry(format!("{:?}", fault.kind).to_lowercase()).or_default();
        match fault.hold {
            Hold::Installed => of_kind.installed += 1,
            Hold::Skipped => of_kind.skipped += 1,
            Hold::Indeterminate => of_kind.indeterminate += 1,
        }
        of_kind.failovers_ms.extend(fault.failover_ms);
        of_kind.failovers_ms.sort_unstable();
        if fault.hold != Hold::Skipped {
            of_kind.gaps_ms.push(fault.failover_ms.unwrap_or(20));
            of_kind.gaps_ms.sort_unstable();
        }
    }
    Results {
        setup: setup(),
        verdict: Verdict::Anomaly,
        reasons: Vec::new(),
        counts: Counts {
            ok: count(Stage::Ok),
            failed: count(Stage::Fail),
            unknown: count(Stage::Info),
        },
        faults: figures,
        longest_gap_ms: 912,
        recovered_ms: Some(340),
        patience: Patience::default(),
        watched: None,
        anomalies: vec![anomaly],
    }
}
