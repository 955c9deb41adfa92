//! Compares `SageDB` with etcd, Redis, a bare HTTP server and a plain proxy before that: on one machine, in one run, under
//! one load, in turns.
//!
//! ```sh
//! cargo run --release --manifest-path benches/compare/Cargo.toml
//! ```
//!
//! builds `sage`, starts each target's real processes on free ports with data on a real disk, loads them with
//! the engine of `sage bench`, and writes `results.json` (every single run, settings, machine and versions), `results.md` (medians, and
//! the goals as ratios, reached or not), `throughput.svg` and `p99.svg`. `--help` lists the flags. What is measured and
//! how to read it is in `docs/performance.md`.
//!
//! `compare data` measures what a million keys take: see `data/`.
//!
//! - `run` is the rounds, `target/` what is started, `connect/` how clients of each speak, `serve` the two
//!   servers of our own;
//! - `fleet` starts and ends processes, `procfs` reads their time and memory;
//! - `stats`, `goals`, `report` and `chart` (pure) make results of runs.
//!
//! Promises: the same keys, values, threads and clock for all; only its own processes are ended, also on Ctrl-C and
//! failures. Refuses to measure on a file system in memory. A target whose program is missing is left out, with a word. It sees of
//! the library what a load generator needs: `bench` and `types`.

mod chart;
mod connect;
mod data;
mod fleet;
mod goals;
mod machine;
mod options;
#[path = "../../../tests/common/ports.rs"]
mod ports;
#[path = "../../../tests/common/process.rs"]
mod process;
mod procfs;
mod program;
mod report;
mod run;
mod serve;
mod stats;
mod target;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::machine::Machine;
use crate::options::{Command, CompareArgs, Other};
use crate::report::Results;
use crate::run::show;
use crate::target::Site;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.context("no runtime").and_then(|runtime| runtime.block_on(run(command)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where stderr is gone, nobody can be told.
            show(&format!("error: {error:#}")).ok();
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command.other {
        Some(Other::ServeBare { port }) => serve::bare(port).await,
        Some(Other::ServeProxy { port, to }) => serve::proxy(port, to).await,
        Some(Other::Data(args)) => {
            let stop = CancellationToken::new();
            until_interrupted(data::run(&args, &stop), &stop).await
        }
        None => {
            let stop = CancellationToken::new();
            let compared = compare(&command.compare, &stop);
            until_interrupted(compared, &stop).await
        }
    }
}

/// Waits for `work`. On Ctrl-C, SIGTERM or SIGHUP it is told to stop, which it does soon.
async fn until_interrupted(
    work: impl Future<Output = Result<()>>,
    stop: &CancellationToken,
) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut work = std::pin::pin!(work);
    tokio::select! {
        ended = &mut work => return ended,
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminated.recv() => (),
        _ = hung_up.recv() => (),
    }
    stop.cancel();
    work.await
}

async fn compare(args: &CompareArgs, stop: &CancellationToken) -> Result<()> {
    let (plan, data, out) = (args.plan()?, args.site.data()?, args.site.out()?);
    let machine = Machine::here();
    let (sage, version) = program::find(args.site.sage.as_deref())?;
    let mut versions = BTreeMap::from([("sage", version)]);
    versions.extend(plan.targets.iter().filter_map(|target| target.foreign_version()));
    let site = Site { sage, data };
    let mut runs = Vec::new();
    let ended = plan.run(&site, &mut runs, stop).await;
    let results = Results::new(ended.is_ok(), (&machine, &versions), &plan, &runs);
    results.write(out)?;
    show(&format!("results are in {}", out.display()))?;
    std::io::stdout().write_all(results.markdown().as_bytes())?;
    ended
}
