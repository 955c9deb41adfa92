//! Takes the place of base2histogram under openraft, and keeps nothing.
//!
//! openraft records sizes of its batches and messages in histograms that only its feature `runtime-stats` lets anybody read. We build it
//! without, and still base2histogram would make tables of 25 MB in each process that runs Raft. This has what openraft calls, and
//! no more; `docs/decisions/022-no-histograms.md` says why it is here, and when it may go.

use std::fmt;
use std::marker::PhantomData;

/// Forgets what is recorded in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self(PhantomData)
    }

    /// Forgets a value.
    pub fn record(&mut self, _value: u64) {}

    /// Forgets as many values.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Those of no values.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// How many values a histogram has, and percentiles of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the percentile in its name")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing is recorded")
    }
}

/// A chart of nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty one.
    pub fn new() -> Self {
        Self
    }

    /// The same, whatever is added.
    #[must_use]
    pub fn add(self, _name: impl Into<String>, _histogram: Histogram) -> Self {
        self
    }

    /// As it is printed.
    pub fn detailed(&self) -> &'static str {
        "nothing is recorded\n"
    }
}
