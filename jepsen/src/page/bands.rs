//! Faults as bands over time.

use clap::ValueEnum;
use serde::Serialize;

use super::ops::clip;
use crate::nemesis::{Fault, FaultKind, Hold};

/// Characters of what a fault did.
const WHAT_CHARS_MAX: usize = 120;

/// One fault.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Band {
    kind: String,
    what: String,
    /// From when to when, in microseconds.
    from: u64,
    to: u64,
    hold: &'static str,
    failover_ms: Option<u64>,
}

/// The first `max` faults that touch a time, given in nanoseconds.
pub(crate) fn overlapping(faults: &[Fault], from: u64, to: u64, max: usize) -> Vec<Band> {
    let touching = faults.iter().filter(|fault| fault.begin <= to && fault.end >= from);
    touching.take(max).map(band).collect()
}

fn band(fault: &Fault) -> Band {
    Band {
        kind: kind(fault.kind),
        what: clip(&fault.what, WHAT_CHARS_MAX),
        from: fault.begin / 1_000,
        to: fault.end.max(fault.begin) / 1_000,
        hold: match fault.hold {
            Hold::Installed => "installed",
            Hold::Skipped => "skipped",
            Hold::Indeterminate => "indeterminate",
        },
        failover_ms: fault.failover_ms,
    }
}

/// What a kind of fault is called on the command line.
fn kind(kind: FaultKind) -> String {
    kind.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
}
