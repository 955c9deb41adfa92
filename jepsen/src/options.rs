//! The command line of the harness.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Attacks a real cluster of `sage` processes and checks that it keeps its promises.
#[derive(Debug, Parser)]
#[command(after_help = "Example: cargo run --release -p jepsen -- test --duration 30s --seed 42")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the harness does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts a cluster, attacks it, heals it and checks what its clients saw.
    Test(Options),
}

/// One run.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Groups of the cluster.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) groups: u16,
    /// Replicas of each group.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    pub(crate) replicas: u16,
    /// Coordinators, shared by the clients.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub(crate) coordinators: u16,
    /// Clients that write and read at the same time.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) clients: u16,
    /// How long the attack lasts, such as 30s or 2m.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// What the choice and the times of operations and faults follow from.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// The program under test; otherwise the `sage` beside the harness.
    #[arg(long, value_name = "PATH")]
    pub(crate) sage: Option<PathBuf>,
    /// Keeps the run's directory: data, logs and history; otherwise only after an anomaly.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Reads `500ms`, `30s` or `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err("a duration is a number and ms, s or m, such as 30s".into()),
    };
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
    match total {
        Some(total) if total > 0 => Ok(Duration::from_millis(total)),
        Some(_) | None => Err("a duration is more than nothing, such as 30s".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "30", "s", "0s", "-1s", "1h", "1.5s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
