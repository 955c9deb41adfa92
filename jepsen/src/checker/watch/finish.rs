//! What can only be said of watchers when everything is over.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checker::watch::{Acked, Checker, Key, Seen, Watcher, text};
use crate::checker::{Anomaly, Kind};
use crate::workload::watch::is_one;

/// Something told: key, number, where.
type One<'a> = &'a (Arc<str>, u64, usize);

impl Checker {
    /// Looks at everything once more; all that was wrong.
    pub(crate) fn finish(mut self) -> Vec<Anomaly> {
        let watchers = std::mem::take(&mut self.watchers);
        for (process, watcher) in &watchers {
            if let Some(ended) = watcher.ended {
                self.finish_watcher(*process, watcher, ended);
            }
            self.check_transactions(*process, watcher);
        }
        self.check_deletes(&watchers.into_values().collect::<Vec<_>>());
        self.anomalies
    }

    /// A watcher that says that it was told everything was.
    fn finish_watcher(&mut self, process: u32, watcher: &Watcher, ended: usize) {
        let mut found = Vec::new();
        let nothing = Seen::default();
        for (name, key) in self.keys.iter().filter(|(name, key)| watcher.watches(name, key)) {
            // It was to be told what a read found; without one it has waited for nothing.
            if key.last.is_none() {
                continue;
            }
            let seen = watcher.seen.get(name).unwrap_or(&nothing);
            let last = seen.current.map_or(0, |(version, _)| version);
            let owed = key.acked.range(last + 1..);
            let owed = owed.filter(|(version, acked)| {
                acked.at < ended && watcher.owes(Some(seen), **version, **acked)
            });
            found.extend(owed.map(|(version, acked)| (Arc::clone(name), Some(*version), *acked)));
            let blind = key.blind.iter().filter(|(number, acked)| {
                let told = key.writes.get(number).and_then(|write| write.version);
                let told = told.is_some_and(|(version, _)| seen.told.contains(&version));
                *number > 0 && !told && watcher.begun.is_some_and(|begun| acked.began > begun)
            });
            found.extend(blind.map(|(_, acked)| (Arc::clone(name), None, *acked)));
        }
        for (name, version, acked) in found {
            if let Some(version) = version {
                self.lost(process, &name, (version, acked), None);
            } else {
                let detail = format!("watcher {process} was not told {}", acked.number);
                let events = vec![acked.began, acked.at];
                self.report(Kind::WatchBroken, &name, detail, events);
            }
        }
        self.check_last(process, watcher);
    }

    /// What a watcher was told last of a key is what a read found then, unless a write of unknown fate
    /// came later still.
    fn check_last(&mut self, process: u32, watcher: &Watcher) {
        let mut found = Vec::new();
        for (name, key) in self.keys.iter().filter(|(name, key)| watcher.watches(name, key)) {
            let Some((read, version, at)) = key.last else { continue };
            let current = watcher.seen.get(name).and_then(|seen| seen.current);
            let fits = match (current, version) {
                (Some((told, number)), Some(version)) => {
                    told > version || (told == version && number == read)
                }
                // Nothing is there, or nothing has happened since it began.
                (Some((_, 0)) | None, None) => true,
                (Some((told, _)), None) => is_unknown(key, told),
                (None, Some(_)) => false,
            };
            if !fits {
                let (told, holds) = current.unwrap_or_default();
                let detail = format!(
                    "watcher {process} was told version {told}, {}, last, and {} is read",
                    text(holds),
                    text(read)
                );
                let told = watcher.seen.get(name).and_then(|seen| seen.last);
                let events = told.map(|(_, told)| told).into_iter().chain([at]).collect();
                found.push((Arc::clone(name), detail, events));
            }
        }
        for (name, detail, events) in found {
            self.report(Kind::WatchBroken, &name, detail, events);
        }
    }

    /// The two halves of a transaction stand side by side among all of their group.
    fn check_transactions(&mut self, process: u32, watcher: &Watcher) {
        let mut before: HashMap<Option<&Arc<str>>, One<'_>> = HashMap::new();
        let mut torn: Vec<(One<'_>, One<'_>)> = Vec::new();
        for one in &watcher.order {
            let Some(one) = one else {
                before.clear();
                continue;
            };
            let group = self.keys.get(&one.0).and_then(|key| key.group.as_ref());
            let last = before.insert(group, one);
            let waits = last.filter(|last| self.is_half(last, true));
            let whole = last.is_some_and(|last| self.is_pair(last, one));
            // Who watches one key is told one half.
            let lone = self.is_half(one, false) && !whole;
            if !is_one(&watcher.scope) && (lone || (waits.is_some() && !whole)) {
                torn.push((last.unwrap_or(one), one));
            }
        }
        let torn = torn.into_iter().map(|(last, one)| {
            let half = if self.is_half(one, false) { one } else { last };
            let detail =
                format!("watcher {process} was told a part of the transaction of {}", half.1);
            (Arc::clone(&half.0), detail, vec![last.2, one.2])
        });
        for (key, detail, events) in torn.collect::<Vec<_>>() {
            self.report(Kind::WatchBroken, &key, detail, events);
        }
    }

    /// Whether it is what a transaction wrote to its first key, or to its second one.
    fn is_half(&self, one: One<'_>, first: bool) -> bool {
        let other = self.halves.get(&(Arc::clone(&one.0), one.1));
        other.is_some_and(|other| other.follows == first)
    }

    fn is_pair(&self, one: One<'_>, next: One<'_>) -> bool {
        let other = self.halves.get(&(Arc::clone(&one.0), one.1));
        other.is_some_and(|other| other.follows && (&other.key, other.number) == (&next.0, next.1))
    }

    /// Of all deletes that anybody was told some were acknowledged; the others are of unknown fate.
    fn check_deletes(&mut self, watchers: &[Watcher]) {
        let mut found = Vec::new();
        for (name, key) in &self.keys {
            let told = |version: &u64| {
                let known = |seen: &Seen| seen.told.contains(version);
                watchers.iter().any(|watcher| watcher.seen.get(name).is_some_and(known))
            };
            let deletes = key.holds.iter().filter(|(_, known)| known.number == 0);
            let strange = deletes.filter(|(version, _)| !key.acked.contains_key(version));
            let strange: Vec<_> = strange.filter(|(version, _)| told(version)).collect();
            if strange.len() > key.deletes {
                let detail = format!(
                    "{} deletes were told and not acknowledged, {} can have been",
                    strange.len(),
                    key.deletes
                );
                let events = strange.iter().map(|(_, known)| known.at).collect();
                found.push((Arc::clone(name), detail, events));
            }
        }
        for (name, detail, events) in found {
            self.report(Kind::WatchBroken, &name, detail, events);
        }
    }
}

/// Whether a version is that of a write that nobody acknowledged.
fn is_unknown(key: &Key, version: u64) -> bool {
    let acked: Option<&Acked> = key.acked.get(&version);
    acked.is_none() && key.blind.is_empty()
}
