//! One figure out of several rounds.

use std::collections::BTreeMap;

use sagedb::bench::Workload;
use serde::Serialize;

use crate::run::Run;
use crate::target::Target;

/// What was run: a target, a workload, and with how many clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Case {
    /// The name of the workload.
    pub(crate) workload: &'static str,
    /// How many clients.
    pub(crate) clients: usize,
    /// The target.
    pub(crate) target: Target,
}

impl Case {
    pub(crate) fn new(target: Target, workload: Workload, clients: usize) -> Self {
        Self { workload: workload.name(), clients, target }
    }
}

/// What came of all rounds of a case: each figure is the median of its own.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub(crate) struct Figures {
    /// Throughput.
    pub(crate) ops_per_s: f64,
    /// The lowest and the highest of all rounds.
    pub(crate) ops_per_s_range: (f64, f64),
    /// Latency of half of all operations.
    pub(crate) p50_us: f64,
    /// Latency of 99 %.
    pub(crate) p99_us: f64,
    /// Time on the processor of all the target's processes.
    pub(crate) cpu_us_per_op: f64,
    /// And of the load.
    pub(crate) load_us_per_op: f64,
    /// Failed operations of all rounds, added up.
    pub(crate) errors: u64,
    /// How many rounds there were.
    pub(crate) rounds: usize,
}

/// The figures of every case that was run.
pub(crate) fn summarize(runs: &[Run]) -> BTreeMap<Case, Figures> {
    let mut cases: BTreeMap<Case, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        cases.entry(run.case()).or_default().push(run);
    }
    cases.into_iter().map(|(case, runs)| (case, figures(&runs))).collect()
}

fn figures(runs: &[&Run]) -> Figures {
    let of = |figure: fn(&Run) -> f64| runs.iter().map(|run| figure(run)).collect::<Vec<_>>();
    let throughput = of(|run| run.report.total.ops_per_s);
    Figures {
        ops_per_s_range: (
            throughput.iter().copied().fold(f64::INFINITY, f64::min),
            throughput.iter().copied().fold(0.0, f64::max),
        ),
        ops_per_s: median(throughput),
        p50_us: median(of(|run| run.report.total.p50_us)),
        p99_us: median(of(|run| run.report.total.p99_us)),
        cpu_us_per_op: median(of(|run| run.spent.cpu_us_per_op)),
        load_us_per_op: median(of(|run| run.spent.load_us_per_op)),
        errors: runs.iter().map(|run| run.report.total.errors).sum(),
        rounds: runs.len(),
    }
}

/// The middle of some numbers, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match (numbers.len() % 2, numbers.get(middle)) {
        (_, None) => 0.0,
        (1, Some(one)) => *one,
        (_, Some(upper)) => f64::midpoint(numbers[middle - 1], *upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "no arithmetic that rounds")]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 3.0, 4.0]), 3.5);
        assert_eq!(median(vec![f64::NAN, 1.0, 2.0]), 2.0, "what is no number is on the outside");
    }
}
