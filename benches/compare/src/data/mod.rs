//! `compare data`: one group of three replicas with a million keys. How long a replica takes to serve again, what it takes
//! of memory and disk, how well its snapshots are packed, what puts feel of snapshots and of followers that catch up by one,
//! and what an operation costs with more and more keys; where etcd has the same, beside etcd.
//!
//! - `restart`, `packing`, `stalls` and `growth` are the parts, each on a cluster of its own (`cluster`);
//! - `values` and `filled` give keys values that are not all alike, `disk` looks at files;
//! - `goals` (pure) and `report` make results of what was found.
//!
//! Whenever it ends, what was found until then is written, and its processes and directories are gone.

mod cluster;
mod disk;
mod filled;
mod goals;
mod growth;
mod options;
mod packing;
mod report;
mod restart;
mod stalls;
mod values;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use sagedb::bench::Settings;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::data::growth::Grown;
pub(crate) use crate::data::options::DataArgs;
use crate::data::packing::{Packed, Taken};
use crate::data::report::Results;
use crate::data::restart::{Restart, Stored};
use crate::data::stalls::Window;
use crate::data::values::Values;
use crate::machine::Machine;
use crate::program;
use crate::run::show;
use crate::target::{Site, Target};

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// Restarts, memory and disk, beside etcd's
    Restart,
    /// The size of snapshots, and of all files from one to the next
    Size,
    /// The latency of puts during snapshots and catch-ups
    P99,
    /// CPU time per operation with more and more keys
    Cpu,
}

/// What is measured, and how.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DataPlan {
    parts: Vec<Part>,
    /// How many keys there are, but for the part about CPU time; how many clients; how long each run is.
    settings: Settings,
    rounds: usize,
    /// Numbers of keys of the part about CPU time, rising.
    sizes: Vec<u64>,
    /// Puts per second while latencies are measured; half of what a closed loop gets without it.
    rate: Option<u64>,
    /// Whether there is an etcd.
    etcd: bool,
}

impl DataPlan {
    /// Text of the size that was asked for.
    fn text(&self) -> Values {
        Values::Text(self.settings.value_size)
    }
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    stored: Vec<Stored>,
    restarts: Vec<Restart>,
    packed: Vec<Packed>,
    /// A replica's files over several snapshots, all keys written again and again.
    taken: Vec<Taken>,
    /// Puts per second in the windows.
    rate: Option<u64>,
    windows: Vec<Window>,
    grown: Vec<Grown>,
}

/// Measures, and writes `data.json` and `data.md`.
pub(crate) async fn run(args: &DataArgs, stop: &CancellationToken) -> Result<()> {
    let (plan, data, out) = (args.plan()?, args.site.data()?, args.site.out()?);
    let machine = Machine::here();
    let (sage, version) = program::find(args.site.sage.as_deref())?;
    let mut versions = BTreeMap::from([("sage", version)]);
    versions.extend(Target::EtcdGrpc.foreign_version());
    let site = Site { sage, data };
    let mut found = Findings::default();
    // Dropped where it is interrupted, and with it its processes.
    let measuring = stop.run_until_cancelled(plan.measure(&site, &mut found, stop));
    let ended = measuring.await.unwrap_or_else(|| Err(anyhow::anyhow!("interrupted")));
    let results = Results::new(ended.is_ok(), (&machine, &versions), &plan, &found);
    results.write(out)?;
    show(&format!("results are in {}", out.display()))?;
    std::io::stdout().write_all(results.markdown().as_bytes())?;
    ended
}

impl DataPlan {
    async fn measure(
        &self,
        site: &Site,
        found: &mut Findings,
        stop: &CancellationToken,
    ) -> Result<()> {
        for part in &self.parts {
            let measured = match part {
                Part::Restart => restart::run(self, site, found, stop).await,
                Part::Size => packing::run(self, site, found, stop).await,
                Part::P99 => stalls::run(self, site, found, stop).await,
                Part::Cpu => growth::run(self, site, found, stop).await,
            };
            measured.with_context(|| format!("part {part:?}"))?;
        }
        Ok(())
    }
}

/// Everything is written below this.
fn write(out: &Path, name: &str, text: &str) -> Result<()> {
    crate::report::write(out, name, text)
}
