//! Checks keys that one client each writes, one write after the other, with the numbers 1, 2, 3, …
//!
//! For such a register linearizability is simple, and this check of it is complete: a read returns
//! a number that was sent before the read ended (1), not less than the last number acknowledged
//! before it began (2), not less than what any read that ended before it began had returned (3),
//! and never one whose write has failed or fails later (4). A write of unknown fate may take effect
//! at any later time, so it is the last write to its key: the workload never writes there again.
//!
//! A stale read, which says how old its state may be, must have seen what was acknowledged before
//! that time, and never what was not sent or was refused; (3) does not bind it.
//!
//! It takes events one by one and keeps a few numbers for each key, so a run of any length can be
//! checked while it lasts.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::checker::{Anomaly, Kind};
use crate::history::{Action, Event, Stage, Value};

/// Nanoseconds.
const NS_PER_MS: u64 = 1_000_000;

/// What is known of every key, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    keys: HashMap<Arc<str>, Register>,
    /// What each process that reads must see at least.
    reading: HashMap<u32, Floor>,
    /// The position of the event that is looked at.
    at: usize,
    anomalies: Vec<Anomaly>,
}

/// What is known of one key.
#[derive(Debug, Default)]
struct Register {
    /// The last number sent.
    sent: u64,
    /// The numbers acknowledged, each with when and where in the history.
    acks: Vec<Ack>,
    /// The greatest number that any read has returned.
    seen: u64,
    /// The last write, while it has no answer or an unknown fate.
    open: Option<u64>,
    /// Numbers whose write certainly had no effect.
    failed: BTreeSet<u64>,
}

/// A write was acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct Ack {
    number: u64,
    time: u64,
    at: usize,
}

/// What a read that begins now must see at least.
#[derive(Clone, Copy, Debug)]
struct Floor {
    acked: Ack,
    seen: u64,
    began: u64,
    at: usize,
}

impl Checker {
    /// Takes in the next event of the history, the `at`-th.
    ///
    /// # Panics
    /// If the workload breaks its own rules: a bug of the harness.
    pub(crate) fn observe(&mut self, at: usize, event: &Event) {
        self.at = at;
        match event.f {
            Action::Write => self.write(event),
            Action::Read | Action::LeaseRead | Action::StaleRead | Action::FinalRead => {
                match event.stage {
                    Stage::Invoke => self.begin_read(event),
                    Stage::Ok => self.end_read(event),
                    // A read without an answer says nothing.
                    Stage::Fail | Stage::Info => {
                        self.reading.remove(&event.process);
                    }
                }
            }
            Action::Delete
            | Action::Cas
            | Action::Append
            | Action::Transfer
            | Action::WriteBoth
            | Action::WatchBegin
            | Action::WatchResume
            | Action::Watch
            | Action::WatchEnd => {
                panic!("a ledger is only written and read: {event:?}")
            }
        }
    }

    /// What was found until now.
    pub(crate) fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }

    fn write(&mut self, event: &Event) {
        let Value::Number(number) = event.value else {
            panic!("a write has a number: {event:?}");
        };
        let register = self.keys.entry(Arc::clone(&event.key)).or_default();
        match event.stage {
            Stage::Invoke => {
                assert_eq!(register.open, None, "one write at a time: {event:?}");
                assert_eq!(number, register.sent + 1, "numbers rise by one: {event:?}");
                register.sent = number;
                register.open = Some(number);
            }
            Stage::Ok => {
                register.acks.push(Ack { number, time: event.time, at: self.at });
                register.open = None;
            }
            Stage::Fail => {
                register.open = None;
                register.failed.insert(number);
                if register.seen == number {
                    let detail = format!("{number} was read before it was refused");
                    self.report(Kind::FailedWriteSeen, event, &detail, &[]);
                }
            }
            Stage::Info => {}
        }
    }

    fn begin_read(&mut self, event: &Event) {
        let register = self.keys.entry(Arc::clone(&event.key)).or_default();
        let acked = register.acks.last().copied().unwrap_or_default();
        let floor = Floor { acked, seen: register.seen, began: event.time, at: self.at };
        let before = self.reading.insert(event.process, floor);
        assert!(before.is_none(), "one operation at a time: {event:?}");
    }

    fn end_read(&mut self, event: &Event) {
        let floor = self.reading.remove(&event.process);
        let mut floor = floor.unwrap_or_else(|| panic!("a read ends that never began: {event:?}"));
        let register = self.keys.entry(Arc::clone(&event.key)).or_default();
        if event.f == Action::StaleRead {
            floor.seen = 0;
            floor.acked = register.acked_at(as_of(floor.began, event.lag_ms));
        }
        let number = match &event.value {
            Value::Number(number) => *number,
            Value::Foreign { foreign: text } => {
                let detail = format!("read {text:?}");
                return self.report(Kind::ForeignValue, event, &detail, &[floor.at]);
            }
            Value::None
            | Value::Cas { .. }
            | Value::List(_)
            | Value::Transfer { .. }
            | Value::Bank { .. }
            | Value::Both { .. }
            | Value::Told { .. } => {
                panic!("a read that succeeded has a number: {event:?}")
            }
        };
        if number > register.sent {
            let detail = format!("read {number}, the last one sent is {}", register.sent);
            return self.report(Kind::ReadFromFuture, event, &detail, &[floor.at]);
        }
        if register.failed.contains(&number) {
            let detail = format!("read {number}");
            return self.report(Kind::FailedWriteSeen, event, &detail, &[floor.at]);
        }
        register.seen = register.seen.max(number);
        if number < floor.acked.number {
            let lost = event.f == Action::FinalRead;
            let kind = if lost { Kind::LostWrite } else { Kind::StaleRead };
            let claim = event.lag_ms.map(|lag| format!(", said to be {lag} ms old"));
            let detail = format!(
                "read {number}{} after {} was acknowledged by {} ms",
                claim.unwrap_or_default(),
                floor.acked.number,
                floor.began.saturating_sub(floor.acked.time) / NS_PER_MS
            );
            self.report(kind, event, &detail, &[floor.acked.at, floor.at]);
        } else if number < floor.seen {
            let detail = format!("read {number} after {} was read", floor.seen);
            self.report(Kind::ReadWentBack, event, &detail, &[floor.at]);
        }
    }

    fn report(&mut self, kind: Kind, event: &Event, detail: &str, before: &[usize]) {
        let detail = format!("{detail} (process {}, {} ns)", event.process, event.time);
        let events = before.iter().copied().chain([self.at]).collect();
        self.anomalies.push(Anomaly { kind, key: Arc::clone(&event.key), detail, events });
    }
}

impl Register {
    /// The last write acknowledged at that time.
    fn acked_at(&self, time: u64) -> Ack {
        let before = self.acks.partition_point(|ack| ack.time <= time);
        before.checked_sub(1).map(|last| self.acks[last]).unwrap_or_default()
    }
}

/// The latest time whose writes a stale read must have seen: it was answered after it began, with
/// a state no older than it says, in whole milliseconds.
fn as_of(began: u64, lag_ms: Option<u64>) -> u64 {
    lag_ms.map_or(0, |lag| began.saturating_sub(lag.saturating_add(1).saturating_mul(NS_PER_MS)))
}

#[cfg(test)]
mod tests;
