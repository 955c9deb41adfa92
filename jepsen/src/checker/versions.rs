//! Checks the versions in answers, event by event: each write of a key has one version, no other
//! write of it has the same, and versions never go back in real time.
//!
//! A write that shows two versions took effect twice: sent again by somebody who did not know
//! whether it had, or applied twice. This is no substitute for a search for an order, which knows
//! more, but it costs next to nothing and finds much while a run still lasts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checker::{Anomaly, Kind};
use crate::history::{Action, Event, Stage, Value};

/// What is known of every key, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    keys: HashMap<Arc<str>, Key>,
    /// Where each process began what it does, and the least version that it must be answered.
    open: HashMap<u32, (usize, Seen)>,
    anomalies: Vec<Anomaly>,
}

/// A number, its version, and where they were seen together.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    number: u64,
    version: u64,
    at: usize,
}

#[derive(Debug, Default)]
struct Key {
    by_number: HashMap<u64, Seen>,
    by_version: HashMap<u64, Seen>,
    /// The greatest version in any answer.
    newest: Seen,
}

impl Checker {
    /// Takes in the next event of the history, the `at`-th.
    pub(crate) fn observe(&mut self, at: usize, event: &Event) {
        match event.stage {
            Stage::Invoke => {
                let newest = self.keys.get(&event.key).map(|key| key.newest).unwrap_or_default();
                self.open.insert(event.process, (at, newest));
            }
            Stage::Ok => self.answered(at, event),
            Stage::Fail | Stage::Info => {
                self.open.remove(&event.process);
            }
        }
    }

    /// What was found until now.
    pub(crate) fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }

    fn answered(&mut self, at: usize, event: &Event) {
        let (began, floor) = self.open.remove(&event.process).unwrap_or_default();
        let Some(version) = event.version else { return };
        let key = self.keys.entry(Arc::clone(&event.key)).or_default();
        let seen = Seen { number: number(event), version, at };
        if version > key.newest.version {
            key.newest = seen;
        }
        let mut report = |kind, detail, other: Seen| {
            let events = vec![other.at, began, at];
            self.anomalies.push(Anomaly { kind, key: Arc::clone(&event.key), detail, events });
        };
        // The version of a delete of nothing is that of an earlier write.
        let looks = event.f == Action::Delete && event.existed != Some(true);
        let write = event.f.is_write() && !looks;
        let went_back = if write { version <= floor.version } else { version < floor.version };
        if event.f != Action::StaleRead && went_back {
            let detail = format!(
                "version {version} ({:?}) after version {} was answered",
                event.value, floor.version
            );
            report(Kind::StaleRead, detail, floor);
        }
        if looks || (seen.number == 0 && !write) {
            return;
        }
        let same_version = *key.by_version.entry(version).or_insert(seen);
        if same_version.number != seen.number
            || (write && seen.number == 0 && same_version.at != at)
        {
            let detail =
                format!("{} and {} have version {version}", same_version.number, seen.number);
            report(Kind::VersionReused, detail, same_version);
        }
        if seen.number == 0 {
            return;
        }
        let same_number = *key.by_number.entry(seen.number).or_insert(seen);
        if same_number.version != version {
            let detail =
                format!("{} has versions {} and {version}", seen.number, same_number.version);
            report(Kind::AppliedTwice, detail, same_number);
        }
    }
}

/// What the key held when it had the version of the answer; 0 for nothing.
fn number(event: &Event) -> u64 {
    match &event.value {
        Value::Number(number)
        | Value::Cas { to: number, .. }
        | Value::Transfer { id: number, .. } => *number,
        Value::List(list) => list.last().copied().unwrap_or(0),
        // Its version is the place in the log, which is its own alone.
        Value::Both { both } => both.first().map_or(0, |half| half.number),
        // Of a bank the version is the place in the log, where no transfer needs to stand.
        Value::None | Value::Bank { .. } | Value::Told { .. } | Value::Foreign { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps like `w1v3` (a write of 1 was answered version 3), `r1v3`, `s1v3` (a stale read),
    /// `d0v4` (a delete of something), `x0v4` (of nothing); `aw(` and `aw1v3)` begin and end one of another process.
    fn kinds(steps: &str) -> Vec<Kind> {
        let mut checker = Checker::default();
        for (at, step) in steps.split_whitespace().enumerate() {
            let (process, step) = step.strip_prefix('a').map_or((1, step), |rest| (2, rest));
            let f = match &step[..1] {
                "w" => Action::Write,
                "r" => Action::Read,
                "s" => Action::StaleRead,
                "d" | "x" => Action::Delete,
                other => panic!("{other}"),
            };
            let mut event = Event {
                time: 0,
                process,
                stage: Stage::Invoke,
                f,
                key: "k".into(),
                value: Value::None,
                node: "n".into(),
                version: None,
                existed: None,
                group: None,
                lag_ms: None,
                error: None,
            };
            if !step.ends_with(')') {
                checker.observe(2 * at, &event);
            }
            if let Some((number, version)) = step[1..].trim_end_matches(')').split_once('v') {
                event.stage = Stage::Ok;
                event.value = Value::Number(number.parse().expect("a number"));
                event.version = Some(version.parse().expect("a version"));
                event.existed = (f == Action::Delete).then(|| step.starts_with('d'));
                checker.observe(2 * at + 1, &event);
            }
        }
        checker.anomalies().iter().map(|anomaly| anomaly.kind).collect()
    }

    #[test]
    fn one_write_has_one_version_and_no_other_write_has_it() {
        assert_eq!(kinds("w1v1 r1v1 w2v2 r2v2 d0v3 w3v4 r3v4"), []);
        assert_eq!(kinds("w1v1 r1v2"), [Kind::AppliedTwice]);
        assert_eq!(kinds("r1v1 r1v3"), [Kind::AppliedTwice]);
        assert_eq!(kinds("r1v1 r2v1"), [Kind::VersionReused]);
    }

    #[test]
    fn versions_go_back_only_for_what_overlaps_or_is_stale() {
        assert_eq!(kinds("w1v1 w2v2 r1v1"), [Kind::StaleRead]);
        assert_eq!(kinds("w2v2 w1v1"), [Kind::StaleRead]);
        assert_eq!(kinds("w1v1 w2v2 s1v1"), []);
        assert_eq!(kinds("ar( w1v1 w2v2 ar1v1)"), []);
        assert_eq!(kinds("aw( w2v2 aw1v1)"), []);
    }

    #[test]
    fn a_delete_has_a_version_of_its_own_if_there_was_something_to_remove() {
        assert_eq!(kinds("w1v1 d0v2 x0v2 x0v7 w2v8"), []);
        assert_eq!(kinds("w1v2 x0v1"), [Kind::StaleRead]);
        assert_eq!(kinds("w1v1 ad( d0v2 ad0v2)"), [Kind::VersionReused]);
        assert_eq!(kinds("w1v1 aw( d0v2 aw2v2)"), [Kind::VersionReused]);
        assert_eq!(kinds("w1v3 d0v2"), [Kind::StaleRead]);
    }
}
