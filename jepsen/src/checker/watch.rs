//! Checks what watchers were told against what was written, while a run lasts.
//!
//! No number is written to a key twice, so a put tells its write; a delete is known by its version. Of each
//! key that a watcher watches:
//!
//! 1. versions rise, so that nothing is told twice or in another order;
//! 2. what is told was sent before, to that key, and not refused; one number has one version, and one
//!    version holds the same for all watchers, readers and writers;
//! 3. nothing is left out: an acknowledged change between two that were told, or behind the version that
//!    the watcher has read since it began, or that was sent after it began, is told once a later one is.
//!
//! At the end ([`Checker::finish`]): watchers that were told everything have been told every acknowledged
//! change, and last what a read finds then; no more deletes than there can have been; and the two keys of a
//! transaction one after the other, with nothing of their group in between.
//!
//! A watcher that begins anew (`410 compacted`) may have missed what was before: the rules of what is left
//! out then count from there, all others go on.

mod finish;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::checker::{Anomaly, Kind};
use crate::history::{Action, Event, Half, Stage, Told, Value};
use crate::workload::watch::is_one;

/// Anomalies that are taken down; a watch that is broken is broken often.
const ANOMALIES_MAX: usize = 1_000;

/// What is known of everybody, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    keys: HashMap<Arc<str>, Key>,
    watchers: BTreeMap<u32, Watcher>,
    /// What each process does, and where it began.
    open: HashMap<u32, (usize, Vec<Half>)>,
    /// The other half of what a transaction wrote.
    halves: HashMap<(Arc<str>, u64), Other>,
    anomalies: Vec<Anomaly>,
}

#[derive(Debug, Default)]
struct Key {
    group: Option<Arc<str>>,
    /// What was sent, by its number.
    writes: HashMap<u64, Write>,
    /// What the key holds as of each version, as anybody was answered or told; 0 for nothing.
    holds: HashMap<u64, Known>,
    /// What was acknowledged, by its version.
    acked: BTreeMap<u64, Acked>,
    /// Numbers that were acknowledged without a version, in an answer that was cut off.
    blind: Vec<(u64, Acked)>,
    /// Deletes that may have happened, and are not acknowledged.
    deletes: usize,
    /// What was read when everything was over: number, version, and where.
    last: Option<(u64, Option<u64>, usize)>,
}

/// The other half of what a transaction wrote.
#[derive(Debug)]
struct Other {
    key: Arc<str>,
    number: u64,
    /// Whether it is the second one.
    follows: bool,
}

/// A write that was sent.
#[derive(Clone, Copy, Debug)]
struct Write {
    began: usize,
    /// Where it was refused.
    refused: Option<usize>,
    /// Its version, and where somebody heard of it.
    version: Option<(u64, usize)>,
}

/// What a version holds, where that was seen, and whether a watcher was told.
#[derive(Clone, Copy, Debug)]
struct Known {
    number: u64,
    at: usize,
    told: bool,
}

/// An acknowledged change: where it began and ended.
#[derive(Clone, Copy, Debug)]
struct Acked {
    number: u64,
    began: usize,
    at: usize,
}

#[derive(Debug, Default)]
struct Watcher {
    /// What it watches: a key, or all of them.
    scope: Arc<str>,
    /// All of this group only.
    group: Option<Arc<str>>,
    /// Where the history says that it has begun, for the last time.
    begun: Option<usize>,
    seen: HashMap<Arc<str>, Seen>,
    /// All that it was told, and where; `None` where it began anew.
    order: Vec<Option<(Arc<str>, u64, usize)>>,
    /// Where it said that it has been told everything.
    ended: Option<usize>,
}

/// What a watcher knows of one key.
#[derive(Debug, Default)]
struct Seen {
    /// The last version that it was told, ever, and where.
    last: Option<(u64, usize)>,
    /// The last version that it was told since it began, with what it holds.
    current: Option<(u64, u64)>,
    /// Everything behind this version must be told.
    from: Option<u64>,
    told: HashSet<u64>,
}

impl Checker {
    /// Takes in the next event of the history, the `at`-th.
    pub(crate) fn observe(&mut self, at: usize, event: &Event) {
        match (event.f, event.stage) {
            (Action::WatchBegin, Stage::Ok) => self.begins(at, event),
            (Action::WatchEnd, Stage::Ok) => self.watcher(event).ended = Some(at),
            (Action::Watch, Stage::Ok) => {
                if let Value::Told { told } = &event.value {
                    for one in told {
                        self.told(at, event.process, one);
                    }
                }
            }
            (Action::Read | Action::FinalRead, Stage::Ok) => self.read(at, event),
            (f, Stage::Invoke) if f.is_write() => self.sent(at, event),
            (f, stage) if f.is_write() => self.answered(at, event, stage),
            _ => {}
        }
    }

