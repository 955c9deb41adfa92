//! One replica of one group: the only room that knows openraft.

mod compaction;
mod config;
mod formation;
mod freshness;
mod joining;
mod log_store;
mod network;
mod quorum;
mod reads;
mod recovery;
mod replica;
mod replication;
mod service;
mod snapshot_stream;
mod state_machine;
mod status;
mod wire;
mod writes;

pub use config::Timing;
pub use recovery::OpenError;
pub use replica::{Replica, ReplicaOptions};
