//! How large a snapshot is, against the bytes of the keys and values in it, and what writing it costs.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::data::cluster::{ASK, Cluster, Far, LOOK, PATIENCE, fill, until};
use crate::data::values::Values;
use crate::data::{DataPlan, Findings};
use crate::run::show;
use crate::target::Site;

/// One snapshot.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Packed {
    pub(super) values: Values,
    pub(super) codec: &'static str,
    pub(super) keys: u64,
    /// Bytes of keys and values.
    pub(super) raw_bytes: u64,
    pub(super) snapshot_bytes: u64,
    /// How many replicas wrote theirs at the same time, with nothing else to do.
    pub(super) writers: usize,
    /// From when the first began until these had them.
    pub(super) writing_s: f64,
    /// Time on the processor of all processes meanwhile, for each.
    pub(super) cpu_s: f64,
}

impl Packed {
    /// How large it is, of the bytes in it.
    pub(super) fn percent(&self) -> f64 {
        super::goals::percent(self.snapshot_bytes, self.raw_bytes)
    }
}

/// Measures it for records like those of a user table, and for text that nothing packs.
pub(super) async fn run(
    plan: &DataPlan,
    site: &Site,
    found: &mut Findings,
    stop: &CancellationToken,
) -> Result<()> {
    for values in [Values::Json, plan.text()] {
        show(&format!("snapshot size: {} keys, {values:?}", plan.settings.keys))?;
        let mut cluster = Cluster::start(site, values, &[]).await?;
        fill(&cluster.connect, &plan.settings, stop).await?;
        let loaded = cluster.leader().await?.committed;
        let start = Instant::now();
        // Those that began before the last key was loaded don't count.
        let packed = loop {
            ensure!(start.elapsed() < PATIENCE, "no snapshot has all keys");
            let next = cluster.provoke(Far::Begun, &plan.settings, stop).await?;
            let (began, cpu) = (Instant::now(), cluster.fleet.cpu_us()?);
            until(LOOK, "the end of snapshots", || Ok(next.written()? > Some(0))).await?;
            let (writing, cpu) = (began.elapsed(), cluster.fleet.cpu_us()?.saturating_sub(cpu));
            let writers = next.written()?.unwrap_or(1).max(1);
            let cpu = Duration::from_micros(cpu).div_f64(f64::from(u32::try_from(writers)?));
            sleep(ASK).await;
            let status = cluster.newest_snapshot().await?;
            if status.snapshot_index >= loaded {
                break Packed {
                    values,
                    codec: "lz4",
                    keys: status.keys,
                    raw_bytes: status.bytes,
                    snapshot_bytes: status.snapshot_bytes,
                    writers,
                    writing_s: writing.as_secs_f64(),
                    cpu_s: cpu.as_secs_f64(),
                };
            }
        };
        show(&format!(
            "  {} bytes of {}: {:.1} %, written by {} replicas in {:.2} s, {:.2} s CPU each",
            packed.snapshot_bytes,
            packed.raw_bytes,
            packed.percent(),
            packed.writers,
            packed.writing_s,
            packed.cpu_s
        ))?;
        found.packed.push(packed);
    }
    Ok(())
}
