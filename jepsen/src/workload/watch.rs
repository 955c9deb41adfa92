//! Keys whose changes are watched: clients put, delete and write two keys of one group in a transaction,
//! some of it under conditions. Who watches is in `workload::watcher`.
//!
//! No number is written to a key twice, so whoever is told a value knows its write. Keys come in pairs, one
//! name in braces for both, so that a pair is in one group. When everything is over each key is written
//! once more, so that there is something that every watcher has to be told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use serde_json::Value as Json;

use crate::client::txn::{Done, Holds, Op, OpDone, Txn};
use crate::client::{Body, Condition};
use crate::history::{Action, Half, Recorder, Stage, Value};
use crate::workload::Servers;
use crate::workload::actor::{Actor, Ended};
use crate::workload::value::{number_of, text};

/// Pairs of keys for each group of the cluster: with two groups, one in two thousand clusters has a
/// group without a key.
const PAIRS: usize = 6;
/// The key in the history of who watches all keys.
pub(crate) const ALL: &str = "watch-*";
/// What all keys begin with.
pub(crate) const PREFIX: &str = "watch-{";
/// The process that writes every key once more.
const LAST: u32 = 2_100_000_000;
/// From here on it counts what it writes.
const LAST_NUMBER: u64 = 1 << 32;
/// Between two tries of it.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a key of the history is one, and not what stands for all of them.
pub(crate) fn is_one(key: &str) -> bool {
    !key.starts_with(ALL)
}

/// The keys of all clients.
#[derive(Debug)]
pub(crate) struct Keys {
    pairs: Vec<Pair>,
    /// The last number that anybody writes, to whatever key.
    last: AtomicU64,
}

#[derive(Debug)]
struct Pair {
    name: Arc<str>,
    keys: [Arc<str>; 2],
}

