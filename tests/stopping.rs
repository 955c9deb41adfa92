//! A server that is asked to stop does so with exit 0, answers what it has begun, and hands its
//! leadership over first.

use std::slice;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::command::stop;
use crate::common::load::Load;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// Elections that wait for silence take at least this long here: a handover doesn't.
const PATIENT: [&str; 4] = ["--election-timeout-min", "3s", "--election-timeout-max", "4s"];
/// Well below that.
const HANDOVER_MAX: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_stopped_hands_over() {
    let mut world = World::alone().await;
    let flags = [&["--quorum", "2"], PATIENT.as_slice()].concat();
    let mut group = world.started("group", 3, &flags).await;
    let coordinator = world.routed(&[&group]).await;
    let load = Load::start("w", slice::from_ref(&coordinator.url), 8);
    for _ in 0..3 {
        load.until_more(100).await;
        let leader = group.leader(&world.http).await;
        let ended = stop(&mut group.nodes[leader], Signal::TERM).await;
        assert_eq!(ended.code(), Some(0));
        load.until_more(100).await;
        assert_ne!(group.leader(&world.http).await, leader);
        group.nodes[leader].start().expect("a replica can be started");
        group.until_caught_up(&world.http, leader).await;
    }
    let written = load.stop().await;
    println!("longest gap over 3 handovers: {:?}", written.longest_gap);
    written.verify(&world.http, &coordinator.url).await;
    assert!(written.longest_gap < HANDOVER_MAX, "{:?}", written.longest_gap);
}

#[tokio::test]
async fn every_kind_of_server_stops_with_exit_0_and_keeps_its_data() {
    let mut world = World::new().await;
    let mut group = world.started("group", 1, &[]).await;
    let mut coordinator = world.routed(&[&group]).await;
    world.http.put(&coordinator.url, "k", "v").await.expect(200);
    for signal in [Signal::TERM, Signal::INT] {
        assert_eq!(stop(&mut coordinator, signal).await.code(), Some(0));
        assert_eq!(stop(&mut group.nodes[0], signal).await.code(), Some(0));
        group.start();
        coordinator.start().expect("the coordinator can be started");
        world.until_ready(&coordinator.url).await;
        world.http.get(&coordinator.url, "k").await.expect(200);
    }
}

#[tokio::test]
async fn a_replica_stops_also_while_it_waits_for_its_group() {
    let mut world = World::new().await;
    let mut group = world.group("group", 3, &[]);
    let node = &mut group.nodes[0];
    node.start().expect("a replica can be started");
    let url = node.url.clone();
    until("it serves", SOON, async || {
        let health = world.http.path(&url, "/health", &[]).await;
        health.map(|_| ()).map_err(|error| format!("{error:?}"))
    })
    .await;
    assert_eq!(stop(node, Signal::TERM).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    let mut world = World::alone().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    let coordinator = world.routed(&[&group]).await;
    let load = Load::start("w", slice::from_ref(&coordinator.url), 8);
    for at in 0..3 {
        assert_eq!(stop(&mut group.nodes[at], Signal::TERM).await.code(), Some(0));
        load.until_more(100).await;
        group.nodes[at].start().expect("a replica can be started");
        world.until_ready(&group.nodes[at].url).await;
        group.until_caught_up(&world.http, at).await;
    }
    let written = load.stop().await;
    written.verify(&world.http, &coordinator.url).await;
}
