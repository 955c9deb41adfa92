//! What a store in memory holds, and how it changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sagedb::types::command::{KeyWrite, Write};
use sagedb::types::error::{Decline, Error};
use sagedb::types::item::{Expiry, Item};
use sagedb::types::key::Key;
use sagedb::types::kv::{Consistency, GroupIndex, KvReply, Written};
use sagedb::types::once::{IdempotencyKey, Once};
use sagedb::types::scan::{Deleted, Found, Listed, Scan, Scanned, Span, Want};
use sagedb::types::txn::{Compare, Op, OpError, OpResult, Txn, TxnOutcome, TxnReply};
use sagedb::types::value::Value;
use sagedb::types::watch::{Change, Event, Place};

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) index: u64,
    pub(crate) versions: BTreeMap<Key, u64>,
    pub(crate) items: BTreeMap<Key, Item>,
    /// All changes there were.
    pub(crate) events: Vec<(Place, Event)>,
    /// When items that are not for ever are over.
    pub(crate) ends: BTreeMap<Key, Instant>,
    /// Writes with a name, and their answers.
    pub(crate) names: BTreeMap<IdempotencyKey, (KeyWrite, Result<KvReply, Error>)>,
    /// The same of transactions and batches.
    pub(crate) txns: BTreeMap<IdempotencyKey, (Txn, Result<TxnReply, Error>)>,
}

