//! What happened around an anomaly: the operations that show it, and others of the same key.

use std::collections::BTreeSet;

use serde::Serialize;

use super::bands::{Band, overlapping};
use super::ops::{Op, clip};
use crate::checker::Anomaly;
use crate::nemesis::Fault;

/// Operations in one timeline.
const OPS_MAX: usize = 40;
/// Operations of the same key before and after those that show the anomaly.
const MARGIN: usize = 4;
/// Operations of the same key that are shown if the anomaly names none.
const FALLBACK: usize = 20;
/// Faults in one timeline.
const FAULTS_MAX: usize = 40;
/// Characters of an error.
const ERROR_CHARS_MAX: usize = 200;

/// One bar.
#[derive(Debug, Serialize)]
struct Bar {
    process: u32,
    label: String,
    outcome: &'static str,
    /// Whether it is one of those that show the anomaly.
    hit: bool,
    /// Where it begins and ends in the history.
    begin_at: usize,
    end_at: Option<usize>,
    /// When it begins and ends, in microseconds.
    begin: u64,
    end: Option<u64>,
    node: String,
    version: Option<u64>,
    error: Option<String>,
}

/// The timeline of one anomaly.
#[derive(Debug, Serialize)]
pub(crate) struct Around {
    bars: Vec<Bar>,
    faults: Vec<Band>,
    /// Operations of the key at that time that are not shown.
    pub(crate) omitted: usize,
}

/// The operations that show an anomaly, by their position in `ops`, in order.
///
/// An anomaly names events; either end of an operation names it. Names of nothing are ignored.
pub(crate) fn hits(anomaly: &Anomaly, ops: &[Op<'_>]) -> Vec<usize> {
    let named: BTreeSet<usize> = anomaly.events.iter().copied().collect();
    let is_named = |op: &Op<'_>| {
        named.contains(&op.begin_at) || op.end.is_some_and(|(at, _)| named.contains(&at))
    };
    (0..ops.len()).filter(|at| is_named(&ops[*at])).collect()
}

/// What to draw around an anomaly, given the operations that show it.
pub(crate) fn around(
    anomaly: &Anomaly,
    hits: &[usize],
    ops: &[Op<'_>],
    faults: &[Fault],
    last: u64,
) -> Around {
    let of_key: Vec<usize> =
        (0..ops.len()).filter(|at| ops[*at].begin.key == anomaly.key).collect();
    let candidates = candidates(&of_key, hits, ops);
    let mut chosen: BTreeSet<usize> = hits.iter().copied().take(OPS_MAX).collect();
    let is_hit = |at: &usize| hits.binary_search(at).is_ok();
    let mut others: Vec<usize> = candidates.iter().filter(|at| !is_hit(at)).copied().collect();
    others.sort_by_key(|at| {
        let next = hits.partition_point(|hit| hit < at);
        let near = hits[next.saturating_sub(1)..].iter().take(2);
        near.map(|hit| hit.abs_diff(*at)).min()
    });
    let room = OPS_MAX - chosen.len();
    let omitted = others.len().saturating_sub(room) + hits.len().saturating_sub(OPS_MAX);
    chosen.extend(others.into_iter().take(room));

    let bars: Vec<Bar> = chosen.iter().map(|at| bar(&ops[*at], is_hit(at))).collect();
    let from = chosen.iter().map(|at| ops[*at].begin.time).min().unwrap_or(0);
    let to = chosen.iter().map(|at| ops[*at].end_time(last)).max().unwrap_or(last);
    Around { bars, faults: overlapping(faults, from, to, FAULTS_MAX), omitted }
}

/// Operations of the key between the first and the last that shows the anomaly, and a few more.
fn candidates<'a>(of_key: &'a [usize], hits: &[usize], ops: &[Op<'_>]) -> &'a [usize] {
    let (Some(first), Some(last)) = (hits.first(), hits.last()) else {
        return &of_key[of_key.len().saturating_sub(FALLBACK)..];
    };
    let until = hits.iter().filter_map(|hit| ops[*hit].end).map(|(at, _)| at).max();
    let until = until.unwrap_or(ops[*last].begin_at);
    let from = of_key.partition_point(|at| at < first).saturating_sub(MARGIN);
    let to = of_key.partition_point(|at| ops[*at].begin_at <= until) + MARGIN;
    &of_key[from..to.min(of_key.len())]
}

fn bar(op: &Op<'_>, hit: bool) -> Bar {
    let word = op.last_word();
    Bar {
        process: op.begin.process,
        label: op.label(),
        outcome: op.outcome().name(),
        hit,
        begin_at: op.begin_at,
        end_at: op.end.map(|(at, _)| at),
        begin: op.begin.time / 1_000,
        end: op.end.map(|(_, end)| end.time / 1_000),
        node: clip(&word.node, ERROR_CHARS_MAX),
        version: word.version,
        error: word.error.as_deref().map(|error| clip(error, ERROR_CHARS_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Event, Stage, Value};
    use crate::page::ops::operations;
    use crate::page::synthetic::{anomaly, event};

    fn writes(count: u32) -> Vec<Event> {
        (0..count)
            .flat_map(|number| {
                let time = u64::from(number) * 10_000;
                let value = Value::Number(u64::from(number));
                [
                    event(time, number % 3, Stage::Invoke, Action::Write, value.clone()),
                    event(time + 5_000, number % 3, Stage::Ok, Action::Write, value),
                ]
            })
            .collect()
    }

    #[test]
    fn either_end_names_an_operation() {
        let history = writes(10);
        let ops = operations(&history);
        let anomaly = anomaly("k", vec![4, 5, 13, 9_999]);
        let hits = hits(&anomaly, &ops);
        assert_eq!(hits, [2, 6]);
        let around = around(&anomaly, &hits, &ops, &[], 0);
        let shown: Vec<(u64, bool)> = around.bars.iter().map(|bar| (bar.begin, bar.hit)).collect();
        assert_eq!(shown.len(), 10, "four on either side are shown, too: {shown:?}");
        assert_eq!(shown.iter().filter(|(_, hit)| *hit).count(), 2);
    }

    #[test]
    fn a_timeline_has_a_bound() {
        let history = writes(1_000);
        let ops = operations(&history);
        let wide = anomaly("k", vec![0, 1_999]);
        let found = around(&wide, &hits(&wide, &ops), &ops, &[], 0);
        assert_eq!((found.bars.len(), found.omitted), (OPS_MAX, 1_000 - OPS_MAX));
        let all = anomaly("k", (0..2_000).collect());
        let found = around(&all, &hits(&all, &ops), &ops, &[], 0);
        assert_eq!((found.bars.len(), found.omitted), (OPS_MAX, 1_000 - OPS_MAX));
        let unnamed = anomaly("k", vec![]);
        assert_eq!(around(&unnamed, &[], &ops, &[], 0).bars.len(), FALLBACK);
        let elsewhere = anomaly("other", vec![]);
        assert_eq!(around(&elsewhere, &[], &ops, &[], 0).bars.len(), 0);
    }
}