impl Keys {
    /// Those of a cluster of so many groups.
    pub(crate) fn new(groups: u16) -> Self {
        let pair = |pair| {
            let name = format!("{PREFIX}{pair}}}");
            let key = |letter| Arc::from(format!("{name}-{letter}"));
            Pair { keys: ["a", "b"].map(key), name: name.into() }
        };
        let pairs = (0..PAIRS * usize::from(groups)).map(pair).collect();
        Self { pairs, last: AtomicU64::new(0) }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<str>> {
        self.pairs.iter().flat_map(|pair| pair.keys.clone()).collect()
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// One client at work.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) actor: Actor,
    keys: Arc<Keys>,
    /// What this client last read or wrote where: number and version; the number 0 for nothing.
    known: HashMap<Arc<str>, (u64, u64)>,
}

impl Worker {
    /// A client that has read nothing yet.
    pub(crate) fn new(actor: Actor, keys: Arc<Keys>) -> Self {
        Self { actor, keys, known: HashMap::new() }
    }

    /// One operation; whether it succeeded.
    pub(crate) async fn step(&mut self) -> bool {
        let keys = Arc::clone(&self.keys);
        let pair = &keys.pairs[self.actor.rng.random_range(0..keys.pairs.len())];
        let key = &pair.keys[self.actor.rng.random_range(0..2)];
        let conditional = self.actor.rng.random_bool(0.3);
        let known = self.known.remove(key).filter(|_| conditional);
        match self.actor.rng.random_range(0..100) {
            0..45 => self.put(key, known).await,
            45..60 => self.delete(key, known).await,
            60..80 => self.both(pair, known.map(|(_, version)| version)).await,
            _ => self.read(key).await,
        }
    }

    async fn put(&mut self, key: &Arc<str>, known: Option<(u64, u64)>) -> bool {
        let number = self.keys.next();
        let server = self.actor.any_server();
        let body = Body::Text(text(key, number));
        let (f, value, condition) = match known {
            None => (Action::Write, Value::Number(number), Condition::Always),
            Some((from, version)) => {
                (Action::Cas, Value::Cas { from, to: number }, Condition::Version(version))
            }
        };
        let ended = self.actor.write(&server, (f, key), value, (body, condition)).await;
        if let Ended::Ok(Some(version)) = ended {
            self.known.insert(Arc::clone(key), (number, version));
        }
        matches!(ended, Ended::Ok(_))
    }

    async fn delete(&mut self, key: &Arc<str>, known: Option<(u64, u64)>) -> bool {
        let server = self.actor.any_server();
        // Version 0 means that there is nothing, which is nothing to delete.
        let version = known.map_or(0, |(_, version)| version);
        let condition = if version == 0 { Condition::Always } else { Condition::Version(version) };
        let what = (Body::Nothing, condition);
        let ended = self.actor.write(&server, (Action::Delete, key), Value::Number(0), what).await;
        matches!(ended, Ended::Ok(_))
    }

    /// Writes both keys of a pair, in either order, if the first one still has this version.
    async fn both(&mut self, pair: &Pair, version: Option<u64>) -> bool {
        let turned = self.actor.rng.random_bool(0.5);
        let [a, b] = &pair.keys;
        let order = if turned { [b, a] } else { [a, b] };
        let number = self.keys.next();
        let half = |key: &Arc<str>| Half { key: Arc::clone(key), number, version: None };
        let both = order.map(half).to_vec();
        let put =
            |half: &Half| Op::Put(half.key.to_string(), Json::String(text(&half.key, number)));
        let compare = version.map(|version| (order[0].to_string(), Holds::Version(version)));
        let txn = Txn {
            compare: compare.into_iter().collect(),
            then: both.iter().map(put).collect(),
            otherwise: Vec::new(),
        };
        let server = self.actor.any_server();
        let value = (Value::Both { both: both.clone() }, &txn);
        let shown = |done: &Done| Value::Both { both: versions(&both, done) };
        let ended = self.actor.txn(&server, (Action::WriteBoth, &pair.name), value, shown).await;
        if let (Stage::Ok, Value::Both { both }) = &ended {
            for half in both {
                let known = (half.number, half.version.unwrap_or_default());
                self.known.insert(Arc::clone(&half.key), known);
            }
        }
        ended.0 == Stage::Ok
    }

    async fn read(&mut self, key: &Arc<str>) -> bool {
        let server = self.actor.any_server();
        let decode = |json: Option<&str>| number_of(key, json);
        let read = self.actor.read(&server, (Action::Read, key), decode).await;
        if let Some((Value::Number(number), version)) = read {
            self.known.insert(Arc::clone(key), (number, version.unwrap_or(0)));
        }
        read.is_some()
    }
}

/// What was written, with the versions that the answer names.
fn versions(both: &[Half], done: &Done) -> Vec<Half> {
    let halves = both.iter().zip(&done.results).map(|(half, result)| match result {
        OpDone::Written(version) => Half { version: Some(*version), ..half.clone() },
        OpDone::Read(_) => half.clone(),
    });
    halves.collect()
}

/// Writes every key of these that is watched once more, each until it is acknowledged.
pub(crate) async fn write_last(
    keys: &[Arc<str>],
    servers: &Servers,
    recorder: &Arc<Recorder>,
) -> Result<()> {
    let mut actor = Actor::new((0, 1), 0, servers, recorder)?.named(LAST);
    let mut number = LAST_NUMBER;
    for key in keys.iter().filter(|key| key.starts_with(PREFIX)) {
        loop {
            number += 1;
            let server = actor.coordinator();
            let what = (Body::Text(text(key, number)), Condition::Always);
            let write = actor.write(&server, (Action::Write, key), Value::Number(number), what);
            if matches!(write.await, Ended::Ok(_)) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_of_a_pair_are_in_one_group_and_none_stands_for_all() {
        let keys = Keys::new(2);
        assert_eq!(keys.all().len(), 2 * PAIRS * 2);
        assert_eq!(
            keys.pairs[7].keys.clone().map(|key| key.to_string()),
            ["watch-{7}-a", "watch-{7}-b"]
        );
        assert!(keys.all().iter().all(|key| key.starts_with(PREFIX) && is_one(key)));
        assert!(!is_one(ALL) && !is_one(&format!("{ALL} of g1")));
    }

    #[test]
    fn an_answer_to_a_transaction_has_the_versions_of_both() {
        let half = |version| Half { key: "k".into(), number: 7, version };
        let results = vec![OpDone::Written(3), OpDone::Written(5)];
        let done = Done { succeeded: true, results, index: 17, group: "g1".into() };
        let both = versions(&[half(None), half(None)], &done);
        assert_eq!(both, [half(Some(3)), half(Some(5))]);
    }
}
