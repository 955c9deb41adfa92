//! A load generator, and how it measures.
//!
//! A run has a number of clients with one connection each ([`Connect`]). They draw operations from a workload and its
//! keys, and either send the next as soon as they have an answer (a closed loop), or take them from a schedule
//! of a fixed rate and count the latency from when each was *to begin*, so that a server that stands still
//! is charged for all who wait meanwhile. The clients of one thread share one runtime and one
//! histogram; histograms are added up at the end.
//!
//! The engine knows no protocol: the HTTP API is one implementation of [`Connection`], and whatever else can
//! read and write a key is loaded by the same loop. What is measured is what a client sees, its own time
//! on the processor included: it shares the machine with the server if both run on one.
//!
//! Promises: operations, keys and values follow from the seed; failures are counted by kind and never in
//! latencies or throughput. Prints nothing, and writes no key without the prefix.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use sagedb::bench::{
//!     BenchError, Distribution, HttpConnect, Progress, Settings, Workload, load, measure,
//! };
//! use sagedb::types::kv::Consistency;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings {
//!     clients: 64,
//!     threads: 4,
//!     duration: Duration::from_secs(10),
//!     warmup: Duration::from_secs(2),
//!     timeout: Duration::from_secs(5),
//!     rate: Some(5_000),
//!     keys: 100_000,
//!     prefix: "bench/".into(),
//!     value_size: 100,
//!     distribution: Distribution::Zipfian,
//!     seed: 1,
//! };
//! let urls = ["http://127.0.0.1:4000".to_owned()];
//! let connect = Arc::new(HttpConnect::new(&urls, Consistency::Linearizable, settings.timeout)?);
//! let (progress, stop) = (Arc::new(Progress::new(4)), CancellationToken::new());
//! load(&connect, &settings, &progress, &stop).await?;
//! let measured = measure(&connect, &settings, Workload::YcsbB, &progress, &stop).await?;
//! println!("{:?}", measured.report().total);
//! # Ok(())
//! # }
//! ```

mod clients;
mod connection;
mod http;
mod http1;
mod keys;
mod progress;
mod report;
mod run;
mod schedule;
mod settings;
mod tally;
#[cfg(test)]
mod tests;

pub use connection::{Connect, Connection, Failure, Operation, Outcome};
pub use http::{HttpConnect, HttpConnection};
pub use http1::{Answer, Http1, Request};
pub use progress::Progress;
pub use report::{Measured, OperationReport, RunReport};
pub use run::{BenchError, load, measure, probe};
pub use settings::{Distribution, Settings, SettingsError, Workload};
pub use tally::{ErrorKind, OperationKind, Tally};
