//! What breaks the cluster.
//!
//! A nemesis draws what to break, breaks it, waits, heals it, and says whether it took hold. Two
//! work side by side when there are several kinds of fault, so that faults overlap; but a fault of
//! a disk takes the only copy of what the others may be about to lose, and happens alone.
//!
//! What is drawn follows from the seed; who leads at that moment does not.

mod clock;
mod disk;
mod links;
mod process;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock, watch};
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Leader, group_name};
use crate::history::Recorder;
pub(crate) use crate::nemesis::clock::Clocks;
use crate::net::Net;
use crate::options::Target;

/// The time between two faults of one hand.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(300)..Duration::from_secs(2);
/// Between the recovery of a group and the next fault of its leader, where only leaders are struck:
/// longer than a replica that was started again keeps out of elections.
const SETTLE: Duration = Duration::from_millis(1_200);
/// How long the next leader is waited for after a fault of a leader.
const FAILOVER_MAX: Duration = Duration::from_secs(10);

/// What can be broken.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FaultKind {
    /// `kill -9` of replicas.
    Kill,
    /// `SIGSTOP` of replicas, longer than an election takes, then `SIGCONT`.
    Pause,
    /// Links between processes are cut.
    Partition,
    /// Links are slow, uneven or narrow.
    Slow,
    /// Coordinators are killed or paused.
    Coordinator,
    /// Replicas are asked to stop and started again, one after the other.
    Restart,
    /// A replica's disk is deleted.
    Wipe,
    /// Bytes on the disk of a stopped replica are damaged.
    Corrupt,
    /// The clock of a replica jumps, or goes at another rate.
    Clock,
}

impl FaultKind {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Kill,
        Self::Pause,
        Self::Partition,
        Self::Slow,
        Self::Coordinator,
        Self::Restart,
        Self::Wipe,
        Self::Corrupt,
        Self::Clock,
    ];

    /// Whether it may take something from a disk that a process has promised to keep.
    fn is_of_disk(self) -> bool {
        match self {
            Self::Wipe | Self::Corrupt => true,
            Self::Kill
            | Self::Pause
            | Self::Partition
            | Self::Slow
            | Self::Coordinator
            | Self::Restart
            | Self::Clock => false,
        }
    }
}

/// Whether a fault took hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hold {
    /// It did, and what it should cause was seen.
    Installed,
    /// It did not: there was nothing to break.
    Skipped,
    /// It did, but what it should cause was not seen in time.
    Indeterminate,
}

/// One fault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// What kind of fault.
    #[serde(rename = "f")]
    pub(crate) kind: FaultKind,
    /// What was done to whom.
    pub(crate) what: String,
    /// When it began, in nanoseconds since the run began.
    pub(crate) begin: u64,
    /// When it was healed.
    pub(crate) end: u64,
    /// The groups that it struck; none for one that struck all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) groups: Vec<String>,
    /// The processes that do nothing meanwhile, or are cut off from the others; `None` if that can't be
    /// told by names, as of links that are slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) away: Option<Vec<String>>,
    /// Whether it took hold.
    pub(crate) hold: Hold,
    /// Whether it struck the leader of a group and nobody else of it.
    pub(crate) leader: bool,
    /// For a fault of a leader: from the fault until another process led, in milliseconds. One that
    /// was paused or cut off must be replaced before it is healed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failover_ms: Option<u64>,
}

/// What a nemesis works with.
#[derive(Debug)]
pub(crate) struct Context {
    /// The processes.
    pub(crate) cluster: Arc<Cluster>,
    /// The links between them.
    pub(crate) net: Net,
    /// Takes down what was done.
    pub(crate) recorder: Arc<Recorder>,
    /// Whom faults strike.
    pub(crate) target: Target,
    /// Where clocks are set, if they can be.
    pub(crate) clocks: Option<Clocks>,
    /// When the attack ends.
    pub(crate) stop: watch::Receiver<bool>,
    /// Taken for reading by every fault, for writing by a fault of a disk.
    pub(crate) disks: RwLock<()>,
    /// One for each process, held while a fault strikes it.
    pub(crate) held: Vec<Arc<Mutex<()>>>,
}

