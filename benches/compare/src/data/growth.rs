//! What an operation costs of the processors, and a replica of memory, with more and more keys in the map.
//!
//! Snapshots are out of the way here: what they cost is in `packing`, and comes after so many bytes of log, not with
//! each operation.

use anyhow::Result;
use sagedb::bench::{Settings, Workload};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::data::cluster::{Cluster, fill};
use crate::data::{DataPlan, Findings};
use crate::machine::available_mib;
use crate::procfs;
use crate::run::{Spent, observe, show};
use crate::target::Site;

/// No log grows to so much.
const NO_SNAPSHOTS: [&str; 2] = ["--snapshot-log-size", "1024GiB"];
/// What a key takes in memory beside its value, in bytes, generously: so that nothing is loaded that the machine has no room for.
const KEY_BYTES: u64 = 500;
const REPLICAS: u64 = 3;
const MIB: u64 = 1024 * 1024;

/// One run of one workload with so many keys.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Grown {
    pub(super) keys: u64,
    pub(super) workload: Workload,
    /// Counted from 1.
    pub(super) round: usize,
    pub(super) ops_per_s: f64,
    pub(super) cpu_us_per_op: f64,
    /// Resident bytes of the replica that has most.
    pub(super) resident_bytes: u64,
}

/// Measures every size, each after the one before.
pub(super) async fn run(
    plan: &DataPlan,
    site: &Site,
    found: &mut Findings,
    stop: &CancellationToken,
) -> Result<()> {
    let flags = NO_SNAPSHOTS.map(str::to_owned);
    let mut cluster = Cluster::start(site, plan.text(), &flags).await?;
    let mut held = 0;
    for &keys in &plan.sizes {
        let needed =
            (keys - held) * (KEY_BYTES + u64::try_from(plan.settings.value_size)?) * REPLICAS;
        if needed / MIB > available_mib() {
            show(&format!(
                "{keys} keys and more are left out: the machine has no memory for them"
            ))?;
            return Ok(());
        }
        show(&format!("CPU per operation: {keys} keys"))?;
        let settings = Settings { keys, ..plan.settings.clone() };
        fill(&cluster.connect, &settings, stop).await?;
        cluster.level().await?;
        held = keys;
        for round in 1..=plan.rounds {
            for workload in [Workload::Put, Workload::Get] {
                let Cluster { fleet, connect, .. } = &mut cluster;
                let (report, Spent { cpu_us_per_op, .. }) =
                    observe(connect, &settings, workload, fleet, stop).await?;
                let residents = fleet.pids().into_iter().map(procfs::resident);
                let residents = residents.collect::<Result<Vec<_>>>()?;
                let most = residents.iter().map(|one| one.now).max().unwrap_or_default();
                let ops_per_s = report.total.ops_per_s;
                show(&format!(
                    "  round {round}: {workload} {ops_per_s:>7.0} ops/s, CPU {cpu_us_per_op:>6.1} µs/op, {} MB resident",
                    most / 1_000_000
                ))?;
                let resident_bytes = most;
                let grown =
                    Grown { keys, workload, round, ops_per_s, cpu_us_per_op, resident_bytes };
                found.grown.push(grown);
            }
        }
    }
    Ok(())
}
