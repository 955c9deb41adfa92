//! Entries that become state, and reads of it, on maps that are small and large.
//!
//! The group is one of three and checks that it owns each key. Batches are applied as `raft::state_machine` does it, to a state
//! that nobody else holds: no node of the map is copied. Left out are the lock, the windows of watchers and the checkpoints.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sagedb::store::apply::apply;
use sagedb::store::state::State;
use sagedb::types::command::{Action, KeyWrite};
use sagedb::types::ids::SessionId;
use sagedb::types::key::Key;
use sagedb::types::log::Entry;
use sagedb::types::once::{Once, WriteId};

use crate::data;

/// How many keys a state has.
const SIZES: [usize; 3] = [1000, 100_000, 1_000_000];
/// Reads between two looks at the clock.
const READS_TIMED: u64 = 1024;
const SESSION: SessionId = SessionId(1);

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    for keys in SIZES {
        let mut machine = None;
        for (kind, named) in [("put", false), ("named_put", true)] {
            for batch in [1, 64] {
                group.throughput(Throughput::Elements(batch));
                let id = BenchmarkId::new(format!("{kind}_{batch}"), keys);
                group.bench_function(id, |bencher| {
                    let machine = machine.get_or_insert_with(|| Machine::new(keys));
                    bencher.iter_custom(|rounds| machine.puts(batch, named, rounds));
                });
            }
        }
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("read", keys), |bencher| {
            let machine = machine.get_or_insert_with(|| Machine::new(keys));
            bencher.iter_custom(|rounds| machine.reads(rounds));
        });
    }
    group.finish();
}

/// A state machine, and those who use it.
struct Machine {
    state: State,
    /// The numbers of its keys.
    numbers: Vec<u64>,
    random: SmallRng,
    /// How many batches had names.
    named: u64,
}

impl Machine {
    fn new(keys: usize) -> Self {
        let (mut state, numbers) = data::state(keys, data::value);
        let open = data::entry(state.next_index(), Action::OpenSession { session: SESSION });
        apply(&mut state, &open);
        state.changes = Some(Vec::new());
        Self { state, numbers, random: SmallRng::seed_from_u64(2), named: 0 }
    }

    /// How long so many batches of puts take, each to keys that are drawn anew.
    fn puts(&mut self, batch: u64, named: bool, rounds: u64) -> Duration {
        let mut taken = Duration::ZERO;
        for _ in 0..rounds {
            let entries = self.entries(batch, named);
            let start = Instant::now();
            self.apply(entries);
            taken += start.elapsed();
        }
        taken
    }

    fn entries(&mut self, batch: u64, named: bool) -> Vec<Entry> {
        self.named += u64::from(named);
        let first = self.state.next_index();
        let entry = |slot| {
            let (key, value) = (self.some_key(), data::value(slot));
            let action = if named {
                let slot = u32::try_from(slot).expect("there are few");
                let id = WriteId { session: SESSION, slot, seq: self.named };
                Action::Once { once: Once::Session(id), write: KeyWrite::put(key, value) }
            } else {
                Action::Put { key, value }
            };
            data::entry(first + slot, action)
        };
        (0..batch).map(entry).collect()
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            black_box(apply(&mut self.state, &entry));
            drop(self.state.changes.replace(Vec::new()));
        }
    }

    /// How long so many reads take, of keys that are drawn anew.
    fn reads(&mut self, rounds: u64) -> Duration {
        let mut taken = Duration::ZERO;
        let mut left = rounds;
        while left > 0 {
            let keys: Vec<Key> = (0..left.min(READS_TIMED)).map(|_| self.some_key()).collect();
            let start = Instant::now();
            for key in &keys {
                let item = self.state.read(key).expect("it is the group's own").cloned();
                black_box(item);
            }
            taken += start.elapsed();
            left -= keys.len() as u64;
        }
        taken
    }

    fn some_key(&mut self) -> Key {
        data::key(self.numbers[self.random.random_range(0..self.numbers.len())])
    }
}
