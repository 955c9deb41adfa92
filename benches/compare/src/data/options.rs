//! The command line of `compare data`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use sagedb::types::units::{parse_bytes, parse_duration};

use crate::data::{DataPlan, Part};
use crate::options::{ROUNDS_MAX, SiteArgs, distinct};
use crate::run::{settings, show};
use crate::target::Target;

const EXAMPLE: &str = "\
Example: everything, which takes about half an hour and 16 GiB of memory; then a first look, in three minutes
  compare data --sage target/dist/sage
  compare data --sage target/dist/sage --keys 100000 --sizes 1000,10000 --rounds 1 --duration 1s

Let nothing else run meanwhile. See docs/performance.md.";

/// What is measured with many keys.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(crate) struct DataArgs {
    /// What to measure; all of it without it
    #[arg(long, value_enum, value_name = "NAME,NAME", value_delimiter = ',')]
    parts: Vec<Part>,
    /// How many keys there are
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keys: u64,
    /// The size of each value, but of those that are JSON
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_bytes)]
    value_size: u64,
    /// How often a replica is restarted in each way, and each latency and CPU time is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// With how many keys CPU time is measured; what the machine has no memory for is left out
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_value = "1000,10000,100000,1000000,10000000"
    )]
    sizes: Vec<u64>,
    /// Puts per second while latencies are measured; half of what a closed loop gets without it
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
    /// With how many clients
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: usize,
    /// How long each run is measured, but for those that end with what they are about
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// How long each runs before it is
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    #[command(flatten)]
    pub(crate) site: SiteArgs,
}

impl DataArgs {
    /// What is to be measured, without what this machine has not got.
    pub(super) fn plan(&self) -> Result<DataPlan> {
        ensure!(
            (1..=ROUNDS_MAX).contains(&self.rounds),
            "--rounds must be from 1 to {ROUNDS_MAX}, not {}",
            self.rounds
        );
        let parts = if self.parts.is_empty() { Part::value_variants() } else { &self.parts[..] };
        let parts = distinct(parts);
        let mut settings = settings((self.duration, self.warmup), self.keys);
        settings.value_size = usize::try_from(self.value_size).context("--value-size")?;
        settings.clients = self.clients;
        let rated = sagedb::bench::Settings { rate: self.rate, ..settings.clone() };
        rated.check()?;
        let mut sizes = distinct(&self.sizes);
        sizes.sort_unstable();
        for &keys in &sizes {
            sagedb::bench::Settings { keys, ..settings.clone() }.check().context("--sizes")?;
        }
        let missing = Target::EtcdGrpc.missing();
        if let (Some(program), true) = (missing, parts.contains(&Part::Restart)) {
            show(&format!("{program} is left out: it is not on the PATH"))?;
        }
        let (rounds, rate, etcd) = (self.rounds, self.rate, missing.is_none());
        Ok(DataPlan { parts, settings, rounds, sizes, rate, etcd })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::options::{Command, Other};

    fn parse(line: &str) -> Result<DataPlan> {
        let words = ["compare", "data"].into_iter().chain(line.split_ascii_whitespace());
        match Command::try_parse_from(words)?.other {
            Some(Other::Data(args)) => args.plan(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plan_is_what_was_asked_for() {
        let plan = parse("").expect("valid");
        assert_eq!(plan.parts, Part::value_variants());
        assert_eq!((plan.settings.keys, plan.settings.clients, plan.rate), (1_000_000, 64, None));
        assert_eq!(plan.sizes.len(), 5);
        let plan = parse("--parts cpu,size,cpu --sizes 100,10,100 --rate 7").expect("valid");
        assert_eq!(plan.parts, [Part::Cpu, Part::Size]);
        assert_eq!((&plan.sizes[..], plan.rate), (&[10, 100][..], Some(7)));
    }

    #[test]
    fn what_can_not_be_measured_is_refused() {
        for line in
            ["--rounds 0", "--rate 0", "--keys 0", "--sizes 0", "--clients 0", "--parts all"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
