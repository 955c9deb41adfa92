//! The latency of puts at a fixed rate while snapshots are written, and while a follower catches up by one, against that
//! while neither happens.
//!
//! A window is measured from when the thing has begun until it is over and a little longer, so that what had to wait for it
//! is in it. One without comes before each, in turns. Replicas write their snapshots at about the same time, since they
//! have about the same log; a window is over when none of them writes, so that there is nothing else in it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;
use sagedb::bench::{Progress, RunReport, Settings, Workload, measure};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::data::cluster::{ASK, Cluster, Far, LOOK, PATIENCE, fill, until};
use crate::data::{DataPlan, Findings};
use crate::run::{observe, show};
use crate::target::{Site, sage};

/// Clients open their connections in this time, which counts in no window.
const WARM: Duration = Duration::from_millis(250);
/// As many connections that a put hardly ever waits for one, though each takes tens of milliseconds: what waits for
/// its server is to be measured, not what waits for a client.
pub(super) const CLIENTS: usize = 256;
/// How much longer than what happens in it a window is.
const BEHIND: Duration = Duration::from_millis(250);
/// How often a window without is tried.
const QUIET_ATTEMPTS: usize = 5;

/// What happens in a window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum During {
    /// Puts, and nothing else.
    Nothing,
    /// Replicas write a snapshot, as long as any does.
    Snapshot,
    /// A follower starts and gets a snapshot.
    CatchUp,
}

impl During {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing else",
            Self::Snapshot => "a snapshot",
            Self::CatchUp => "a catch-up by snapshot",
        }
    }
}

/// One window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Window {
    /// Counted from 1.
    pub(super) round: usize,
    pub(super) during: During,
    /// How many replicas had written a snapshot when it ended; 0 where it is about something else.
    pub(super) writers: usize,
    /// Time on the processor of all processes in it.
    pub(super) cpu_s: f64,
    pub(super) report: RunReport,
}

/// Measures all rounds.
pub(super) async fn run(
    plan: &DataPlan,
    site: &Site,
    found: &mut Findings,
    stop: &CancellationToken,
) -> Result<()> {
    show(&format!("p99 of puts: {} keys", plan.settings.keys))?;
    let mut cluster = Cluster::start(site, plan.text(), &[]).await?;
    fill(&cluster.connect, &plan.settings, stop).await?;
    let rate = match plan.rate {
        Some(rate) => rate,
        None => half_of_most(&mut cluster, plan, stop).await?,
    };
    found.rate = Some(rate);
    let settings = Settings {
        rate: Some(rate),
        clients: CLIENTS,
        warmup: WARM,
        duration: PATIENCE,
        ..plan.settings.clone()
    };
    let mut lab = Lab { cluster, settings, quiet: plan.settings.duration, stop };
    // The first window without comes behind a snapshot, as all others do.
    lab.cluster.provoke(Far::Done, &lab.settings, stop).await?;
    // Snapshots first: a replica that was started anew writes its own at other times than the others.
    for during in [During::Snapshot, During::CatchUp] {
        for round in 1..=plan.rounds {
            let without = lab.without(round).await?;
            found.windows.push(without);
            let with = match during {
                During::CatchUp => lab.catch_up(round).await?,
                During::Snapshot | During::Nothing => lab.snapshot(round).await?,
            };
            found.windows.push(with);
        }
    }
    Ok(())
}

/// Half of what a closed loop gets.
async fn half_of_most(
    cluster: &mut Cluster,
    plan: &DataPlan,
    stop: &CancellationToken,
) -> Result<u64> {
    let Cluster { fleet, connect, .. } = cluster;
    let (report, _) = observe(connect, &plan.settings, Workload::Put, fleet, stop).await?;
    let half = half(report.total.ops_per_s);
    show(&format!(
        "  a closed loop gets {:.0} puts/s: the rate is {half}",
        report.total.ops_per_s
    ))?;
    Ok(half)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, at least 1")]
fn half(ops_per_s: f64) -> u64 {
    ((ops_per_s / 2.0) as u64).max(1)
}

/// Whether more than one of a hundred puts was due and not sent: what was due at the very end never is.
fn is_behind(report: &RunReport) -> bool {
    report.not_sent.saturating_mul(100) > report.total.ops
}

struct Lab<'a> {
    cluster: Cluster,
    settings: Settings,
    /// How long a window without is.
    quiet: Duration,
    stop: &'a CancellationToken,
}

