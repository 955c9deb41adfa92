//! Keys that one client each writes: some once (the ledger), some again and again (registers).
//! Everybody reads all of them.
//!
//! A client never writes to a register again after a write of unknown fate: it goes on with a new
//! one under another name, so that the last number of every key is known up to that one write.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::RngExt;

use crate::client::{Body, Condition};
use crate::history::{Action, Value};
use crate::options::Workload;
use crate::workload::actor::{Actor, Ended};
use crate::workload::value::{number_of, text};

/// Registers of each client.
const REGISTERS: usize = 3;
/// Ledger keys that are remembered for reading.
const RECENT: usize = 500;

/// How keys are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reads {
    /// Linearizable.
    Linearizable,
    /// Half of them as the leader's lease allows.
    Lease,
    /// Most of them from any replica, as it has them.
    Stale,
}

impl Reads {
    /// Those of a workload.
    pub(crate) fn of(workload: Workload) -> Self {
        match workload {
            Workload::Register
            | Workload::Ledger
            | Workload::ListAppend
            | Workload::Bank
            | Workload::Watch => Self::Linearizable,
            Workload::Lease => Self::Lease,
            Workload::Stale => Self::Stale,
        }
    }
}

/// What all clients know of the keys.
#[derive(Debug)]
pub(crate) struct Board {
    inner: Mutex<Keys>,
}

#[derive(Debug)]
struct Keys {
    /// Each client's registers as they are called now.
    registers: Vec<Vec<Arc<str>>>,
    /// The newest keys of the ledger.
    ledger: VecDeque<Arc<str>>,
}

impl Board {
    /// The first registers of each client, and an empty ledger.
    pub(crate) fn new(clients: u16) -> Self {
        let register = |client, slot| register_name(client, slot, 0);
        let registers = |client| (0..REGISTERS).map(|slot| register(client, slot)).collect();
        let keys =
            Keys { registers: (0..clients).map(registers).collect(), ledger: VecDeque::new() };
        Self { inner: Mutex::new(keys) }
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.inner.lock().expect("nobody panics while he looks at the board")
    }
}

fn register_name(client: u16, slot: usize, generation: u64) -> Arc<str> {
    format!("register-{client}-{slot}-{generation}").into()
}

/// One client at work.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) actor: Actor,
    board: Arc<Board>,
    reads: Reads,
    /// Keys written to the ledger.
    entries: u64,
    /// For each register its generation and the last number sent.
    written: [(u64, u64); REGISTERS],
}

impl Worker {
    /// A client that has written nothing yet.
    pub(crate) fn new(actor: Actor, board: Arc<Board>, reads: Reads) -> Self {
        Self { actor, board, reads, entries: 0, written: [(0, 0); REGISTERS] }
    }

    /// One operation; whether it succeeded.
    pub(crate) async fn step(&mut self) -> bool {
        match self.actor.rng.random_range(0..10) {
            0..2 => self.append().await,
            2..5 => self.overwrite().await,
            _ => self.look().await,
        }
    }

    /// Writes a key that was never written.
    async fn append(&mut self) -> bool {
        let key: Arc<str> = format!("ledger-{}-{}", self.actor.id, self.entries).into();
        self.entries += 1;
        let ended = self.write(&key, 1).await;
        let mut keys = self.board.lock();
        keys.ledger.push_back(key);
        if keys.ledger.len() > RECENT {
            keys.ledger.pop_front();
        }
        matches!(ended, Ended::Ok(_))
    }

    /// Writes the next number to a register of its own.
    async fn overwrite(&mut self) -> bool {
        let slot = self.actor.rng.random_range(0..REGISTERS);
        let (generation, last) = self.written[slot];
        let client = self.actor.id;
        let key = register_name(client, slot, generation);
        let ended = self.write(&key, last + 1).await;
        if ended == Ended::Unknown {
            self.written[slot] = (generation + 1, 0);
            let name = register_name(client, slot, generation + 1);
            self.board.lock().registers[usize::from(client)][slot] = name;
        } else {
            self.written[slot] = (generation, last + 1);
        }
        matches!(ended, Ended::Ok(_))
    }

    async fn write(&mut self, key: &Arc<str>, number: u64) -> Ended {
        let server = self.actor.any_server();
        let what = (Body::Text(text(key, number)), Condition::Always);
        self.actor.write(&server, (Action::Write, key), Value::Number(number), what).await
    }

    /// Reads a key of anybody.
    async fn look(&mut self) -> bool {
        let client = self.actor.rng.random_range(0..self.actor.clients);
        let slot = self.actor.rng.random_range(0..REGISTERS);
        let entry = self.actor.rng.random_range(0..RECENT);
        let ledger = self.actor.rng.random_bool(0.3);
        let key = {
            let keys = self.board.lock();
            let register = &keys.registers[usize::from(client)][slot];
            let entry = keys.ledger.get(entry).filter(|_| ledger);
            Arc::clone(entry.unwrap_or(register))
        };
        let otherwise = self.actor.rng.random_bool(0.3);
        let (f, server) = match self.reads {
            Reads::Lease if !otherwise => (Action::LeaseRead, self.actor.any_server()),
            Reads::Stale if !otherwise => (Action::StaleRead, self.actor.any_replica()),
            Reads::Linearizable | Reads::Lease | Reads::Stale => {
                (Action::Read, self.actor.any_server())
            }
        };
        let decode = |json: Option<&str>| number_of(&key, json);
        self.actor.read(&server, (f, &key), decode).await.is_some()
    }
}
