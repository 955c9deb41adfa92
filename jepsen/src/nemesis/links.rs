//! Faults of the network: links are cut, or slow.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::nemesis::{Context, FaultKind, Hold};
use crate::net::grudge;
use crate::net::{Cut, Link};
use crate::options::Target;

/// How long links are cut: shorter and longer than an election.
const CUT: std::ops::Range<Duration> = Duration::from_millis(300)..Duration::from_secs(5);
/// How long a leader is cut off: longer than an election.
const CUT_LEADER: std::ops::Range<Duration> = Duration::from_millis(2_500)..Duration::from_secs(5);
/// How long links are slow.
const SLOW: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(5);

/// Cuts links: between halves, around the leader, around a bridge, one way, at random; silently
/// or by resets.
pub(super) async fn partition(context: &Context, mut rng: StdRng) -> Result<()> {
    let cluster = &context.cluster;
    let group = rng.random_range(0..cluster.groups());
    let nodes: Vec<usize> = cluster.group(group).chain(cluster.coordinators()).collect();
    let replicas: Vec<usize> = cluster.group(group).collect();
    context.settle(group).await;
    let (victim, leader) = context.victim(group, &mut rng).await;
    let cut = if rng.random_bool(0.7) { Cut::Silent } else { Cut::Reset };
    let with = if cut == Cut::Silent { "silently" } else { "by resets" };
    let mark = if leader.is_some() { " (leader)" } else { "" };
    let choice = if context.target == Target::Leader { 9 } else { rng.random_range(0..10) };
    let name = cluster.name(victim);
    let (what, links) = match choice {
        0 | 1 => (format!("halve g{}", group + 1), grudge::halves(&mut rng, &nodes)),
        2 => (format!("bridge g{}", group + 1), grudge::bridge(&mut rng, &replicas)),
        3 => ("cut random links".into(), grudge::random_links(&mut rng, &nodes, 0.3)),
        4 | 5 => {
            (format!("cut {name}{mark} one way"), grudge::one_way(&mut rng, victim, &replicas))
        }
        _ => (format!("cut {name}{mark} off"), grudge::isolate(victim, &replicas)),
    };
    if context.stopped() {
        return Ok(());
    }
    if context.target == Target::Leader && leader.is_none() {
        let what = format!("g{} has no leader to cut off", group + 1);
        context.skip(FaultKind::Partition, Some(group), what);
        return Ok(());
    }
    // Only who is cut off from all other replicas must be replaced.
    let leader = leader.filter(|_| choice > 5 && replicas.len() > 1);
    let time = rng.random_range(if leader.is_some() { CUT_LEADER } else { CUT });
    let mut fault = context.begin(FaultKind::Partition, Some(group), format!("{what} {with}"));
    // Other cuts leave nobody sure of a majority.
    fault.away = (choice > 5).then(|| context.names(&[victim]));
    let imposed = context.net.impose(links, Link { cut, ..Link::default() });
    let over = async {
        context.stopped_within(time).await;
        let held = imposed.has_held();
        drop(imposed);
        (held, context.recorder.now())
    };
    let (failover_ms, (held, end)) = context.failover_until(group, leader, over).await;
    fault.leader = leader.is_some();
    fault.failover_ms = failover_ms;
    let unseen = leader.is_some() && failover_ms.is_none();
    context.end(fault, end, if unseen { Hold::Indeterminate } else { hold(held) });
    Ok(())
}

/// Makes links slow: late, unevenly late, or narrow.
pub(super) async fn slow(context: &Context, mut rng: StdRng) -> Result<()> {
    let cluster = &context.cluster;
    let group = rng.random_range(0..cluster.groups());
    let nodes: Vec<usize> = cluster.group(group).chain(cluster.coordinators()).collect();
    let all = rng.random_bool(0.4);
    let (victim, leader) = context.victim(group, &mut rng).await;
    let time = rng.random_range(SLOW);
    let milliseconds = |ms: u64| Duration::from_millis(ms);
    let (how, link) = match rng.random_range(0..3) {
        0 => {
            let delay = milliseconds(rng.random_range(5..120));
            (format!("{} ms late", delay.as_millis()), Link { delay, ..Link::default() })
        }
        1 => {
            let jitter = milliseconds(rng.random_range(20..300));
            (format!("up to {} ms late", jitter.as_millis()), Link { jitter, ..Link::default() })
        }
        _ => {
            let rate = rng.random_range(10_000..200_000);
            let narrow = Link { bytes_per_second: Some(rate), ..Link::default() };
            (format!("narrow, {} kB/s", rate / 1000), narrow)
        }
    };
    let mark = if leader.is_some() { " (leader)" } else { "" };
    let (whose, links) = if all {
        (format!("all links of g{}", group + 1), grudge::all_links(&nodes))
    } else {
        let name = cluster.name(victim);
        (format!("links of {name}{mark}"), grudge::isolate(victim, &nodes))
    };
    if context.stopped() {
        return Ok(());
    }
    let fault = context.begin(FaultKind::Slow, Some(group), format!("{whose} {how}"));
    let imposed = context.net.impose(links, link);
    context.stopped_within(time).await;
    let slowed = imposed.has_slowed();
    drop(imposed);
    context.end(fault, context.recorder.now(), hold(slowed));
    Ok(())
}

fn hold(took: bool) -> Hold {
    if took { Hold::Installed } else { Hold::Skipped }
}
