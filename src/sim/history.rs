//! What clients did and were told, and whether that can have come from one store.
//!
//! Every write has a value of its own, and the store gives each write of a key a version that
//! rises. So the order of a key's writes is known, and linearizability (Herlihy and Wing, 1990)
//! comes to a few comparisons when an answer arrives:
//!
//! - the version of a write, or of what a read found, is not older than any that was known to
//!   anybody before the request was made;
//! - a version has one value, and a value one version: a write takes effect once;
//! - nobody reads what was never written, or was refused;
//! - a read finds nothing only if a deletion can explain it.
//!
//! A write whose fate is unknown may take effect at any time later, or never.

use std::collections::BTreeMap;

use crate::types::item::Version;

/// Names one request; also the value of a write.
pub(in crate::sim) type Id = u64;

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Kind {
    Put,
    /// Only if the key has this version.
    PutIf(Version),
    Delete,
    Read,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Under way, or nobody knows.
    Open,
    Written(Version),
    Refused,
}

#[derive(Debug)]
struct Request {
    key: usize,
    kind: Kind,
    /// The newest version of the key that was known when it was made.
    floor: Version,
    fate: Fate,
}

#[derive(Debug, Default)]
struct KeyLog {
    /// The newest version that somebody was told of.
    floor: Version,
    /// Which write has which version, as far as it is known.
    writes: BTreeMap<Version, Id>,
    versions: BTreeMap<Id, Version>,
    deletions: Vec<Id>,
}

/// The requests of a run.
#[derive(Debug, Default)]
pub(in crate::sim) struct History {
    requests: BTreeMap<Id, Request>,
    keys: BTreeMap<usize, KeyLog>,
    next: Id,
    /// How many were answered with success.
    pub(in crate::sim) answered: u64,
    /// How many were refused, or had no answer.
    pub(in crate::sim) failed: u64,
    /// What can't have come from one store.
    pub(in crate::sim) violations: Vec<String>,
}

impl History {
    /// Somebody makes a request.
    pub(in crate::sim) fn begin(&mut self, key: usize, kind: Kind) -> Id {
        self.next += 1;
        let log = self.keys.entry(key).or_default();
        if kind == Kind::Delete {
            log.deletions.push(self.next);
        }
        let request = Request { key, kind, floor: log.floor, fate: Fate::Open };
        self.requests.insert(self.next, request);
        self.next
    }

    /// The newest version of a key that anybody knows.
    pub(in crate::sim) fn newest(&self, key: usize) -> Version {
        self.keys.get(&key).map_or(0, |log| log.floor)
    }

    /// How many requests there were.
    pub(in crate::sim) fn requests(&self) -> u64 {
        self.next
    }

    /// It certainly was not carried out, and never will be.
    pub(in crate::sim) fn refused(&mut self, id: Id) {
        self.failed += 1;
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.fate = Fate::Refused;
        let log = self.keys.entry(request.key).or_default();
        if let Some(version) = log.versions.get(&id) {
            self.violations.push(format!("write {id} was refused, and is there at {version}"));
        }
    }

    /// Nobody knows what became of it.
    pub(in crate::sim) fn unknown(&mut self, _id: Id) {
        self.failed += 1;
    }

    /// A write was acknowledged.
    pub(in crate::sim) fn written(&mut self, id: Id, version: Version) {
        self.answered += 1;
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.fate = Fate::Written(version);
        let (key, floor, kind) = (request.key, request.floor, request.kind);
        if version <= floor {
            let what = format!("write {id} of key {key} has version {version}");
            self.violations.push(format!("{what}; {floor} was known before it was made"));
        }
        if let Kind::PutIf(expected) = kind
            && version != expected + 1
        {
            let what = format!("write {id} of key {key} was to follow version {expected}");
            self.violations.push(format!("{what}, and has {version}"));
        }
        self.place(key, id, version);
    }

    /// A deletion has found nothing to delete; any version that the key had is not newer than this.
    pub(in crate::sim) fn deleted_nothing(&mut self, id: Id, version: Version) {
        self.found_nothing(id);
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.fate = Fate::Refused;
        if version < request.floor {
            let (key, floor) = (request.key, request.floor);
            let what = format!("deletion {id} finds key {key} not there as of version {version}");
            self.violations.push(format!("{what}; {floor} was known before it was made"));
        }
    }

