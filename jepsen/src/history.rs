//! What happened, in the order in which it happened: one event when an operation begins and one
//! when it ends.
//!
//! The order of events is real time: an operation begins here before it is sent and ends here
//! after its answer was read. As in Jepsen, a process whose operation ends as `info` (nobody knows
//! whether it took effect) never comes back: its client goes on as another process.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::checker::Anomaly;
use crate::checker::ledger::Checker;

/// Where an operation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// It begins.
    Invoke,
    /// It succeeded.
    Ok,
    /// It certainly did not and will not take effect.
    Fail,
    /// It may or may not take effect, now or later.
    Info,
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// Writes the next number of a key.
    Write,
    /// Reads a key, linearizable.
    Read,
    /// As `Read`, when everything is healed and nobody writes any more.
    FinalRead,
}

/// What is written or was read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    /// Not known yet.
    None,
    /// The key's n-th write; 0 when it has no value.
    Number(u64),
    /// Something that nobody ever wrote to that key.
    Foreign(String),
}

/// A beginning or an end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Event {
    /// Nanoseconds since the run began.
    pub(crate) time: u64,
    /// Who does it: one operation at a time.
    pub(crate) process: u32,
    /// Beginning, or how it ended.
    #[serde(rename = "type")]
    pub(crate) stage: Stage,
    /// What is done.
    pub(crate) f: Action,
    /// With which key.
    pub(crate) key: Arc<str>,
    /// With what in it.
    pub(crate) value: Value,
    /// Why it failed or is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Succeeded.
    pub(crate) ok: u64,
    /// Certainly without effect.
    pub(crate) failed: u64,
    /// Of unknown effect.
    pub(crate) unknown: u64,
}

impl Counts {
    /// All that have ended.
    pub(crate) fn total(self) -> u64 {
        self.ok + self.failed + self.unknown
    }
}

/// Takes down what happens, from many clients at a time, and checks it as it comes.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    events: Vec<Event>,
    checker: Checker,
    counts: Counts,
    last_write: Duration,
    longest_gap: Duration,
}

impl Recorder {
    /// Begins an empty history now.
    pub(crate) fn new() -> Self {
        let inner = Inner {
            events: Vec::new(),
            checker: Checker::default(),
            counts: Counts::default(),
            last_write: Duration::ZERO,
            longest_gap: Duration::ZERO,
        };
        Self { start: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Takes down one event; its time is now.
    pub(crate) fn record(&self, mut event: Event) {
        let mut inner = self.lock();
        // Under the lock, so that times rise with the order of events.
        let now = self.start.elapsed();
        event.time = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        match event.stage {
            Stage::Invoke => {}
            Stage::Ok => inner.counts.ok += 1,
            Stage::Fail => inner.counts.failed += 1,
            Stage::Info => inner.counts.unknown += 1,
        }
        if event.stage == Stage::Ok && event.f == Action::Write {
            inner.longest_gap = inner.longest_gap.max(now.saturating_sub(inner.last_write));
            inner.last_write = now;
        }
        inner.checker.observe(&event);
        inner.events.push(event);
    }

    /// How long the run lasts.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What ended how.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// The longest time between two acknowledged writes of any clients.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.lock().longest_gap
    }

    /// What was found until now.
    pub(crate) fn anomalies(&self) -> Vec<Anomaly> {
        self.lock().checker.anomalies().to_vec()
    }

    /// Keys that were written to and not read at the end.
    pub(crate) fn unread(&self) -> Vec<Arc<str>> {
        self.lock().checker.unread()
    }

    /// Writes the history as JSON, one event a line.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let file = std::fs::File::create(path).context("the history can't be written")?;
        let mut file = std::io::BufWriter::new(file);
        for event in &self.lock().events {
            serde_json::to_writer(&mut file, event)?;
            file.write_all(b"\n")?;
        }
        file.flush().context("the history can't be written")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no client panics while it records")
    }
}
