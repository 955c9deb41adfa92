//! Kills leaders with `kill -9`, again and again, and starts them again after a while.
//!
//! Which group, when, and for how long follows from the seed; who leads it then does not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use crate::cluster::{Cluster, Leader};
use crate::nemesis::{Fault, Faults, Hold};

/// The time between two kills.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(500)..Duration::from_secs(3);
/// How long a killed replica stays down.
const DOWN: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(2_500);
/// How long the next leader is waited for.
const FAILOVER_MAX: Duration = Duration::from_secs(10);

/// One step of the plan.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kill {
    /// After the one before is over.
    after: Duration,
    /// Whose leader.
    group: usize,
    /// Until it is started again.
    down: Duration,
}

/// The whole plan, without end.
#[derive(Debug)]
struct Plan {
    rng: StdRng,
    groups: usize,
}

impl Iterator for Plan {
    type Item = Kill;

    fn next(&mut self) -> Option<Kill> {
        Some(Kill {
            after: self.rng.random_range(PAUSE),
            group: self.rng.random_range(0..self.groups),
            down: self.rng.random_range(DOWN),
        })
    }
}

/// Carries the plan out until it is told to stop. What it killed is running again then.
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    faults: Arc<Faults>,
    seed: u64,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let plan = Plan { rng: StdRng::seed_from_u64(seed), groups: cluster.groups() };
    for step in plan {
        let stopped = stop.wait_for(|stop| *stop);
        if tokio::time::timeout(step.after, stopped).await.is_ok() {
            break;
        }
        let name = format!("g{}", step.group + 1);
        let Some(leader) = cluster.leader(step.group).await else {
            let what = format!("{name} has no leader to kill");
            faults.record(Fault { what, hold: Hold::Skipped, failover: None });
            continue;
        };
        let what = format!("kill {name}-r{} (leader, term {})", leader.replica + 1, leader.term);
        faults.now(Some(what.clone()));
        let failover = kill(&cluster, &step, leader).await?;
        faults.now(None);
        let hold = if failover.is_some() { Hold::Installed } else { Hold::Indeterminate };
        faults.record(Fault { what, hold, failover });
    }
    Ok(())
}

/// Kills the leader, starts it again, and says how long it took until there was a new one.
async fn kill(cluster: &Cluster, step: &Kill, leader: Leader) -> Result<Option<Duration>> {
    let start = Instant::now();
    cluster.kill(step.group, leader.replica);
    let next = async {
        let next = cluster.leader_after(step.group, leader);
        let found = tokio::time::timeout(FAILOVER_MAX, next).await;
        found.ok().map(|_| start.elapsed())
    };
    let again = async {
        tokio::time::sleep(step.down).await;
        cluster.restart(step.group, leader.replica)
    };
    let (failover, restarted) = tokio::join!(next, again);
    restarted.map(|()| failover)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Vec<Kill> {
        Plan { rng: StdRng::seed_from_u64(seed), groups: 3 }.take(100).collect()
    }

    #[test]
    fn the_plan_follows_from_the_seed() {
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        for step in plan(1) {
            assert!(step.group < 3 && PAUSE.contains(&step.after) && DOWN.contains(&step.down));
        }
        for group in 0..3 {
            assert!(plan(1).iter().any(|step| step.group == group), "group {group} is attacked");
        }
    }
}
