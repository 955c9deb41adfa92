//! The fault-injection harness of `SageDB`: starts a real cluster, writes and reads while it breaks
//! things, and checks that every promise was kept.
//!
//! `cargo run --release -p jepsen -- test --duration 30s --seed 42`. Exit 0: the run is valid;
//! 1: an anomaly was found; 2: the harness failed, or the run proves nothing. Everything it started
//! is ended on every way out.

mod checker;
mod client;
mod cluster;
mod edn;
mod faketime;
mod folder;
mod healing;
mod history;
mod judge;
mod matrix;
mod monitor;
mod nemesis;
mod net;
#[path = "../../tests/common/node.rs"]
mod node;
mod options;
mod page;
mod planted;
#[path = "../../tests/common/ports.rs"]
mod ports;
#[path = "../../tests/common/process.rs"]
mod process;
mod program;
mod recheck;
mod results;
mod run;
mod simulate;
mod stored;
mod summary;
mod workload;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use crate::options::{Arguments, Command};
use crate::results::Verdict;

/// How long a run that is interrupted may take to write down what was seen.
const WRITTEN_DOWN_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = runtime.block_on(async {
        // In a task of its own, so that a panic in it is a failure like any other.
        let mut task = tokio::spawn(carry_out(command));
        tokio::select! {
            ended = &mut task => ended.map_err(anyhow::Error::from).flatten(),
            error = run::interrupted() => {
                // Time to write down what was seen.
                let ended = tokio::time::timeout(WRITTEN_DOWN_MAX, &mut task).await;
                task.abort();
                ended.map_or(Err(error), |ended| ended.map_err(anyhow::Error::from).flatten())
            }
        }
    });
    // Ends what is left of the run's tasks, and with them every process they own; a checker that
    // still searches is left behind.
    runtime.shutdown_timeout(WRITTEN_DOWN_MAX);
    match ended {
        Ok(Verdict::Valid) => ExitCode::SUCCESS,
        Ok(Verdict::Anomaly) => ExitCode::from(1),
        Ok(Verdict::Void | Verdict::Unknown) => ExitCode::from(2),
        Err(error) => failed(&error),
    }
}

async fn carry_out(command: Command) -> Result<Verdict> {
    match command {
        Command::Test(options) => Ok(run::run(options).await?.verdict),
        Command::All(options) => matrix::run(options).await,
        Command::Planted(options) => planted::run(options).await,
        Command::Simulate { arguments } => simulate::run(&arguments).await,
        Command::Check { history } => {
            tokio::task::spawn_blocking(move || recheck::run(&history)).await?
        }
    }
}

#[expect(clippy::print_stderr, reason = "the harness speaks to people")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: the harness failed: {error:#}");
    ExitCode::from(2)
}
