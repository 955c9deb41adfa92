//! Micro-benchmarks: what the parts of one write and one read cost by themselves.
//!
//! `benches/compare/` says how fast a cluster is; this says where the time goes: one file for each room that a
//! request passes. Each measures what the program runs, through the same functions, with the allocator of
//! the program; where something around it is left out, the file's header says so. Nothing is promised
//! here, and nothing compared with a goal.
//!
//! `cargo bench --bench micro` takes about two minutes, `cargo bench --bench micro -- rpc` a part of them.
//! What came of it stands in `docs/performance.md`.

mod apply;
mod data;
mod http;
mod replica;
mod ring;
mod rpc;
mod snapshot;
mod wal;

use std::time::Duration;

use criterion::Criterion;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    ring::benches(&mut criterion);
    http::benches(&mut criterion);
    rpc::benches(&mut criterion);
    wal::benches(&mut criterion);
    apply::benches(&mut criterion);
    snapshot::benches(&mut criterion);
    criterion.final_summary();
}
