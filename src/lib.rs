//! `SageDB`: a sharded, Raft-replicated, in-memory key-value store.

pub mod api;
pub mod client;
pub mod coordinator;
pub mod raft;
pub mod rpc;
pub mod store;
pub mod types;
