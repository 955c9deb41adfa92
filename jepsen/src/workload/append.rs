//! Lists that grow: a client reads a list, adds a number, and writes it back if the list is still
//! the one that it read. No update may be lost, and all reads are beginnings of one order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use rand::RngExt;

use crate::client::{Body, Condition};
use crate::history::{Action, Value};
use crate::workload::actor::{Actor, Ended};
use crate::workload::value::list_of;

/// Lists at a time.
const SLOTS: usize = 12;
/// Numbers in a list before another takes its place.
const LENGTH_MAX: usize = 120;

/// The lists as they are called now.
#[derive(Debug)]
pub(crate) struct Keys {
    slots: Vec<RwLock<(u32, Arc<str>)>>,
    /// The last number that anybody adds, to whatever list.
    last: AtomicU64,
}

impl Keys {
    /// The first ones.
    pub(crate) fn new() -> Self {
        let slots = (0..SLOTS).map(|slot| RwLock::new((0, name(slot, 0))));
        Self { slots: slots.collect(), last: AtomicU64::new(0) }
    }

    fn get(&self, slot: usize) -> Arc<str> {
        Arc::clone(&self.slots[slot].read().expect("nobody panics over a key").1)
    }

    /// Gives the list up, if nobody else has.
    fn replace(&self, slot: usize, key: &Arc<str>) {
        let mut place = self.slots[slot].write().expect("nobody panics over a key");
        if place.1 == *key {
            let generation = place.0 + 1;
            *place = (generation, name(slot, generation));
        }
    }
}

fn name(slot: usize, generation: u32) -> Arc<str> {
    format!("list-{slot}-{generation}").into()
}

/// One client at work.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) actor: Actor,
    keys: Arc<Keys>,
    /// Lists that this client has read and not yet added to, with their versions.
    read: HashMap<Arc<str>, (Vec<u64>, u64)>,
}

impl Worker {
    /// A client that has read nothing yet.
    pub(crate) fn new(actor: Actor, keys: Arc<Keys>) -> Self {
        Self { actor, keys, read: HashMap::new() }
    }

    /// One operation; whether it succeeded.
    pub(crate) async fn step(&mut self) -> bool {
        let slot = self.actor.rng.random_range(0..SLOTS);
        let adds = self.actor.rng.random_bool(0.7);
        let key = self.keys.get(slot);
        match self.read.remove(&key).filter(|_| adds) {
            Some((list, version)) => self.append(&key, list, version).await,
            None => self.look(slot, &key).await,
        }
    }

    async fn append(&mut self, key: &Arc<str>, mut list: Vec<u64>, version: u64) -> bool {
        let number = self.keys.last.fetch_add(1, Ordering::Relaxed) + 1;
        list.push(number);
        let server = self.actor.any_server();
        let what = (Body::List(list.clone()), Condition::Version(version));
        let value = Value::Number(number);
        let ended = self.actor.write(&server, (Action::Append, key), value, what).await;
        if let Ended::Ok(Some(version)) = ended {
            self.read.insert(Arc::clone(key), (list, version));
        }
        matches!(ended, Ended::Ok(_))
    }

    async fn look(&mut self, slot: usize, key: &Arc<str>) -> bool {
        let server = self.actor.any_server();
        let read = self.actor.read(&server, (Action::Read, key), list_of).await;
        if let Some((Value::List(list), version)) = &read {
            if list.len() >= LENGTH_MAX {
                self.keys.replace(slot, key);
            } else {
                self.read.insert(Arc::clone(key), (list.clone(), version.unwrap_or(0)));
            }
        }
        read.is_some()
    }
}
