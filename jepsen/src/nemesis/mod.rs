//! What breaks the cluster, and what it did.

pub(crate) mod kill;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Whether a fault took hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// It did, and what it should cause was seen.
    Installed,
    /// It did not: there was nothing to break.
    Skipped,
    /// It did, but what it should cause was not seen in time.
    Indeterminate,
}

/// One fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// What was done to whom.
    pub(crate) what: String,
    /// Whether it took hold.
    pub(crate) hold: Hold,
    /// From the fault to the next leader.
    pub(crate) failover: Option<Duration>,
}

/// What a nemesis has done and does just now.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    inner: Mutex<(Vec<Fault>, Option<String>)>,
}

impl Faults {
    /// Says what is broken from now on; `None` when nothing is.
    pub(crate) fn now(&self, what: Option<String>) {
        self.lock().1 = what;
    }

    /// What is broken now.
    pub(crate) fn current(&self) -> Option<String> {
        self.lock().1.clone()
    }

    /// Takes down what was done.
    pub(crate) fn record(&self, fault: Fault) {
        self.lock().0.push(fault);
    }

    /// Everything that was done.
    pub(crate) fn all(&self) -> Vec<Fault> {
        self.lock().0.clone()
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<Fault>, Option<String>)> {
        self.inner.lock().expect("nobody panics while he records a fault")
    }
}
