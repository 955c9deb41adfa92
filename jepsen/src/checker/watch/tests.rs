//! Hand-made histories of everything that may go wrong with a watch, and of what only looks like it; and
//! random ones of a group that is right, which are then bent.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::page::synthetic;
use crate::workload::watch::ALL;

/// A history that is written step by step. Watchers are processes from 100 on.
#[derive(Default)]
struct History(Vec<Event>);

impl History {
    fn event(
        &mut self,
        process: u32,
        stage: Stage,
        f: Action,
        (key, value): (&str, Value),
    ) -> &mut Event {
        let at = self.0.len() as u64;
        let event = synthetic::event(at, process, stage, f, value);
        self.0.push(Event { key: key.into(), group: Some("g1".into()), ..event });
        self.0.last_mut().expect("it was just put there")
    }

    /// A write of `number`, 0 for a delete: from its beginning to its end.
    fn begin(&mut self, process: u32, key: &str, number: u64) {
        let f = if number == 0 { Action::Delete } else { Action::Write };
        self.event(process, Stage::Invoke, f, (key, Value::Number(number)));
    }

    fn end(&mut self, process: u32, key: &str, number: u64, end: Result<u64, Stage>) {
        let f = if number == 0 { Action::Delete } else { Action::Write };
        let stage = end.err().unwrap_or(Stage::Ok);
        let event = self.event(process, stage, f, (key, Value::Number(number)));
        event.version = end.ok();
        event.existed = (number == 0 && end.is_ok()).then_some(true);
    }

    fn write(&mut self, key: &str, number: u64, end: Result<u64, Stage>) {
        self.begin(1, key, number);
        self.end(1, key, number, end);
    }

    /// One number in two keys, which become these versions.
    fn both(&mut self, keys: [&str; 2], number: u64, versions: Option<[u64; 2]>) {
        let half = |at: usize, version| Half { key: keys[at].into(), number, version };
        let sent = Value::Both { both: vec![half(0, None), half(1, None)] };
        self.event(1, Stage::Invoke, Action::WriteBoth, ("pair", sent.clone()));
        let (stage, value) = match versions {
            None => (Stage::Info, sent),
            Some([one, other]) => {
                (Stage::Ok, Value::Both { both: vec![half(0, Some(one)), half(1, Some(other))] })
            }
        };
        self.event(1, stage, Action::WriteBoth, ("pair", value));
    }

    fn watch(&mut self, watcher: u32, scope: &str) {
        self.event(watcher, Stage::Invoke, Action::WatchBegin, (scope, Value::None)).group = None;
        self.event(watcher, Stage::Ok, Action::WatchBegin, (scope, Value::None)).group = None;
    }

    /// `a1v3`: the key `a` is 1 as of version 3; `a0v4`: it was deleted.
    fn told(&mut self, watcher: u32, changes: &str) {
        let told = changes.split_whitespace().map(|change| {
            let (what, version) = change.split_once('v').expect("a version");
            let number: u64 = what[1..].parse().expect("a number");
            Told {
                key: what[..1].into(),
                kind: if number == 0 { "delete" } else { "put" }.into(),
                value: Value::Number(number),
                version: version.parse().expect("a version"),
                id: "id".into(),
            }
        });
        let told = Value::Told { told: told.collect() };
        self.event(watcher, Stage::Invoke, Action::Watch, (ALL, Value::None)).group = None;
        self.event(watcher, Stage::Ok, Action::Watch, (ALL, told)).group = None;
    }

    fn read(&mut self, process: u32, f: Action, (key, number): (&str, u64), version: Option<u64>) {
        self.event(process, Stage::Invoke, f, (key, Value::None));
        self.event(process, Stage::Ok, f, (key, Value::Number(number))).version = version;
    }

    fn end_watch(&mut self, watcher: u32) {
        self.event(watcher, Stage::Invoke, Action::WatchEnd, (ALL, Value::None)).group = None;
        self.event(watcher, Stage::Ok, Action::WatchEnd, (ALL, Value::None)).group = None;
    }

