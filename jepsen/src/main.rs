//! The fault-injection harness of `SageDB`: starts a real cluster, writes and reads while it breaks
//! things, and checks that every promise was kept.
//!
//! `cargo run --release -p jepsen -- test --duration 30s --seed 42`. Exit 0: the run is valid;
//! 1: an anomaly was found; 2: the harness failed, or the run proves nothing. Everything it started
//! is ended on every way out.

mod checker;
mod client;
mod cluster;
mod history;
mod nemesis;
#[path = "../../tests/common/node.rs"]
mod node;
mod options;
#[path = "../../tests/common/ports.rs"]
mod ports;
#[path = "../../tests/common/process.rs"]
mod process;
mod program;
mod report;
mod run;
mod workload;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::{Arguments, Command};
use crate::report::Verdict;

fn main() -> ExitCode {
    let Arguments { command: Command::Test(options) } = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = runtime.block_on(async {
        // In a task of its own, so that a panic in it is a failure like any other.
        let mut run = tokio::spawn(run::run(options));
        tokio::select! {
            ended = &mut run => ended.map_err(anyhow::Error::from).flatten(),
            error = interrupted() => {
                run.abort();
                Err(error)
            }
        }
    });
    // Ends what is left of the run's tasks, and with them every process they own.
    drop(runtime);
    match ended {
        Ok(Verdict::Valid) => ExitCode::SUCCESS,
        Ok(Verdict::Anomaly) => ExitCode::from(1),
        Ok(Verdict::Void(_)) => ExitCode::from(2),
        Err(error) => failed(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the harness speaks to people")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: the harness failed: {error:#}");
    ExitCode::from(2)
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> anyhow::Error {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return anyhow::anyhow!("signals can't be handled");
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    anyhow::anyhow!("interrupted")
}