/// Breaks things until it is told to stop, with one hand or two.
pub(crate) async fn run(context: Arc<Context>, kinds: Vec<FaultKind>, seed: u64) -> Result<()> {
    let hands = kinds.len().min(2);
    let mut tasks = JoinSet::new();
    for hand in 0..u64::try_from(hands).expect("two at most") {
        let rng = StdRng::seed_from_u64(seed ^ (0x5eed << (8 * hand)));
        tasks.spawn(work(Arc::clone(&context), kinds.clone(), rng));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn work(context: Arc<Context>, kinds: Vec<FaultKind>, mut rng: StdRng) -> Result<()> {
    loop {
        let pause = rng.random_range(PAUSE);
        if context.stopped_within(pause).await {
            return Ok(());
        }
        let kind = kinds[rng.random_range(0..kinds.len())];
        // A generator of its own, so that what is drawn later does not depend on how this one went.
        let draw = StdRng::seed_from_u64(rng.random());
        if kind.is_of_disk() {
            let _alone = context.disks.write().await;
            context.strike(kind, draw).await?;
        } else {
            let _among_others = context.disks.read().await;
            context.strike(kind, draw).await?;
        }
    }
}

impl Context {
    async fn strike(&self, kind: FaultKind, rng: StdRng) -> Result<()> {
        if self.stopped() {
            return Ok(());
        }
        match kind {
            FaultKind::Kill => process::kill(self, rng).await,
            FaultKind::Pause => process::pause(self, rng).await,
            FaultKind::Coordinator => process::coordinator(self, rng).await,
            FaultKind::Restart => process::restart(self, rng).await,
            FaultKind::Partition => links::partition(self, rng).await,
            FaultKind::Slow => links::slow(self, rng).await,
            FaultKind::Wipe => disk::wipe(self, rng).await,
            FaultKind::Corrupt => disk::corrupt(self, rng).await,
            FaultKind::Clock => clock::skew(self, rng).await,
        }
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits so long, or until the attack ends; whether it has ended.
    async fn stopped_within(&self, time: Duration) -> bool {
        let mut stop = self.stop.clone();
        tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await.is_ok()
    }

    /// Keeps other faults of processes away from these, after those that strike them already. One
    /// order for all, so that no two faults wait for each other.
    async fn hold(&self, victims: &[usize]) -> Vec<OwnedMutexGuard<()>> {
        let mut held = Vec::new();
        for at in BTreeSet::from_iter(victims) {
            held.push(Arc::clone(&self.held[*at]).lock_owned().await);
        }
        held
    }

    /// The same leader, if it leads still.
    async fn still(&self, group: usize, leader: Option<Leader>) -> Option<Leader> {
        let now = self.cluster.leader(group).await;
        leader.filter(|leader| now == Some(*leader))
    }

    /// Begins a fault of one group, or of all: from now on it is shown as what is broken.
    fn begin(&self, kind: FaultKind, group: Option<usize>, what: String) -> Fault {
        self.recorder.breaks(&what);
        let begin = self.recorder.now();
        let groups = group.map(group_name).into_iter().collect();
        let hold = Hold::Indeterminate;
        Fault {
            kind,
            what,
            begin,
            end: begin,
            groups,
            away: None,
            hold,
            leader: false,
            failover_ms: None,
        }
    }

    /// The names of these processes.
    fn names(&self, processes: &[usize]) -> Vec<String> {
        processes.iter().map(|at| self.cluster.name(*at).to_string()).collect()
    }

    /// Says better what a fault is that lasts.
    fn rename(&self, fault: &mut Fault, what: String) {
        self.recorder.renamed(&fault.what, &what);
        fault.what = what;
    }

    /// A fault that had nothing to break.
    fn skip(&self, kind: FaultKind, group: Option<usize>, what: String) {
        let mut fault = self.begin(kind, group, what);
        fault.hold = Hold::Skipped;
        self.recorder.healed(fault);
    }

    /// Takes a fault down that was healed at `end`.
    fn end(&self, mut fault: Fault, end: u64, hold: Hold) {
        fault.hold = hold;
        fault.end = end;
        self.recorder.healed(fault);
    }

    /// How long it takes from now until another process leads the group, in milliseconds; `None` if
    /// none does, or there was no leader to replace.
    async fn failover(&self, group: usize, old: Option<Leader>) -> Option<u64> {
        let old = old?;
        let start = std::time::Instant::now();
        let next = tokio::select! {
            next = self.cluster.leader_after(group, old) => next,
            // Then what was broken is healed at once.
            _ = self.stopped_within(FAILOVER_MAX) => return None,
        };
        let took = u64::try_from(start.elapsed().as_millis()).ok()?;
        (next.process != old.process).then_some(took)
    }

    /// As [`failover`](Self::failover), but only until the fault is healed: who was paused or cut
    /// off may lead again after that.
    async fn failover_until<T>(
        &self,
        group: usize,
        old: Option<Leader>,
        healed: impl Future<Output = T>,
    ) -> (Option<u64>, T) {
        let mut healed = std::pin::pin!(healed);
        tokio::select! {
            failover = self.failover(group, old) => (failover, healed.await),
            healed = &mut healed => (None, healed),
        }
    }

    /// Where only leaders are struck, so that it can be measured how they are replaced: waits until
    /// the group has recovered from the fault before.
    async fn settle(&self, group: usize) {
        if self.target == Target::Leader {
            disk::whole(self, group).await;
            self.stopped_within(SETTLE).await;
        }
    }

    /// A process of the group that was drawn: its leader three times in four, and always if only
    /// leaders are to be struck.
    async fn victim(&self, group: usize, rng: &mut StdRng) -> (usize, Option<Leader>) {
        let any = rng.random_range(self.cluster.group(group));
        let leader_wanted = rng.random_bool(0.75) || self.target == Target::Leader;
        let leader = self.cluster.leader(group).await;
        match leader {
            Some(leader) if leader_wanted || leader.process == any => {
                (leader.process, Some(leader))
            }
            Some(_) | None => (any, None),
        }
    }
}