    fn found(&self) -> Vec<Anomaly> {
        let mut checker = Checker::default();
        for (at, event) in self.0.iter().enumerate() {
            checker.observe(at, event);
        }
        checker.finish()
    }
}

/// What is found after `a` was written thrice and these changes were told.
fn kinds(changes: &str) -> Vec<Kind> {
    let mut history = History::default();
    history.watch(100, ALL);
    history.write("a", 1, Ok(1));
    history.write("a", 2, Ok(2));
    history.write("a", 3, Ok(3));
    history.write("b", 4, Ok(1));
    history.told(100, changes);
    history.read(1, Action::FinalRead, ("a", 3), Some(3));
    history.read(1, Action::FinalRead, ("b", 4), Some(1));
    history.end_watch(100);
    kinds_of(&history)
}

fn kinds_of(history: &History) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = history.found().iter().map(|anomaly| anomaly.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[test]
fn every_change_is_told_once_and_in_order() {
    assert_eq!(kinds("a1v1 a2v2 a3v3 b4v1"), []);
    assert_eq!(kinds("b4v1 a1v1 a2v2 a3v3"), []);
    for lost in
        ["a1v1 a3v3 b4v1", "a2v2 a3v3 b4v1", "a3v3 b4v1", "a1v1 a2v2 b4v1", "a1v1 a2v2 a3v3", ""]
    {
        assert_eq!(kinds(lost), [Kind::WatchBroken], "{lost}");
    }
    for doubled in
        ["a1v1 a1v1 a2v2 a3v3 b4v1", "a1v1 a2v2 a3v3 b4v1 a3v3", "a1v1 a2v2 a3v3 b4v1 a2v2"]
    {
        assert_eq!(kinds(doubled), [Kind::WatchBroken], "{doubled}");
    }
    for turned in ["a2v2 a1v1 a3v3 b4v1", "a1v1 a3v3 a2v2 b4v1"] {
        assert_eq!(kinds(turned), [Kind::WatchBroken], "{turned}");
    }
}

#[test]
fn what_is_told_is_what_was_written() {
    assert!(kinds("a1v1 a3v2 a3v3 b4v1").contains(&Kind::WatchBroken), "another's value");
    assert!(kinds("a1v1 a2v2 a3v4 b4v1").contains(&Kind::AppliedTwice), "another version");
    assert!(kinds("a1v1 a2v2 a3v3 b4v1 a3v4").contains(&Kind::AppliedTwice), "one write twice");
    assert!(kinds("a1v1 a2v2 a3v3 b3v1").contains(&Kind::ForeignValue), "of another key");
    assert!(kinds("a1v1 a2v2 a3v3 b4v1 a9v4").contains(&Kind::ForeignValue), "of nobody");
    assert!(kinds("a1v1 a2v2 a3v3 b4v1 a0v4").contains(&Kind::WatchBroken), "a delete of nobody");
}

#[test]
fn a_write_that_was_refused_is_not_told_and_one_of_unknown_fate_at_most_once() {
    let with = |end, changes: &[&str]| {
        let mut history = History::default();
        history.watch(100, ALL);
        history.write("a", 1, Ok(1));
        history.begin(2, "a", 2);
        history.told(100, changes[0]);
        history.end(2, "a", 2, Err(end));
        history.told(100, changes[1]);
        history.read(1, Action::FinalRead, ("a", 1), Some(1));
        history.end_watch(100);
        kinds_of(&history)
    };
    assert_eq!(with(Stage::Fail, &["a1v1", ""]), []);
    assert_eq!(with(Stage::Fail, &["a1v1 a2v2", ""]), [Kind::FailedWriteSeen]);
    assert_eq!(with(Stage::Fail, &["a1v1", "a2v2"]), [Kind::FailedWriteSeen]);
    for unknown in [["a1v1", ""], ["a1v1 a2v2", ""], ["a1v1", "a2v2"], ["", "a1v1 a2v2"]] {
        assert_eq!(with(Stage::Info, &unknown), [], "{unknown:?}");
    }
    assert_eq!(with(Stage::Info, &["a1v1 a2v2", "a2v3"]), [Kind::AppliedTwice]);
}

#[test]
fn a_delete_is_told_by_its_version() {
    let with = |end, changes, last: Option<u64>| {
        let mut history = History::default();
        history.watch(100, ALL);
        history.write("a", 1, Ok(1));
        history.write("a", 0, end);
        history.told(100, changes);
        history.read(1, Action::FinalRead, ("a", u64::from(last.is_some())), last);
        history.end_watch(100);
        kinds_of(&history)
    };
    assert_eq!(with(Ok(2), "a1v1 a0v2", None), []);
    assert_eq!(with(Ok(2), "a1v1", None), [Kind::WatchBroken]);
    assert_eq!(with(Ok(2), "a1v1 a0v3", None), [Kind::WatchBroken]);
    assert_eq!(with(Err(Stage::Info), "a1v1 a0v2", None), []);
    assert_eq!(with(Err(Stage::Info), "a1v1", Some(1)), []);
    assert_eq!(with(Err(Stage::Info), "a1v1 a0v2 a0v3", None), [Kind::WatchBroken]);
    assert_eq!(with(Err(Stage::Fail), "a1v1 a0v2", None), [Kind::WatchBroken]);
    assert_eq!(with(Err(Stage::Fail), "a1v1", None), [Kind::WatchBroken], "told last, and gone");
}

#[test]
fn an_acknowledgement_may_come_after_what_it_says_was_told() {
    let with = |changes: &str| {
        let mut history = History::default();
        history.watch(100, ALL);
        history.begin(2, "a", 1);
        history.write("a", 2, Ok(2));
        history.told(100, changes);
        history.end(2, "a", 1, Ok(1));
        kinds_of(&history)
    };
    assert_eq!(with("a1v1 a2v2"), []);
    assert_eq!(with("a2v2"), [Kind::WatchBroken]);
    assert_eq!(with("a1v1"), [], "the other may follow");
    assert_eq!(with("a1v2"), [Kind::WatchBroken], "version 2 is that of another");
}

#[test]
fn what_was_before_a_watch_need_not_be_told() {
    let with = |read, changes: &str| {
        let mut history = History::default();
        history.begin(2, "a", 2);
        history.write("a", 1, Ok(1));
        history.watch(100, ALL);
        if let Some((number, version)) = read {
            history.read(100, Action::Read, ("a", number), Some(version));
        }
        history.end(2, "a", 2, Ok(2));
        history.write("a", 3, Ok(3));
        history.told(100, changes);
        kinds_of(&history)
    };
    assert_eq!(with(None, "a3v3"), []);
    assert_eq!(with(None, "a1v1 a2v2 a3v3"), []);
    assert_eq!(with(None, "a1v1 a3v3"), [Kind::WatchBroken]);
    assert_eq!(with(Some((2, 2)), "a3v3"), []);
    assert_eq!(with(Some((1, 1)), "a3v3"), [Kind::WatchBroken], "it was behind what was read");
}

#[test]
fn a_watcher_that_begins_anew_may_have_missed_what_was_before() {
    let with = |anew: bool, changes: &str| {
        let mut history = History::default();
        history.watch(100, ALL);
        history.write("a", 1, Ok(1));
        history.told(100, "a1v1");
        history.write("a", 2, Ok(2));
        if anew {
            history.watch(100, ALL);
        }
        history.write("a", 3, Ok(3));
        history.write("a", 4, Ok(4));
        history.told(100, changes);
        kinds_of(&history)
    };
    assert_eq!(with(true, "a3v3 a4v4"), []);
    assert_eq!(with(false, "a3v3 a4v4"), [Kind::WatchBroken]);
    assert_eq!(with(true, "a4v4"), [Kind::WatchBroken], "it was sent after it had begun");
    assert_eq!(with(true, "a1v1 a3v3 a4v4"), [Kind::WatchBroken], "told before");
}

#[test]
fn watchers_are_told_the_same() {
    let with = |scope, one: &str, other: &str| {
        let mut history = History::default();
        history.watch(100, ALL);
        history.watch(101, scope);
        history.write("a", 1, Err(Stage::Info));
        history.begin(2, "a", 2);
        history.told(100, one);
        history.told(101, other);
        kinds_of(&history)
    };
    assert_eq!(with(ALL, "a1v1 a2v2", "a1v1 a2v2"), []);
    assert_eq!(with("a", "a1v1 a2v2", "a1v1 a2v2"), []);
    assert!(with(ALL, "a1v1 a2v2", "a2v1 a1v2").contains(&Kind::WatchBroken));
    assert!(with(ALL, "a1v1", "a1v2").contains(&Kind::AppliedTwice));
    assert_eq!(with("b", "a1v1", "a1v1"), [Kind::WatchBroken], "it watches another");
}

#[test]
fn the_keys_of_a_transaction_are_told_one_after_the_other() {
    let with = |versions: Option<[u64; 2]>, changes: &str| {
        let mut history = History::default();
        history.watch(100, ALL);
        history.write("c", 1, Ok(1));
        history.both(["a", "b"], 2, versions);
        history.write("a", 3, Ok(2));
        history.write("b", 4, Ok(2));
        history.told(100, changes);
        kinds_of(&history)
    };
    for acked in [Some([1, 1]), None] {
        assert_eq!(with(acked, "c1v1 a2v1 b2v1 a3v2 b4v2"), []);
        assert_eq!(with(acked, "c1v1 a2v1 a3v2 b2v1 b4v2"), [Kind::WatchBroken]);
        assert_eq!(with(acked, "a2v1 c1v1 b2v1 a3v2 b4v2"), [Kind::WatchBroken]);
        assert_eq!(with(acked, "c1v1 b2v1 a2v1 a3v2 b4v2"), [Kind::WatchBroken], "turned");
        assert_eq!(with(acked, "c1v1 a2v1 a3v2 b4v2"), [Kind::WatchBroken], "a part of it");
    }
    assert_eq!(with(None, "c1v1 a3v2 b4v2"), []);
    assert_eq!(with(Some([1, 1]), "c1v1 a3v2 b4v2"), [Kind::WatchBroken]);
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// Before this write one watcher begins anew.
const ANEW: u64 = 70;

/// The state of some keys: number and version.
type State = HashMap<&'static str, (u64, u64)>;

/// Writes, and says how that is told, with the version.
fn apply(state: &mut State, key: &'static str, number: u64) -> (String, u64) {
    let version = state.get(key).map_or(0, |(_, version)| *version) + 1;
    state.insert(key, (number, version));
    (format!("{key}{number}v{version}"), version)
}

/// Writes every key once more, and reads it.
fn write_last(history: &mut History, state: &mut State, log: &mut Vec<Vec<String>>) {
    for key in KEYS {
        let number = 1_000 + u64::from(key.as_bytes()[0]);
        let (change, version) = apply(state, key, number);
        log.push(vec![change]);
        history.write(key, number, Ok(version));
        history.read(1, Action::FinalRead, (key, number), Some(version));
    }
}

/// A group that does everything right, with three watchers, of which two watch all keys; one begins late,
/// and one begins anew.
fn random(seed: u64) -> History {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut history = History::default();
    let mut state = State::new();
    let mut log: Vec<Vec<String>> = Vec::new();
    // What each watcher was told yet, of the log.
    let mut places: BTreeMap<u32, usize> = BTreeMap::new();
    let scope = |watcher: u32| if watcher == 102 { "a" } else { ALL };
    let tell = |history: &mut History, watcher: u32, changes: &[Vec<String>]| {
        let mine = |change: &&String| watcher != 102 || change.starts_with('a');
        let changes: Vec<&str> = changes.iter().flatten().filter(mine).map(|one| &**one).collect();
        history.told(watcher, &changes.join(" "));
    };
    for number in 1..=120 {
        for (watcher, begins) in [(100, 1), (101, 30), (102, 10), (100, ANEW)] {
            if begins == number {
                history.watch(watcher, scope(watcher));
                places.insert(watcher, log.len());
            }
        }
        let key = KEYS[rng.random_range(0..4)];
        let (applied, known) = (rng.random_bool(0.8), rng.random_bool(0.9));
        match (rng.random_range(0..10), applied) {
            (0, true) if known => {
                let pair = if rng.random() { ["a", "b"] } else { ["d", "c"] };
                let [(one, first), (other, second)] =
                    pair.map(|key| apply(&mut state, key, number));
                log.push(vec![one, other]);
                let acked = rng.random::<bool>().then_some([first, second]);
                history.both(pair, number, acked);
            }
            (1, true) if state.get(key).is_some_and(|(number, _)| *number > 0) => {
                let (change, version) = apply(&mut state, key, 0);
                log.push(vec![change]);
                history.write(key, 0, if known { Ok(version) } else { Err(Stage::Info) });
            }
            (_, true) => {
                let (change, version) = apply(&mut state, key, number);
                history.begin(1, key, number);
                log.push(vec![change]);
                if rng.random_bool(0.3)
                    && let Some(place) = places.get_mut(&100)
                {
                    tell(&mut history, 100, &log[*place..]);
                    *place = log.len();
                }
                history.end(1, key, number, if known { Ok(version) } else { Err(Stage::Info) });
            }
            (_, false) => {
                history.write(key, number, Err(if known { Stage::Fail } else { Stage::Info }));
            }
        }
        for (watcher, place) in &mut places {
            if rng.random_bool(0.2) {
                let to = rng.random_range(*place..=log.len());
                tell(&mut history, *watcher, &log[*place..to]);
                *place = to;
            }
        }
    }
    write_last(&mut history, &mut state, &mut log);
    for (watcher, place) in places {
        tell(&mut history, watcher, &log[place..]);
        history.end_watch(watcher);
    }
    history
}

/// Where changes were told: which event, and which of its changes.
fn changes(history: &History) -> Vec<(usize, usize)> {
    let told = |(at, event): (usize, &Event)| match &event.value {
        Value::Told { told } => (0..told.len()).map(|one| (at, one)).collect(),
        _ => Vec::new(),
    };
    history.0.iter().enumerate().flat_map(told).collect()
}

#[test]
fn random_watches_that_are_right_are_valid() {
    for seed in 0..1_000 {
        let history = random(seed);
        assert_eq!(history.found(), [], "seed {seed}");
        assert!(changes(&history).len() > 100, "seed {seed}");
    }
}

#[test]
fn random_watches_that_are_bent_are_not() {
    for seed in 0..1_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut history = random(seed);
        let all = changes(&history);
        let (at, one) = all[rng.random_range(0..all.len())];
        let acked = |told: &Told| {
            history.0.iter().any(|event| {
                event.stage == Stage::Ok
                    && event.f == Action::Write
                    && event.key == told.key
                    && event.value == told.value
            })
        };
        let Value::Told { told } = &history.0[at].value else { unreachable!("it was told") };
        let mut told = told.clone();
        let was_acked = acked(&told[one]);
        let is_before = |told: &Told| matches!(told.value, Value::Number(0..ANEW));
        match rng.random_range(0..4) {
            // Nobody can tell that what is of unknown fate was left out, or the last before a gap.
            0 if was_acked && (history.0[at].process != 100 || !is_before(&told[one])) => {
                told.remove(one);
            }
            1 => told.insert(one, told[one].clone()),
            2 => told[one].version += 1_000,
            _ => told[one].value = Value::Number(5_000),
        }
        history.0[at].value = Value::Told { told };
        assert_ne!(history.found(), [], "seed {seed}");
    }
}
