//! What a run has shown, as `results.json` keeps it and the report shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checker::Anomaly;
use crate::history::Counts;
use crate::options::DEADLINE;

/// How a run was started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// What the clients did.
    pub(crate) workload: String,
    /// What was broken, by name.
    pub(crate) nemesis: Vec<String>,
    /// Whom faults struck.
    #[serde(default)]
    pub(crate) target: String,
    /// The bug that was planted, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bug: Option<String>,
    /// Groups of the cluster.
    pub(crate) groups: u16,
    /// Replicas of each group.
    pub(crate) replicas: u16,
    /// Coordinators.
    pub(crate) coordinators: u16,
    /// Clients.
    pub(crate) clients: u16,
    /// How long the attack lasted, in milliseconds.
    pub(crate) duration_ms: u64,
    /// How long servers had for each request, in milliseconds.
    #[serde(default = "deadline_ms")]
    pub(crate) deadline_ms: u64,
    /// What was drawn followed from it: operations, faults, and the pauses between them.
    pub(crate) seed: u64,
}

impl Setup {
    /// The command that does the same again, in the words of a shell.
    pub(crate) fn command_line(&self) -> String {
        let Self { groups, replicas, coordinators, clients, seed, .. } = self;
        let mut line = "cargo run --release -p jepsen -- test".to_string();
        let mut option = |name: &str, value: &str| {
            line.push_str(&[" --", name, " ", &quoted(value)].concat());
        };
        option("workload", &self.workload);
        if !self.nemesis.is_empty() {
            option("nemesis", &self.nemesis.join(","));
        }
        if !self.target.is_empty() && self.target != "any" {
            option("target", &self.target);
        }
        option("groups", &groups.to_string());
        option("replicas", &replicas.to_string());
        option("coordinators", &coordinators.to_string());
        option("clients", &clients.to_string());
        option("duration", &duration(self.duration_ms));
        if self.deadline_ms != deadline_ms() {
            option("deadline", &duration(self.deadline_ms));
        }
        option("seed", &seed.to_string());
        if let Some(bug) = &self.bug {
            option("bug", bug);
        }
        line
    }
}

/// That of runs before there was a choice, and of those that do not choose.
fn deadline_ms() -> u64 {
    u64::try_from(DEADLINE.as_millis()).expect("a few seconds")
}

fn duration(milliseconds: u64) -> String {
    match milliseconds {
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// A word for a shell; whoever copies the command runs it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ',' | '.');
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What a run has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Nothing was wrong, and enough has happened to say so.
    Valid,
    /// A promise was broken.
    Anomaly,
    /// A checker gave up before it knew.
    Unknown,
    /// Too little has happened to say anything.
    Void,
}

/// What one kind of fault did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FaultFigures {
    /// Faults that took hold.
    pub(crate) installed: u64,
    /// That had nothing to break.
    pub(crate) skipped: u64,
    /// Whose effect was not seen.
    pub(crate) indeterminate: u64,
    /// Milliseconds from each fault of a leader to the next leader, sorted.
    pub(crate) failovers_ms: Vec<u64>,
    /// The longest stretch without an acknowledged write that overlaps each fault, in
    /// milliseconds, sorted.
    pub(crate) gaps_ms: Vec<u64>,
    /// Of those, the ones of faults that struck a leader alone.
    #[serde(default)]
    pub(crate) leader_gaps_ms: Vec<u64>,
}

/// What watchers were told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watched {
    /// Who watched.
    pub(crate) watchers: u64,
    /// The changes that they were told, each as often as it was.
    pub(crate) changes: u64,
    /// How often one left on purpose and went on elsewhere.
    pub(crate) resumed: u64,
    /// How often one had been away for too long and began anew.
    pub(crate) gaps: u64,
}

/// Requests that coordinators answered with `503` or `504`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Patience {
    /// Although the group could serve for long enough meanwhile.
    pub(crate) gave_up: u64,
    /// Because it could not.
    pub(crate) excused: u64,
}

/// Everything that `results.json` holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// How the run was started.
    pub(crate) setup: Setup,
    /// What it has shown.
    pub(crate) verdict: Verdict,
    /// Why, if it is void or unknown.
    pub(crate) reasons: Vec<String>,
    /// How operations ended while the cluster was attacked.
    pub(crate) counts: Counts,
    /// The faults, by kind.
    pub(crate) faults: BTreeMap<String, FaultFigures>,
    /// The longest stretch without an acknowledged write, in milliseconds.
    pub(crate) longest_gap_ms: u64,
    /// How long the healed cluster took until writes succeeded in every group, in milliseconds.
    pub(crate) recovered_ms: Option<u64>,
    /// What coordinators answered with `503` or `504`.
    #[serde(default)]
    pub(crate) patience: Patience,
    /// What watchers were told, if anybody watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) watched: Option<Watched>,
    /// What was wrong.
    pub(crate) anomalies: Vec<Anomaly>,
}

#[cfg(test)]
mod tests {
    use crate::page::synthetic::setup;

    #[test]
    fn the_command_starts_the_same_run() {
        let mut setup = setup();
        assert_eq!(
            setup.command_line(),
            "cargo run --release -p jepsen -- test --workload register --nemesis \
             kill,pause,partition --groups 2 --replicas 3 --coordinators 2 --clients 20 \
             --duration 60s --seed 42"
        );
        setup.nemesis.clear();
        setup.workload = "a'; rm -rf b".into();
        setup.duration_ms = 1_500;
        setup.deadline_ms = 10_000;
        let command = setup.command_line();
        assert!(command.contains(r"--workload 'a'\''; rm -rf b' --groups"), "{command}");
        assert!(command.contains("--duration 1500ms --deadline 10s"), "{command}");
    }
}
