//! Faults of processes: killed, paused, asked to stop.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::process::Signal;

use crate::checker::{Anomaly, Kind};
use crate::nemesis::{Context, FaultKind, Hold};
use crate::options::Target;

/// How long what was killed stays down.
const DOWN: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(2_500);
/// How long a paused process sleeps: longer than a lease and an election timeout.
const ASLEEP: std::ops::Range<Duration> = Duration::from_millis(2_200)..Duration::from_secs(4);
/// How long a server that was started by another fault may take to serve.
const SERVING_MAX: Duration = Duration::from_secs(10);
/// How long a server may take to stop, and to be ready again.
const RESTART_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// `kill -9`: of one replica, mostly the leader; of a majority; of all at once.
pub(super) async fn kill(context: &Context, mut rng: StdRng) -> Result<()> {
    let cluster = &context.cluster;
    let group = rng.random_range(0..cluster.groups());
    let down = rng.random_range(DOWN);
    context.settle(group).await;
    let (victim, leader) = context.victim(group, &mut rng).await;
    let size = cluster.group(group).len();
    let many = match rng.random_range(0..10) {
        _ if context.target == Target::Leader => None,
        _ if context.target == Target::All => Some(cluster.replicas().collect()),
        0 => Some(cluster.replicas().collect::<Vec<usize>>()),
        1 => Some(cluster.group(group).collect()),
        2 => Some(cluster.group(group).cycle().skip(victim).take(size / 2 + 1).collect()),
        _ => None,
    };
    let victims = many.clone().unwrap_or_else(|| vec![victim]);
    let names: Vec<&str> = victims.iter().map(|at| cluster.name(*at)).collect();
    let mut what = format!("kill {}", names.join(" "));
    if many.is_none() && leader.is_some() {
        what.push_str(" (leader)");
    } else if context.target == Target::Leader {
        context.skip(FaultKind::Kill, format!("g{} has no leader to kill", group + 1));
        return Ok(());
    }
    let _held = context.hold(&victims).await;
    let leader = context.still(group, leader).await;
    let mut fault = context.begin(FaultKind::Kill, what);
    let killed = victims.iter().filter(|at| cluster.kill(**at)).count();
    let hold = if killed == 0 { Hold::Skipped } else { Hold::Installed };
    let alone = leader.filter(|_| many.is_none() && size > 1 && killed == 1);
    let next = async {
        match alone {
            Some(leader) => context.failover(group, leader).await,
            None => None,
        }
    };
    let again = async {
        context.stopped_within(down).await;
        victims.iter().try_for_each(|at| cluster.start_one(*at))
    };
    let (failover_ms, started) = tokio::join!(next, again);
    started?;
    fault.leader = alone.is_some();
    fault.failover_ms = failover_ms;
    let unseen = alone.is_some() && failover_ms.is_none();
    context.end(fault, if unseen { Hold::Indeterminate } else { hold });
    Ok(())
}

/// `SIGSTOP` for longer than an election takes, then `SIGCONT`.
pub(super) async fn pause(context: &Context, mut rng: StdRng) -> Result<()> {
    let cluster = &context.cluster;
    let group = rng.random_range(0..cluster.groups());
    let asleep = rng.random_range(ASLEEP);
    context.settle(group).await;
    let (victim, leader) = context.victim(group, &mut rng).await;
    if context.target == Target::Leader && leader.is_none() {
        context.skip(FaultKind::Pause, format!("g{} has no leader to pause", group + 1));
        return Ok(());
    }
    let mark = if leader.is_some() { " (leader)" } else { "" };
    let what = format!("pause {}{mark}", cluster.name(victim));
    let _held = context.hold(&[victim]).await;
    let leader = context.still(group, leader).await;
    let mut fault = context.begin(FaultKind::Pause, what);
    let mut hold =
        if cluster.signal(victim, Signal::STOP) { Hold::Installed } else { Hold::Skipped };
    let leader = leader.filter(|_| cluster.group(group).len() > 1 && hold == Hold::Installed);
    let next = async {
        match leader {
            Some(leader) => context.failover(group, leader).await,
            None => None,
        }
    };
    let again = async {
        context.stopped_within(asleep).await;
        cluster.signal(victim, Signal::CONT);
    };
    let (failover_ms, ()) = tokio::join!(next, again);
    fault.leader = leader.is_some();
    fault.failover_ms = failover_ms;
    if leader.is_some() && failover_ms.is_none() {
        hold = Hold::Indeterminate;
    }
    context.end(fault, hold);
    Ok(())
}

/// Kills or pauses one coordinator; sometimes all of them.
pub(super) async fn coordinator(context: &Context, mut rng: StdRng) -> Result<()> {
    let cluster = &context.cluster;
    let one = rng.random_range(cluster.coordinators());
    let all = rng.random_bool(0.15);
    let kills = rng.random_bool(0.6);
    let time = rng.random_range(DOWN);
    let victims: Vec<usize> = if all { cluster.coordinators().collect() } else { vec![one] };
    let names: Vec<&str> = victims.iter().map(|at| cluster.name(*at)).collect();
    let verb = if kills { "kill" } else { "pause" };
    let what = format!("{verb} {}", names.join(" "));
    let _held = context.hold(&victims).await;
    let fault = context.begin(FaultKind::Coordinator, what);
    let struck = victims
        .iter()
        .filter(|at| if kills { cluster.kill(**at) } else { cluster.signal(**at, Signal::STOP) });
    let hold = if struck.count() == 0 { Hold::Skipped } else { Hold::Installed };
    context.stopped_within(time).await;
    for at in victims {
        if kills {
            cluster.start_one(at)?;
        } else {
            cluster.signal(at, Signal::CONT);
        }
    }
    context.end(fault, hold);
    Ok(())
}

/// Asks each replica of a group to stop, and starts it again, one after the other: as one does
/// for an upgrade.
pub(super) async fn restart(context: &Context, mut rng: StdRng) -> Result<()> {
    let cluster = &context.cluster;
    let group = rng.random_range(0..cluster.groups());
    let fault = context.begin(FaultKind::Restart, format!("restart g{} in turns", group + 1));
    let mut restarted = 0;
    for at in cluster.group(group) {
        if context.stopped() {
            break;
        }
        let _held = context.hold(&[at]).await;
        // A process that has just been started can't know yet what to do when it is asked to stop.
        let serving = async {
            while cluster.status(at).await.is_none() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(SERVING_MAX, serving).await.is_err() {
            continue;
        }
        cluster.may_end(at, true);
        cluster.signal(at, Signal::TERM);
        match until(RESTART_MAX, || cluster.ended(at)).await {
            Some(status) if !status.success() => {
                context.recorder.saw(died(cluster.name(at), &format!("asked to stop: {status}")));
            }
            Some(_) => {}
            None => {
                context.recorder.saw(died(cluster.name(at), "asked to stop, it did not"));
                cluster.kill(at);
            }
        }
        cluster.start_one(at)?;
        cluster.may_end(at, false);
        restarted += 1;
        // Other faults may keep it from being ready: then the next one goes down nevertheless.
        cluster.until_one_ready(at, Duration::from_secs(3)).await.ok();
    }
    context.end(fault, if restarted > 0 { Hold::Installed } else { Hold::Skipped });
    Ok(())
}

fn died(name: &str, detail: &str) -> Anomaly {
    Anomaly { kind: Kind::ServerDied, key: name.into(), detail: detail.into(), events: Vec::new() }
}

/// Looks until there is something, at most for so long.
pub(super) async fn until<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(within, looking).await.ok()
}