impl Lab<'_> {
    /// A window with nothing else in it; one that a snapshot came into is made again.
    async fn without(&mut self, round: usize) -> Result<Window> {
        for _ in 0..QUIET_ATTEMPTS {
            let (next, quiet) = (self.cluster.next_snapshots()?, self.quiet);
            let happens = async |_: &mut Cluster| {
                sleep(quiet).await;
                Ok(())
            };
            let window = self.window((round, During::Nothing), happens).await?;
            if !next.begun()? {
                return Ok(window);
            }
            show("  a snapshot came into it: once more")?;
            self.cluster.provoke(Far::Done, &self.settings, self.stop).await?;
        }
        bail!("a snapshot came into each window without; a shorter --duration helps")
    }

    async fn snapshot(&mut self, round: usize) -> Result<Window> {
        let next = self.cluster.provoke(Far::Begun, &self.settings, self.stop).await?;
        let mut writers = None;
        let happens = async |_: &mut Cluster| {
            let written = || {
                writers = next.written()?;
                Ok(writers > Some(0))
            };
            until(LOOK, "the end of snapshots", written).await
        };
        let window = self.window((round, During::Snapshot), happens).await?;
        Ok(Window { writers: writers.unwrap_or_default(), ..window })
    }

    /// Ends a follower, writes until the others have nothing of their logs left that it has, and starts it in the window.
    async fn catch_up(&mut self, round: usize) -> Result<Window> {
        let at = self.cluster.follower().await?;
        let place = self.cluster.places.replicas[at].clone();
        let last = sage::status(&place).await?.last_index;
        self.cluster.fleet.end(at, Signal::TERM).await?;
        let start = Instant::now();
        while self.cluster.leader().await?.purged <= last {
            ensure!(start.elapsed() < PATIENCE, "the log stays as it is");
            self.cluster.provoke(Far::Done, &self.settings, self.stop).await?;
            // The log is cut soon after.
            sleep(ASK).await;
        }
        let happens = async |cluster: &mut Cluster| {
            cluster.fleet.start_again(at)?;
            let committed = cluster.leader().await?.committed;
            let start = Instant::now();
            // It is not there at first.
            while !sage::status(&place)
                .await
                .is_ok_and(|it| it.applied.map(|id| id.index) >= committed)
            {
                ensure!(start.elapsed() < PATIENCE, "{place} does not catch up");
                sleep(ASK).await;
            }
            let snapshot = sage::status(&place).await?.snapshot_index;
            ensure!(snapshot > last, "{place} caught up from the log");
            Ok(())
        };
        self.window((round, During::CatchUp), happens).await
    }

    /// Puts at the rate while something happens.
    async fn window(
        &mut self,
        (round, during): (usize, During),
        happens: impl AsyncFnOnce(&mut Cluster) -> Result<()>,
    ) -> Result<Window> {
        let (stop, cluster) = (self.stop.child_token(), &mut self.cluster);
        let connect = Arc::clone(&cluster.connect);
        let progress = Arc::new(Progress::new(self.settings.threads));
        let measuring = measure(&connect, &self.settings, Workload::Put, &progress, &stop);
        let watching = async {
            sleep(WARM).await;
            let before = cluster.fleet.cpu_us()?;
            let ended = happens(cluster).await;
            sleep(BEHIND).await;
            stop.cancel();
            ended?;
            anyhow::Ok(cluster.fleet.cpu_us()?.saturating_sub(before))
        };
        let (measured, watched) = tokio::join!(measuring, watching);
        let (report, cpu) = (measured?.report(), watched?);
        self.cluster.fleet.check()?;
        let total = &report.total;
        ensure!(total.ops > 0, "nothing was put: {:?}", report.first_error);
        let cpu_s = Duration::from_micros(cpu).as_secs_f64();
        show(&format!(
            "  round {round}: {:<22} {:>5.2} s, {:.0} puts/s, p50 {:>6.0} µs, p99 {:>7.0} µs, {:.2} CPUs, {} errors{}",
            during.name(),
            report.elapsed_s,
            total.ops_per_s,
            total.p50_us,
            total.p99_us,
            cpu_s / report.elapsed_s,
            total.errors,
            if is_behind(&report) { ", BEHIND" } else { "" }
        ))?;
        Ok(Window { round, during, writers: 0, cpu_s, report })
    }
}
