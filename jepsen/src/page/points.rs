//! One point for each operation: when it began and how long it took.
//!
//! Too many points make a page that nobody can open. Failed, unknown and slow operations are shown
//! first; of the rest an even choice. The page says how many are shown of how many.

use std::collections::HashMap;

use serde::Serialize;

use super::ops::{Op, Outcome, action, clip, full, is_read};
use crate::history::Value;

/// Points of operations that succeeded as fast as most.
const ORDINARY_MAX: usize = 30_000;
/// Points of the others: failed, unknown or slow ones.
const NOTABLE_MAX: usize = 100_000;
/// The slowest one in so many is slow.
const SLOW_ONE_IN: usize = 100;
/// Texts of one kind (keys, errors) that the page holds.
const TEXTS_MAX: usize = 50_000;
/// Characters of a text.
const TEXT_CHARS_MAX: usize = 120;
/// Characters of a value.
const VALUE_CHARS_MAX: usize = 24;
/// Nanoseconds in the unit of a point's time: 0.1 ms.
const TIME_UNIT: u64 = 100_000;

/// Texts that come again and again, by number.
#[derive(Debug, Default)]
struct Texts {
    numbers: HashMap<String, usize>,
    texts: Vec<String>,
}

impl Texts {
    /// The text's number; `None` if there are too many texts.
    fn number(&mut self, text: &str) -> Option<usize> {
        let text = clip(text, TEXT_CHARS_MAX);
        if let Some(number) = self.numbers.get(&text) {
            return Some(*number);
        }
        if self.texts.len() == TEXTS_MAX {
            return None;
        }
        self.texts.push(text.clone());
        self.numbers.insert(text, self.texts.len() - 1);
        Some(self.texts.len() - 1)
    }
}

/// The points of one colour, column by column.
#[derive(Debug, Serialize)]
struct Series {
    outcome: &'static str,
    read: bool,
    /// When each began: the first in units of 0.1 ms, each other as the difference to the last.
    times: Vec<u64>,
    /// How long each took, in microseconds.
    latencies: Vec<u64>,
    processes: Vec<u32>,
    /// What each is called, and its key, node and error: numbers of texts.
    actions: Vec<Option<usize>>,
    keys: Vec<Option<usize>>,
    nodes: Vec<Option<usize>>,
    errors: Vec<Option<usize>>,
    values: Vec<String>,
    #[serde(skip)]
    last: u64,
}

/// All points of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Points {
    /// Points on the page.
    pub(crate) shown: usize,
    /// Operations of the run.
    pub(crate) total: usize,
    texts: Vec<String>,
    series: Vec<Series>,
}

