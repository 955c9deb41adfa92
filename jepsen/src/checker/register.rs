//! Checks registers that many clients write: every key for itself, for linearizability is local
//! (Herlihy and Wing 1990, theorem 1), all cores at work.
//!
//! What was refused must not be seen, and what was seen must have been written to that key: both
//! are said in their own words; the rest is left to the search for an order. A delete that says
//! that there was nothing to remove is a read of nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::checker::wgl::{self, Input, Operation, Verdict};
use crate::checker::{Anomaly, Checked, Kind};
use crate::history::{Action, Event, Stage, Value};

/// Steps of the search for one key: some seconds.
const STEPS_MAX: u64 = 20_000_000;

/// What is known of one key.
#[derive(Default)]
struct Register {
    operations: Vec<Operation>,
    /// Where each operation began and, if it did, ended in the history.
    events: Vec<[usize; 2]>,
    /// Numbers whose write was refused.
    refused: HashSet<u64>,
    /// What was not written by anybody.
    anomalies: Vec<Anomaly>,
}

/// Judges every key.
pub(crate) fn check(history: &[Event]) -> Checked {
    let mut keys = registers(history);
    let mut checked = Checked::default();
    for (key, register) in &mut keys {
        register.leave_out_refused(key);
        checked.anomalies.append(&mut register.anomalies);
    }
    let keys: Vec<(Arc<str>, Register)> = keys.into_iter().collect();
    let next = AtomicUsize::new(0);
    let verdicts = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let work = || {
            let turn = || keys.get(next.fetch_add(1, Ordering::Relaxed));
            let turns = std::iter::from_fn(turn);
            let judge = |(key, one): &'_ (Arc<str>, Register)| (Arc::clone(key), judge(key, one));
            turns.map(judge).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().flat_map(|worker| worker.join().expect("no panic"));
        ended.collect::<BTreeMap<Arc<str>, Judged>>()
    });
    for (key, judged) in verdicts {
        match judged {
            Judged::Fine => {}
            Judged::Broken(anomaly) => checked.anomalies.push(anomaly),
            Judged::Unknown => checked.unknown.push(format!("{key} has too many orders to try")),
        }
    }
    checked
}

enum Judged {
    Fine,
    Broken(Anomaly),
    Unknown,
}

fn judge(key: &Arc<str>, register: &Register) -> Judged {
    match wgl::check(&register.operations, STEPS_MAX) {
        Verdict::Linearizable => Judged::Fine,
        Verdict::Unknown => Judged::Unknown,
        Verdict::Violation(minimal) => {
            let text = |at: &usize| match register.operations[*at].input {
                Input::Write(0) => "delete".to_string(),
                Input::Write(value) => format!("write {value}"),
                Input::Cas { from, to } => format!("cas {from} {to}"),
                Input::Read(value) => format!("read {value}"),
            };
            let texts: Vec<String> = minimal.iter().map(text).collect();
            let detail = format!("no order explains: {}", texts.join(", "));
            let events = minimal.iter().flat_map(|at| register.events[*at]);
            let events = events.filter(|at| *at != usize::MAX).collect();
            Judged::Broken(Anomaly {
                kind: Kind::NotLinearizable,
                key: Arc::clone(key),
                detail,
                events,
            })
        }
    }
}

/// The operations of each key, in the order of their beginnings, without those that had no effect.
fn registers(history: &[Event]) -> BTreeMap<Arc<str>, Register> {
    let mut keys: BTreeMap<Arc<str>, Register> = BTreeMap::new();
    // What each process does: where it began, and whether and where it ended.
    let mut ends: HashMap<usize, usize> = HashMap::new();
    let mut open: HashMap<u32, usize> = HashMap::new();
    for (at, event) in history.iter().enumerate() {
        match event.stage {
            Stage::Invoke => {
                open.insert(event.process, at);
            }
            Stage::Ok | Stage::Fail | Stage::Info => {
                ends.extend(open.remove(&event.process).map(|began| (began, at)));
            }
        }
    }
    for (at, event) in history.iter().enumerate().filter(|(_, one)| one.stage == Stage::Invoke) {
        let register = keys.entry(Arc::clone(&event.key)).or_default();
        let end = ends.get(&at).copied();
        register.add((at, event), end.map(|end| (end, &history[end])));
    }
    keys
}

impl Register {
    fn add(&mut self, (call, begin): (usize, &Event), end: Option<(usize, &Event)>) {
        let written = match (begin.f, &begin.value) {
            (Action::Write, Value::Number(number)) => Some(Input::Write(*number)),
            (Action::Delete, _) => Some(Input::Write(0)),
            (Action::Cas, Value::Cas { from, to }) => Some(Input::Cas { from: *from, to: *to }),
            _ => None,
        };
        let ended = end.filter(|(_, end)| end.stage == Stage::Ok);
        let input = match (written, end) {
            (Some(input), Some((_, end))) if end.stage == Stage::Fail => {
                if let Input::Write(number) | Input::Cas { to: number, .. } = input {
                    self.refused.insert(number);
                }
                return;
            }
            // It found nothing, so it changed nothing: it has only looked.
            (Some(Input::Write(0)), Some((_, end))) if end.existed == Some(false) => Input::Read(0),
            (Some(input), _) => input,
            // A read without an answer says nothing.
            (None, _) => match ended.map(|(at, end)| (at, &end.value)) {
                Some((_, Value::Number(number))) => Input::Read(*number),
                Some((at, value)) => {
                    let (kind, detail) = (Kind::ForeignValue, format!("read {value:?}"));
                    let (key, events) = (Arc::clone(&begin.key), vec![call, at]);
                    self.anomalies.push(Anomaly { kind, key, detail, events });
                    return;
                }
                None => return,
            },
        };
        let ret = ended.map(|(at, _)| at);
        self.operations.push(Operation { call, ret, input });
        self.events.push([call, end.map_or(usize::MAX, |(at, _)| at)]);
    }

    /// Takes note of everybody who saw what was refused, and leaves him out of the search.
    fn leave_out_refused(&mut self, key: &Arc<str>) {
        self.refused.remove(&0);
        let refused = std::mem::take(&mut self.refused);
        let both = self.operations.iter().zip(&self.events);
        let seen = both.filter_map(|(one, events)| match one.input {
            Input::Read(value) | Input::Cas { from: value, .. } if refused.contains(&value) => {
                let detail = format!("{value} was seen");
                let events = events.iter().copied().filter(|at| *at != usize::MAX).collect();
                Some(Anomaly { kind: Kind::FailedWriteSeen, key: Arc::clone(key), detail, events })
            }
            Input::Read(_) | Input::Cas { .. } | Input::Write(_) => None,
        });
        self.anomalies.extend(seen);
        let stays = |one: &Operation| match one.input {
            Input::Read(value) | Input::Cas { from: value, .. } => !refused.contains(&value),
            Input::Write(_) => true,
        };
        let kept: Vec<usize> =
            (0..self.operations.len()).filter(|at| stays(&self.operations[*at])).collect();
        self.events = kept.iter().map(|at| self.events[*at]).collect();
        self.operations = kept.iter().map(|at| self.operations[*at]).collect();
    }
}

#[cfg(test)]
mod tests;
