//! The HTTP face, the Rust client and the command line, over stores without a group behind them.

#[path = "../common/http_suite/mod.rs"]
mod http_suite;

mod cli;
mod client;
mod contract;
mod fake_kv;
mod fake_state;
mod fake_watch;
