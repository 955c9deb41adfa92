//! Snapshots of a hundred thousand small JSON documents, packed by LZ4: writing one until it is durable, and reading it
//! back into a state, every byte checked. Throughput counts the bytes of keys and values, not those of the file.

use std::cell::LazyCell;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use sagedb::store::disk::Real;
use sagedb::store::snapshot::{Snapshot, Snapshots};
use sagedb::store::state::State;
use tempfile::TempDir;

use crate::data;

const KEYS: usize = 100_000;
/// The bytes of their keys and values.
const BYTES: u64 = 14_454_602;

pub(crate) fn benches(criterion: &mut Criterion) {
    let stored = LazyCell::new(Stored::new);
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(4)).throughput(Throughput::Bytes(BYTES));
    group.bench_function("write", |bencher| {
        let stored = &*stored;
        bencher.iter(|| stored.snapshots.write(&stored.state).expect("the disk is well"));
    });
    group.bench_function("read", |bencher| {
        let stored = &*stored;
        bencher
            .iter_with_large_drop(|| stored.snapshots.read(&stored.newest).expect("it is whole"));
    });
    group.finish();
}

/// A state and its snapshot.
struct Stored {
    state: State,
    snapshots: Snapshots,
    newest: Snapshot,
    _dir: TempDir,
}

impl Stored {
    fn new() -> Self {
        let (state, _) = data::state(KEYS, data::document);
        assert!(state.bytes == BYTES, "the documents have {} bytes now", state.bytes);
        let dir = data::directory();
        let snapshots = Snapshots::open(Arc::new(Real), &dir.path().join("snapshot"));
        let snapshots = snapshots.expect("a new directory");
        let newest = snapshots.write(&state).expect("the disk is well");
        Self { state, snapshots, newest, _dir: dir }
    }
}
