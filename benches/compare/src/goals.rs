//! What `SageDB` is to be, in ratios to the others of the same run.
//!
//! Ratios, because figures of one machine say nothing on another: even time on the processor is held against what the
//! bare HTTP server takes here.

use std::collections::BTreeMap;
use std::fmt;

use sagedb::bench::Workload::{self, Get, Put, YcsbA, YcsbB};
use serde::Serialize;

use crate::stats::{Case, Figures};
use crate::target::Target::{
    self, Axum, EtcdGrpc, EtcdJson, Proxy, Redis, Sage, Sage3, SageLeader,
};

/// Which figure is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Figure {
    Throughput,
    P50,
    P99,
    Cpu,
}

impl Figure {
    fn of(self, figures: &Figures) -> f64 {
        match self {
            Self::Throughput => figures.ops_per_s,
            Self::P50 => figures.p50_us,
            Self::P99 => figures.p99_us,
            Self::Cpu => figures.cpu_us_per_op,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Throughput => "ops/s",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::Cpu => "CPU µs/op",
        }
    }
}

/// Where the ratio is to be.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Wanted {
    AtLeast(f64),
    MoreThan(f64),
    AtMost(f64),
}

impl Wanted {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::MoreThan(bound) => ratio > bound,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least:.2}"),
            Self::MoreThan(bound) => write!(f, "> {bound:.2}"),
            Self::AtMost(most) => write!(f, "≤ {most:.2}"),
        }
    }
}

/// One goal.
#[derive(Clone, Copy, Debug)]
struct Goal {
    figure: Figure,
    workload: Workload,
    clients: usize,
    ours: Target,
    other: Target,
    wanted: Wanted,
}

type Line = (Figure, &'static [Workload], usize, (Target, Target), Wanted);

/// All of them, in the order of the table.
const GOALS: &[Line] = &[
    (Figure::Throughput, &[Put], 256, (Sage, EtcdJson), Wanted::AtLeast(4.0)),
    (Figure::Throughput, &[Put], 256, (Sage, EtcdGrpc), Wanted::AtLeast(2.0)),
    (Figure::Throughput, &[Put], 256, (Sage, Redis), Wanted::AtLeast(1.25)),
    (Figure::Throughput, &[Get], 256, (Sage, EtcdJson), Wanted::AtLeast(4.0)),
    (Figure::Throughput, &[Get], 256, (Sage, EtcdGrpc), Wanted::AtLeast(1.15)),
    (Figure::Throughput, &[Get], 256, (Sage, Proxy), Wanted::MoreThan(1.0)),
    (Figure::Throughput, &[Put], 256, (SageLeader, EtcdGrpc), Wanted::AtLeast(3.0)),
    (Figure::Throughput, &[Get], 256, (SageLeader, Axum), Wanted::AtLeast(0.65)),
    (Figure::Throughput, &[YcsbA, YcsbB], 256, (Sage, EtcdJson), Wanted::AtLeast(4.0)),
    (Figure::Throughput, &[YcsbA, YcsbB], 256, (Sage, EtcdGrpc), Wanted::AtLeast(2.0)),
    (Figure::P50, &[Put, Get], 1, (Sage, EtcdGrpc), Wanted::AtMost(0.8)),
    (Figure::P99, &[Put, Get], 64, (Sage, EtcdJson), Wanted::AtMost(0.4)),
    (Figure::P99, &[Put, Get], 64, (Sage, EtcdGrpc), Wanted::AtMost(0.7)),
    // 60 µs where the bare server takes 12 for the same, and 30 where it takes 11.
    (Figure::Cpu, &[Put], 64, (Sage, Axum), Wanted::AtMost(60.0 / 12.0)),
    (Figure::Cpu, &[Get], 64, (Sage, Axum), Wanted::AtMost(30.0 / 11.0)),
    (Figure::Cpu, &[Put, Get], 64, (Sage3, Sage), Wanted::AtMost(1.15)),
];

fn goals() -> impl Iterator<Item = Goal> {
    GOALS.iter().flat_map(|&(figure, workloads, clients, (ours, other), wanted)| {
        let goal = move |&workload| Goal { figure, workload, clients, ours, other, wanted };
        workloads.iter().map(goal)
    })
}

/// Whether a goal is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Reached,
    NotReached,
    /// Not both were run, without a failure.
    NotMeasured,
}