    /// What was found until now.
    pub(crate) fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }

    fn report(&mut self, kind: Kind, key: &Arc<str>, detail: String, events: Vec<usize>) {
        if self.anomalies.len() < ANOMALIES_MAX {
            self.anomalies.push(Anomaly { kind, key: Arc::clone(key), detail, events });
        }
    }

    fn watcher(&mut self, event: &Event) -> &mut Watcher {
        self.watchers.entry(event.process).or_default()
    }

    fn begins(&mut self, at: usize, event: &Event) {
        let watcher = self.watcher(event);
        watcher.scope = Arc::clone(&event.key);
        watcher.group.clone_from(&event.group);
        watcher.begun = Some(at);
        watcher.order.push(None);
        for seen in watcher.seen.values_mut() {
            seen.current = None;
            seen.from = None;
        }
    }

    fn sent(&mut self, at: usize, event: &Event) {
        let halves = halves(event);
        for half in &halves {
            let key = self.keys.entry(Arc::clone(&half.key)).or_default();
            if half.number == 0 {
                key.deletes += 1;
            } else {
                key.writes.insert(half.number, Write { began: at, refused: None, version: None });
            }
        }
        if let [one, other] = &halves[..] {
            for (half, other, follows) in [(one, other, true), (other, one, false)] {
                let other = Other { key: Arc::clone(&other.key), number: other.number, follows };
                self.halves.insert((Arc::clone(&half.key), half.number), other);
            }
        }
        self.open.insert(event.process, (at, halves));
    }

    fn answered(&mut self, at: usize, event: &Event, stage: Stage) {
        let Some((began, mut sent)) = self.open.remove(&event.process) else { return };
        if stage == Stage::Ok {
            match &event.value {
                Value::Both { both } => sent.clone_from(both),
                _ => sent.iter_mut().for_each(|half| half.version = event.version),
            }
        }
        for half in sent {
            let key = self.keys.entry(Arc::clone(&half.key)).or_default();
            if key.group.is_none() {
                key.group.clone_from(&event.group);
            }
            let settled = match stage {
                Stage::Ok => event.existed.is_some() || half.version.is_some(),
                Stage::Fail => true,
                Stage::Info | Stage::Invoke => false,
            };
            if half.number == 0 && settled {
                key.deletes -= 1;
            }
            match stage {
                Stage::Fail => self.refused(at, &half),
                // A delete of nothing changes nothing.
                Stage::Ok if half.number > 0 || event.existed == Some(true) => {
                    self.acknowledged(&half, Acked { number: half.number, began, at });
                }
                Stage::Ok | Stage::Info | Stage::Invoke => {}
            }
        }
    }

    fn refused(&mut self, at: usize, half: &Half) {
        let key = self.keys.entry(Arc::clone(&half.key)).or_default();
        let Some(write) = key.writes.get_mut(&half.number) else { return };
        write.refused = Some(at);
        if let Some((version, told)) = write.version {
            let (began, number) = (write.began, half.number);
            let detail = format!("{number} was told as version {version} and then refused");
            self.report(Kind::FailedWriteSeen, &half.key, detail, vec![began, told, at]);
        }
    }

    fn acknowledged(&mut self, half: &Half, acked: Acked) {
        let key = self.keys.entry(Arc::clone(&half.key)).or_default();
        let Some(version) = half.version else {
            key.blind.push((half.number, acked));
            return;
        };
        key.acked.insert(version, acked);
        self.knows(&half.key, version, Known { number: acked.number, at: acked.at, told: false });
        let keys = &self.keys[&half.key];
        let mut lost = Vec::new();
        for (process, watcher) in &self.watchers {
            if watcher.watches(&half.key, keys)
                && let Some(seen) = watcher.seen.get(&half.key)
                && seen.current.is_some_and(|(current, _)| current > version)
                && !seen.told.contains(&version)
                && watcher.owes(Some(seen), version, acked)
            {
                lost.push((*process, seen.last.map_or(acked.at, |(_, told)| told)));
            }
        }
        for (process, told) in lost {
            self.lost(process, &half.key, (version, acked), Some(told));
        }
    }

    fn lost(
        &mut self,
        process: u32,
        key: &Arc<str>,
        (version, acked): (u64, Acked),
        told: Option<usize>,
    ) {
        let what = match acked.number {
            0 => "the delete".into(),
            number => format!("{number}"),
        };
        let detail = format!("watcher {process} was not told version {version}, {what}");
        let events = [acked.began, acked.at].into_iter().chain(told).collect();
        self.report(Kind::WatchBroken, key, detail, events);
    }

    /// Holds what a version holds against all that is known of it.
    fn knows(&mut self, name: &Arc<str>, version: u64, known: Known) {
        let key = self.keys.entry(Arc::clone(name)).or_default();
        let before = *key.holds.entry(version).or_insert(known);
        // Where nobody was told, others say what is wrong.
        if before.number != known.number && (before.told || known.told) {
            let detail =
                format!("version {version} is {} and {}", text(before.number), text(known.number));
            self.report(Kind::WatchBroken, name, detail, vec![before.at, known.at]);
            return;
        }
        let Some(write) = key.writes.get_mut(&known.number) else { return };
        let (other, at) = *write.version.get_or_insert((version, known.at));
        if other != version && known.told {
            let detail = format!("{} has versions {other} and {version}", known.number);
            self.report(Kind::AppliedTwice, name, detail, vec![at, known.at]);
        }
    }

    fn read(&mut self, at: usize, event: &Event) {
        let Value::Number(number) = event.value else { return };
        if let Some(version) = event.version {
            self.knows(&event.key, version, Known { number, at, told: false });
            if let Some(watcher) = self.watchers.get_mut(&event.process) {
                let seen = watcher.seen.entry(Arc::clone(&event.key)).or_default();
                seen.from = Some(seen.from.map_or(version, |from| from.min(version)));
            }
        }
        let key = self.keys.entry(Arc::clone(&event.key)).or_default();
        if event.f == Action::FinalRead {
            key.last = Some((number, event.version, at));
        }
    }

    fn told(&mut self, at: usize, process: u32, told: &Told) {
        let (name, version) = (&told.key, told.version);
        let number = match (&*told.kind, &told.value) {
            ("put", Value::Number(number)) if *number > 0 => *number,
            ("delete", Value::Number(0)) => 0,
            (kind, value) => {
                let foreign = matches!(value, Value::Foreign { .. });
                let broken = if foreign { Kind::ForeignValue } else { Kind::WatchBroken };
                let detail = format!("watcher {process} was told {kind} {value:?}");
                return self.report(broken, name, detail, vec![at]);
            }
        };
        let key = self.keys.entry(Arc::clone(name)).or_default();
        let watcher = self.watchers.entry(process).or_default();
        if !watcher.watches(name, key) {
            let detail = format!("watcher {process} was told of it and watches {}", watcher.scope);
            return self.report(Kind::WatchBroken, name, detail, vec![at]);
        }
        match key.writes.get(&number) {
            None if number > 0 => {
                let detail = format!("watcher {process} was told {number}, which nobody has sent");
                return self.report(Kind::ForeignValue, name, detail, vec![at]);
            }
            Some(Write { began, refused: Some(refused), .. }) => {
                let detail = format!("watcher {process} was told {number}, which was refused");
                let events = vec![*began, *refused, at];
                return self.report(Kind::FailedWriteSeen, name, detail, events);
            }
            Some(_) | None => {}
        }
        if let Some((last, before)) = watcher.seen.get(name).and_then(|seen| seen.last)
            && version <= last
        {
            let again = if version == last { "again" } else { "after a later one" };
            let detail = format!(
                "watcher {process} was told version {version}, {}, {again} ({last})",
                text(number)
            );
            return self.report(Kind::WatchBroken, name, detail, vec![before, at]);
        }
        self.left_out(at, process, told);
        let watcher = self.watchers.entry(process).or_default();
        watcher.order.push(Some((Arc::clone(name), number, at)));
        let seen = watcher.seen.entry(Arc::clone(name)).or_default();
        seen.last = Some((version, at));
        seen.current = Some((version, number));
        seen.from = Some(seen.from.map_or(version, |from| from.min(version)));
        seen.told.insert(version);
        self.knows(name, version, Known { number, at, told: true });
    }

    /// What was acknowledged before the change that is told now, and was not told.
    fn left_out(&mut self, at: usize, process: u32, told: &Told) {
        let watcher = &self.watchers[&process];
        let seen = watcher.seen.get(&told.key);
        let last = seen.and_then(|seen| seen.current).map_or(0, |(version, _)| version);
        let between = (Bound::Excluded(last), Bound::Excluded(told.version));
        let acked = self.keys[&told.key].acked.range(between);
        let owed = acked.filter(|(version, acked)| watcher.owes(seen, **version, **acked));
        let owed: Vec<(u64, Acked)> = owed.map(|(version, acked)| (*version, *acked)).collect();
        for lost in owed {
            self.lost(process, &told.key, lost, Some(at));
        }
    }
}

impl Watcher {
    /// Whether it watches a key.
    fn watches(&self, name: &str, key: &Key) -> bool {
        if is_one(&self.scope) {
            return *self.scope == *name;
        }
        // Of a key that nobody was answered for yet the group is not known.
        self.begun.is_some()
            && (self.group.is_none() || key.group.is_none() || key.group == self.group)
    }

    /// Whether it has to be told this, sooner or later.
    fn owes(&self, seen: Option<&Seen>, version: u64, acked: Acked) -> bool {
        let behind = seen.and_then(|seen| seen.from).is_some_and(|from| version > from);
        behind || self.begun.is_some_and(|begun| acked.began > begun)
    }
}

/// What a write writes; the number 0 stands for nothing.
fn halves(event: &Event) -> Vec<Half> {
    let number = match &event.value {
        Value::Both { both } => return both.clone(),
        Value::Number(number) | Value::Cas { to: number, .. } => *number,
        _ => return Vec::new(),
    };
    vec![Half { key: Arc::clone(&event.key), number, version: None }]
}

fn text(number: u64) -> String {
    if number == 0 { "nothing".into() } else { number.to_string() }
}

#[cfg(test)]
mod tests;
