//! How large a snapshot is, against the bytes of the keys and values in it, and what writing it costs; and what snapshot and
//! log take of the disk together, over several snapshots.
//!
//! The log grows until the next snapshot, and while that is written there are two: one look says little. So a replica's
//! files are looked at again and again while puts go on, all of them of keys that are there, from one snapshot of all replicas
//! to the next, several times: after how much log a snapshot comes is random, and the log takes whole segments.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::data::cluster::{ASK, Cluster, Far, LOOK, PATIENCE, fill, until};
use crate::data::disk::usage;
use crate::data::values::Values;
use crate::data::{DataPlan, Findings};
use crate::run::show;
use crate::target::{Site, sage};

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

/// How many snapshots of all replicas they are looked at for.
const CYCLES: u32 = 3;
/// How often files are looked at.
const OFTEN: Duration = Duration::from_millis(100);

/// What a replica's files took of the disk at one time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Taken {
    pub(super) snapshot_bytes: u64,
    pub(super) wal_bytes: u64,
    /// With all else.
    pub(super) bytes: u64,
}

/// Measures it for records like those of a user table, and for text that nothing packs.
pub(super) async fn run(
    plan: &DataPlan,
    site: &Site,
    found: &mut Findings,
    stop: &CancellationToken,
) -> Result<()> {
    for (values, codec) in [(Values::Json, "lz4"), (Values::Json, "zstd"), (plan.text(), "lz4")] {
        show(&format!("snapshot size: {} keys, {values:?}, {codec}", plan.settings.keys))?;
        let flags = ["--snapshot-codec", codec].map(String::from);
        let mut cluster = Cluster::start(site, values, &flags).await?;
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
                    codec,
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
        if values == plan.text() {
            found.taken = cycles(&mut cluster, plan, stop).await?;
        }
    }
    Ok(())
}

/// Looks at the files of one replica from one snapshot to the next, [`CYCLES`] times.
async fn cycles(
    cluster: &mut Cluster,
    plan: &DataPlan,
    stop: &CancellationToken,
) -> Result<Vec<Taken>> {
    cluster.provoke(Far::Done, &plan.settings, stop).await?;
    let data = cluster.fleet.directory(&sage::name(1, 0))?;
    let over = stop.child_token();
    let looking = async {
        let mut taken = Vec::new();
        while !over.is_cancelled() {
            let files = usage(&data)?;
            let of = |name: &str| files.get(name).map_or(0, |usage| usage.allocated);
            let bytes = files.values().map(|usage| usage.allocated).sum();
            taken.push(Taken { snapshot_bytes: of("snapshot"), wal_bytes: of("wal"), bytes });
            sleep(OFTEN).await;
        }
        anyhow::Ok(taken)
    };
    let writing = async {
        let written = async {
            for _ in 0..CYCLES {
                cluster.provoke(Far::Done, &plan.settings, stop).await?;
            }
            anyhow::Ok(())
        };
        let written = written.await;
        over.cancel();
        written
    };
    let (taken, written) = tokio::join!(looking, writing);
    written?;
    taken
}
