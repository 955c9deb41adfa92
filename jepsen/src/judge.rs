//! What a run has shown, from everything that was seen. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::checker::{Anomaly, Checked, Kind};
use crate::healing::Healing;
use crate::history::{Action, Counts, Event, Stage};
use crate::nemesis::{Fault, Hold};
use crate::options::name_of;
use crate::results::{FaultFigures, Results, Setup, Verdict};

/// Of all operations, so many must succeed for a run to prove anything, in percent.
const OK_PERCENT_MIN: u64 = 30;
/// Nanoseconds.
const NS_PER_MS: u64 = 1_000_000;

/// What was seen beside the history.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// How long the attack lasted.
    pub(crate) attacked: Duration,
    /// How the cluster healed.
    pub(crate) healing: Healing,
    /// Servers that ended by themselves.
    pub(crate) died: Vec<String>,
    /// What the monitor and the nemeses saw.
    pub(crate) seen: Vec<Anomaly>,
}

/// Everything that a run has shown.
pub(crate) fn judge(
    setup: Setup,
    evidence: Evidence,
    checked: Checked,
    events: &[Event],
    faults: &[Fault],
) -> Results {
    let mut counts = Counts::default();
    for event in events.iter().filter(|event| event.f != Action::FinalRead) {
        counts.add(event.stage);
    }
    let end = u64::try_from(evidence.attacked.as_nanos()).unwrap_or(u64::MAX);
    let gaps = gaps(events, end);
    let mut anomalies: Vec<Anomaly> = evidence.died.iter().map(|text| died(text)).collect();
    anomalies.extend(evidence.seen);
    anomalies.extend(evidence.healing.anomalies);
    anomalies.extend(checked.anomalies);
    let void = void_reasons(&setup, counts, checked.unread, faults);
    let (verdict, reasons) = if !anomalies.is_empty() {
        (Verdict::Anomaly, Vec::new())
    } else if !checked.unknown.is_empty() {
        (Verdict::Unknown, checked.unknown)
    } else if !void.is_empty() {
        (Verdict::Void, void)
    } else {
        (Verdict::Valid, Vec::new())
    };
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Results {
        setup,
        verdict,
        reasons,
        counts,
        faults: figures(faults, &gaps),
        longest_gap_ms: gaps.iter().map(|(from, to)| to - from).max().unwrap_or(0) / NS_PER_MS,
        recovered_ms: evidence.healing.served.map(milliseconds),
        anomalies,
    }
}

fn died(text: &str) -> Anomaly {
    let (key, events) = ("cluster".into(), Vec::new());
    Anomaly { kind: Kind::ServerDied, key, detail: text.into(), events }
}

/// Why the run proves nothing; empty if it does.
fn void_reasons(setup: &Setup, counts: Counts, unread: usize, faults: &[Fault]) -> Vec<String> {
    let mut reasons = Vec::new();
    let total = counts.total();
    if total == 0 || counts.ok * 100 < total * OK_PERCENT_MIN {
        reasons.push(format!("only {} of {total} operations succeeded", counts.ok));
    }
    if unread > 0 {
        reasons.push(format!("{unread} keys could not be read at the end"));
    }
    // Those that were asked for by name, and of a mix those that were drawn.
    let named = setup.nemesis.iter().filter(|name| *name != "none" && *name != "mix");
    let mut kinds: BTreeMap<String, bool> = named.map(|name| (name.clone(), false)).collect();
    for fault in faults {
        *kinds.entry(name_of(&fault.kind)).or_default() |= fault.hold == Hold::Installed;
    }
    for (kind, _) in kinds.iter().filter(|(_, installed)| !**installed) {
        reasons.push(format!("no fault of the kind {kind} took hold"));
    }
    let breaks = setup.nemesis.iter().any(|name| name != "none");
    if kinds.is_empty() && breaks {
        reasons.push("nothing was broken".into());
    }
    let mut of_leaders = faults.iter().filter(|fault| fault.leader).peekable();
    if of_leaders.peek().is_some() && of_leaders.all(|fault| fault.failover_ms.is_none()) {
        reasons.push("no leader was replaced".into());
    }
    reasons
}

/// The stretches between acknowledged writes, as (from, to), until the attack ended.
fn gaps(events: &[Event], end: u64) -> Vec<(u64, u64)> {
    let acknowledged = |event: &&Event| event.stage == Stage::Ok && event.f.is_write();
    let times = events.iter().filter(acknowledged).map(|event| event.time.min(end));
    let mut last = 0;
    let mut gaps = Vec::new();
    for time in times.chain([end]) {
        gaps.push((last, time));
        last = time;
    }
    gaps
}

/// The faults by kind, with the longest gap that overlaps each.
fn figures(faults: &[Fault], gaps: &[(u64, u64)]) -> BTreeMap<String, FaultFigures> {
    let mut figures: BTreeMap<String, FaultFigures> = BTreeMap::new();
    for fault in faults {
        let of_kind = figures.entry(name_of(&fault.kind)).or_default();
        match fault.hold {
            Hold::Installed => of_kind.installed += 1,
            Hold::Skipped => {
                of_kind.skipped += 1;
                continue;
            }
            Hold::Indeterminate => of_kind.indeterminate += 1,
        }
        let first = gaps.partition_point(|(_, to)| *to < fault.begin);
        let overlapping = gaps[first..].iter().take_while(|(from, _)| *from <= fault.end);
        let longest = overlapping.map(|(from, to)| to - from).max().unwrap_or(0) / NS_PER_MS;
        of_kind.gaps_ms.push(longest);
        if fault.leader {
            of_kind.leader_gaps_ms.push(longest);
        }
        of_kind.failovers_ms.extend(fault.failover_ms);
    }
    for of_kind in figures.values_mut() {
        of_kind.gaps_ms.sort_unstable();
        of_kind.leader_gaps_ms.sort_unstable();
        of_kind.failovers_ms.sort_unstable();
    }
    figures
}

#[cfg(test)]
mod tests;
