//! Proves that the harness finds bugs: runs servers that are broken on purpose, one bug at a time,
//! until the harness says what is wrong, and tells how long that took.
//!
//! Each bug has the workload and the faults that show it soonest; a search over everything would
//! find it too, later. It counts as found only by a promise that it breaks: a server that ends, or a
//! group that does not recover, would prove nothing. What is broken, and how, is in the server's `planted` module.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::checker::Kind;
use crate::options::{DEADLINE, Nemesis, Options, PlantedOptions, Target, Workload};
use crate::program::{self, Build};
use crate::results::Verdict;
use crate::run::{self, say};

/// One run; as many follow, each with the next seed, as it takes.
const DURATION: Duration = Duration::from_secs(20);

/// A bug, and what shows it.
struct Planted {
    name: &'static str,
    /// The promises that it breaks.
    shows_as: &'static [Kind],
    workload: Workload,
    nemesis: &'static [Nemesis],
    target: Target,
    groups: u16,
    clients: u16,
    /// The end of the names of those servers that have it; all do with an empty one.
    on: &'static str,
}

/// What is the same for most.
const PLANTED: Planted = Planted {
    name: "",
    shows_as: &[],
    workload: Workload::Register,
    nemesis: &[Nemesis::None],
    target: Target::Any,
    groups: 1,
    clients: 20,
    on: "",
};

const ALL: &[Planted] = &[
    Planted {
        name: "ack-before-sync",
        shows_as: &[Kind::LostWrite, Kind::StaleRead, Kind::ReadWentBack],
        workload: Workload::Ledger,
        nemesis: &[Nemesis::Kill],
        target: Target::All,
        ..PLANTED
    },
    Planted {
        name: "ack-minority",
        shows_as: &[Kind::LostWrite, Kind::StaleRead, Kind::ReadWentBack],
        workload: Workload::Ledger,
        nemesis: &[Nemesis::Partition],
        target: Target::Leader,
        ..PLANTED
    },
    Planted {
        name: "apply-twice",
        shows_as: &[Kind::AppliedTwice, Kind::ReplicasDiffer],
        nemesis: &[Nemesis::Kill],
        ..PLANTED
    },
    // Of three that all differ, nobody knows who is right.
    Planted {
        name: "flip-bit",
        shows_as: &[Kind::ReplicasDiffer, Kind::NotLinearizable],
        on: "-r1",
        ..PLANTED
    },
    Planted { name: "forget-floor", shows_as: &[Kind::StaleRead, Kind::VersionReused], ..PLANTED },
    Planted {
        name: "forget-vote",
        shows_as: &[Kind::StateWentBack],
        nemesis: &[Nemesis::Kill],
        target: Target::All,
        ..PLANTED
    },
    Planted {
        name: "ignore-ownership",
        shows_as: &[Kind::TwoOwners, Kind::NotLinearizable],
        groups: 2,
        ..PLANTED
    },
    Planted {
        name: "impatient",
        shows_as: &[Kind::GaveUp],
        nemesis: &[Nemesis::Kill],
        target: Target::Leader,
        ..PLANTED
    },
    Planted {
        name: "late-publish",
        shows_as: &[Kind::StaleRead, Kind::NotLinearizable],
        ..PLANTED
    },
    Planted {
        name: "lost-event",
        shows_as: &[Kind::WatchBroken],
        workload: Workload::Watch,
        ..PLANTED
    },
    Planted { name: "own-clock", shows_as: &[Kind::ReplicasDiffer], ..PLANTED },
    Planted {
        name: "retry-unknown",
        shows_as: &[Kind::AppliedTwice, Kind::FailedWriteSeen, Kind::NotLinearizable],
        nemesis: &[Nemesis::Kill, Nemesis::Partition],
        target: Target::Leader,
        ..PLANTED
    },
    Planted {
        name: "short-snapshot",
        shows_as: &[Kind::LostWrite, Kind::ReplicasDiffer],
        workload: Workload::Ledger,
        nemesis: &[Nemesis::Kill],
        target: Target::All,
        ..PLANTED
    },
    Planted {
        name: "skip-read-index",
        shows_as: &[Kind::StaleRead, Kind::NotLinearizable],
        nemesis: &[Nemesis::Partition],
        target: Target::Leader,
        ..PLANTED
    },
    Planted {
        name: "skip-term-check",
        shows_as: &[Kind::LostWrite, Kind::StaleRead, Kind::NotLinearizable, Kind::ReplicasDiffer],
        nemesis: &[Nemesis::Pause, Nemesis::Partition],
        target: Target::Leader,
        ..PLANTED
    },
    Planted {
        name: "stale-lease",
        shows_as: &[Kind::StaleRead, Kind::ReadWentBack],
        workload: Workload::Lease,
        nemesis: &[Nemesis::Partition],
        target: Target::Leader,
        ..PLANTED
    },
    Planted {
        name: "torn-txn",
        shows_as: &[Kind::BankBroken],
        workload: Workload::Bank,
        ..PLANTED
    },
];

/// Whether the server called `server` has this bug when a run has it.
pub(crate) fn is_in(bug: &str, server: &str) -> bool {
    ALL.iter().all(|planted| planted.name != bug || server.ends_with(planted.on))
}

/// Looks for every bug that the options name; valid if each was found in time, void otherwise.
pub(crate) async fn run(options: PlantedOptions) -> Result<Verdict> {
    for name in &options.bugs {
        if !ALL.iter().any(|bug| bug.name == name) {
            let known: Vec<&str> = ALL.iter().map(|bug| bug.name).collect();
            bail!("there is no bug {name}; there are {}", known.join(", "));
        }
    }
    let program = program::find(options.sage.as_deref(), Build::Planted)?;
    let wanted = |bug: &&Planted| {
        options.bugs.is_empty() || options.bugs.iter().any(|name| name == bug.name)
    };
    let mut rows = Vec::new();
    let mut verdict = Verdict::Valid;
    for bug in ALL.iter().filter(wanted) {
        let start = Instant::now();
        let mut found = None;
        let mut seed = options.seed;
        while found.is_none() && start.elapsed() < options.within {
            let one = bug.options(&options, &program, seed);
            let results = run::run(one).await?;
            let shows = |kind| bug.shows_as.contains(&kind);
            found = results.anomalies.into_iter().find(|anomaly| shows(anomaly.kind));
            seed += 1;
        }
        let after = start.elapsed().as_secs_f32();
        let what = found.as_ref().map_or_else(|| "NOT FOUND".into(), ToString::to_string);
        if found.is_none() {
            verdict = Verdict::Void;
        }
        rows.push(format!("{:<18} {after:>6.1} s, {} runs  {what}", bug.name, seed - options.seed));
    }
    say("");
    for row in rows {
        say(&row);
    }
    Ok(verdict)
}

impl Planted {
    fn options(&self, given: &PlantedOptions, program: &std::path::Path, seed: u64) -> Options {
        Options {
            workload: self.workload,
            nemesis: self.nemesis.to_vec(),
            target: self.target,
            groups: self.groups,
            replicas: 3,
            coordinators: 2,
            clients: self.clients,
            duration: DURATION,
            deadline: DEADLINE,
            seed,
            fail_fast: true,
            sage: Some(program.into()),
            out: given.out.clone(),
            keep: false,
            bug: Some(self.name.into()),
        }
    }
}