impl State {
    pub(crate) fn txn_once(&mut self, txn: Txn, once: Option<Once>) -> Result<TxnReply, Error> {
        let Some(Once::Key(name)) = once else { return self.txn(&txn) };
        if let Some((first, answer)) = self.txns.get(&name) {
            return if *first == txn {
                answer.clone()
            } else {
                Err(self.declined(Decline::IdempotencyKeyReused))
            };
        }
        let answer = self.txn(&txn);
        self.txns.insert(name, (txn, answer.clone()));
        answer
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnReply, Error> {
        let before = self.clone();
        let (succeeded, ops, atomic) = match txn {
            Txn::Batch { ops } => (true, ops, false),
            Txn::Atomic { compare, then, otherwise } => {
                let holds = |compare: &Compare| compare.holds.of(self.items.get(&compare.key));
                let succeeded = compare.iter().all(holds);
                (succeeded, if succeeded { then } else { otherwise }, true)
            }
        };
        let mut results = Vec::new();
        for op in ops {
            let result = match op {
                Op::Get { key } => Ok(OpResult::Read(self.items.get(key).cloned())),
                Op::Write { key, write } => {
                    let (key, write) = (key.clone(), write.clone());
                    self.write_if(KeyWrite { key, condition: None, write })
                        .map(|reply| written(&reply))
                }
            };
            match result {
                Ok(result) => results.push(result),
                Err(error) if atomic => {
                    *self = before;
                    return Err(error);
                }
                Err(Error::Declined { why: Decline::NotAnInteger, .. }) => {
                    results.push(OpResult::Failed(OpError::NotAnInteger));
                }
                Err(_) => results.push(OpResult::Failed(OpError::NoValue)),
            }
        }
        let (at, ts, outcome) = (self.at(), self.now(), TxnOutcome { succeeded, results });
        Ok(TxnReply { at, ts, outcome, acks: 2, quorum: 2 })
    }

    pub(crate) fn declined(&self, why: Decline) -> Error {
        Error::Declined { why, at: self.at() }
    }

    pub(crate) fn at(&self) -> GroupIndex {
        GroupIndex { group: "fake".into(), index: self.index }
    }

    pub(crate) fn write_if(&mut self, write: KeyWrite) -> Result<KvReply, Error> {
        let KeyWrite { key, condition, write } = write;
        let version = self.items.get(&key).map(|item| item.version);
        if condition.is_some_and(|condition| !condition.holds(version)) {
            return Err(self.declined(Decline::VersionMismatch { version }));
        }
        let written = match write {
            Write::Put { value } => self.write(key, value),
            Write::Delete => self.remove(&key, Change::Delete),
            Write::PutFor { value, ttl_ms } => {
                let written = self.write(key.clone(), value);
                let ends = self.end(key, Some(ttl_ms));
                if let Some((_, Event { change: Change::Put { expires, .. }, .. })) =
                    self.events.last_mut()
                {
                    *expires = ends;
                }
                Written { expires: ends, ..written }
            }
            Write::Add { by } => {
                let held = self.items.get(&key).map_or(Some(0), |item| item.value.as_integer());
                let value = held
                    .and_then(|held| held.checked_add(by))
                    .ok_or_else(|| self.declined(Decline::NotAnInteger))?;
                let expires = self.items.get(&key).and_then(|item| item.expires.at());
                let end = self.ends.get(&key).copied();
                let written = self.write(key.clone(), Value::integer(value));
                self.items.get_mut(&key).expect("just written").expires = expires.into();
                self.ends.extend(end.map(|end| (key, end)));
                Written { value: Some(value), expires, ..written }
            }
            Write::Touch { ttl_ms } => {
                let version = version.ok_or_else(|| self.declined(Decline::KeyNotFound))?;
                self.index += 1;
                let expires = self.end(key, ttl_ms);
                let (at, ts) = (self.at(), self.now());
                Written { at, ts, version, existed: true, expires, value: None, acks: 2, quorum: 2 }
            }
        };
        Ok(KvReply::Written(written))
    }

    pub(crate) fn now(&self) -> u64 {
        1_755_248_123_456 + self.index
    }

    /// Lets the item of a key end after so long.
    pub(crate) fn end(&mut self, key: Key, ttl_ms: Option<u64>) -> Option<u64> {
        let expires = ttl_ms.map(|ttl_ms| self.now() + ttl_ms);
        self.items.get_mut(&key).expect("it has a value").expires = expires.into();
        match ttl_ms {
            Some(ttl_ms) => self.ends.insert(key, Instant::now() + Duration::from_millis(ttl_ms)),
            None => self.ends.remove(&key),
        };
        expires
    }

    /// Removes what is over.
    pub(crate) fn expire(&mut self) {
        let now = Instant::now();
        let over: Vec<Key> =
            self.ends.iter().filter(|(_, end)| **end <= now).map(|(key, _)| key.clone()).collect();
        for key in over {
            self.remove(&key, Change::Expire);
        }
    }

    pub(crate) fn write(&mut self, key: Key, value: Value) -> Written {
        let change = Change::Put { value: value.clone(), expires: None };
        let existed = self.items.contains_key(&key);
        let (version, ts) = self.change(&key, change, true);
        self.items.insert(key, Item { value, ts, version, expires: Expiry::NEVER });
        self.written(version, ts, existed)
    }

    pub(crate) fn remove(&mut self, key: &Key, change: Change) -> Written {
        let existed = self.items.remove(key).is_some();
        let (version, ts) = self.change(key, change, existed);
        self.written(version, ts, existed)
    }

    pub(crate) fn written(&self, version: u64, ts: u64, existed: bool) -> Written {
        let (at, expires, value) = (self.at(), None, None);
        Written { at, ts, version, existed, expires, value, acks: 2, quorum: 2 }
    }

    /// The version of the key as of this change, and its stamp.
    pub(crate) fn change(&mut self, key: &Key, change: Change, tells: bool) -> (u64, u64) {
        self.index += 1;
        self.ends.remove(key);
        let version = self.versions.entry(key.clone()).or_default();
        *version += 1;
        let (version, ts) = (*version, self.now());
        if tells {
            let place = Place { index: self.index, part: 0 };
            self.events.push((place, Event { key: key.clone(), change, ts, version }));
        }
        (version, ts)
    }
}

fn written(reply: &KvReply) -> OpResult {
    let KvReply::Written(Written { version, existed, expires, value, .. }) = *reply else {
        panic!("not a write's answer")
    };
    OpResult::Written { version, existed, expires, value }
}

impl State {
    pub(crate) fn delete_span(&mut self, Span { from, to }: Span) -> Deleted {
        let inside =
            |key: &&Key| key.as_bytes() >= from && to.as_ref().is_none_or(|to| key.as_bytes() < to);
        let doomed: Vec<Key> = self.items.keys().filter(inside).cloned().collect();
        let keys = doomed.len() as u64;
        for key in doomed {
            self.remove(&key, Change::Delete);
        }
        Deleted { at: vec![self.at()], keys }
    }

    pub(crate) fn scan(&self, scan: &Scan) -> Scanned {
        let Scan { span: Span { from, to }, want, consistency } = scan;
        let inside =
            |key: &&Key| key.as_bytes() >= from && to.as_ref().is_none_or(|to| key.as_bytes() < to);
        let keys = self.items.keys().filter(inside);
        let found = match *want {
            Want::Count => Found::Count(keys.count() as u64),
            Want::Page { limit, bytes, reverse, keys_only } => {
                let listed = |key| Listed::of(key, &self.items[key], keys_only);
                let mut items: Vec<Listed> = keys.map(listed).collect();
                if reverse {
                    items.reverse();
                }
                Found::page(items.into_iter(), limit as usize, bytes as usize)
            }
        };
        let lag_ms = (*consistency == Consistency::Stale).then_some(7);
        Scanned { at: vec![self.at()], lag_ms, found }
    }
}
