//! The HTTP face of any key-value store.
//!
//! A store is whatever implements [`Kv`]: a replica of one group, or a coordinator over all. Both
//! get the same handlers for `/kv`, `/keys` and `/count`, and what is special to one comes from [`ShardFace`] or
//! [`CoordinatorFace`]. A request goes through these files:
//!
//! ```text
//! routes   which path has which methods; unknown ones answer in JSON too
//! extract  the query, strictly: unknown or repeated parameters are refused, never ignored
//! accepted which parameters each operation has
//! headers  conditions, names of writes, positions, likewise
//! body     the value, bounded in bytes and time
//! kv       the handlers of one key: Kv::call within the deadline, and its reply as HTTP
//! keys     /keys and /count: Kv::scan, its page as JSON, and the cursor to the next; Kv::delete_span
//! watch    /watch: Kv::watch, and what it tells as server-sent events
//! metrics  /metrics
//! txn      /txn and /batch: Kv::call and Kv::batch
//! status   /health /ready /status /stats /cluster /route
//! openapi  /openapi.json and /docs: all of this, described; a router that serves more does not start
//! upgrade  /rpc: from HTTP to our own framed protocol
//! error    every error as JSON, with what it says about a write
//! ```
//!
//! Promises: every answer has a JSON body (or the bare value with `raw=true`); every request ends
//! within its deadline, even if the store does not; a write that may have been taken is never
//! called refused. Refuses what it would otherwise have to ignore.
//!
//! Knows neither Raft nor the ring, opens no socket and holds no state but two budgets.

mod accepted;
mod body;
mod error;
mod extract;
mod headers;
mod keys;
mod kv;
mod metrics;
mod openapi;
mod routes;
mod status;
mod txn;
mod upgrade;
mod watch;

pub mod shard;

use std::future::Future;

use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::http::{ClusterBody, ReadyBody, RingStatus, RouteBody, ShardStatus};
use crate::types::key::Key;
use crate::types::kv::{KvReply, KvRequest};
use crate::types::once::Once;
use crate::types::scan::{Deleted, Scan, Scanned, Span};
use crate::types::txn::{Batched, Op};
use crate::types::watch::Watch;
use crate::watch::Watching;

pub use body::let_run_out;
pub use routes::{Options, Rpc, coordinator_router, refusing_router, shard_router};

/// Anything that answers key-value requests: a replica of one group, or a coordinator over all.
pub trait Kv: Send + Sync + 'static {
    /// Answers one request before `deadline`, whatever happens.
    ///
    /// An error other than [`Error::OutcomeUnknown`] promises that a write has not been and never
    /// will be applied.
    fn call(
        &self,
        request: KvRequest,
        deadline: Deadline,
    ) -> impl Future<Output = Result<KvReply, Error>> + Send;

    /// Answers a question about all keys of a span before `deadline`, whatever happens.
    fn scan(
        &self,
        scan: Scan,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Scanned, Error>> + Send;

    /// Carries out operations on keys of any groups, those of each group in one entry of its log, before
    /// `deadline`, whatever happens.
    ///
    /// An error other than [`Error::OutcomeUnknown`], of the whole or of one operation, promises that it has
    /// not been and never will be carried out.
    fn batch(
        &self,
        ops: Vec<Op>,
        once: Option<Once>,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Batched, Error>> + Send;

    /// Begins to watch keys before `deadline`, whatever happens: from then on every change that is acknowledged
    /// will be told.
    fn watch(
        &self,
        watch: Watch,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Watching, Error>> + Send;

    /// Removes all keys of a span, some at a time, before `deadline`, whatever happens.
    ///
    /// An error other than [`Error::OutcomeUnknown`] promises that none of them was or will be removed.
    fn delete_span(
        &self,
        span: Span,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Deleted, Error>> + Send;
}

/// What a replica shows beside its keys.
pub trait ShardFace: Kv {
    /// What it knows of itself and its group, at once.
    fn status(&self) -> ShardStatus;

    /// Whether requests can succeed, at once.
    fn ready(&self) -> ReadyBody;
}

/// What a coordinator shows beside the keys.
pub trait CoordinatorFace: Kv {
    /// The ring that is served, at once, if there is one.
    fn ring(&self) -> Option<RingStatus>;

    /// Where `key` lives, at once; an error while no topology is known.
    fn route(&self, key: &Key) -> Result<RouteBody, Error>;

    /// The topology, and what every member that answers before `deadline` says of itself.
    fn cluster(
        &self,
        deadline: Deadline,
    ) -> impl Future<Output = Result<ClusterBody, Error>> + Send;

    /// Whether requests can succeed, at once.
    fn ready(&self) -> ReadyBody;
}
