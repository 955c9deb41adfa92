//! A leader dies with `kill -9`: nothing acknowledged is lost, writes go on soon, and the replica
//! that died catches up, by log or by snapshot.

use std::time::Duration;

use crate::common::group::Group;
use crate::common::load::Load;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// How often the leader is killed.
const KILLS: usize = 10;
/// How long writes may be refused at a stretch.
const REFUSED_MAX: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_write_survives_killing_the_leader_ten_times() {
    let mut world = World::alone().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    let coordinator = world.routed(&[&group]).await;
    let load = Load::start("w", std::slice::from_ref(&coordinator.url), 16);
    for _ in 0..KILLS {
        load.until_more(200).await;
        let leader = group.leader(&world.http).await;
        let old = group.status(&world.http, leader).await.expect("the leader answers");
        group.nodes[leader].kill();
        let new = group.leader(&world.http).await;
        let status = group.status(&world.http, new).await.expect("the new leader answers");
        assert!(new != leader && status.term >= old.term, "{status:?} after {old:?}");
        load.until_more(200).await;
        group.nodes[leader].start().expect("a replica can be started");
        group.until_caught_up(&world.http, leader).await;
    }
    let written = load.stop().await;
    println!(
        "{KILLS} kills: {} acknowledged, {} refused, {} unknown, longest gap {:?}",
        written.acked.len(),
        written.refused,
        written.unknown,
        written.longest_gap
    );
    written.verify(&world.http, &coordinator.url).await;
    assert!(written.longest_gap < REFUSED_MAX, "{:?}", written.longest_gap);
    same_state(&world, &group).await;
}

/// Waits until all replicas hold the same number of keys and bytes at the same entry.
async fn same_state(world: &World, group: &Group) {
    until("all replicas are the same", SOON, async || {
        let mut seen = Vec::new();
        for at in 0..group.nodes.len() {
            let status = group.status(&world.http, at).await?;
            seen.push((status.applied, status.hash, status.keys, status.bytes));
        }
        seen.dedup();
        if seen.len() == 1 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_catches_up_by_log() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    let old = group.leader(&world.http).await;
    group.nodes[old].kill();
    let new = group.leader(&world.http).await;

    // Several times the entries that one message may have: a follower refuses a longer one.
    let load = Load::start("w", std::slice::from_ref(&group.nodes[new].url), 16);
    load.until_more(2000).await;
    let written = load.stop().await;
    group.nodes[old].start().expect("a replica can be started");
    let status = group.until_caught_up(&world.http, old).await;

    let leader = group.status(&world.http, new).await.expect("the leader answers");
    assert_eq!(leader.purged, None, "the log is whole, so it was enough");
    assert_eq!(status.snapshot_index, None, "no snapshot came: {status:?}");
    assert_eq!(status.keys, written.acked.len() as u64 + written.unknown, "{status:?}");
    same_state(&world, &group).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_catches_up_by_snapshot_when_the_log_is_purged() {
    let mut world = World::new().await;
    let flags = ["--quorum", "2", "--snapshot-log-size", "65536", "--keep-log-entries", "50"];
    let mut group = world.started("group", 3, &flags).await;
    let old = group.leader(&world.http).await;
    let load = Load::start("before", std::slice::from_ref(&group.nodes[old].url), 4);
    load.until_more(50).await;
    let before = load.stop().await;
    let at_death = group.status(&world.http, old).await.expect("it answers").last_index;
    group.nodes[old].kill();
    let new = group.leader(&world.http).await;

    let load = Load::start("w", std::slice::from_ref(&group.nodes[new].url), 8);
    let purged = until("the leader purges what the dead replica lacks", SOON, async || {
        let status = group.status(&world.http, new).await?;
        let purged = status.purged.filter(|purged| Some(*purged) > at_death);
        purged.ok_or(format!("purged {:?}, it died at {at_death:?}", status.purged))
    })
    .await;
    let written = load.stop().await;
    group.nodes[old].start().expect("a replica can be started");
    let status = group.until_caught_up(&world.http, old).await;

    assert!(
        status.snapshot_index >= Some(purged),
        "the log ended at {at_death:?} and began after {purged}: only a snapshot can close that \
         gap: {status:?}"
    );
    // It serves what it got: as the only one left beside a second replica.
    let other = (0..3).find(|at| *at != old && *at != new).expect("a third replica");
    group.nodes[other].kill();
    written.verify(&world.http, &group.nodes[old].url).await;
    before.verify(&world.http, &group.nodes[old].url).await;
}
