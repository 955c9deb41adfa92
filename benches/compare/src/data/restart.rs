//! How long a member takes from its start until it serves again, what memory it takes then, and what its data takes of the
//! disk; of `SageDB` and of etcd.
//!
//! Keys are written one by one by both, as clients do, since both bound what they keep of their logs by entries, too. It
//! is a follower that is ended, by SIGTERM and by SIGKILL in turns: of what a leader hands over nothing is measured here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::data::cluster::{ASK, Cluster, LOOK, PATIENCE, fill, until};
use crate::data::disk::{Usage, usage};
use crate::data::filled::Filled;
use crate::data::{DataPlan, Findings};
use crate::fleet::Fleet;
use crate::procfs::{self, Resident};
use crate::run::show;
use crate::target::{Site, etcd, sage};

/// Whose member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    Sage,
    Etcd,
}

impl Store {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sage => "sage",
            Self::Etcd => "etcd",
        }
    }
}

/// How a member was ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum End {
    Sigterm,
    Sigkill,
}

impl End {
    pub(super) const ALL: [Self; 2] = [Self::Sigterm, Self::Sigkill];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sigterm => "SIGTERM",
            Self::Sigkill => "SIGKILL",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Sigterm => Signal::TERM,
            Self::Sigkill => Signal::KILL,
        }
    }
}

/// One start of a member that had been ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Restart {
    pub(super) store: Store,
    /// Counted from 1.
    pub(super) round: usize,
    pub(super) ended_by: End,
    /// From the signal until its process had ended.
    pub(super) ending_s: f64,
    /// From the start of its process until it served.
    pub(super) ready_s: f64,
    /// When it served.
    pub(super) resident: Resident,
}

/// A member's data when all keys were written.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stored {
    pub(super) store: Store,
    pub(super) keys: u64,
    /// Bytes of its files, by the directory that they are in.
    pub(super) files: BTreeMap<String, Usage>,
    /// What it took in memory then, before it was ended for the first time.
    pub(super) resident: Resident,
}

/// A member that is ended and started again.
struct Subject {
    store: Store,
    fleet: Fleet,
    /// The number of its process.
    at: usize,
    place: String,
    data: PathBuf,
}

/// Measures both.
pub(super) async fn run(
    plan: &DataPlan,
    site: &Site,
    found: &mut Findings,
    stop: &CancellationToken,
) -> Result<()> {
    for store in [Store::Sage, Store::Etcd] {
        if store == Store::Etcd && !plan.etcd {
            continue;
        }
        show(&format!("restart: {}, {} keys, one by one", store.name(), plan.settings.keys))?;
        let mut subject = match store {
            Store::Sage => of_sage(plan, site, stop).await?,
            Store::Etcd => of_etcd(plan, site, stop).await?,
        };
        let resident = procfs::resident(subject.fleet.pid(subject.at))?;
        let files = usage(&subject.data)?;
        found.stored.push(Stored { store, keys: plan.settings.keys, files, resident });
        for round in 1..=plan.rounds {
            for ended_by in End::ALL {
                let restart = subject.restart(round, ended_by).await?;
                subject.has_all(plan.settings.keys).await?;
                show(&format!(
                    "  {} {}: ready after {:.2} s, {} MB resident, at most {} MB",
                    store.name(),
                    ended_by.name(),
                    restart.ready_s,
                    restart.resident.now / 1_000_000,
                    restart.resident.peak / 1_000_000
                ))?;
                found.restarts.push(restart);
            }
        }
    }
    Ok(())
}

async fn of_sage(plan: &DataPlan, site: &Site, stop: &CancellationToken) -> Result<Subject> {
    let cluster = Cluster::start(site, plan.text(), &[]).await?;
    let inner = sage::to(&cluster.places.coordinator)?;
    let singly = Arc::new(Filled { inner, values: plan.text(), singly: true });
    fill(&singly, &plan.settings, stop).await?;
    cluster.level().await?;
    let at = cluster.follower().await?;
    let Cluster { fleet, places, connect: _ } = cluster;
    let data = fleet.directory(&sage::name(1, at))?;
    let snapshots = data.join("snapshot");
    let written = || anyhow::Ok(!holds_unfinished(&snapshots)?);
    until(LOOK, "the end of a snapshot", written).await?;
    Ok(Subject { store: Store::Sage, fleet, at, place: places.replicas[at].clone(), data })
}

fn holds_unfinished(snapshots: &Path) -> Result<bool> {
    let entries = snapshots.read_dir().with_context(|| snapshots.display().to_string())?;
    let unfinished =
        |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|it| it == "tmp");
    Ok(entries.flatten().any(unfinished))
}

async fn of_etcd(plan: &DataPlan, site: &Site, stop: &CancellationToken) -> Result<Subject> {
    let mut fleet = Fleet::new(&site.data)?;
    let places = etcd::start(&mut fleet).await?;
    let inner = etcd::to(&places.leader)?;
    let connect = Arc::new(Filled { inner, values: plan.text(), singly: true });
    fill(&connect, &plan.settings, stop).await?;
    let at = places.members.iter().position(|member| *member != places.leader);
    let at = at.context("a cluster of one")?;
    let data = fleet.directory(&etcd::name(at))?;
    Ok(Subject { store: Store::Etcd, fleet, at, place: places.members[at].clone(), data })
}

impl Subject {
    async fn serves(&self) -> Result<()> {
        match self.store {
            Store::Sage => sage::ready(&self.place).await,
            Store::Etcd => etcd::healthy(&self.place).await,
        }
    }

    /// Fails if a replica serves without all keys; etcd has no cheap way to ask.
    async fn has_all(&self, keys: u64) -> Result<()> {
        if self.store == Store::Sage {
            let found = sage::status(&self.place).await?.keys;
            ensure!(found == keys, "{} has {found} keys of {keys}", self.place);
        }
        Ok(())
    }

    async fn restart(&mut self, round: usize, ended_by: End) -> Result<Restart> {
        let told = Instant::now();
        self.fleet.end(self.at, ended_by.signal()).await?;
        let ending_s = told.elapsed().as_secs_f64();
        // What the others do about it is over by then: etcd elects, should it have been the leader after all.
        sleep(ASK * 20).await;
        let started = Instant::now();
        self.fleet.start_again(self.at)?;
        while self.serves().await.is_err() {
            self.fleet.check()?;
            ensure!(started.elapsed() < PATIENCE, "{} does not serve again", self.place);
            sleep(LOOK).await;
        }
        let ready_s = started.elapsed().as_secs_f64();
        let resident = procfs::resident(self.fleet.pid(self.at))?;
        Ok(Restart { store: self.store, round, ended_by, ending_s, ready_s, resident })
    }
}
