//! What was counted: latencies in a histogram, failures by their kind. One for each thread, added up at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bench::connection::{Failure, Operation, Outcome};
use crate::types::limits::BENCH_LATENCY_MAX;

/// What an operation does, whatever its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperationKind {
    /// It reads.
    Read,
    /// It writes.
    Update,
}

impl OperationKind {
    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Update => "update",
        }
    }
}

impl From<&Operation> for OperationKind {
    fn from(operation: &Operation) -> Self {
        match operation {
            Operation::Read { .. } => Self::Read,
            Operation::Update { .. } => Self::Update,
        }
    }
}

/// What kind of failure it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ErrorKind {
    /// The server answered with this status.
    Status(u16),
    /// The connection broke.
    Connection,
    /// There was no answer in time.
    Timeout,
}

impl From<&Failure> for ErrorKind {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Refused { status, .. } => Self::Status(*status),
            Failure::Broken(_) => Self::Connection,
            Failure::Timeout => Self::Timeout,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Connection => f.write_str("connection"),
            Self::Timeout => f.write_str("timeout"),
        }
    }
}

/// What came of the operations of one kind.
#[derive(Clone, Debug)]
pub struct Tally {
    latencies_ns: Histogram<u64>,
    /// Of those answered, how many were so only after the run had ended.
    late: u64,
    not_found: u64,
    errors: BTreeMap<ErrorKind, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let most = u64::try_from(BENCH_LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
        let latencies_ns = Histogram::new_with_bounds(1, most, 3).expect("the bounds are valid");
        Self { latencies_ns, late: 0, not_found: 0, errors: BTreeMap::new() }
    }
}

impl Tally {
    /// Takes note of an operation that was answered, `late` if the run had ended by then.
    pub(super) fn answered(&mut self, outcome: Outcome, latency: Duration, late: bool) {
        let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies_ns.saturating_record(latency_ns);
        self.late += u64::from(late);
        self.not_found += u64::from(outcome == Outcome::NotFound);
    }

    /// Takes note of one that was not.
    pub(super) fn failed(&mut self, kind: ErrorKind) {
        *self.errors.entry(kind).or_default() += 1;
    }

    /// Adds what another thread has counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.latencies_ns.add(&other.latencies_ns).expect("both have the same bounds");
        self.late += other.late;
        self.not_found += other.not_found;
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
    }

    /// Operations that were answered, those that found no value included.
    pub fn ops(&self) -> u64 {
        self.latencies_ns.len()
    }

    /// Those of them that were answered before the run ended: what throughput is made of.
    pub fn ops_in_time(&self) -> u64 {
        self.ops() - self.late
    }

    /// Those of them that found no value.
    pub fn not_found(&self) -> u64 {
        self.not_found
    }

    /// Operations that failed, by kind. They are in no latency.
    pub fn errors(&self) -> &BTreeMap<ErrorKind, u64> {
        &self.errors
    }

    /// Latencies, in nanoseconds.
    pub fn latencies_ns(&self) -> &Histogram<u64> {
        &self.latencies_ns
    }
}

/// What came of a run of one workload.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies {
    pub(super) reads: Tally,
    pub(super) updates: Tally,
    /// Connections that could not be opened, again or at all.
    pub(super) unopened: BTreeMap<ErrorKind, u64>,
    /// What one failure said, for people: the first.
    pub(super) example: Option<String>,
}

impl Tallies {
    pub(super) fn of(&mut self, kind: OperationKind) -> &mut Tally {
        match kind {
            OperationKind::Read => &mut self.reads,
            OperationKind::Update => &mut self.updates,
        }
    }

    pub(super) fn remember(&mut self, failure: &Failure) {
        self.example.get_or_insert_with(|| failure.to_string());
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.updates.add(&other.updates);
        for (kind, count) in &other.unopened {
            *self.unopened.entry(*kind).or_default() += count;
        }
        if self.example.is_none() {
            self.example.clone_from(&other.example);
        }
    }
}
