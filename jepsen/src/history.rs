//! What happened, in the order in which it happened: one event when an operation begins and one
//! when it ends.
//!
//! The order of events is real time: an operation begins here before it is sent and ends here
//! after its answer was read. As in Jepsen, a process whose operation ends as `info` (nobody knows
//! whether it took effect) never comes back: its client goes on as another process.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::checker::{Anomaly, Online};
use crate::nemesis::Fault;
use crate::options::Workload;

/// Where an operation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// Writes a number.
    Write,
    /// Removes a key.
    Delete,
    /// Writes a number if the key still holds another one.
    Cas,
    /// Adds a number to the end of a list, if the list is still the one that was read.
    Append,
    /// Moves money between accounts of a bank in one transaction, or opens the bank.
    Transfer,
    /// Writes two keys of one group in one transaction.
    WriteBoth,
    /// Reads a key, linearizable; of a bank all accounts in one transaction.
    Read,
    /// Reads a key from the leader, who trusts its lease.
    LeaseRead,
    /// Reads a key from any replica, which says how old its state may be.
    StaleRead,
    /// As `Read`, when everything is healed and nobody writes any more.
    FinalRead,
    /// Begins to watch keys, from now on.
    WatchBegin,
    /// Goes on watching where it was, at another server.
    WatchResume,
    /// Takes what has changed.
    Watch,
    /// Has been told everything, now that nobody writes any more; or has not, in time.
    WatchEnd,
}

/// What is written or was read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Value {
    /// Not known yet.
    None,
    /// What one write wrote; 0 when the key has no value.
    Number(u64),
    /// What a compare-and-set expects and writes.
    Cas {
        /// The number that must be there; 0 for none.
        from: u64,
        /// The number that replaces it.
        to: u64,
    },
    /// A list that was read.
    List(Vec<u64>),
    /// What a transfer writes.
    Transfer {
        /// Which it is, of all transfers of the run; never 0.
        id: u64,
        /// One for each account that it changes.
        puts: Vec<Put>,
    },
    /// All accounts of a bank, as of one moment.
    Bank {
        /// In the order of their names.
        accounts: Vec<Account>,
    },
    /// What a transaction writes to two keys.
    Both {
        /// In their order.
        both: Vec<Half>,
    },
    /// What a watcher was told.
    Told {
        /// In this order.
        told: Vec<Told>,
    },
    /// Something that nobody ever wrote to that key.
    Foreign {
        /// As it was read.
        foreign: String,
    },
}

/// What a transfer writes to one account, which must be as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Put {
    /// Which account.
    pub(crate) account: usize,
    /// The transfer whose balance is replaced; 0 for none.
    pub(crate) after: u64,
    /// What is there then.
    pub(crate) balance: i64,
    /// The version of the account then, from the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
}

/// What a transaction writes to one of two keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Half {
    /// Which key.
    pub(crate) key: Arc<str>,
    /// The number that is there then.
    pub(crate) number: u64,
    /// The key's version then, from the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
}

/// One change, as a watcher was told it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Which key.
    pub(crate) key: Arc<str>,
    /// What happened to it, in the words of the API.
    pub(crate) kind: Box<str>,
    /// What it holds then; 0 for nothing.
    pub(crate) value: Value,
    /// Its version then.
    pub(crate) version: u64,
    /// Where to resume behind it.
    pub(crate) id: Box<str>,
}

/// What was read of one account; all of it 0 if there is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    /// What it holds.
    pub(crate) balance: i64,
    /// The transfer that wrote it.
    pub(crate) by: u64,
    /// The version of its key.
    pub(crate) version: u64,
}

/// A beginning or an end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
    /// Which server was asked.
    pub(crate) node: Arc<str>,
    /// The key's version, from the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    /// Of a delete, whether there was something to remove, from the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) existed: Option<bool>,
    /// The group that served it, from the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<Arc<str>>,
    /// How old the answer may be, as it says itself, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lag_ms: Option<u64>,
    /// Why it failed or is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// How many operations ended how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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

    /// Takes note of an operation that ends; one that begins does not count.
    pub(crate) fn add(&mut self, stage: Stage) {
        match stage {
            Stage::Invoke => {}
            Stage::Ok => self.ok += 1,
            Stage::Fail => self.failed += 1,
            Stage::Info => self.unknown += 1,
        }
    }
}

