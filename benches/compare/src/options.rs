//! The command line, and what follows from it once it is checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use sagedb::bench::Workload;
use sagedb::types::units::{parse_bytes, parse_duration};

use crate::data::DataArgs;
use crate::machine::check_disk;
use crate::run::{Plan, settings, show};
use crate::target::Target;

/// Of anything, at most.
pub(crate) const ROUNDS_MAX: usize = 100;

const EXAMPLE: &str = "\
Example: everything, which takes about an hour; then a first look, in two minutes
  cargo run --release --manifest-path benches/compare/Cargo.toml
  cargo run --release --manifest-path benches/compare/Cargo.toml -- --rounds 1 --duration 2s --clients 64 \\
    --targets sage,etcd-grpc,axum --workloads put,get

Let nothing else run meanwhile. All servers and the load share this machine, which is the same for
all, but is no measure of what any of them does on machines of its own. See docs/performance.md.";

/// `SageDB` beside etcd, Redis, a bare HTTP server and a proxy: the same load, the same machine, in turns
#[derive(Parser, Debug)]
#[command(name = "compare", version, after_help = EXAMPLE, args_conflicts_with_subcommands = true)]
pub(crate) struct Command {
    #[command(subcommand)]
    pub(crate) other: Option<Other>,
    #[command(flatten)]
    pub(crate) compare: CompareArgs,
}

/// What else this program does.
#[derive(Subcommand, Debug)]
pub(crate) enum Other {
    /// Measure restarts, memory, disk, snapshots and growth with a million keys
    Data(DataArgs),
    /// Serve a bare HTTP server that stores nothing
    #[command(hide = true)]
    ServeBare {
        /// The port to listen on
        #[arg(long)]
        port: u16,
    },
    /// Serve a plain reverse proxy
    #[command(hide = true)]
    ServeProxy {
        /// The port to listen on
        #[arg(long)]
        port: u16,
        /// The server behind it
        #[arg(long)]
        to: SocketAddr,
    },
}

/// Where things are.
#[derive(Args, Debug)]
pub(crate) struct SiteArgs {
    /// The server to measure; built anew from this tree without it
    #[arg(long, value_name = "PATH")]
    pub(crate) sage: Option<PathBuf>,
    /// A directory on a disk for everybody's data, removed at the end; one beside this program without it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to write results; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "compare-results")]
    pub(crate) out: PathBuf,
}

/// The comparison.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// What to compare; all of them without it
    #[arg(long, value_enum, value_name = "NAME,NAME", value_delimiter = ',')]
    targets: Vec<Target>,
    /// What to run: put, get, ycsb-a, ycsb-b, ycsb-c
    #[arg(
        long,
        value_name = "NAME,NAME",
        value_delimiter = ',',
        default_value = "put,get,ycsb-a,ycsb-b"
    )]
    workloads: Vec<Workload>,
    /// With how many clients, each with one connection and one request under way
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,64,256")]
    clients: Vec<usize>,
    /// How often everything is run
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// How long each run is measured
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// How long each runs before it is
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// How many keys there are
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keys: u64,
    /// The size of each value
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_bytes)]
    value_size: u64,
    #[command(flatten)]
    pub(crate) site: SiteArgs,
}

impl CompareArgs {
    /// What is to be run, without what this machine has not got.
    pub(crate) fn plan(&self) -> Result<Plan> {
        ensure!(
            (1..=ROUNDS_MAX).contains(&self.rounds),
            "--rounds must be from 1 to {ROUNDS_MAX}, not {}",
            self.rounds
        );
        let mut targets = if self.targets.is_empty() {
            Target::value_variants().to_vec()
        } else {
            distinct(&self.targets)
        };
        for target in targets.clone() {
            if let Some(program) = target.missing() {
                show(&format!("{} is left out: {program} is not on the PATH", target.name()))?;
                targets.retain(|one| *one != target);
            }
        }
        ensure!(!targets.is_empty(), "nothing is left to compare");
        let mut settings = settings((self.duration, self.warmup), self.keys);
        settings.value_size = usize::try_from(self.value_size).context("--value-size")?;
        let (workloads, clients) = (distinct(&self.workloads), distinct(&self.clients));
        for &clients in &clients {
            sagedb::bench::Settings { clients, ..settings.clone() }.check()?;
        }
        Ok(Plan { targets, workloads, clients, rounds: self.rounds, settings })
    }
}

impl SiteArgs {
    /// The directory for data, which is on a disk.
    pub(crate) fn data(&self) -> Result<PathBuf> {
        let data = match &self.data {
            Some(data) => data.clone(),
            None => beside_this_program()?.join("compare-data"),
        };
        std::fs::create_dir_all(&data).with_context(|| format!("--data {}", data.display()))?;
        let data = data.canonicalize().with_context(|| format!("--data {}", data.display()))?;
        check_disk(&data)?;
        Ok(data)
    }

    /// The directory for results, made now: nobody wants to measure for an hour what can't be written.
    pub(crate) fn out(&self) -> Result<&Path> {
        let out = self.out.as_path();
        std::fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()))?;
        Ok(out)
    }
}

fn beside_this_program() -> Result<PathBuf> {
    let program = std::env::current_exe().context("where is this program?")?;
    Ok(program.parent().context("this program is in no directory")?.to_owned())
}

/// Each once, in the order in which it came first.
pub(crate) fn distinct<T: Copy + PartialEq>(all: &[T]) -> Vec<T> {
    let mut once = Vec::with_capacity(all.len());
    for one in all {
        if !once.contains(one) {
            once.push(*one);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Plan> {
        let words = ["compare"].into_iter().chain(line.split_ascii_whitespace());
        Command::try_parse_from(words)?.compare.plan()
    }

    #[test]
    fn the_command_line_is_sound() {
        Command::command().debug_assert();
    }

    #[test]
    fn a_plan_is_what_was_asked_for() {
        let plan = parse("--targets proxy,axum,proxy --clients 2,1,2 --rounds 3").expect("valid");
        assert_eq!(plan.targets, [Target::Proxy, Target::Axum]);
        assert_eq!((&plan.clients[..], plan.rounds), (&[2, 1][..], 3));
        assert_eq!((plan.settings.keys, plan.settings.value_size), (10_000, 100));
        let names = plan.workloads.iter().map(|one| one.name()).collect::<Vec<_>>();
        assert_eq!(names, ["put", "get", "ycsb-a", "ycsb-b"]);
    }

    #[test]
    fn what_can_not_be_run_is_refused() {
        let odd = [
            "--rounds 0",
            "--rounds 101",
            "--clients 0",
            "--clients x",
            "--duration 0s",
            "--keys 0",
            "--targets nobody",
            "--workloads scan",
            "--value-size 1GiB",
        ];
        for line in odd {
            assert!(parse(&format!("--targets axum {line}")).is_err(), "{line}");
        }
    }
}
