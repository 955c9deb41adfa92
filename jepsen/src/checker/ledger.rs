//! Checks keys that one client each writes, one write after the other, with the numbers 1, 2, 3, …
//!
//! For such a register linearizability is simple, and this check of it is complete: a read returns
//! a number that was sent before the read ended (1), not less than the last number acknowledged
//! before it began (2), not less than what any read that ended before it began had returned (3),
//! and never one whose write has failed or fails later (4). A write of unknown fate may take effect
//! at any later time, so it is the last write to its key: the workload never writes there again.
//!
//! It takes events one by one and keeps a few numbers for each key, so a run of any length can be
//! checked while it lasts.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::checker::{Anomaly, Kind};
use crate::history::{Action, Event, Stage, Value};

/// What is known of every key, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    keys: HashMap<Arc<str>, Register>,
    /// What each process that reads must see at least.
    reading: HashMap<u32, Floor>,
    anomalies: Vec<Anomaly>,
}

/// What is known of one key.
#[derive(Debug, Default)]
struct Register {
    /// The last number sent.
    sent: u64,
    /// The last number acknowledged.
    acked: u64,
    /// The greatest number that any read has returned.
    seen: u64,
    /// The last write, while it has no answer or an unknown fate.
    open: Option<u64>,
    /// Numbers whose write certainly had no effect.
    failed: BTreeSet<u64>,
    /// Whether it was read at the end.
    settled: bool,
}

/// What a read that begins now must see at least.
#[derive(Clone, Copy, Debug)]
struct Floor {
    acked: u64,
    seen: u64,
}

impl Checker {
    /// Takes in the next event of the history.
    ///
    /// # Panics
    /// If the workload breaks its own rules: a bug of the harness.
    pub(crate) fn observe(&mut self, event: &Event) {
        match (event.f, event.stage) {
            (Action::Write, stage) => self.write(event, stage),
            (Action::Read | Action::FinalRead, Stage::Invoke) => self.begin_read(event),
            (Action::Read | Action::FinalRead, Stage::Ok) => self.end_read(event),
            // A read without an answer says nothing.
            (Action::Read | Action::FinalRead, Stage::Fail | Stage::Info) => {
                self.reading.remove(&event.process);
            }
        }
    }

    /// What was found until now.
    pub(crate) fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }

    /// Keys that were written to and have no final read: nothing is known of their end.
    pub(crate) fn unread(&self) -> Vec<Arc<str>> {
        let open = self.keys.iter().filter(|(_, register)| register.sent > 0 && !register.settled);
        open.map(|(key, _)| Arc::clone(key)).collect()
    }

    fn write(&mut self, event: &Event, stage: Stage) {
        let Value::Number(number) = event.value else {
            panic!("a write has a number: {event:?}");
        };
        let register = self.keys.entry(Arc::clone(&event.key)).or_default();
        match stage {
            Stage::Invoke => {
                assert_eq!(register.open, None, "one write at a time: {event:?}");
                assert_eq!(number, register.sent + 1, "numbers rise by one: {event:?}");
                register.sent = number;
                register.open = Some(number);
            }
            Stage::Ok => {
                register.acked = number;
                register.open = None;
            }
            Stage::Fail => {
                register.open = None;
                register.failed.insert(number);
                if register.seen == number {
                    let detail = format!("{number} was read before it was refused");
                    self.report(Kind::FailedWriteSeen, event, &detail);
                }
            }
            Stage::Info => {}
        }
    }

    fn begin_read(&mut self, event: &Event) {
        let register = self.keys.entry(Arc::clone(&event.key)).or_default();
        let floor = Floor { acked: register.acked, seen: register.seen };
        let before = self.reading.insert(event.process, floor);
        assert!(before.is_none(), "one operation at a time: {event:?}");
    }

    fn end_read(&mut self, event: &Event) {
        let floor = self.reading.remove(&event.process);
        let floor = floor.unwrap_or_else(|| panic!("a read ends that never began: {event:?}"));
        let register = self.keys.entry(Arc::clone(&event.key)).or_default();
        register.settled |= event.f == Action::FinalRead;
        let number = match &event.value {
            Value::Number(number) => *number,
            Value::Foreign(text) => {
                let detail = format!("read {text:?}");
                return self.report(Kind::ForeignValue, event, &detail);
            }
            Value::None => panic!("a read that succeeded has a value: {event:?}"),
        };
        if number > register.sent {
            let detail = format!("read {number}, the last one sent is {}", register.sent);
            return self.report(Kind::ReadFromFuture, event, &detail);
        }
        if register.failed.contains(&number) {
            return self.report(Kind::FailedWriteSeen, event, &format!("read {number}"));
        }
        register.seen = register.seen.max(number);
        if number < floor.acked {
            let lost = event.f == Action::FinalRead;
            let kind = if lost { Kind::LostWrite } else { Kind::StaleRead };
            let detail = format!("read {number} after {} was acknowledged", floor.acked);
            self.report(kind, event, &detail);
        } else if number < floor.seen {
            let detail = format!("read {number} after {} was read", floor.seen);
            self.report(Kind::ReadWentBack, event, &detail);
        }
    }

    fn report(&mut self, kind: Kind, event: &Event, detail: &str) {
        let detail = format!("{detail} (process {}, {} ns)", event.process, event.time);
        self.anomalies.push(Anomaly { kind, key: Arc::clone(&event.key), detail });
    }
}

#[cfg(test)]
mod tests;
