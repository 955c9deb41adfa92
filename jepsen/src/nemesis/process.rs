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
    let one = context.target == Target::Leader;
    let (of, many): (_, Option<Vec<usize>>) = match rng.random_range(0..10) {
        _ if one => (Some(group), None),
        _ if context.target == Target::All => (None, Some(cluster.replicas().collect())),
        0 => (None, Some(cluster.replicas().collect())),
        1 => (Some(group), Some(cluster.group(group).collect())),
        2 => {
            let majority = cluster.group(group).cycle().skip(victim).take(size / 2 + 1);
            (Some(group), Some(majority.collect()))
        }
        _ => (Some(group), None),
    };
    let victims = many.clone().unwrap_or_else(|| vec![victim]);
    let _held = context.hold(&victims).await;
    if context.stopped() {
        return Ok(());
    }
    let leader = context.still(group, leader).await;
    if one && leader.is_none() {
        let what = format!("g{} has no leader to kill", group + 1);
        context.skip(FaultKind::Kill, Some(group), what);
        return Ok(());
    }
    let names = context.names(&victims);
    let mark = if many.is_none() && leader.is_some() { " (leader)" } else { "" };
    let what = format!("kill {}{mark}", names.join(" "));
    let mut fault = context.begin(FaultKind::Kill, of, what);
    fault.away = Some(names);
    let killed = victims.iter().filter(|at| cluster.kill(**at)).count();
    let hold = if killed == 0 { Hold::Skipped } else { Hold::Installed };
    let alone = leader.filter(|_| many.is_none() && size > 1 && killed == 1);
    let again = async {
        context.stopped_within(down).await;
        victims.iter().try_for_each(|at| cluster.start_one(*at))?;
        anyhow::Ok(context.recorder.now())
    };
    // Who is started again knows that it leads no more: it may be waited for after that, too.
    let (failover_ms, end) = tokio::join!(context.failover(group, alone), again);
    fault.leader = alone.is_some();
    fault.failover_ms = failover_ms;
    let unseen = alone.is_some() && failover_ms.is_none();
    context.end(fault, end?, if unseen { Hold::Indeterminate } else { hold });
    Ok(())
}

/// `SIGSTOP` for longer than an election takes, then `SIGCONT`.
pub(super) async fn pause(context: &Context, mut rng: StdRng) -> Result<()> {
    let cluster = &context.cluster;
    let group = rng.random_range(0..cluster.groups());
    let asleep = rng.random_range(ASLEEP);
    context.settle(group).await;
    let (victim, leader) = context.victim(group, &mut rng).await;
    let _held = context.hold(&[victim]).await;
    if context.stopped() {
        return Ok(());
    }
    let leader = context.still(group, leader).await;
    if context.target == Target::Leader && leader.is_none() {
        let what = format!("g{} has no leader to pause", group + 1);
        context.skip(FaultKind::Pause, Some(group), what);
        return Ok(());
    }
    let mark = if leader.is_some() { " (leader)" } else { "" };
    let what = format!("pause {}{mark}", cluster.name(victim));
    let mut fault = context.begin(FaultKind::Pause, Some(group), what);
    fault.away = Some(context.names(&[victim]));
    let paused = cluster.signal(victim, Signal::STOP);
    let leader = leader.filter(|_| cluster.group(group).len() > 1 && paused);
    let again = async {
        let cut_short = context.stopped_within(asleep).await;
        cluster.signal(victim, Signal::CONT);
        (cut_short, context.recorder.now())
    };
    let (failover_ms, (cut_short, end)) = context.failover_until(group, leader, again).await;
    fault.leader = leader.is_some();
    fault.failover_ms = failover_ms;
    let unseen = cut_short || (leader.is_some() && failover_ms.is_none());
    let hold = match (paused, unseen) {
        (false, _) => Hold::Skipped,
        (true, true) => Hold::Indeterminate,
        (true, false) => Hold::Installed,
    };
    context.end(fault, end, hold);
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
    let names = context.names(&victims);
    let verb = if kills { "kill" } else { "pause" };
    let what = format!("{verb} {}", names.join(" "));
    let _held = context.hold(&victims).await;
    if context.stopped() {
        return Ok(());
    }
    let mut fault = context.begin(FaultKind::Coordinator, None, what);
    fault.away = Some(names);
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
    context.end(fault, context.recorder.now(), hold);
    Ok(())
}

/// Asks each replica of a group to stop, and starts it again, one after the other: as one does
/// for an upgrade.
pub(super) async fn restart(context: &Context, mut rng: StdRng) -> Result<()> {
    let cluster = &context.cluster;
    let group = rng.random_range(0..cluster.groups());
    let what = format!("restart g{} in turns", group + 1);
    let fault = context.begin(FaultKind::Restart, Some(group), what);
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
    let hold = if restarted > 0 { Hold::Installed } else { Hold::Skipped };
    context.end(fault, context.recorder.now(), hold);
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
