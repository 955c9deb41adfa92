//! `sage dev`: a whole cluster in one process.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use crate::cli::{Ending, flags, output};
use crate::server::{DevOptions, DevServer, run_dev};
use crate::types::limits::{GROUPS_MAX, MEMBERS_MAX};
use crate::types::units::parse_bytes;

const EXAMPLE: &str = "\
Example: a cluster of three groups of three, then a value stored and read
  sage dev
  curl -X PUT 'http://127.0.0.1:4000/kv?key=greeting' -d hello
  curl 'http://127.0.0.1:4000/kv?key=greeting'";

/// Run a whole cluster in one process, with durable data; Ctrl-C stops it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct DevArgs {
    /// How many groups
    #[arg(long, env = "SAGE_SHARDS", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=GROUPS_MAX as i64))]
    shards: u32,
    /// How many replicas each group has
    #[arg(long, env = "SAGE_REPLICAS", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=MEMBERS_MAX as i64))]
    replicas: u32,
    /// The coordinator's port
    #[arg(long, env = "SAGE_PORT", default_value_t = 4000, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The directory for everybody's data; made if it is not there
    #[arg(long, env = "SAGE_DATA", value_name = "DIR", default_value = "./sage-data")]
    data: PathBuf,
    /// The most memory for keys and values of each replica; beyond it writes are refused, reads and
    /// deletes go on. 0 for no limit
    #[arg(long, env = "SAGE_MAX_MEMORY", value_name = "SIZE", default_value = "0", value_parser = parse_bytes)]
    max_memory: u64,
}

impl DevArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        run_dev(self.options()?, greet).await?;
        Ok(Ending::Done)
    }

    fn options(self) -> anyhow::Result<DevOptions> {
        ensure!(!self.data.as_os_str().is_empty(), "--data must name a directory");
        let Self { shards, replicas, port, data, max_memory } = self;
        let max_memory = flags::max_memory(max_memory)?;
        Ok(DevOptions { shards, replicas, port, data, max_memory })
    }
}

/// Says where everything is and what to try first.
fn greet(server: &DevServer) {
    let mut lines = vec![format!("SageDB is ready at {}", server.url)];
    for (at, replicas) in server.replicas.iter().enumerate() {
        lines.push(format!("  shard-{}  {}", at + 1, replicas.join("  ")));
    }
    lines.push("Try it, in another terminal:".into());
    lines.push(format!("  curl -X PUT '{}/kv?key=greeting' -d hello", server.url));
    lines.push(format!("  curl '{}/kv?key=greeting'", server.url));
    lines.push("Ctrl-C stops it; the data stays.".into());
    if let Err(error) = output::print_line(&lines.join("\n")) {
        tracing::warn!(%error, "could not print where the cluster is");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    use super::*;

    fn options(flags: &[&str]) -> Result<DevOptions, String> {
        let words = ["sage", "dev"].iter().chain(flags);
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Dev(args) = cli.command else { panic!("not dev") };
        args.options().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_cluster_needs_no_flags() {
        let data = PathBuf::from("./sage-data");
        let expected = DevOptions { shards: 3, replicas: 3, port: 4000, data, max_memory: None };
        assert_eq!(options(&[]), Ok(expected.clone()));
        let bounded = DevOptions { max_memory: Some(64 << 20), ..expected };
        assert_eq!(options(&["--max-memory", "64MiB"]), Ok(bounded));
    }

    #[test]
    fn what_can_not_work_is_refused() {
        let cases = [
            ["--shards", "0"],
            ["--shards", "1025"],
            ["--replicas", "0"],
            ["--replicas", "16"],
            ["--port", "0"],
            ["--data", ""],
            ["--max-memory", "1"],
        ];
        for flags in cases {
            let error = options(&flags).expect_err(flags[0]);
            assert!(error.contains(flags[0]), "{flags:?}: {error}");
        }
    }
}
