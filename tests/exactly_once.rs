//! A write takes effect once, however often it is sent: by a coordinator that has lost its leader,
//! and by a client that has lost its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use reqwest::Method;
use rustix::process::Signal;
use sagedb::types::http::Role;
use tokio::task::JoinSet;

use crate::common::group::Group;
use crate::common::http::{Answer, Http};
use crate::common::until::{SOON, until};
use crate::common::world::World;

const CLIENTS: u64 = 8;
/// Writes between two faults, so that each happens under load.
const BETWEEN: u64 = 150;

/// Writes key after key, each once, until it is enough; returns how many.
async fn write(http: Http, url: String, client: u64, done: Arc<(AtomicU64, AtomicBool)>) -> u64 {
    let mut written = 0;
    while !done.1.load(Ordering::Relaxed) {
        let target = format!("{url}/kv?key={client}-{written}&timeout=15s");
        let request = http.client.request(Method::PUT, target).body("once");
        let answer = request.send().await.expect("an answer");
        let (status, body) = (answer.status(), answer.text().await.expect("a body"));
        // No refusal, nothing unknown; and a second time it would have another version.
        assert!(status.as_u16() == 200 && body.contains("\"version\":1"), "{status} {body}");
        written += 1;
        done.0.fetch_add(1, Ordering::Relaxed);
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_are_killed_and_paused_cost_a_coordinators_clients_nothing_but_time() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let coordinators = [world.routed(&[&group]).await, world.routed(&[&group]).await];
    let done = Arc::new((AtomicU64::new(0), AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for (client, coordinator) in (0..CLIENTS).zip(coordinators.iter().cycle()) {
        clients.spawn(write(Http::new(), coordinator.url.clone(), client, Arc::clone(&done)));
    }
    for fault in ["kill", "pause", "kill", "pause"] {
        let goal = done.0.load(Ordering::Relaxed) + BETWEEN;
        until("writes go on", SOON, async || {
            let now = done.0.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}, then {fault}")) }
        })
        .await;
        let leader = group.leader(&world.http).await;
        if fault == "kill" {
            group.nodes[leader].kill();
            group.nodes[leader].start().expect("it starts again");
        } else {
            let signal = |group: &mut Group, signal| {
                group.nodes[leader].process.as_mut().expect("it runs").signal(signal);
            };
            signal(&mut group, Signal::STOP);
            until("another leads", SOON, async || {
                for other in (0..3).filter(|other| *other != leader) {
                    if group.status(&world.http, other).await?.role == Role::Leader {
                        return Ok(());
                    }
                }
                Err("nobody does".to_owned())
            })
            .await;
            signal(&mut group, Signal::CONT);
        }
    }
    done.1.store(true, Ordering::Relaxed);
    let mut written = 0;
    while let Some(ended) = clients.join_next().await {
        written += ended.expect("no client got an answer that it should not");
    }
    assert_eq!(written, done.0.load(Ordering::Relaxed));
}

async fn put(http: &Http, url: &str, name: &str, value: &str) -> Answer {
    let request = http.client.put(format!("{url}/kv?key=order")).header("Idempotency-Key", name);
    let answer = request.body(value.to_owned()).send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answer { status, headers, body: answer.bytes().await.expect("a body").to_vec() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_is_known_to_every_coordinator_and_replica_and_survives_them_all() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--snapshot-log-size", "64KiB"]).await;
    let coordinators = [world.routed(&[&group]).await, world.routed(&[&group]).await];
    let first = put(&world.http, &coordinators[0].url, "8e03978e", "paid").await.expect(200);
    world.http.put(&coordinators[0].url, "order", "shipped").await.expect(200);
    let of = |answer: &Answer| {
        let body = answer.json();
        (body["version"].clone(), body["ts"].clone(), answer.header("x-sage-index").to_owned())
    };
    let known = async |world: &World, url: &str| {
        let again = put(&world.http, url, "8e03978e", "paid").await.expect(200);
        assert_eq!(of(&again), of(&first), "{url}");
        let reused = put(&world.http, url, "8e03978e", "lost").await.expect(422);
        assert_eq!(reused.json()["code"], "idempotency_key_reused");
        assert_eq!(world.http.get(url, "order").await.json()["value"], "shipped");
    };
    for url in coordinators.iter().map(|coordinator| &coordinator.url).chain(&group.urls()) {
        known(&world, url).await;
    }
    // It is in the log, and in snapshots, which take its place.
    let mut number = 0;
    until("each replica has taken a snapshot", SOON, async || {
        number += 1;
        let value = "x".repeat(1000);
        world.http.put(&coordinators[0].url, &format!("{number}"), &value).await.expect(200);
        for at in 0..3 {
            let taken = group.status(&world.http, at).await?.snapshot_index;
            taken.ok_or_else(|| format!("replica {at} has none after {number} writes"))?;
        }
        Ok(())
    })
    .await;
    group.kill();
    group.start();
    group.until_ready(&world.http).await;
    known(&world, &coordinators[1].url).await;
}
