//! Operations a second and quantiles of their latency, over time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ops::{Op, Outcome, action};

/// About so many steps over a run.
const STEPS: u64 = 300;
/// Lengths of a step, in milliseconds.
const STEP_MS: [u64; 10] = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000];
/// No more steps than this, whatever times a history claims.
const STEPS_MAX: usize = 2_000;

/// What happened in each step of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Rates {
    /// Length of a step, in milliseconds.
    step_ms: u64,
    /// Successful operations of each step, by what they do.
    ok: BTreeMap<&'static str, Vec<u64>>,
    fail: Vec<u64>,
    info: Vec<u64>,
    /// Median latency of successful operations, in microseconds.
    p50: Vec<Option<u64>>,
    /// What 99 of 100 were faster than, in microseconds.
    p99: Vec<Option<u64>>,
}

/// Counts operations by the step in which they ended.
pub(crate) fn rates(ops: &[Op<'_>], last: u64) -> Rates {
    let last_ms = last / 1_000_000;
    let fits = |step: &&u64| last_ms / **step <= STEPS;
    let longest = last_ms / (STEPS_MAX as u64 - 1) + 1;
    let step_ms = STEP_MS.iter().find(fits).copied().unwrap_or(longest);
    let steps = usize::try_from(last_ms / step_ms + 1).unwrap_or(STEPS_MAX).min(STEPS_MAX);

    let mut ok = BTreeMap::new();
    let (mut fail, mut info) = (vec![0; steps], vec![0; steps]);
    let mut latencies: Vec<Vec<u64>> = vec![Vec::new(); steps];
    for op in ops {
        let at = usize::try_from(op.end_time(last) / 1_000_000 / step_ms).unwrap_or(steps);
        let at = at.min(steps - 1);
        match op.outcome() {
            Outcome::Ok => {
                ok.entry(action(op.begin.f)).or_insert_with(|| vec![0; steps])[at] += 1;
                latencies[at].push(op.latency(last) / 1_000);
            }
            Outcome::Fail => fail[at] += 1,
            Outcome::Unknown => info[at] += 1,
        }
    }
    for step in &mut latencies {
        step.sort_unstable();
    }
    let quantile = |percent: usize| {
        latencies.iter().map(|step| step.get(step.len() * percent / 100).copied()).collect()
    };
    Rates { step_ms, ok, fail, info, p50: quantile(50), p99: quantile(99) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Stage, Value};
    use crate::page::ops::operations;
    use crate::page::synthetic::event;

    #[test]
    fn operations_count_where_they_end() {
        let ms = 1_000_000;
        let mut events = Vec::new();
        for (process, (end, stage)) in
            [(10, Stage::Ok), (150, Stage::Ok), (190, Stage::Fail), (250, Stage::Info)]
                .into_iter()
                .enumerate()
        {
            let process = u32::try_from(process).unwrap();
            events.push(event(0, process, Stage::Invoke, Action::Write, Value::Number(1)));
            events.push(event(end * ms, process, stage, Action::Write, Value::Number(1)));
        }
        let rates = rates(&operations(&events), 250 * ms);
        assert_eq!(rates.step_ms, 100);
        assert_eq!(rates.ok["write"], [1, 1, 0]);
        assert_eq!((rates.fail, rates.info), (vec![0, 1, 0], vec![0, 0, 1]));
        assert_eq!(rates.p99, [Some(10_000), Some(150_000), None]);
    }

    #[test]
    fn absurd_times_take_no_memory() {
        let rates = rates(&[], u64::MAX);
        assert!(rates.fail.len() <= STEPS_MAX, "{}", rates.fail.len());
    }
}
