//! Black-box tests over real `sage` processes: one module for each promise, in its own file.
//!
//! They know the command line, the HTTP API and the Rust client and nothing else. All are one binary, so that it
//! is linked once and tests run side by side; `cargo test --test promises failover` runs one file.
//! How they start, wait for and end servers is in `common`.

mod common;

mod addresses;
mod bad_days;
mod bad_input;
mod bench;
mod bounded_disk;
mod cli;
mod conditions;
mod consistency;
mod damaged_replica;
mod dev;
#[cfg(feature = "planted-bugs")]
mod differing_replica;
mod exactly_once;
mod expiry;
mod failover;
mod fast_failover;
mod fencing;
mod forming;
mod full_disk;
mod harness;
mod impostor;
mod job_queue;
mod many_watchers;
mod memory_budget;
mod moved_replica;
mod offline_tools;
mod one_group;
mod openapi;
mod planted;
mod power_off;
mod quick_start;
mod recipes;
mod scan;
mod scrub;
mod self_report;
mod stopping;
mod transactions;
mod two_coordinators;
mod watch;
mod wiped_replica;
mod wrong_shard;
