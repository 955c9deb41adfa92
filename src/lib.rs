//! `SageDB`: a sharded, Raft-replicated, in-memory key-value store.
//!
//! Each shard is a Raft group whose log is the WAL and whose state machine is an in-memory ordered
//! map with snapshots; stateless coordinators hash keys to groups. This is one
//! `PUT /kv?key=user:1`, from the socket to the disks and back, file by file:
//!
//! 1. [`api`] takes it off the socket: `api::routes` finds the handler, `api::extract` checks key,
//!    value and timeout ([`types::key`], [`types::value`], [`types::deadline`]), `api::kv` makes a
//!    [`types::kv::KvRequest`] of it and calls whatever implements [`api::Kv`].
//! 2. On a coordinator that is [`coordinator::Coordinator`]. `coordinator::ring` hashes the key
//!    ([`types::hash`]) to a group, `coordinator::routing` decides whom to ask: the leader that is
//!    known, another member if it turns out not to be.
//! 3. [`rpc`] carries the request over the one connection to that replica, among many others, as a
//!    [`types::peer::Request`].
//! 4. [`raft::Replica`] receives it in `raft::service` and proposes a [`types::command::Command`],
//!    stamped with the leader's clock (`raft::writes`), unless the leader's memory budget has no
//!    room for it (`raft::memory`). openraft appends it with whatever else is
//!    queued and streams it to the followers (`raft::replication`, over [`rpc`] again).
//! 5. [`store::wal`] writes the batch and syncs it once, on the leader and on each follower
//!    (`raft::log_store` is the bridge). When a majority has it on disk, it is committed.
//! 6. [`store::apply`] turns it into an outcome: the group owns the key or says `wrong_shard`; the
//!    version rises; the map changes. `raft::published` shows the new map to readers, and
//!    only then the writer is answered.
//! 7. `raft::quorum` waits for more acknowledgements if `--quorum` asks for more than a majority.
//!    Then the answer goes back the way the request came.
//!
//! A `GET` takes steps 1 to 3; then `raft::reads` makes sure that the replica still leads (one
//! round for all reads that wait), and looks the key up in the map. Nothing is logged.
//!
//! A room imports only from those before it: types; rpc, store, client, watch; bench, raft; api;
//! coordinator; server; cli. `tests/tidy.rs` keeps it so. openraft is named in `raft` alone. Beside the house
//! stand [`planted`], the bugs that can be switched on to test a test, and `sim`, which runs whole
//! clusters in one thread on virtual time.

pub mod api;
pub mod bench;
pub mod cli;
pub mod client;
pub mod coordinator;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod planted;
pub mod raft;
pub mod rpc;
pub mod server;
#[cfg(any(test, feature = "simulation"))]
pub mod sim;
pub mod store;
pub mod types;
pub mod watch;
