//! What a run has come to, in the form in which it is shown and written to files.
//!
//! Throughput counts what was answered while the time ran; latencies are those of everything that was
//! answered, from when it was to begin, and failures are in neither. Percentiles are those of the histogram, which keeps three digits.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::bench::settings::Workload;
use crate::bench::tally::{ErrorKind, OperationKind, Tallies, Tally};

/// The result of one workload.
#[derive(Clone, Debug)]
pub struct Measured {
    workload: Workload,
    elapsed: Duration,
    rate: Option<u64>,
    not_sent: u64,
    tallies: Tallies,
}

/// The same for eyes and scripts.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RunReport {
    /// What was run.
    pub workload: Workload,
    /// How long it was measured; less than was asked for if it was interrupted.
    pub elapsed_s: f64,
    /// The rate that was asked for, in operations per second.
    pub target_ops_per_s: Option<u64>,
    /// Operations that were due on the schedule and that no client had time to send.
    pub not_sent: u64,
    /// Connections that could not be opened, by the kind of failure.
    pub connect_errors: BTreeMap<String, u64>,
    /// What the first failure said.
    pub first_error: Option<String>,
    /// One for each kind of operation that the workload has.
    pub operations: Vec<OperationReport>,
    /// All operations together.
    pub total: OperationReport,
}

/// What became of some operations.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct OperationReport {
    /// `read`, `update` or `all`.
    pub operation: &'static str,
    /// How many were answered, those that found no value included.
    pub ops: u64,
    /// How many of them came after the time was over.
    pub late_ops: u64,
    /// How many were answered in a second, those that came late not counted.
    pub ops_per_s: f64,
    /// How many found no value.
    pub not_found: u64,
    /// How many failed.
    pub errors: u64,
    /// How many failed, by kind: `status 503`, `connection`, `timeout`.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// The mean latency in microseconds.
    pub mean_us: f64,
    /// Half of all were at least as fast.
    pub p50_us: f64,
    /// 95 % were.
    pub p95_us: f64,
    /// 99 % were.
    pub p99_us: f64,
    /// 99.9 % were.
    pub p999_us: f64,
    /// All were.
    pub max_us: f64,
}

impl Measured {
    pub(super) fn new(
        workload: Workload,
        elapsed: Duration,
        (rate, not_sent): (Option<u64>, u64),
        tallies: Tallies,
    ) -> Self {
        Self { workload, elapsed, rate, not_sent, tallies }
    }

    /// What came of the operations of one kind.
    pub fn of(&self, kind: OperationKind) -> &Tally {
        match kind {
            OperationKind::Read => &self.tallies.reads,
            OperationKind::Update => &self.tallies.updates,
        }
    }

    /// What came of all operations.
    pub fn total(&self) -> Tally {
        let mut total = self.tallies.reads.clone();
        total.add(&self.tallies.updates);
        total
    }

    /// All of it in figures.
    pub fn report(&self) -> RunReport {
        let kinds: &[OperationKind] = match self.workload.read_percent() {
            0 => &[OperationKind::Update],
            100 => &[OperationKind::Read],
            _ => &[OperationKind::Read, OperationKind::Update],
        };
        let row = |kind: &OperationKind| self.row(kind.name(), self.of(*kind));
        RunReport {
            workload: self.workload,
            elapsed_s: self.elapsed.as_secs_f64(),
            target_ops_per_s: self.rate,
            not_sent: self.not_sent,
            connect_errors: by_name(&self.tallies.unopened),
            first_error: self.tallies.example.clone(),
            operations: kinds.iter().map(row).collect(),
            total: self.row("all", &self.total()),
        }
    }

    fn row(&self, operation: &'static str, tally: &Tally) -> OperationReport {
        let latencies = tally.latencies_ns();
        let at = |quantile| in_us(latencies.value_at_quantile(quantile));
        let seconds = self.elapsed.as_secs_f64();
        let in_time = to_f64(tally.ops_in_time());
        OperationReport {
            operation,
            ops: tally.ops(),
            late_ops: tally.ops() - tally.ops_in_time(),
            ops_per_s: if seconds > 0.0 { tenths(in_time / seconds) } else { 0.0 },
            not_found: tally.not_found(),
            errors: tally.errors().values().sum(),
            errors_by_kind: by_name(tally.errors()),
            mean_us: tenths(Histogram::mean(latencies) / 1000.0),
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: in_us(latencies.max()),
        }
    }
}

impl RunReport {
    /// Whether a rate was asked for and the server did not keep up with it: some requests were due and not
    /// sent before the time was over. They are in no latency.
    pub fn is_behind(&self) -> bool {
        self.not_sent > 0
    }
}

fn by_name(errors: &BTreeMap<ErrorKind, u64>) -> BTreeMap<String, u64> {
    errors.iter().map(|(kind, count)| (kind.to_string(), *count)).collect()
}

fn in_us(nanos: u64) -> f64 {
    tenths(to_f64(nanos) / 1000.0)
}

/// To one place.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use crate::bench::connection::Outcome;

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_histogram() {
        let mut tallies = Tallies::default();
        for micros in 1..=10_000 {
            let latency = Duration::from_micros(micros);
            let late = micros > 9_990;
            tallies.reads.answered(Outcome::Done, latency, late);
            tallies.updates.answered(Outcome::NotFound, latency * 10, false);
        }
        tallies.updates.failed(ErrorKind::Status(503));
        let elapsed = Duration::from_secs(2);
        let measured = Measured::new(Workload::YcsbA, elapsed, (Some(20_000), 7), tallies);
        let report = measured.report();
        let [read, update] = &report.operations[..] else { panic!("{report:?}") };
        let histogram = measured.of(OperationKind::Read).latencies_ns();
        for (quantile, found) in
            [(0.5, read.p50_us), (0.95, read.p95_us), (0.99, read.p99_us), (0.999, read.p999_us)]
        {
            assert!((found - in_us(histogram.value_at_quantile(quantile))).abs() < f64::EPSILON);
            // What went in, to three digits.
            let exact = quantile * 10_000.0;
            assert!((found - exact).abs() <= exact / 1000.0, "{quantile}: {found}, not {exact}");
        }
        assert!((update.p50_us / read.p50_us - 10.0).abs() < 0.02, "{report:?}");
        assert!(report.total.max_us >= 100_000.0 && report.total.ops == 20_000, "{report:?}");
        assert_eq!((read.ops, read.late_ops, read.ops_per_s), (10_000, 10, 4_995.0));
        assert_eq!((update.not_found, update.errors), (10_000, 1));
        assert_eq!(update.errors_by_kind, BTreeMap::from([("status 503".to_owned(), 1)]));
        assert!(report.is_behind(), "{report:?}");
    }

    #[test]
    fn nothing_at_all_is_a_row_of_zeros() {
        let nothing = Tallies::default();
        let report = Measured::new(Workload::Get, Duration::ZERO, (None, 0), nothing).report();
        assert_eq!((report.total.ops, report.total.ops_per_s), (0, 0.0));
        assert_eq!((report.total.p99_us, report.total.max_us), (0.0, 0.0));
        assert!(!report.is_behind());
    }
}
