//! One group of three replicas behind a coordinator, with keys in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sagedb::bench::{Connect, Progress, Settings, Workload, load, measure};
use sagedb::types::http::ShardStatus;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::data::disk::NextSnapshots;
use crate::data::filled::Filled;
use crate::data::values::Values;
use crate::fleet::Fleet;
use crate::run::{LOAD_TIMEOUT, show};
use crate::target::Site;
use crate::target::sage::{self, Places};

/// How often files are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// How often a server is asked.
pub(super) const ASK: Duration = Duration::from_millis(50);
/// How long to wait for anything that a group does by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// Between two lines that say how far a load is.
const TELL: Duration = Duration::from_secs(10);

/// How far snapshots are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Far {
    /// One has begun.
    Begun,
    /// All are there.
    Done,
}

/// A group that runs.
pub(super) struct Cluster {
    pub(super) fleet: Fleet,
    pub(super) places: Places,
    pub(super) connect: Arc<Filled>,
}

impl Cluster {
    /// Starts one with these further flags. Keys are loaded in batches.
    pub(super) async fn start(site: &Site, values: Values, flags: &[String]) -> Result<Self> {
        let mut fleet = Fleet::new(&site.data)?;
        let places = sage::start(&mut fleet, &site.sage, 1, flags).await?;
        let inner = sage::to(&places.coordinator)?;
        let connect = Arc::new(Filled { inner, values, singly: false });
        Ok(Self { fleet, places, connect })
    }

    /// The number of a replica that does not lead.
    pub(super) async fn follower(&self) -> Result<usize> {
        let leader = sage::leader(&self.places.replicas).await?;
        let mut all = self.places.replicas.iter();
        all.position(|place| *place != leader).context("a group of one")
    }

    /// What the leader says of itself.
    pub(super) async fn leader(&self) -> Result<ShardStatus> {
        sage::status(&sage::leader(&self.running()).await?).await
    }

    /// What the replica with the newest snapshot says of itself.
    pub(super) async fn newest_snapshot(&self) -> Result<ShardStatus> {
        let mut newest: Option<ShardStatus> = None;
        for place in self.running() {
            let status = sage::status(&place).await?;
            if newest.as_ref().is_none_or(|newest| newest.snapshot_index < status.snapshot_index) {
                newest = Some(status);
            }
        }
        newest.context("nobody runs")
    }

    fn running(&self) -> Vec<String> {
        let all = self.places.replicas.iter().enumerate();
        let running = all.filter(|(at, _)| self.fleet.is_running(*at));
        running.map(|(_, place)| place.clone()).collect()
    }

    /// The next snapshots of all replicas that run.
    pub(super) fn next_snapshots(&self) -> Result<NextSnapshots> {
        let all = (0..self.places.replicas.len()).filter(|at| self.fleet.is_running(*at));
        let directory = |at| Ok(self.fleet.directory(&sage::name(1, at))?.join("snapshot"));
        NextSnapshots::after_these(&all.map(directory).collect::<Result<Vec<PathBuf>>>()?)
    }

    /// Puts as fast as it goes until replicas have their next snapshots, which come after so many bytes of log: until one has
    /// begun to write its own, or until all have them. Their logs are not equally long, so that they don't begin together.
    pub(super) async fn provoke(
        &mut self,
        far: Far,
        settings: &Settings,
        stop: &CancellationToken,
    ) -> Result<NextSnapshots> {
        let next = self.next_snapshots()?;
        let stop = stop.child_token();
        let settings = Settings { duration: PATIENCE, rate: None, ..settings.clone() };
        let progress = Arc::new(Progress::new(settings.threads));
        let measuring = measure(&self.connect, &settings, Workload::Put, &progress, &stop);
        let watching = async {
            let far = || match far {
                Far::Begun => next.begun(),
                Far::Done => next.done(),
            };
            let come = until(LOOK, "the next snapshot", far).await;
            stop.cancel();
            come
        };
        let (measured, come) = tokio::join!(measuring, watching);
        let report = measured?.report();
        self.fleet.check()?;
        come.with_context(|| format!("{} puts have not led to one", report.total.ops))?;
        Ok(next)
    }

    /// Waits until every replica that runs has applied what is committed now.
    pub(super) async fn level(&self) -> Result<()> {
        let committed = self.leader().await?.committed;
        for place in self.running() {
            let start = Instant::now();
            while sage::status(&place).await?.applied.map(|id| id.index) < committed {
                ensure!(start.elapsed() < PATIENCE, "{place} does not catch up");
                sleep(ASK).await;
            }
        }
        Ok(())
    }
}

/// Gives every key its value, and says how far that is from time to time.
pub(super) async fn fill<C: Connect>(
    connect: &Arc<C>,
    settings: &Settings,
    stop: &CancellationToken,
) -> Result<()> {
    let settings = Settings { timeout: LOAD_TIMEOUT, ..settings.clone() };
    let progress = Arc::new(Progress::new(settings.threads));
    let start = Instant::now();
    let loading = load(connect, &settings, &progress, stop);
    let mut loading = std::pin::pin!(loading);
    let mut tell = interval(TELL);
    tell.tick().await;
    loop {
        tokio::select! {
            loaded = &mut loading => {
                loaded?;
                ensure!(!stop.is_cancelled(), "interrupted");
                let seconds = start.elapsed().as_secs_f64();
                return show(&format!("  {} keys are loaded after {seconds:.0} s", settings.keys));
            }
            _ = tell.tick() => show(&format!("  {} of {} keys are loaded", progress.ops(), settings.keys))?,
        }
    }
}

/// Looks every so often until something holds.
pub(super) async fn until(
    often: Duration,
    what: &str,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        ensure!(start.elapsed() < PATIENCE, "{what} does not come in {PATIENCE:?}");
        sleep(often).await;
    }
    Ok(())
}
