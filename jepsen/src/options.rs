//! The command line of the harness.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::nemesis::FaultKind;

/// What servers have for each request, unless a run says otherwise. Shorter than most faults: what is
/// not known is what checkers and clients find hardest.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);

/// Attacks a real cluster of `sage` processes and checks that it keeps its promises.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example: cargo run --release -p jepsen -- test --workload register --nemesis kill,partition --duration 30s --seed 42"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the harness does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts a cluster, attacks it, heals it and judges what its clients saw.
    Test(Options),
    /// Runs every workload under every nemesis, one after the other.
    All(Options),
    /// Runs servers with each planted bug, and says how long it took to find it.
    Planted(PlantedOptions),
    /// Runs whole groups in one thread on virtual time, seed after seed.
    Simulate {
        /// What `sage-simulated` takes: --seeds 1..1000, --faults-ms, --trace, --go-on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Judges a stored history once more.
    Check {
        /// A history.jsonl of an earlier run.
        history: PathBuf,
    },
}

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Workload {
    /// Many writers a key: write, delete, compare-and-set, linearizable read.
    Register,
    /// Every acknowledged write is there at the end; one writer a key.
    Ledger,
    /// As ledger, with reads that trust the leader's lease.
    Lease,
    /// As ledger, with stale reads, which must be as fresh as they say.
    Stale,
    /// Lists that grow by read-modify-write under a condition.
    ListAppend,
    /// Money that transactions move between accounts: none is made or lost.
    Bank,
    /// Watchers are told every change of many keys, once and in order, through the loss of servers.
    Watch,
}

/// What breaks the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Nemesis {
    /// kill -9: the leader, any replica, a majority, all at once.
    Kill,
    /// SIGSTOP for longer than an election takes, the leader preferred.
    Pause,
    /// Links are cut: halves, the leader alone, a bridge, one way, random ones; silently or by a
    /// reset.
    Partition,
    /// Links are slow, uneven or narrow.
    Slow,
    /// Coordinators are killed or paused.
    Coordinator,
    /// Replicas are asked to stop and started again, one after the other.
    Restart,
    /// The disk of a replica is deleted.
    Wipe,
    /// Bytes on the disk of a stopped replica are damaged.
    Corrupt,
    /// The clock of a replica jumps or goes at another rate (needs libfaketime).
    Clock,
    /// All of them.
    Mix,
    /// Nothing is broken.
    None,
}

impl Nemesis {
    /// Those that `all` runs.
    pub(crate) const ALL: [Self; 10] = [
        Self::Kill,
        Self::Pause,
        Self::Partition,
        Self::Slow,
        Self::Coordinator,
        Self::Restart,
        Self::Wipe,
        Self::Corrupt,
        Self::Clock,
        Self::Mix,
    ];

    /// The kinds of fault that it is made of.
    pub(crate) fn kinds(self) -> &'static [FaultKind] {
        match self {
            Self::Kill => &[FaultKind::Kill],
            Self::Pause => &[FaultKind::Pause],
            Self::Partition => &[FaultKind::Partition],
            Self::Slow => &[FaultKind::Slow],
            Self::Coordinator => &[FaultKind::Coordinator],
            Self::Restart => &[FaultKind::Restart],
            Self::Wipe => &[FaultKind::Wipe],
            Self::Corrupt => &[FaultKind::Corrupt],
            Self::Clock => &[FaultKind::Clock],
            Self::Mix => &FaultKind::ALL,
            Self::None => &[],
        }
    }
}

/// Whom faults strike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Target {
    /// Anybody, leaders preferred.
    Any,
    /// Leaders only.
    Leader,
    /// All replicas of all groups at the same moment; of `kill` only, otherwise as `any`.
    All,
}

/// One run.
#[expect(clippy::struct_excessive_bools, reason = "two switches")]
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// What the clients do.
    #[arg(long, value_enum, default_value = "register")]
    pub(crate) workload: Workload,
    /// What breaks the cluster: one or several, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill,partition")]
    pub(crate) nemesis: Vec<Nemesis>,
    /// Whom kill, pause and partition strike.
    #[arg(long, value_enum, default_value = "any")]
    pub(crate) target: Target,
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
    /// How long the attack lasts, such as 30s or 2m; with `all`, that of each pair.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long servers have for each request. With one that is longer than the faults, coordinators
    /// have to wait for their end.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub(crate) deadline: Duration,
    /// What is drawn follows from it: operations, faults, and the pauses between them. When each
    /// happens depends also on how long the one before took.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Ends the attack at the first anomaly that shows while it lasts.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// The program under test; otherwise the `sage` beside the harness.
    #[arg(long, value_name = "PATH")]
    pub(crate) sage: Option<PathBuf>,
    /// The folder that gets a folder for each run: history, results, report, logs.
    #[arg(long, value_name = "DIR", default_value = "jepsen-runs")]
    pub(crate) out: PathBuf,
    /// Keeps the servers' data directories also after a valid run.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Runs the servers with this planted bug; they must be built with the feature `planted-bugs`.
    #[arg(long, value_name = "NAME")]
    pub(crate) bug: Option<String>,
}

impl Options {
    /// The kinds of fault of this run, each once.
    pub(crate) fn kinds(&self) -> Vec<FaultKind> {
        let kinds = self.nemesis.iter().flat_map(|nemesis| nemesis.kinds());
        let kinds: BTreeSet<FaultKind> = kinds.copied().collect();
        kinds.into_iter().collect()
    }
}

/// The search for planted bugs.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlantedOptions {
    /// Only these bugs, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub(crate) bugs: Vec<String>,
    /// The program under test, built with the feature `planted-bugs`; otherwise built now.
    #[arg(long, value_name = "PATH")]
    pub(crate) sage: Option<PathBuf>,
    /// How long each bug may hide.
    #[arg(long, default_value = "3m", value_parser = duration)]
    pub(crate) within: Duration,
    /// The seed of the first run.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The folder that gets a folder for each run.
    #[arg(long, value_name = "DIR", default_value = "jepsen-runs")]
    pub(crate) out: PathBuf,
}

/// An option's value as it is typed.
pub(crate) fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
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
