//! The rounds: in each, every target has its turn, and in each turn it runs every workload with every number of clients.
//!
//! A turn starts the target anew, loads its keys, and ends it, so that nothing else of ours runs while one is measured. The
//! order of turns is rotated from round to round: what changes on the machine in the meantime hits all alike.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sagedb::bench::{
    Connect, Distribution, Progress, RunReport, Settings, Workload, load, measure,
};
use sagedb::types::limits::BENCH_THREADS_MAX;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::procfs::cpu_us;
use crate::stats::Case;
use crate::target::{Running, Site, Target};

/// Connections that load keys.
const LOADERS: usize = 16;
/// The time for one step of a load: up to a thousand keys, which most targets are given one after the other.
pub(crate) const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What is run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) clients: Vec<usize>,
    pub(crate) rounds: usize,
    /// All but the number of clients.
    pub(crate) settings: Settings,
}

/// One run of one workload.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) target: Target,
    /// Counted from 1.
    pub(crate) round: usize,
    pub(crate) clients: usize,
    #[serde(flatten)]
    pub(crate) spent: Spent,
    pub(crate) report: RunReport,
}

/// Time on the processor for an operation, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Spent {
    /// Of all processes of the target.
    pub(crate) cpu_us_per_op: f64,
    /// Of this process, which is the load.
    pub(crate) load_us_per_op: f64,
}

impl Run {
    pub(crate) fn case(&self) -> Case {
        Case::new(self.target, self.report.workload, self.clients)
    }
}

/// What the load engine is told, but for the number of clients.
pub(crate) fn settings((duration, warmup): (Duration, Duration), keys: u64) -> Settings {
    Settings {
        clients: LOADERS,
        threads: crate::machine::cores().min(BENCH_THREADS_MAX),
        duration,
        warmup,
        timeout: Duration::from_secs(5),
        rate: None,
        keys,
        prefix: "bench/".into(),
        value_size: 100,
        distribution: Distribution::Uniform,
        seed: 1,
    }
}

impl Plan {
    /// Runs all rounds. What was measured before it is stopped or fails is in `runs`.
    pub(crate) async fn run(
        &self,
        site: &Site,
        runs: &mut Vec<Run>,
        stop: &CancellationToken,
    ) -> Result<()> {
        for round in 1..=self.rounds {
            for target in rotated(&self.targets, round - 1) {
                let turn = self.turn(site, (target, round), runs, stop).await;
                turn.with_context(|| format!("{} in round {round}", target.name()))?;
            }
        }
        Ok(())
    }

    async fn turn(
        &self,
        site: &Site,
        (target, round): (Target, usize),
        runs: &mut Vec<Run>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let started = stop.run_until_cancelled(Running::start(target, site)).await;
        let Running { mut fleet, connect } = started.context("interrupted")??;
        let connect = Arc::new(connect);
        if target.has_keys() {
            let progress = Arc::new(Progress::new(self.settings.threads));
            let settings = Settings { timeout: LOAD_TIMEOUT, ..self.settings.clone() };
            load(&connect, &settings, &progress, stop).await?;
        }
        for &workload in &self.workloads {
            for &clients in &self.clients {
                let settings = Settings { clients, ..self.settings.clone() };
                let (report, spent) =
                    observe(&connect, &settings, workload, &mut fleet, stop).await?;
                let run = Run { target, round, clients, spent, report };
                show(&format!("round {round}: {}", line(&run)))?;
                runs.push(run);
            }
        }
        Ok(())
    }
}

/// Measures one workload, and the time on the processor that it takes.
pub(crate) async fn observe<C: Connect>(
    connect: &Arc<C>,
    settings: &Settings,
    workload: Workload,
    fleet: &mut Fleet,
    stop: &CancellationToken,
) -> Result<(RunReport, Spent)> {
    let progress = Arc::new(Progress::new(settings.threads));
    let warm = Instant::now() + settings.warmup;
    let this = [std::process::id()];
    let look = || anyhow::Ok((progress.ops(), fleet.cpu_us()?, cpu_us(&this)?));
    let watching = async {
        sleep_until(warm).await;
        let before = look()?;
        sleep_until(warm + settings.duration).await;
        anyhow::Ok((before, look()?))
    };
    let measuring = measure(connect, settings, workload, &progress, stop);
    let (measured, watched) = tokio::join!(measuring, stop.run_until_cancelled(watching));
    let (measured, watched) = (measured?, watched.context("interrupted")?);
    fleet.check()?;
    let ((ops_before, cpu_before, load_before), (ops, cpu, load)) = watched?;
    let report = measured.report();
    if report.total.ops == 0 || ops == ops_before {
        let first = report.first_error.as_deref().unwrap_or("nothing was answered in the time");
        bail!("{workload} with {} clients: nothing succeeded: {first}", settings.clients);
    }
    ensure!(
        report.total.not_found == 0,
        "{} keys that were loaded were not found",
        report.total.not_found
    );
    let each = |after: u64, before| per_op(after.saturating_sub(before), ops - ops_before);
    let (cpu_us_per_op, load_us_per_op) = (each(cpu, cpu_before), each(load, load_before));
    Ok((report, Spent { cpu_us_per_op, load_us_per_op }))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_op(cpu_us: u64, ops: u64) -> f64 {
    cpu_us as f64 / ops as f64
}

/// The turns of a round: another target begins each time.
fn rotated(targets: &[Target], round: usize) -> Vec<Target> {
    let mut targets = targets.to_vec();
    let first = round.checked_rem(targets.len()).unwrap_or_default();
    targets.rotate_left(first);
    targets
}

fn line(run: &Run) -> String {
    let total = &run.report.total;
    let mut line = format!(
        "{:<11} {:<6} {:>3} clients {:>9.0} ops/s, p50 {:>7.0} µs, p99 {:>7.0} µs, CPU {:>6.1} µs/op",
        run.target.name(),
        run.report.workload.name(),
        run.clients,
        total.ops_per_s,
        total.p50_us,
        total.p99_us,
        run.spent.cpu_us_per_op
    );
    if total.errors > 0 {
        write!(line, ", {} errors", total.errors).expect("a string takes everything");
    }
    line
}

/// Tells people how far it is.
pub(crate) fn show(line: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{line}").context("stderr")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_target() {
        let all = [Target::Sage, Target::Redis, Target::Axum];
        assert_eq!(rotated(&all, 0), all);
        assert_eq!(rotated(&all, 1), [Target::Redis, Target::Axum, Target::Sage]);
        assert_eq!(rotated(&all, 3), all);
        assert_eq!(rotated(&[], 3), []);
    }

    #[test]
    fn time_is_divided_by_operations() {
        assert!((per_op(3_000, 200) - 15.0).abs() < f64::EPSILON);
    }
}
