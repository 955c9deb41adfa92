//! How long nobody's writes to a group were acknowledged.
//!
//! Which group a key belongs to is known from the answers; so a gap of one group is not hidden by
//! the writes of another.

use std::collections::{BTreeMap, HashMap};

use crate::checker::{Anomaly, Kind};
use crate::history::{Event, Stage};
use crate::nemesis::{Fault, Hold};

/// Nanoseconds.
pub(super) const NS_PER_MS: u64 = 1_000_000;
/// A group that acknowledges nothing for so long while nothing is broken has failed: far longer than
/// an election, and than anything takes to be healed.
const STALLED: u64 = 10_000 * NS_PER_MS;
/// Writes that must have been tried meanwhile.
const TRIED_MIN: usize = 20;

/// The stretches of a run without an acknowledged write, each as (from, to) in nanoseconds.
#[derive(Debug)]
pub(super) struct Gaps {
    /// By group.
    gaps: BTreeMap<String, Vec<(u64, u64)>>,
    /// When writes to each group began.
    tried: BTreeMap<String, Vec<u64>>,
}

impl Gaps {
    /// The gaps of every group that acknowledged anything, until the attack ended.
    pub(super) fn new(events: &[Event], end: u64) -> Self {
        let owners: HashMap<&str, &str> = events
            .iter()
            .filter_map(|event| Some((&*event.key, &**event.group.as_ref()?)))
            .collect();
        let mut gaps: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        let mut tried: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for event in events.iter().filter(|event| event.f.is_write()) {
            let Some(owner) = owners.get(&*event.key) else { continue };
            match event.stage {
                Stage::Invoke => tried.entry((*owner).into()).or_default().push(event.time),
                Stage::Ok => {
                    let of_group = gaps.entry((*owner).into()).or_default();
                    let last = of_group.last().map_or(0, |(_, to)| *to);
                    of_group.push((last, event.time.min(end)));
                }
                Stage::Fail | Stage::Info => {}
            }
        }
        for of_group in gaps.values_mut() {
            let last = of_group.last().map_or(0, |(_, to)| *to);
            of_group.push((last, end));
        }
        Self { gaps, tried }
    }

    /// The longest of all, in milliseconds.
    pub(super) fn longest_ms(&self) -> u64 {
        let lengths = self.gaps.values().flatten().map(|(from, to)| to - from);
        lengths.max().unwrap_or(0) / NS_PER_MS
    }

    /// The longest of the groups that a fault struck that overlaps the fault, in milliseconds.
    pub(super) fn longest_ms_of(&self, fault: &Fault) -> u64 {
        let struck = |group: &String| fault.groups.is_empty() || fault.groups.contains(group);
        let overlapping =
            self.gaps.iter().filter(|(group, _)| struck(group)).flat_map(|(_, gaps)| {
                let first = gaps.partition_point(|(_, to)| *to < fault.begin);
                gaps[first..].iter().take_while(|(from, _)| *from <= fault.end)
            });
        overlapping.map(|(from, to)| to - from).max().unwrap_or(0) / NS_PER_MS
    }

    /// Groups that acknowledged nothing for long, although nothing was broken and much was tried.
    pub(super) fn stalls(&self, faults: &[Fault]) -> Vec<Anomaly> {
        let mut stalls = Vec::new();
        for (group, gaps) in &self.gaps {
            for gap in gaps.iter().filter(|(from, to)| to - from > STALLED) {
                let quiet = quiet_stretches(*gap, faults);
                stalls.extend(quiet.into_iter().filter_map(|quiet| self.stall(group, quiet)));
            }
        }
        stalls
    }

    fn stall(&self, group: &str, (from, to): (u64, u64)) -> Option<Anomaly> {
        let begins = self.tried.get(group)?;
        let before = |time: u64| begins.partition_point(|began| *began < time);
        let tries = before(to) - before(from);
        if to - from <= STALLED || tries < TRIED_MIN {
            return None;
        }
        let detail = format!(
            "nothing was broken from {} to {} ms, and none of {tries} writes was acknowledged",
            from / NS_PER_MS,
            to / NS_PER_MS
        );
        let key = group.into();
        Some(Anomaly { kind: Kind::NotRecovered, key, detail, events: Vec::new() })
    }
}

/// The stretches of a gap in which no fault lasts.
fn quiet_stretches((from, to): (u64, u64), faults: &[Fault]) -> Vec<(u64, u64)> {
    let lasted = faults.iter().filter(|fault| fault.hold != Hold::Skipped);
    let mut lasted: Vec<(u64, u64)> = lasted.map(|fault| (fault.begin, fault.end)).collect();
    lasted.sort_unstable();
    let mut quiet = Vec::new();
    let mut last = from;
    for (begin, end) in lasted {
        if begin > last {
            quiet.push((last, begin.min(to)));
        }
        last = last.max(end);
        if last >= to {
            return quiet;
        }
    }
    quiet.push((last, to));
    quiet
}
