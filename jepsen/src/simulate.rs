//! Builds the simulation of whole groups and starts it; what it says is all there is to say.
//!
//! It is a program of its own, for it sees a replica from inside, and the harness sees only what a
//! client sees.

use anyhow::{Context, Result, bail};

use crate::program::{self, Build};
use crate::results::Verdict;

/// Runs it with these arguments.
pub(crate) async fn run(arguments: &[String]) -> Result<Verdict> {
    let program = program::find(None, Build::Simulated)?;
    let mut simulation = tokio::process::Command::new(program);
    let ended = simulation.args(arguments).kill_on_drop(true).status().await;
    match ended.context("the simulation can't be started")?.code() {
        Some(0) => Ok(Verdict::Valid),
        Some(1) => Ok(Verdict::Anomaly),
        Some(_) | None => bail!("the simulation did not end well"),
    }
}
