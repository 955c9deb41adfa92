//! The words of `SageDB`: plain data that every other room shares.
//!
//! Ids, keys, values, commands and their outcomes, the topology, errors, the JSON bodies of the
//! HTTP API and the messages between processes. Everything here is data and pure functions: no
//! I/O, no async, no clock but the doors in [`clock`] and
//! [`host`]. What comes from a disk or a socket is
//! checked when one of these types is made, so that the rooms above need not check it again.

mod bounded;
pub mod clock;
pub mod code;
pub mod codec;
pub mod command;
pub mod deadline;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub mod hash;
pub mod host;
pub mod http;
pub mod ids;
pub mod item;
pub mod key;
pub mod kv;
pub mod limits;
pub mod log;
pub mod once;
pub mod peer;
pub mod scan;
pub mod status;
pub mod topology;
pub mod txn;
pub mod txn_body;
pub mod units;
pub mod url;
pub mod value;
pub mod watch;
