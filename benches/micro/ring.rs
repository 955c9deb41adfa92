//! The way from a key to its group, as a coordinator goes it for each request: the hash, then the ring.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use sagedb::coordinator::ring::Ring;
use sagedb::types::hash::Token;
use sagedb::types::key::Key;
use sagedb::types::limits::VNODES_DEFAULT;

use crate::data;

/// Keys that are looked up in turns: more than a branch predictor learns by heart.
const KEYS: u64 = 4096;

pub(crate) fn benches(criterion: &mut Criterion) {
    let keys: Vec<Key> = (0..KEYS).map(data::key).collect();
    let mut group = criterion.benchmark_group("ring");
    group.bench_function("hash", |bencher| {
        let mut keys = keys.iter().cycle();
        bencher.iter(|| Token::of_key(keys.next().expect("they have no end")));
    });
    for groups in [3, 30] {
        let ring = Ring::new(&data::names(groups), VNODES_DEFAULT);
        group.bench_function(BenchmarkId::new("hash_and_look_up", groups), |bencher| {
            let mut keys = keys.iter().cycle();
            bencher.iter(|| {
                let token = Token::of_key(keys.next().expect("they have no end"));
                black_box(&ring).owner(token)
            });
        });
    }
    group.finish();
}
