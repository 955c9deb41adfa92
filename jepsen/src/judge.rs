//! What a run has shown, from everything that was seen. Pure.

mod gaps;
mod patience;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::checker::{Anomaly, Checked};
use crate::history::{Action, Counts, Event, Stage, Value};
use crate::judge::gaps::Gaps;
use crate::nemesis::{Fault, FaultKind, Hold};
use crate::options::name_of;
use crate::results::{FaultFigures, Results, Setup, Verdict, Watched};

/// Of all operations, so many must succeed for a run to prove anything, in percent.
const OK_PERCENT_MIN: u64 = 30;
/// Of each action that was tried so often, so many must succeed, in percent. Few, for a replica of
/// another group refuses, and one of two that compare and set at the same time.
const EACH_OK_PERCENT_MIN: u64 = 2;
/// So often.
const EACH_MIN: u64 = 50;

/// What was seen beside the history and the faults.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evidence {
    /// When the attack ended, in nanoseconds since the run began.
    pub(crate) attacked: u64,
    /// How long the healed cluster took until every write succeeded, in milliseconds, if it came to
    /// that.
    pub(crate) recovered_ms: Option<u64>,
    /// What clients' answers do not show: seen by the monitor, by a nemesis, after healing.
    pub(crate) anomalies: Vec<Anomaly>,
}

/// Everything that a run has shown. Without evidence the run was not seen to its end.
pub(crate) fn judge(
    setup: Setup,
    evidence: Option<Evidence>,
    checked: Checked,
    events: &[Event],
    faults: &[Fault],
) -> Results {
    let mut unknown = checked.unknown;
    let Evidence { attacked, recovered_ms, mut anomalies } = evidence.unwrap_or_else(|| {
        unknown.push("the history has no end: the run was broken off".into());
        let attacked = events.last().map_or(0, |event| event.time);
        Evidence { attacked, ..Evidence::default() }
    });
    anomalies.extend(checked.anomalies);
    let gaps = Gaps::new(events, attacked);
    anomalies.extend(gaps.stalls(faults));
    let (patience, gave_up) = patience::patience(&setup, events, faults);
    anomalies.extend(gave_up);
    let mut counts = Counts::default();
    let mut each: HashMap<Action, Counts> = HashMap::new();
    for event in events.iter().filter(|event| event.f != Action::FinalRead) {
        counts.add(event.stage);
        each.entry(event.f).or_default().add(event.stage);
    }
    let mut void = void_reasons(&setup, counts, checked.unread, faults);
    void.extend(each.iter().filter_map(|(action, counts)| too_few(*action, *counts)));
    void.extend(ageless(events));
    let (verdict, reasons) = if !anomalies.is_empty() {
        (Verdict::Anomaly, Vec::new())
    } else if !unknown.is_empty() {
        (Verdict::Unknown, unknown)
    } else if !void.is_empty() {
        (Verdict::Void, void)
    } else {
        (Verdict::Valid, Vec::new())
    };
    Results {
        setup,
        verdict,
        reasons,
        counts,
        faults: figures(faults, &gaps),
        longest_gap_ms: gaps.longest_ms(),
        recovered_ms,
        patience,
        watched: watched(events),
        anomalies,
    }
}

/// What watchers were told, if anybody watched.
fn watched(events: &[Event]) -> Option<Watched> {
    let mut watched = Watched::default();
    let mut watchers = BTreeSet::new();
    for event in events.iter().filter(|event| event.stage == Stage::Ok) {
        match (event.f, &event.value) {
            (Action::WatchBegin, _) if watchers.insert(event.process) => watched.watchers += 1,
            (Action::WatchBegin, _) => watched.gaps += 1,
            (Action::WatchResume, _) => watched.resumed += 1,
            (Action::Watch, Value::Told { told }) => watched.changes += told.len() as u64,
            _ => {}
        }
    }
    (watched.watchers > 0).then_some(watched)
}

fn too_few(action: Action, counts: Counts) -> Option<String> {
    let total = counts.total();
    let few = total >= EACH_MIN && counts.ok * 100 < total * EACH_OK_PERCENT_MIN;
    few.then(|| format!("only {} of {total} {action:?} operations succeeded", counts.ok))
}

/// Says so if stale reads succeeded but did not say how old they may be: then nothing was promised.
fn ageless(events: &[Event]) -> Option<String> {
    let read = |event: &&Event| event.f == Action::StaleRead && event.stage == Stage::Ok;
    let reads = events.iter().filter(read);
    let (aged, ageless): (Vec<_>, Vec<_>) = reads.partition(|event| event.lag_ms.is_some());
    let total = aged.len() + ageless.len();
    let few = total as u64 >= EACH_MIN && aged.len() < total / 2;
    few.then(|| format!("only {} of {total} stale reads said how old they may be", aged.len()))
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
    // Those that were asked for by name, and of a mix those that were drawn; clocks can't be set
    // everywhere, and of a mix they may be left out.
    let named = setup.nemesis.iter().filter(|name| *name != "none" && *name != "mix");
    let mut kinds: BTreeMap<String, bool> = named.map(|name| (name.clone(), false)).collect();
    for fault in faults {
        let kind = name_of(&fault.kind);
        let left_out = fault.kind == FaultKind::Clock && fault.hold == Hold::Skipped;
        if !left_out || kinds.contains_key(&kind) {
            *kinds.entry(kind).or_default() |= fault.hold == Hold::Installed;
        }
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

/// The faults by kind, with the longest gap of a group that each struck that overlaps it.
fn figures(faults: &[Fault], gaps: &Gaps) -> BTreeMap<String, FaultFigures> {
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
        let longest = gaps.longest_ms_of(fault);
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
