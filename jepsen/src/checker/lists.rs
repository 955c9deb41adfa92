//! Checks lists that grow by one number at a time, each number added once (after Elle: Kingsbury
//! and Alvaro, "Elle: inferring isolation anomalies from experimental observations", 2020).
//!
//! The longest list that was read is the order of its key. Every read is a beginning of it; it has
//! every number once, and only what somebody added and was not refused; what was acknowledged
//! before a read began is in that read; reads do not go back in real time; and what was
//! acknowledged before another addition began stands before it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::checker::{Anomaly, Checked, Kind};
use crate::history::{Action, Event, Stage, Value};

/// An addition to a list.
#[derive(Clone, Copy, Debug)]
struct Addition {
    began: usize,
    /// Where it ended, and how; a history may end before.
    ended: Option<(usize, Stage)>,
}

/// A read that was answered.
#[derive(Debug)]
struct Read<'a> {
    began: usize,
    ended: usize,
    list: &'a [u64],
    is_final: bool,
}

#[derive(Debug, Default)]
struct Key<'a> {
    additions: HashMap<u64, Addition>,
    reads: Vec<Read<'a>>,
    anomalies: Vec<(Kind, String, Vec<usize>)>,
}

/// Judges every key.
pub(crate) fn check(history: &[Event]) -> Checked {
    let mut checked = Checked::default();
    for (name, mut key) in keys(history) {
        key.check();
        let anomalies = key.anomalies.into_iter().map(|(kind, detail, events)| {
            let key = Arc::clone(name);
            Anomaly { kind, key, detail, events }
        });
        checked.anomalies.extend(anomalies);
    }
    checked
}

fn keys(history: &[Event]) -> BTreeMap<&Arc<str>, Key<'_>> {
    let mut keys: BTreeMap<&Arc<str>, Key<'_>> = BTreeMap::new();
    let mut open: HashMap<u32, usize> = HashMap::new();
    for (at, event) in history.iter().enumerate() {
        let key = keys.entry(&event.key).or_default();
        if event.stage == Stage::Invoke {
            open.insert(event.process, at);
            if let (Action::Append, Value::Number(number)) = (event.f, &event.value) {
                key.additions.insert(*number, Addition { began: at, ended: None });
            }
            continue;
        }
        let Some(began) = open.remove(&event.process) else { continue };
        match (event.f.is_write(), event.stage, &event.value) {
            (true, stage, Value::Number(number)) => {
                key.additions.entry(*number).and_modify(|one| one.ended = Some((at, stage)));
            }
            (false, Stage::Ok, Value::List(list)) => {
                let is_final = event.f == Action::FinalRead;
                key.reads.push(Read { began, ended: at, list, is_final });
            }
            (false, Stage::Ok, value) => {
                key.anomalies.push((
                    Kind::ForeignValue,
                    format!("read {value:?}"),
                    vec![began, at],
                ));
            }
            _ => {}
        }
    }
    keys
}

impl Key<'_> {
    fn check(&mut self) {
        let Some(longest) = self.reads.iter().max_by_key(|read| read.list.len()) else { return };
        let (order, seen) = (longest.list, vec![longest.began, longest.ended]);
        let mut places: HashMap<u64, usize> = HashMap::new();
        for (place, number) in order.iter().enumerate() {
            let mut report = |kind, detail| {
                self.anomalies.push((kind, detail, seen.clone()));
            };
            if let Some(first) = places.insert(*number, place) {
                report(
                    Kind::ListBroken,
                    format!("{number} is there twice, at {first} and {place}"),
                );
            }
            match self.additions.get(number) {
                None => report(Kind::ForeignValue, format!("{number} was never added")),
                Some(Addition { ended: Some((_, Stage::Fail)), .. }) => {
                    report(Kind::FailedWriteSeen, format!("{number} was refused, and is there"));
                }
                Some(_) => {}
            }
        }
        self.check_order(&places);
        self.check_reads(order, &places);
    }

    /// What was acknowledged before another addition began stands before it.
    fn check_order(&mut self, places: &HashMap<u64, usize>) {
        let mut ends: Vec<(usize, usize, u64)> = Vec::new();
        let mut begins: Vec<(usize, usize, u64)> = Vec::new();
        for (number, one) in &self.additions {
            let Some(place) = places.get(number) else { continue };
            begins.push((one.began, *place, *number));
            if let Some((ended, Stage::Ok)) = one.ended {
                ends.push((ended, *place, *number));
            }
        }
        ends.sort_unstable();
        begins.sort_unstable();
        let mut ends = ends.into_iter().peekable();
        let mut last: Option<(usize, u64, usize)> = None;
        for (began, place, number) in begins {
            while let Some((ended, place, number)) = ends.next_if(|(ended, ..)| *ended < began) {
                last = last.max(Some((place, number, ended)));
            }
            if let Some((before, other, ended)) = last.filter(|(before, ..)| *before > place) {
                let detail = format!(
                    "{other} was acknowledged before {number} was added, and stands after it, at \
                     {before} and {place}"
                );
                self.anomalies.push((Kind::ListBroken, detail, vec![ended, began]));
            }
        }
    }

    fn check_reads(&mut self, order: &[u64], places: &HashMap<u64, usize>) {
        // What a read must have seen at least, by the time it began: (when, how much, whether by an
        // acknowledgement).
        let mut floors: Vec<(usize, usize, bool)> = Vec::new();
        for (number, one) in &self.additions {
            if let Some((ended, Stage::Ok)) = one.ended {
                // What is in no read is missed by every read.
                let place = places.get(number).copied().unwrap_or(usize::MAX - 1);
                floors.push((ended, place + 1, true));
            }
        }
        floors.extend(self.reads.iter().map(|read| (read.ended, read.list.len(), false)));
        floors.sort_unstable();
        self.reads.sort_unstable_by_key(|read| read.began);
        let mut floors = floors.into_iter().peekable();
        let (mut acknowledged, mut read_before) = ((0, 0), (0, 0));
        for read in &self.reads {
            while let Some((when, length, by_ack)) = floors.next_if(|one| one.0 < read.began) {
                let floor = if by_ack { &mut acknowledged } else { &mut read_before };
                *floor = (*floor).max((length, when));
            }
            let length = read.list.len();
            let mut report = |kind, detail, when: Option<usize>| {
                let events = when.into_iter().chain([read.began, read.ended]).collect();
                self.anomalies.push((kind, detail, events));
            };
            if read.list != &order[..length] {
                let detail = format!("{:?} is no beginning of {order:?}", read.list);
                report(Kind::ListBroken, detail, None);
            } else if length < acknowledged.0 {
                let kind = if read.is_final { Kind::LostWrite } else { Kind::StaleRead };
                let detail = format!("{:?} misses what was acknowledged before", read.list);
                report(kind, detail, Some(acknowledged.1));
            } else if length < read_before.0 {
                let detail = format!("{:?}, after a longer list was read", read.list);
                report(Kind::ReadWentBack, detail, Some(read_before.1));
            } else if let Some(early) = read
                .list
                .iter()
                .find(|number| self.additions.get(number).is_some_and(|one| one.began > read.ended))
            {
                report(Kind::ReadFromFuture, format!("{early} was read before it was added"), None);
            }
        }
    }
}

#[cfg(test)]
mod tests;
