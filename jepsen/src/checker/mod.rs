//! Decides from a history alone whether a promise was broken. Pure: no clock, no network.

pub(crate) mod bank;
pub(crate) mod ledger;
pub(crate) mod lists;
pub(crate) mod owners;
pub(crate) mod register;
pub(crate) mod versions;
pub(crate) mod watch;
pub(crate) mod wgl;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::history::{Action, Event, Stage};
use crate::options::Workload;

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Anomaly {
    /// Which promise.
    pub(crate) kind: Kind,
    /// With which key.
    pub(crate) key: Arc<str>,
    /// What was seen, and what should have been.
    pub(crate) detail: String,
    /// Positions in the history of the events that show it: beginnings and ends of operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<usize>,
}

/// Which promise was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// An acknowledged write is gone at the end.
    LostWrite,
    /// A read did not see a write that was acknowledged before it began; or, of a stale read,
    /// before the time that it claimed.
    StaleRead,
    /// A read did not see what an earlier read had seen.
    ReadWentBack,
    /// A write that was refused was seen.
    FailedWriteSeen,
    /// A read saw a write before it was sent.
    ReadFromFuture,
    /// A read saw a value that nobody wrote to that key.
    ForeignValue,
    /// No order of the operations explains their answers.
    NotLinearizable,
    /// One write has two versions: it took effect twice.
    AppliedTwice,
    /// Two writes of a key have the same version.
    VersionReused,
    /// A list lost, doubled or reordered what was added to it.
    ListBroken,
    /// A bank has more or less money than was paid in, or shows a part of a transfer, or one in the
    /// place of another.
    BankBroken,
    /// A watch lost, doubled, reordered or altered what has changed, or told what has not.
    WatchBroken,
    /// Two groups served the same key.
    TwoOwners,
    /// Replicas of a group have applied the same entries and differ.
    ReplicasDiffer,
    /// What a replica said of its Raft state went back.
    StateWentBack,
    /// A coordinator answered `503` or `504` at the deadline, although the group could serve.
    GaveUp,
    /// A server answered as none may, or not at all.
    BadAnswer,
    /// A server ended by itself.
    ServerDied,
    /// The healed cluster did not serve, or not in time.
    NotRecovered,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::LostWrite => "lost write",
            Self::StaleRead => "stale read",
            Self::ReadWentBack => "read went back",
            Self::FailedWriteSeen => "failed write seen",
            Self::ReadFromFuture => "read from the future",
            Self::ForeignValue => "foreign value",
            Self::NotLinearizable => "not linearizable",
            Self::AppliedTwice => "applied twice",
            Self::VersionReused => "version reused",
            Self::ListBroken => "list broken",
            Self::BankBroken => "bank broken",
            Self::WatchBroken => "watch broken",
            Self::TwoOwners => "two owners",
            Self::ReplicasDiffer => "replicas differ",
            Self::StateWentBack => "state went back",
            Self::GaveUp => "gave up",
            Self::BadAnswer => "bad answer",
            Self::ServerDied => "server died",
            Self::NotRecovered => "not recovered",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind.name(), self.key, self.detail)
    }
}

/// What the checkers of a whole history found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    /// What was wrong.
    pub(crate) anomalies: Vec<Anomaly>,
    /// What a checker could not find out, and why.
    pub(crate) unknown: Vec<String>,
    /// Keys that were written to and not read at the end.
    pub(crate) unread: usize,
}

/// The checks that can be made event by event, while a run lasts.
#[derive(Debug)]
pub(crate) struct Online {
    versions: versions::Checker,
    owners: owners::Checker,
    /// Only for workloads with one writer a key.
    ledger: Option<ledger::Checker>,
    sums: bank::Sums,
    /// Only where somebody watches.
    watches: Option<watch::Checker>,
}

impl Online {
    /// Those for `workload`.
    pub(crate) fn new(workload: Workload) -> Self {
        let ledger = match workload {
            Workload::Register | Workload::ListAppend | Workload::Bank | Workload::Watch => None,
            Workload::Ledger | Workload::Lease | Workload::Stale => {
                Some(ledger::Checker::default())
            }
        };
        Self {
            versions: versions::Checker::default(),
            owners: owners::Checker::default(),
            ledger,
            sums: bank::Sums::default(),
            watches: (workload == Workload::Watch).then(watch::Checker::default),
        }
    }

    /// Takes in the next event, the `at`-th of the history.
    pub(crate) fn observe(&mut self, at: usize, event: &Event) {
        self.versions.observe(at, event);
        self.owners.observe(at, event);
        self.sums.observe(at, event);
        if let Some(watches) = &mut self.watches {
            watches.observe(at, event);
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.observe(at, event);
        }
    }

    /// How much was found wrong until now.
    pub(crate) fn found(&self) -> usize {
        self.versions.anomalies().len()
            + self.owners.anomalies().len()
            + self.sums.anomalies().len()
            + self.watches.as_ref().map_or(0, |watches| watches.anomalies().len())
            + self.ledger.as_ref().map_or(0, |ledger| ledger.anomalies().len())
    }
}

/// Judges a whole history.
pub(crate) fn check(workload: Workload, history: &[Event]) -> Checked {
    let mut online = Online::new(workload);
    for (at, event) in history.iter().enumerate() {
        online.observe(at, event);
    }
    let mut checked = match workload {
        Workload::Register => register::check(history),
        Workload::ListAppend => lists::check(history),
        Workload::Bank => bank::check(history),
        Workload::Ledger | Workload::Lease | Workload::Stale | Workload::Watch => {
            Checked::default()
        }
    };
    checked.unread = unread(history);
    checked.anomalies.extend_from_slice(online.versions.anomalies());
    checked.anomalies.extend_from_slice(online.owners.anomalies());
    checked.anomalies.extend_from_slice(online.sums.anomalies());
    checked.anomalies.extend(online.watches.map_or_else(Vec::new, watch::Checker::finish));
    if let Some(ledger) = &online.ledger {
        checked.anomalies.extend_from_slice(ledger.anomalies());
    }
    checked
}

/// Keys that something was sent to that may have changed them, and that have no final read.
fn unread(history: &[Event]) -> usize {
    let written = history.iter().filter(|event| event.f.writes_its_key()).map(|event| &event.key);
    let mut keys: BTreeSet<&Arc<str>> = written.collect();
    for event in history {
        if event.f == Action::FinalRead && event.stage == Stage::Ok {
            keys.remove(&event.key);
        }
    }
    keys.len()
}
