//! Proves that the harness finds bugs: runs servers that are broken on purpose, one bug at a time,
//! until the harness says what is wrong, and tells how long that took.
//!
//! Each bug has the workload and the faults that show it soonest; a search over everything would
//! find it too, later. What is broken, and how, is in the server's `planted` module.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::options::{Nemesis, Options, PlantedOptions, Target, Workload};
use crate::program::{self, Build};
use crate::results::Verdict;
use crate::run::{self, say};

/// One run; as many follow, each with the next seed, as it takes.
const DURATION: Duration = Duration::from_secs(20);

/// A bug, and what shows it.
struct Planted {
    name: &'static str,
    workload: Workload,
    nemesis: &'static [Nemesis],
    target: Target,
    groups: u16,
}

const ALL: &[Planted] = &[
    Planted {
        name: "ack-before-sync",
        workload: Workload::Ledger,
        nemesis: &[Nemesis::Kill],
        target: Target::All,
        groups: 1,
    },
    Planted {
        name: "ack-minority",
        workload: Workload::Ledger,
        nemesis: &[Nemesis::Partition],
        target: Target::Leader,
        groups: 1,
    },
    Planted {
        name: "apply-twice",
        workload: Workload::Register,
        nemesis: &[Nemesis::Kill],
        target: Target::Any,
        groups: 1,
    },
    Planted {
        name: "forget-floor",
        workload: Workload::Register,
        nemesis: &[Nemesis::None],
        target: Target::Any,
        groups: 1,
    },
    Planted {
        name: "forget-vote",
        workload: Workload::Register,
        nemesis: &[Nemesis::Kill],
        target: Target::All,
        groups: 1,
    },
    Planted {
        name: "ignore-ownership",
        workload: Workload::Register,
        nemesis: &[Nemesis::None],
        target: Target::Any,
        groups: 2,
    },
    Planted {
        name: "late-publish",
        workload: Workload::Register,
        nemesis: &[Nemesis::None],
        target: Target::Any,
        groups: 1,
    },
    Planted {
        name: "own-clock",
        workload: Workload::Register,
        nemesis: &[Nemesis::None],
        target: Target::Any,
        groups: 1,
    },
    Planted {
        name: "retry-unknown",
        workload: Workload::Register,
        nemesis: &[Nemesis::Kill, Nemesis::Partition],
        target: Target::Leader,
        groups: 1,
    },
    Planted {
        name: "short-snapshot",
        workload: Workload::Ledger,
        nemesis: &[Nemesis::Kill],
        target: Target::All,
        groups: 1,
    },
    Planted {
        name: "skip-read-index",
        workload: Workload::Register,
        nemesis: &[Nemesis::Partition],
        target: Target::Leader,
        groups: 1,
    },
    Planted {
        name: "skip-term-check",
        workload: Workload::Register,
        nemesis: &[Nemesis::Pause, Nemesis::Partition],
        target: Target::Leader,
        groups: 1,
    },
    Planted {
        name: "stale-lease",
        workload: Workload::Lease,
        nemesis: &[Nemesis::Partition],
        target: Target::Leader,
        groups: 1,
    },
];

/// Looks for every bug that the options name; valid if each was found in time.
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
            found = results.anomalies.into_iter().next();
            seed += 1;
        }
        let after = start.elapsed().as_secs_f32();
        let what = found.as_ref().map_or_else(|| "NOT FOUND".into(), ToString::to_string);
        if found.is_none() {
            verdict = Verdict::Anomaly;
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
            clients: 20,
            duration: DURATION,
            seed,
            fail_fast: true,
            sage: Some(program.into()),
            out: given.out.clone(),
            keep: false,
            bug: Some(self.name.into()),
        }
    }
}