impl Verdict {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::NotReached => "not reached",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A goal and what came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Judged {
    /// What is compared: `ops/s of put, 256 clients`.
    pub(crate) what: String,
    /// Whose goal it is.
    pub(crate) ours: &'static str,
    /// Its figure.
    pub(crate) our_figure: Option<f64>,
    /// Whom it is held against.
    pub(crate) other: &'static str,
    /// That one's figure.
    pub(crate) other_figure: Option<f64>,
    /// The first divided by the second.
    pub(crate) ratio: Option<f64>,
    /// Where that is to be.
    pub(crate) wanted: String,
    /// Whether it is.
    pub(crate) verdict: Verdict,
}

/// Every goal, over what was measured.
pub(crate) fn judge(figures: &BTreeMap<Case, Figures>) -> Vec<Judged> {
    goals().map(|goal| goal.judge(figures)).collect()
}

impl Goal {
    fn judge(&self, figures: &BTreeMap<Case, Figures>) -> Judged {
        let figure = |target| {
            let case = Case::new(target, self.workload, self.clients);
            // What failed is in no latency.
            let whole = figures.get(&case).filter(|figures| figures.errors == 0);
            whole.map(|figures| self.figure.of(figures))
        };
        let (our_figure, other_figure) = (figure(self.ours), figure(self.other));
        let ratio = our_figure.zip(other_figure).and_then(|(ours, other)| ratio(ours, other));
        let verdict = match ratio {
            Some(ratio) if self.wanted.holds(ratio) => Verdict::Reached,
            Some(_) => Verdict::NotReached,
            None => Verdict::NotMeasured,
        };
        let clients = if self.clients == 1 { "client" } else { "clients" };
        Judged {
            what: format!("{}, {}, {} {clients}", self.figure.name(), self.workload, self.clients),
            ours: self.ours.name(),
            our_figure,
            other: self.other.name(),
            other_figure,
            ratio,
            wanted: self.wanted.to_string(),
            verdict,
        }
    }
}

/// One figure divided by another; `None` if that says nothing.
fn ratio(ours: f64, other: f64) -> Option<f64> {
    let ratio = ours / other;
    (other > 0.0 && ratio.is_finite()).then_some(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(ops_per_s: f64) -> Figures {
        let latency = 1_000_000.0 / ops_per_s;
        let (p50_us, p99_us, cpu_us_per_op) = (latency, latency * 2.0, latency / 2.0);
        Figures { ops_per_s, p50_us, p99_us, cpu_us_per_op, ..Figures::default() }
    }

    fn verdict(ours: f64, other: f64, (at, against): (Target, Target), what: &str) -> Verdict {
        let mut all = BTreeMap::new();
        for workload in Workload::ALL {
            for clients in [1, 64, 256] {
                all.insert(Case::new(at, workload, clients), figures(ours));
                all.insert(Case::new(against, workload, clients), figures(other));
            }
        }
        let judged = judge(&all);
        let of_both = |one: &&Judged| one.ours == at.name() && one.other == against.name();
        let mut named = judged.iter().filter(of_both).filter(|one| one.what == what);
        named.next().unwrap_or_else(|| panic!("no goal {what}: {judged:#?}")).verdict
    }

    #[test]
    fn a_goal_is_reached_exactly_at_its_bound() {
        let json = (Sage, EtcdJson);
        let put = "ops/s, put, 256 clients";
        assert_eq!(verdict(4000.0, 1000.0, json, put), Verdict::Reached);
        assert_eq!(verdict(3999.0, 1000.0, json, put), Verdict::NotReached);
        let get = "ops/s, get, 256 clients";
        assert_eq!(verdict(1000.0, 1000.0, (Sage, Proxy), get), Verdict::NotReached);
        assert_eq!(verdict(1001.0, 1000.0, (Sage, Proxy), get), Verdict::Reached);
        let p99 = "p99 µs, get, 64 clients";
        assert_eq!(verdict(1000.0, 400.0, json, p99), Verdict::Reached);
        assert_eq!(verdict(1000.0, 401.0, json, p99), Verdict::NotReached);
        let cpu = "CPU µs/op, put, 64 clients";
        assert_eq!(verdict(1000.0, 5000.0, (Sage, Axum), cpu), Verdict::Reached);
        assert_eq!(verdict(1000.0, 5001.0, (Sage, Axum), cpu), Verdict::NotReached);
    }

    #[test]
    fn what_was_not_run_is_not_measured() {
        let all = judge(&BTreeMap::new());
        assert_eq!(all.len(), 22);
        assert!(all.iter().all(|one| one.verdict == Verdict::NotMeasured && one.ratio.is_none()));
    }

    #[test]
    fn nothing_is_no_ratio() {
        for (ours, other) in [(1.0, 0.0), (0.0, 0.0), (f64::NAN, 1.0), (f64::INFINITY, 1.0)] {
            assert_eq!(ratio(ours, other), None);
        }
        assert_eq!(ratio(0.0, 1.0), Some(0.0));
    }
}