    /// A read has found the value of a write.
    pub(in crate::sim) fn found(&mut self, id: Id, value: Id, version: Version) {
        self.answered += 1;
        let Some(read) = self.requests.get(&id) else { return };
        let (key, floor) = (read.key, read.floor);
        let what = format!("read {id} of key {key} finds {value} at version {version}");
        if version < floor {
            self.violations.push(format!("{what}; {floor} was known before it was made"));
        }
        match self.requests.get(&value) {
            Some(write) if write.key == key && write.fate != Fate::Refused => {
                self.place(key, value, version);
            }
            Some(write) => self.violations.push(format!("{what}, which is {write:?}")),
            None => self.violations.push(format!("{what}, which was never written")),
        }
    }

    /// A read has found nothing.
    pub(in crate::sim) fn found_nothing(&mut self, id: Id) {
        self.answered += 1;
        let Some(read) = self.requests.get(&id) else { return };
        let (key, floor) = (read.key, read.floor);
        let log = self.keys.entry(key).or_default();
        let explains = |deletion: &Id| match self.requests[deletion].fate {
            Fate::Open if *deletion == id => false,
            Fate::Open => true,
            Fate::Written(version) => version >= floor,
            Fate::Refused => false,
        };
        if floor > 0 && !log.deletions.iter().any(explains) {
            let what = format!("read {id} of key {key} finds nothing");
            self.violations.push(format!("{what}; version {floor} was known before it was made"));
        }
    }

    fn place(&mut self, key: usize, id: Id, version: Version) {
        let log = self.keys.entry(key).or_default();
        let other = *log.writes.entry(version).or_insert(id);
        if other != id {
            let what = format!("version {version} of key {key}");
            self.violations.push(format!("{what} is that of write {other} and of write {id}"));
        }
        let at = *log.versions.entry(id).or_insert(version);
        if at != version {
            let what = format!("write {id} of key {key}");
            self.violations.push(format!("{what} has taken effect at {at} and at {version}"));
        }
        log.floor = log.floor.max(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(work: impl FnOnce(&mut History)) -> usize {
        let mut history = History::default();
        work(&mut history);
        history.violations.len()
    }

    #[test]
    fn what_one_store_can_say_is_no_violation() {
        let fine = |h: &mut History| {
            let (lost, put, read) =
                (h.begin(0, Kind::Put), h.begin(0, Kind::Put), h.begin(0, Kind::Read));
            h.unknown(lost);
            h.found_nothing(read);
            h.written(put, 1);
            let read = h.begin(0, Kind::Read);
            h.found(read, lost, 2);
            let delete = h.begin(0, Kind::Delete);
            h.written(delete, 3);
            let read = h.begin(0, Kind::Read);
            h.found_nothing(read);
            let put = h.begin(0, Kind::PutIf(3));
            h.refused(put);
        };
        assert_eq!(violations(fine), 0);
    }

    #[test]
    fn what_no_store_can_say_is_found() {
        let stale = |h: &mut History| {
            let (one, two) = (h.begin(0, Kind::Put), h.begin(0, Kind::Put));
            h.written(one, 1);
            h.written(two, 2);
            let read = h.begin(0, Kind::Read);
            h.found(read, one, 1);
        };
        let lost = |h: &mut History| {
            let put = h.begin(0, Kind::Put);
            h.written(put, 1);
            let read = h.begin(0, Kind::Read);
            h.found_nothing(read);
        };
        let refused = |h: &mut History| {
            let (put, read) = (h.begin(0, Kind::Put), h.begin(0, Kind::Read));
            h.refused(put);
            h.found(read, put, 1);
        };
        let twice = |h: &mut History| {
            let (put, read) = (h.begin(0, Kind::Put), h.begin(0, Kind::Read));
            h.written(put, 1);
            h.found(read, put, 2);
        };
        let elsewhere = |h: &mut History| {
            let (put, read) = (h.begin(1, Kind::Put), h.begin(0, Kind::Read));
            h.found(read, put, 1);
        };
        let overtaken = |h: &mut History| {
            let put = h.begin(0, Kind::PutIf(1));
            h.written(put, 3);
        };
        let found = [
            violations(stale),
            violations(lost),
            violations(refused),
            violations(twice),
            violations(elsewhere),
            violations(overtaken),
        ];
        assert_eq!(found, [1; 6]);
    }
}
