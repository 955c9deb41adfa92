//! The command line of `sage`: flags as given, checked, and handed on; the only place that prints.
//!
//! One file per subcommand: a clap struct, what makes checked options or a request of it, and what
//! is shown of the result. Results go to stdout and nothing else does; logs and errors go to
//! stderr, an error as one line. Exit codes: 0 found or done, 1 not found,
//! refused by a condition or damaged, 2 usage or server error.
//! Every flag can also be set as an environment variable `SAGE_<FLAG>`.

mod bench;
mod check;
mod coordinator;
mod count;
mod del;
mod dev;
mod dump;
mod flags;
mod get;
mod incr;
mod output;
mod put;
mod remote;
mod repair;
mod route;
mod scan;
mod shard;
mod status;
mod touch;
mod txn;
mod watch;

use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::planted;
use output::{complain, usage_line};

/// A sharded, replicated, in-memory key-value store
#[derive(Parser, Debug)]
#[command(name = "sage", version, arg_required_else_help = true, after_help = EXAMPLE)]
struct Cli {
    /// What to log to stderr: error, warn, info, debug, trace, or a filter like
    /// `info,sagedb::raft=debug`
    #[arg(long, global = true, env = "SAGE_LOG", value_name = "FILTER", default_value = LOG_DEFAULT)]
    log: String,
    #[command(subcommand)]
    command: Command,
}

/// openraft tells at `info` and `warn` what it does, which is of use to its developers.
const LOG_DEFAULT: &str = "info,openraft=error";

const EXAMPLE: &str = "\
Example: a whole cluster on this machine, and a first value
  sage dev
  sage put greeting hello
  sage get greeting";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a whole cluster in one process
    Dev(dev::DevArgs),
    /// Run one replica of one shard group
    Shard(Box<shard::ShardArgs>),
    /// Run the router that clients talk to
    Coordinator(coordinator::CoordinatorArgs),
    /// Store a value
    Put(put::PutArgs),
    /// Print a value
    Get(get::GetArgs),
    /// Let a value last for another while
    Touch(touch::TouchArgs),
    /// Add to a counter
    Incr(incr::IncrArgs),
    /// Carry out operations if conditions hold, all or none
    Txn(txn::TxnArgs),
    /// Carry out operations, each by itself
    Batch(txn::BatchArgs),
    /// Delete a key
    Del(del::DelArgs),
    /// List keys and values in order
    Scan(scan::ScanArgs),
    /// Print changes of keys as they come
    Watch(watch::WatchArgs),
    /// Count keys
    Count(count::CountArgs),
    /// Show where a key lives
    Route(route::RouteArgs),
    /// Show groups, leaders and replicas
    Status(status::StatusArgs),
    /// Measure how fast a cluster is
    Bench(Box<bench::BenchArgs>),
    /// Verify the data directory of a replica that does not run
    Check(check::CheckArgs),
    /// Show what is inside a file of a data directory
    Dump(dump::DumpArgs),
    /// Accept a loss: go on without what is damaged, in a group of one
    Repair(repair::RepairArgs),
}

impl Command {
    /// How many worker threads it asks for.
    fn threads(&self) -> Option<usize> {
        match self {
            Self::Shard(args) => Some(args.threads()),
            Self::Coordinator(args) => Some(args.threads()),
            _ => None,
        }
    }
}

/// How a command that did not fail ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// Found, or done.
    Done,
    /// There is no such key.
    NotFound,
    /// The condition of a write did not hold.
    Mismatch,
    /// What was to be checked is damaged.
    Damaged,
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match start(cli) {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::NotFound | Ending::Mismatch | Ending::Damaged) => ExitCode::from(1),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<Ending> {
    let filter = EnvFilter::builder().parse(&cli.log);
    let filter = filter.with_context(|| format!("--log {} is not a filter", cli.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    planted::plant().map_err(anyhow::Error::msg)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = cli.command.threads() {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build();
    // As a task: the thread that waits here would be woken for whatever the future itself waits for.
    let work = async { tokio::spawn(carry_out(cli.command)).await };
    let ended = runtime.context("the runtime does not start")?.block_on(work);
    ended.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Err(error.into()),
    })
}

async fn carry_out(command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::Dev(args) => args.run().await,
        Command::Shard(args) => args.run().await,
        Command::Coordinator(args) => args.run().await,
        Command::Put(args) => args.run().await,
        Command::Get(args) => args.run().await,
        Command::Touch(args) => args.run().await,
        Command::Incr(args) => args.run().await,
        Command::Txn(args) => args.run().await,
        Command::Batch(args) => args.run().await,
        Command::Del(args) => args.run().await,
        Command::Scan(args) => args.run().await,
        Command::Watch(args) => args.run().await,
        Command::Count(args) => args.run().await,
        Command::Route(args) => args.run().await,
        Command::Status(args) => args.run().await,
        Command::Bench(args) => args.run().await,
        Command::Check(args) => args.run(),
        Command::Dump(args) => args.run(),
        Command::Repair(args) => args.run().await,
    }
}

/// Help and version go to stdout as clap makes them, a mistake is told in one line.
fn explain(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let no_command = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if asked_for || no_command {
        // Nothing is left to do if even this can't be written.
        drop(error.print());
        return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    complain(&usage_line(error));
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_well_formed_and_shows_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert!(help.contains("Example"), "{help}");
            assert!(help.contains(&format!("sage {}", command.get_name())), "{help}");
        }
    }

    #[test]
    fn every_flag_reads_its_environment_variable() {
        let mut all = Cli::command();
        all.build();
        let commands = all.get_subcommands().filter(|command| command.get_name() != "help");
        for argument in commands.flat_map(clap::Command::get_arguments) {
            let Some(flag) = argument.get_long().filter(|flag| *flag != "help") else { continue };
            let expected = format!("SAGE_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
        }
    }

    #[test]
    fn every_client_asks_the_coordinator_of_this_machine_unless_told_otherwise() {
        let mut clients = 0;
        for command in Cli::command().get_subcommands() {
            let default = |name: &str| {
                let argument = command.get_arguments().find(|one| one.get_long() == Some(name))?;
                Some(argument.get_default_values().to_vec())
            };
            let Some(url) = default("url") else { continue };
            assert_eq!(url, ["http://127.0.0.1:4000"], "sage {}", command.get_name());
            assert_eq!(default("timeout").expect("a timeout"), ["5s"]);
            assert_eq!(default("output").expect("a form"), ["text"]);
            clients += 1;
        }
        let servers_and_tools = ["dev", "shard", "coordinator", "check", "dump", "repair"];
        assert_eq!(clients + servers_and_tools.len(), Cli::command().get_subcommands().count());
    }
}
