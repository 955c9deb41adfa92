//! Decides from a history alone whether a promise was broken. Pure: no clock, no network.

pub(crate) mod ledger;

use std::fmt;
use std::sync::Arc;

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Anomaly {
    /// Which promise.
    pub(crate) kind: Kind,
    /// With which key.
    pub(crate) key: Arc<str>,
    /// What was seen, and what should have been.
    pub(crate) detail: String,
}

/// Which promise was broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// An acknowledged write is gone at the end.
    LostWrite,
    /// A read did not see a write that was acknowledged before it began.
    StaleRead,
    /// A read did not see what an earlier read had seen.
    ReadWentBack,
    /// A write that was refused was seen.
    FailedWriteSeen,
    /// A read saw a write before it was sent.
    ReadFromFuture,
    /// A read saw a value that nobody wrote to that key.
    ForeignValue,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::LostWrite => "lost write",
            Kind::StaleRead => "stale read",
            Kind::ReadWentBack => "read went back",
            Kind::FailedWriteSeen => "failed write seen",
            Kind::ReadFromFuture => "read from the future",
            Kind::ForeignValue => "foreign value",
        };
        write!(f, "{kind}: {}: {}", self.key, self.detail)
    }
}
