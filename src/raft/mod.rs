//! One replica of one group: the only room that knows openraft.

mod as_of;
mod catch_up;
mod checkpoints;
mod compaction;
mod comparison;
mod config;
mod departure;
mod disk_room;
mod expiry;
mod formation;
mod freshness;
#[cfg(any(test, feature = "simulation"))]
mod inspect;
mod joining;
mod leadership;
mod lease;
mod log_store;
mod lull;
mod memory;
mod network;
mod proposals;
mod published;
mod quorum;
mod reads;
mod recovery;
mod redirect;
mod replay;
mod replica;
mod replication;
mod rounds;
#[cfg(any(test, feature = "simulation"))]
mod runtime;
mod scans;
mod scrub;
mod service;
mod siblings;
mod slow_disk;
mod snapshot_stream;
mod spared;
mod start;
mod state_machine;
mod status;
mod surroundings;
mod watches;
mod wire;
mod writes;

pub use config::Timing;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use inspect::Inspection;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use recovery::Files;
pub use recovery::OpenError;
pub use replica::{Replica, ReplicaOptions};
pub use spared::until_spared;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use surroundings::Surroundings;
pub use watches::Watchable;
