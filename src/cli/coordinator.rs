//! `sage coordinator`: the router that clients talk to.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::ensure;
use clap::Args;

use crate::cli::flags::THREADS_MAX;
use crate::cli::{Ending, flags};
use crate::server::{CoordinatorOptions, run_coordinator};
use crate::types::limits::{GROUPS_MAX, MEMBERS_MAX, VNODES_DEFAULT, VNODES_MAX};
use crate::types::units::parse_bytes;

const EXAMPLE: &str = "\
Example: three groups of one
  sage coordinator --port 4000 \\
    --shards http://127.0.0.1:4101,http://127.0.0.1:4102,http://127.0.0.1:4103";

/// Run the router that clients talk to; any number may run side by side
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct CoordinatorArgs {
    /// The port to listen on; 0 for any that is free
    #[arg(long, env = "SAGE_PORT", default_value_t = 4000)]
    port: u16,
    /// The address to listen on
    #[arg(long, env = "SAGE_LISTEN", value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Any member of each group; several members of one group help it to start while some are down
    #[arg(
        long,
        env = "SAGE_SHARDS",
        value_name = "URL,URL",
        value_delimiter = ',',
        required = true
    )]
    shards: Vec<String>,
    /// Tokens of each group, if this is the first coordinator of a new ring
    #[arg(long, env = "SAGE_VNODES", value_name = "N", default_value_t = VNODES_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(VNODES_MAX)))]
    vnodes: u32,
    /// The largest value
    #[arg(long, env = "SAGE_MAX_VALUE_SIZE", value_name = "SIZE", default_value = "8MiB", value_parser = parse_bytes)]
    max_value_size: u64,
    /// Worker threads; if not given, half as many as there are processors, and at least one
    #[arg(long, env = "SAGE_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX))]
    threads: Option<u16>,
}

impl CoordinatorArgs {
    pub(super) fn threads(&self) -> usize {
        flags::threads(self.threads)
    }

    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        run_coordinator(self.options()?).await?;
        Ok(Ending::Done)
    }

    fn options(self) -> anyhow::Result<CoordinatorOptions> {
        let shards = flags::urls("--shards", &self.shards)?;
        ensure!(!shards.is_empty(), "--shards must name a member of at least one group");
        let most = GROUPS_MAX * MEMBERS_MAX;
        ensure!(shards.len() <= most, "--shards lists more than {most} URLs");
        Ok(CoordinatorOptions {
            port: self.port,
            listen: self.listen,
            shards,
            vnodes: self.vnodes,
            max_value_bytes: flags::max_value_bytes(self.max_value_size)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    use super::*;

    fn options(flags: &[&str]) -> Result<CoordinatorOptions, String> {
        let words = ["sage", "coordinator"].iter().chain(flags);
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Coordinator(args) = cli.command else { panic!("not a coordinator") };
        args.options().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_coordinator_needs_shards_and_nothing_else() {
        let expected = CoordinatorOptions {
            port: 4000,
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            shards: vec!["http://a:1".into(), "http://b:2".into()],
            vnodes: 100,
            max_value_bytes: 8 * 1024 * 1024,
        };
        assert_eq!(options(&["--shards", "http://a:1,http://b:2/"]), Ok(expected));
        let free = options(&["--shards", "http://a:1", "--port", "0"]).expect("valid");
        assert_eq!(free.port, 0);
    }

    #[test]
    fn what_can_not_work_is_refused_with_a_sentence() {
        let cases: [(&[&str], &str); 6] = [
            (&[], "--shards"),
            (&["--shards", ""], "at least one group"),
            (&["--shards", "http://a:1,http://a:1"], "lists http://a:1 twice"),
            (&["--shards", "a:1"], "not an http URL"),
            (&["--shards", "http://a:1", "--vnodes", "0"], "0 is not in 1..=4096"),
            (&["--shards", "http://a:1", "--max-value-size", "0"], "--max-value-size must be"),
        ];
        for (flags, sentence) in cases {
            let error = options(flags).expect_err(sentence);
            assert!(error.contains(sentence), "{flags:?}: {error}");
        }
    }
}
