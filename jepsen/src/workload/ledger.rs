//! Keys that one client each writes: some once (the ledger), some again and again (registers).
//! Everybody reads all of them.
//!
//! A client never writes to a register again after a write of unknown fate: it goes on with a new
//! one under another name, so that the last number of every key is known up to that one write.
//! A value names its key and number, so that no answer can be taken for another.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use crate::client::{Client, Written};
use crate::history::{Action, Event, Recorder, Stage, Value};

/// Registers of each client.
const REGISTERS: usize = 3;
/// Ledger keys that are remembered for reading.
const RECENT: usize = 500;
/// The longest pause of a client between two operations.
const PAUSE_MAX: Duration = Duration::from_millis(8);
/// Lengths of values: mostly short, some long.
const PADDING: [usize; 8] = [0, 1, 10, 60, 100, 300, 1_000, 5_000];

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
    pub(crate) fn new(clients: usize) -> Self {
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

fn register_name(client: usize, slot: usize, generation: u64) -> Arc<str> {
    format!("register-{client}-{slot}-{generation}").into()
}

/// The text that the key's `number`-th write writes.
fn value(key: &str, number: u64) -> String {
    let at = usize::try_from(number).unwrap_or_default().wrapping_add(key.len());
    format!("{key}={number};{}", ".".repeat(PADDING[at % PADDING.len()]))
}

/// Which write a value that was read comes from.
pub(crate) fn number_of(key: &str, read: Option<String>) -> Value {
    let Some(text) = read else { return Value::Number(0) };
    let rest = text.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
    let number = rest.and_then(|rest| rest.split_once(';')?.0.parse::<u64>().ok());
    match number.filter(|number| *number > 0 && text == value(key, *number)) {
        Some(number) => Value::Number(number),
        None => Value::Foreign(text),
    }
}

/// One client at work.
#[derive(Debug)]
pub(crate) struct Worker {
    id: usize,
    clients: usize,
    /// Its name in the history; a new one after each operation of unknown fate.
    process: u32,
    client: Client,
    rng: StdRng,
    board: Arc<Board>,
    recorder: Arc<Recorder>,
    /// Keys written to the ledger.
    entries: u64,
    /// For each register its generation and the last number sent.
    written: [(u64, u64); REGISTERS],
}

impl Worker {
    /// The `id`-th of `clients`; what it does follows from the seed.
    pub(crate) fn new(
        (id, clients): (usize, usize),
        seed: u64,
        client: Client,
        board: Arc<Board>,
        recorder: Arc<Recorder>,
    ) -> Self {
        let own = u64::try_from(id).expect("few clients");
        Self {
            id,
            clients,
            process: u32::try_from(id).expect("few clients"),
            client,
            rng: StdRng::seed_from_u64(seed ^ own.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            board,
            recorder,
            entries: 0,
            written: [(0, 0); REGISTERS],
        }
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            match self.rng.random_range(0..10) {
                0..2 => self.append().await,
                2..5 => self.overwrite().await,
                _ => self.look().await,
            }
            let pause = self.rng.random_range(Duration::ZERO..=PAUSE_MAX);
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes a key that was never written.
    async fn append(&mut self) {
        let key: Arc<str> = format!("ledger-{}-{}", self.id, self.entries).into();
        self.entries += 1;
        self.write(&key, 1).await;
        let mut keys = self.board.lock();
        keys.ledger.push_back(key);
        if keys.ledger.len() > RECENT {
            keys.ledger.pop_front();
        }
    }

    /// Writes the next number to a register of its own.
    async fn overwrite(&mut self) {
        let slot = self.rng.random_range(0..REGISTERS);
        let (generation, last) = self.written[slot];
        let key = register_name(self.id, slot, generation);
        if self.write(&key, last + 1).await {
            self.written[slot] = (generation, last + 1);
        } else {
            self.written[slot] = (generation + 1, 0);
            let name = register_name(self.id, slot, generation + 1);
            self.board.lock().registers[self.id][slot] = name;
        }
    }

    /// Writes and records; false if the fate of the write is unknown.
    async fn write(&mut self, key: &Arc<str>, number: u64) -> bool {
        let event = |stage, error| Event {
            time: 0,
            process: self.process,
            stage,
            f: Action::Write,
            key: Arc::clone(key),
            value: Value::Number(number),
            error,
        };
        self.recorder.record(event(Stage::Invoke, None));
        match self.client.write(key, value(key, number)).await {
            Written::Ok => self.recorder.record(event(Stage::Ok, None)),
            Written::Failed(reason) => self.recorder.record(event(Stage::Fail, Some(reason))),
            Written::Unknown(reason) => {
                self.recorder.record(event(Stage::Info, Some(reason)));
                self.process += u32::try_from(self.clients).expect("few clients");
                return false;
            }
        }
        true
    }

    /// Reads a key of anybody.
    async fn look(&mut self) {
        let client = self.rng.random_range(0..self.clients);
        let slot = self.rng.random_range(0..REGISTERS);
        let entry = self.rng.random_range(0..RECENT);
        let ledger = self.rng.random_bool(0.3);
        let key = {
            let keys = self.board.lock();
            let register = &keys.registers[client][slot];
            let entry = keys.ledger.get(entry).filter(|_| ledger);
            Arc::clone(entry.unwrap_or(register))
        };
        read(&self.client, &self.recorder, self.process, (Action::Read, &key)).await;
    }
}

/// Reads and records; false if there was no answer.
pub(crate) async fn read(
    client: &Client,
    recorder: &Recorder,
    process: u32,
    (f, key): (Action, &Arc<str>),
) -> bool {
    let key = Arc::clone(key);
    let mut event =
        Event { time: 0, process, stage: Stage::Invoke, f, key, value: Value::None, error: None };
    recorder.record(event.clone());
    match client.read(&event.key).await {
        Ok(text) => {
            event.value = number_of(&event.key, text);
            event.stage = Stage::Ok;
        }
        Err(reason) => {
            event.error = Some(reason);
            event.stage = Stage::Fail;
        }
    }
    let answered = event.stage == Stage::Ok;
    recorder.record(event);
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_belongs_to_one_write_of_one_key() {
        for number in [1, 2, 3, 77, 100_000] {
            let text = value("key-1", number);
            assert_eq!(number_of("key-1", Some(text.clone())), Value::Number(number));
            assert_eq!(number_of("key", Some(text.clone())), Value::Foreign(text.clone()));
            let cut = text[..text.len() - 1].to_string();
            assert_eq!(number_of("key-1", Some(cut.clone())), Value::Foreign(cut));
        }
        assert_eq!(number_of("key-1", None), Value::Number(0));
        for foreign in ["", "key-1=", "key-1=0;", "key-1=x;", "key-1=1"] {
            let read = number_of("key-1", Some(foreign.into()));
            assert_eq!(read, Value::Foreign(foreign.into()));
        }
    }
}