/// Takes down what happens, from many clients at a time, and checks at once what can be checked
/// event by event.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    events: Vec<Event>,
    online: Online,
    counts: Counts,
    /// What was seen beside the clients' operations: by the monitor, by a nemesis.
    seen: Vec<Anomaly>,
    faults: Vec<Fault>,
    /// What is broken now, one text each.
    current: Vec<String>,
}

impl Recorder {
    /// Begins an empty history of `workload` now.
    pub(crate) fn new(workload: Workload) -> Self {
        let inner = Inner {
            events: Vec::new(),
            online: Online::new(workload),
            counts: Counts::default(),
            seen: Vec::new(),
            faults: Vec::new(),
            current: Vec::new(),
        };
        Self { start: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Takes down one event; its time is now.
    pub(crate) fn record(&self, mut event: Event) {
        let mut inner = self.lock();
        // Under the lock, so that times rise with the order of events.
        event.time = self.now();
        if event.f != Action::FinalRead {
            inner.counts.add(event.stage);
        }
        let at = inner.events.len();
        inner.online.observe(at, &event);
        inner.events.push(event);
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long the run lasts.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What ended how, final reads not counted.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Takes down something that is wrong and that no client's answer shows; once.
    pub(crate) fn saw(&self, anomaly: Anomaly) {
        let mut inner = self.lock();
        if !inner.seen.contains(&anomaly) {
            inner.seen.push(anomaly);
        }
    }

    /// What was seen beside the clients' operations.
    pub(crate) fn seen(&self) -> Vec<Anomaly> {
        self.lock().seen.clone()
    }

    /// How much was found wrong until now.
    pub(crate) fn anomalies(&self) -> usize {
        let inner = self.lock();
        inner.online.found() + inner.seen.len()
    }

    /// Says what is broken from now on.
    pub(crate) fn breaks(&self, what: &str) {
        self.lock().current.push(what.into());
    }

    /// Says better what is broken.
    pub(crate) fn renamed(&self, old: &str, new: &str) {
        let mut inner = self.lock();
        for what in inner.current.iter_mut().filter(|what| *what == old) {
            *what = new.into();
        }
    }

    /// Takes down a fault that is over.
    pub(crate) fn healed(&self, fault: Fault) {
        let mut inner = self.lock();
        inner.current.retain(|what| *what != fault.what);
        inner.faults.push(fault);
    }

    /// What is broken now.
    pub(crate) fn current(&self) -> String {
        self.lock().current.join(", ")
    }

    /// Every fault that is over.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.lock().faults.clone()
    }

    /// Every event so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Every key that something was sent to that may have changed it.
    pub(crate) fn keys(&self) -> Vec<Arc<str>> {
        let inner = self.lock();
        let writes = inner.events.iter().filter(|event| event.f.writes_its_key());
        let keys: BTreeSet<&Arc<str>> = writes.map(|event| &event.key).collect();
        keys.into_iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no client panics while it records")
    }
}

impl Action {
    /// Whether it may change anything.
    pub(crate) fn is_write(self) -> bool {
        match self {
            Self::Write
            | Self::Delete
            | Self::Cas
            | Self::Append
            | Self::Transfer
            | Self::WriteBoth => true,
            Self::Read
            | Self::LeaseRead
            | Self::StaleRead
            | Self::FinalRead
            | Self::WatchBegin
            | Self::WatchResume
            | Self::Watch
            | Self::WatchEnd => false,
        }
    }

    /// Whether it may change the key that it names: a transaction of two keys names what they have in
    /// common.
    pub(crate) fn writes_its_key(self) -> bool {
        self.is_write() && self != Self::WriteBoth
    }
}
