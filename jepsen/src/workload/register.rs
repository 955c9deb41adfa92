//! Registers that everybody writes, deletes, compares and sets, and reads: a few hot ones, and
//! more that are cold.
//!
//! No number is written to a key twice, so a value tells its write. A key is given up for a new
//! one after a number of operations, and sooner after some of unknown fate: each of them may still
//! happen at any time, which makes judging a key hard (`checker::wgl`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use rand::RngExt;

use crate::client::{Body, Condition};
use crate::history::{Action, Value};
use crate::workload::actor::{Actor, Ended};
use crate::workload::value::{number_of, text};

/// Keys that get half of the operations.
const HOT: usize = 3;
/// All keys at a time.
const SLOTS: usize = 30;
/// Operations on one key.
const OPERATIONS_MAX: u32 = 1_500;
/// Writes and deletes of unknown fate on one key.
const UNKNOWN_MAX: u32 = 8;

/// The keys as they are called now.
#[derive(Debug)]
pub(crate) struct Keys {
    slots: Vec<RwLock<Arc<Key>>>,
}

#[derive(Debug)]
struct Key {
    name: Arc<str>,
    generation: u32,
    /// The last number that anybody writes.
    last: AtomicU64,
    operations: AtomicU32,
    unknown: AtomicU32,
}

impl Key {
    fn new(slot: usize, generation: u32) -> Self {
        Self {
            name: format!("register-{slot}-{generation}").into(),
            generation,
            last: AtomicU64::new(0),
            operations: AtomicU32::new(0),
            unknown: AtomicU32::new(0),
        }
    }

    fn is_spent(&self) -> bool {
        self.operations.load(Ordering::Relaxed) >= OPERATIONS_MAX
            || self.unknown.load(Ordering::Relaxed) >= UNKNOWN_MAX
    }
}

impl Keys {
    /// The first ones.
    pub(crate) fn new() -> Self {
        let slots = (0..SLOTS).map(|slot| RwLock::new(Arc::new(Key::new(slot, 0))));
        Self { slots: slots.collect() }
    }

    fn get(&self, slot: usize) -> Arc<Key> {
        let key = self.slots[slot].read().expect("nobody panics over a key").clone();
        if !key.is_spent() {
            return key;
        }
        let mut place = self.slots[slot].write().expect("nobody panics over a key");
        if place.generation == key.generation {
            *place = Arc::new(Key::new(slot, key.generation + 1));
        }
        Arc::clone(&place)
    }
}

/// One client at work.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) actor: Actor,
    keys: Arc<Keys>,
    /// What this client last read where: number and version. What it compares with.
    known: HashMap<usize, (Arc<str>, u64, u64)>,
}

impl Worker {
    /// A client that has read nothing yet.
    pub(crate) fn new(actor: Actor, keys: Arc<Keys>) -> Self {
        Self { actor, keys, known: HashMap::new() }
    }

    /// One operation; whether it succeeded.
    pub(crate) async fn step(&mut self) -> bool {
        let hot = self.actor.rng.random_bool(0.5);
        let slot = self.actor.rng.random_range(0..if hot { HOT } else { SLOTS });
        let choice = self.actor.rng.random_range(0..100);
        let key = self.keys.get(slot);
        key.operations.fetch_add(1, Ordering::Relaxed);
        let known = self.known.remove(&slot).filter(|(name, ..)| *name == key.name);
        let ended = match (choice, known) {
            (0..25, _) => self.put(&key).await,
            (25..30, _) => self.delete(&key).await,
            (30..55, Some((_, number, version))) => self.cas(&key, (number, version)).await,
            _ => return self.read(slot, &key).await,
        };
        if ended == Ended::Unknown {
            key.unknown.fetch_add(1, Ordering::Relaxed);
        }
        matches!(ended, Ended::Ok(_))
    }

    async fn put(&mut self, key: &Key) -> Ended {
        let number = key.last.fetch_add(1, Ordering::Relaxed) + 1;
        let server = self.actor.any_server();
        let what = (Body::Text(text(&key.name, number)), Condition::Always);
        self.actor.write(&server, (Action::Write, &key.name), Value::Number(number), what).await
    }

    async fn delete(&mut self, key: &Key) -> Ended {
        let server = self.actor.any_server();
        let what = (Body::Nothing, Condition::Always);
        self.actor.write(&server, (Action::Delete, &key.name), Value::Number(0), what).await
    }

    async fn cas(&mut self, key: &Key, (from, version): (u64, u64)) -> Ended {
        let to = key.last.fetch_add(1, Ordering::Relaxed) + 1;
        let server = self.actor.any_server();
        let what = (Body::Text(text(&key.name, to)), Condition::Version(version));
        self.actor.write(&server, (Action::Cas, &key.name), Value::Cas { from, to }, what).await
    }

    async fn read(&mut self, slot: usize, key: &Key) -> bool {
        let server = self.actor.any_server();
        let decode = |json: Option<&str>| number_of(&key.name, json);
        let read = self.actor.read(&server, (Action::Read, &key.name), decode).await;
        match read {
            Some((Value::Number(number), version)) => {
                let known = (Arc::clone(&key.name), number, version.unwrap_or(0));
                self.known.insert(slot, known);
                true
            }
            Some(_) => true,
            None => false,
        }
    }
}