/// The points of these operations, of which the last event was at `last`.
pub(crate) fn points(ops: &[Op<'_>], last: u64) -> Points {
    let chosen = choose(ops, last);
    let mut texts = Texts::default();
    let mut series = Vec::new();
    for outcome in [Outcome::Ok, Outcome::Fail, Outcome::Unknown] {
        for read in [true, false] {
            let of_it = |op: &&Op<'_>| op.outcome() == outcome && is_read(op.begin.f) == read;
            let mut columns = Series::new(outcome, read);
            for op in chosen.iter().map(|at| &ops[*at]).filter(of_it) {
                columns.push(op, last, &mut texts);
            }
            if !columns.times.is_empty() {
                series.push(columns);
            }
        }
    }
    Points { shown: chosen.len(), total: ops.len(), texts: texts.texts, series }
}

impl Series {
    fn new(outcome: Outcome, read: bool) -> Self {
        Self {
            outcome: outcome.name(),
            read,
            times: Vec::new(),
            latencies: Vec::new(),
            processes: Vec::new(),
            actions: Vec::new(),
            keys: Vec::new(),
            nodes: Vec::new(),
            errors: Vec::new(),
            values: Vec::new(),
            last: 0,
        }
    }

    fn push(&mut self, op: &Op<'_>, last: u64, texts: &mut Texts) {
        // Against a history whose times go back.
        let time = (op.begin.time / TIME_UNIT).max(self.last);
        self.times.push(time - self.last);
        self.last = time;
        self.latencies.push(op.latency(last) / 1_000);
        self.processes.push(op.begin.process);
        self.actions.push(texts.number(action(op.begin.f)));
        self.keys.push(texts.number(&op.begin.key));
        self.nodes.push(texts.number(&op.last_word().node));
        self.errors.push(op.last_word().error.as_deref().and_then(|error| texts.number(error)));
        let value = match op.value() {
            Value::List(numbers) => format!("{} numbers", numbers.len()),
            value => clip(&full(value), VALUE_CHARS_MAX),
        };
        self.values.push(value);
    }
}

/// Which operations get a point, in order.
fn choose(ops: &[Op<'_>], last: u64) -> Vec<usize> {
    let mut latencies: Vec<u64> =
        ops.iter().filter(|op| op.outcome() == Outcome::Ok).map(|op| op.latency(last)).collect();
    latencies.sort_unstable();
    let slow_from = latencies.len() - latencies.len() / SLOW_ONE_IN;
    let slow = latencies.get(slow_from).copied().unwrap_or(u64::MAX);
    let (ordinary, notable): (Vec<usize>, Vec<usize>) = (0..ops.len())
        .partition(|at| ops[*at].outcome() == Outcome::Ok && ops[*at].latency(last) < slow);
    let mut chosen = thin(&ordinary, ORDINARY_MAX);
    chosen.extend(thin(&notable, NOTABLE_MAX));
    chosen.sort_unstable();
    chosen
}

/// At most so many of them, evenly.
fn thin(all: &[usize], max: usize) -> Vec<usize> {
    let shown = all.len().min(max);
    (0..shown).map(|at| all[at * all.len() / shown]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Event, Stage};
    use crate::page::ops::operations;
    use crate::page::synthetic::event;

    fn history(operations: u64, end: impl Fn(u64) -> (Stage, u64)) -> Vec<Event> {
        let mut events = Vec::new();
        for number in 0..operations {
            let process = u32::try_from(number).unwrap();
            let (stage, takes) = end(number);
            let time = number * 1_000_000;
            let value = Value::Number(number);
            events.push(event(time, process, Stage::Invoke, Action::Write, value.clone()));
            events.push(event(time + takes, process, stage, Action::Write, value));
        }
        events
    }

    #[test]
    fn thinning_never_drops_what_is_slow_or_failed() {
        let events = history(100_000, |number| match number % 1_000 {
            3 => (Stage::Fail, 10_000),
            4 => (Stage::Info, 10_000),
            5 => (Stage::Ok, 999_000_000),
            _ => (Stage::Ok, 1_000_000 + number),
        });
        let ops = operations(&events);
        let chosen = choose(&ops, u64::MAX);
        // A hundredth is slow: every one of 999 ms, and the slowest of the others.
        assert!(chosen.len() < ORDINARY_MAX + 2_000, "{}", chosen.len());
        assert!(chosen.len() > ORDINARY_MAX);
        assert!(chosen.is_sorted_by(|a, b| a < b), "each once, in order");
        let kept = |outcome| chosen.iter().filter(|at| ops[**at].outcome() == outcome).count();
        assert_eq!((kept(Outcome::Fail), kept(Outcome::Unknown)), (100, 100));
        let slow = chosen.iter().filter(|at| ops[**at].latency(u64::MAX) > 900_000_000).count();
        assert_eq!(slow, 100);
    }

    #[test]
    fn few_operations_are_all_there() {
        let events = history(500, |number| (Stage::Ok, number));
        let points = points(&operations(&events), 0);
        assert_eq!((points.shown, points.total), (500, 500));
        assert_eq!(points.series.len(), 1);
        assert_eq!(points.series[0].times[..3], [0, 10, 10]);
    }

    #[test]
    fn even_failures_have_a_bound() {
        let events = history(250_000, |_| (Stage::Fail, 5));
        assert!(points(&operations(&events), 0).shown <= NOTABLE_MAX);
    }
}
