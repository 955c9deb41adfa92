//! How far a run is, for those who watch it: counted by each thread in a place of its own, so that watching costs
//! nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what the threads of one run have done so far, the warm-up included.
#[derive(Debug)]
pub struct Progress {
    counters: Box<[Counter]>,
}

/// What one thread has done; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counter {
    ops: AtomicU64,
    errors: AtomicU64,
}

impl Progress {
    /// Nothing done yet, by so many threads.
    pub fn new(threads: usize) -> Self {
        Self { counters: (0..threads.max(1)).map(|_| Counter::default()).collect() }
    }

    /// Operations that were answered, or keys that were loaded.
    pub fn ops(&self) -> u64 {
        self.counters.iter().map(|counter| counter.ops.load(Ordering::Relaxed)).sum()
    }

    /// Operations that failed.
    pub fn errors(&self) -> u64 {
        self.counters.iter().map(|counter| counter.errors.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn add_ops(&self, thread: usize, ops: u64) {
        self.counters[thread % self.counters.len()].ops.fetch_add(ops, Ordering::Relaxed);
    }

    pub(super) fn add_error(&self, thread: usize) {
        self.counters[thread % self.counters.len()].errors.fetch_add(1, Ordering::Relaxed);
    }
}
