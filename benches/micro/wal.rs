//! The log on disk: the bytes of a batch, an append until it is on disk, and recovery.
//!
//! `append` is what a replica's log does for so many entries that come at once: encoding, the way to the writer's thread,
//! one write, one sync, the mark, and the way back. `bare_sync` is the same bytes written and synced by
//! nobody but the benchmark, to a file that is as well prepared: what the disk takes of it. `recover` opens a log: it reads, checks and
//! decodes all of it, and syncs what it keeps.

use std::cell::LazyCell;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use sagedb::store::disk::Real;
use sagedb::store::wal::{BatchBuilder, RecordRef, Wal, WalOptions};
use sagedb::types::ids::{Index, NodeId};
use sagedb::types::limits::WAL_SEGMENT_BYTES_DEFAULT;
use sagedb::types::log::Entry;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::data;

/// Entries of one append, that is of one batch.
const BATCHES: [u64; 3] = [1, 16, 256];
/// Batches in the log that is recovered, of 64 entries each.
const RECOVERED_BATCHES: u64 = 512;

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal");
    let bare = LazyCell::new(Bare::new);
    let mut log = None;
    for count in BATCHES {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("encode", count), |bencher| {
            let (entries, mut batch) = (data::puts(1, count), BatchBuilder::new());
            bencher.iter(|| {
                black_box(encode(&entries, &mut batch));
                batch.clear();
            });
        });
        group.bench_function(BenchmarkId::new("bare_sync", count), |bencher| {
            let (bare, mut batch) = (&*bare, BatchBuilder::new());
            let bytes = encode(&data::puts(1, count), &mut batch);
            bencher.iter_custom(|rounds| bare.sync(bytes, rounds));
        });
        group.bench_function(BenchmarkId::new("append", count), |bencher| {
            let log = log.get_or_insert_with(Log::worn_in);
            bencher.iter_custom(|rounds| log.append(count, rounds));
        });
    }
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(RECOVERED_BATCHES * 64));
    let mut log = None;
    group.bench_function(BenchmarkId::new("recover", RECOVERED_BATCHES * 64), |bencher| {
        let log = log.get_or_insert_with(|| {
            let mut log = Log::new();
            log.append_only(64, RECOVERED_BATCHES);
            log
        });
        bencher.iter_custom(|rounds| (0..rounds).map(|_| log.reopen()).sum());
    });
    group.finish();
}

/// What an append and then the writer make of entries.
fn encode<'a>(entries: &[Entry], batch: &'a mut BatchBuilder) -> &'a [u8] {
    let mut records = Vec::new();
    for entry in entries {
        let start = records.len();
        RecordRef::Entry(entry).encode(&mut records);
        batch.push(&records[start..]);
    }
    batch.seal(1, 1)
}

/// A file of the length of a segment, whose every byte was written and synced.
struct Bare {
    file: File,
    _dir: TempDir,
}

impl Bare {
    fn new() -> Self {
        let dir = data::directory();
        let file = File::create_new(dir.path().join("bare")).expect("a new file");
        let bytes = usize::try_from(WAL_SEGMENT_BYTES_DEFAULT).expect("it fits into memory");
        file.write_all_at(&vec![0; bytes], 0).expect("there is room");
        file.sync_all().expect("the disk is well");
        Self { file, _dir: dir }
    }

    fn sync(&self, bytes: &[u8], rounds: u64) -> Duration {
        let places = WAL_SEGMENT_BYTES_DEFAULT / bytes.len() as u64;
        let mut taken = Duration::ZERO;
        for round in 0..rounds {
            let offset = round % places * bytes.len() as u64;
            let start = Instant::now();
            self.file.write_all_at(bytes, offset).expect("there is room");
            self.file.sync_data().expect("the disk is well");
            taken += start.elapsed();
        }
        taken
    }
}

/// A log in a directory of its own.
struct Log {
    dir: TempDir,
    wal: Wal,
    runtime: Runtime,
    next: Index,
}

impl Log {
    fn new() -> Self {
        let (dir, runtime) = (data::directory(), Builder::new_current_thread().build());
        let wal = open(dir.path());
        Self { dir, wal, runtime: runtime.expect("a runtime"), next: 0 }
    }

    /// As it is after a while: its first segment, which was made in haste, has gone, and others are used again.
    fn worn_in() -> Self {
        let mut log = Self::new();
        while log.wal.bytes() < 2 * WAL_SEGMENT_BYTES_DEFAULT {
            log.append_only(256, 1);
        }
        log.append(256, 1);
        log
    }

    /// How long so many appends take, each of which waits for the one before; then all of it is purged, so that the log
    /// does not grow for ever.
    fn append(&mut self, count: u64, rounds: u64) -> Duration {
        let taken = self.append_only(count, rounds);
        let last = self.wal.last().expect("it has entries");
        self.runtime.block_on(self.wal.purge(last)).expect("the disk is well");
        taken
    }

    fn append_only(&mut self, count: u64, rounds: u64) -> Duration {
        let mut taken = Duration::ZERO;
        for _ in 0..rounds {
            let entries = data::puts(self.next, count);
            self.next += count;
            taken += self.runtime.block_on(append(&self.wal, entries));
        }
        taken
    }

    /// Closes the log; how long it takes to open it again.
    fn reopen(&mut self) -> Duration {
        self.runtime.block_on(self.wal.close()).expect("the disk is well");
        let start = Instant::now();
        self.wal = open(self.dir.path());
        let taken = start.elapsed();
        assert!(self.wal.last().is_some_and(|last| last.index + 1 == self.next), "all is there");
        taken
    }
}

fn open(dir: &Path) -> Wal {
    let options = WalOptions {
        disk: Arc::new(Real),
        dir: dir.join("wal"),
        node: NodeId(1),
        segment_bytes: WAL_SEGMENT_BYTES_DEFAULT,
    };
    Wal::open(options).expect("a log that is well")
}

async fn append(wal: &Wal, entries: Vec<Entry>) -> Duration {
    let (sender, written) = oneshot::channel();
    let start = Instant::now();
    let done = Box::new(|result| drop(sender.send(result)));
    wal.append(entries, done).await.expect("the log is open");
    written.await.expect("the writer answers").expect("the disk is well");
    start.elapsed()
}
