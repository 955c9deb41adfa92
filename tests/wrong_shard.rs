//! A key never gets into a group that does not own it, whatever a client or a coordinator
//! believes: the group itself refuses.

use reqwest::Method;
use serde_json::json;

use crate::common::command;
use crate::common::group::Group;
use crate::common::http::FORM;
use crate::common::node::{Node, url_of};
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// Groups of one that a coordinator has claimed.
async fn claimed(world: &mut World, names: &[&str]) -> (Vec<Group>, Node) {
    let mut groups = Vec::new();
    for name in names {
        groups.push(world.started(name, 1, &["--id", name]).await);
    }
    let coordinator = world.routed(&groups.iter().collect::<Vec<_>>()).await;
    (groups, coordinator)
}

async fn owner(world: &World, coordinator: &str, key: &str) -> String {
    let route = world.http.path(coordinator, "/route", &[("key", key)]).await;
    let route = route.expect("an answer").expect(200).json();
    route["url"].as_str().expect("a URL").to_string()
}

async fn keys(world: &World, group: &Group) -> u64 {
    group.status(&world.http, 0).await.expect("it answers").keys
}

#[tokio::test]
async fn a_shard_refuses_a_key_it_does_not_own() {
    let mut world = World::new().await;
    let (groups, coordinator) = claimed(&mut world, &["red", "green", "blue"]).await;
    for number in 0..30 {
        let key = format!("key-{number}");
        let owner = owner(&world, &coordinator.url, &key).await;
        for group in &groups {
            let wanted = if group.url() == owner { 200 } else { 421 };
            let put = world.http.put(group.url(), &key, "v").await.expect(wanted);
            let get = world.http.get(group.url(), &key).await.expect(wanted);
            if wanted == 421 {
                let delete = world.http.delete(group.url(), &key).await.expect(wanted);
                for (answer, write) in [(put, true), (get, false), (delete, true)] {
                    let body = answer.json();
                    assert_eq!(body["error"], json!("wrong shard"));
                    assert_eq!(body["code"], json!("wrong_shard"));
                    assert_eq!(body["epoch"], json!(1));
                    assert_eq!(body["outcome"] == json!("not_applied"), write, "{body}");
                }
            }
        }
    }
    let mut total = 0;
    for group in &groups {
        total += keys(&world, group).await;
    }
    assert_eq!(total, 30, "each key is in one group");
}

#[tokio::test]
async fn a_coordinator_with_part_of_the_list_routes_as_the_others_do() {
    let mut world = World::new().await;
    let (groups, first) = claimed(&mut world, &["red", "green", "blue"]).await;
    // Only one group is named, and beside it a URL where nobody is any more.
    let gone = url_of(world.port());
    let mut second = world.coordinator(&[gone, groups[1].url().to_string()]);
    second.start().expect("the coordinator can be started");
    world.until_ready(&second.url).await;
    for number in 0..100 {
        let key = format!("key-{number}");
        world.http.put(&second.url, &key, "v").await.expect(200);
        world.http.get(&first.url, &key).await.expect(200);
        let routes = [&first.url, &second.url].map(|url| owner(&world, url, &key));
        let [one, two] = routes;
        assert_eq!(one.await, two.await, "{key}");
    }
}

#[tokio::test]
async fn a_group_outside_the_topology_is_never_used() {
    let mut world = World::new().await;
    let (groups, first) = claimed(&mut world, &["red", "green"]).await;
    let stranger = world.started("blue", 1, &["--id", "blue"]).await;
    // The list is wrong: it names a group that the ring does not have.
    let all: Vec<&Group> = groups.iter().chain([&stranger]).collect();
    let second = world.routed(&all).await;
    for number in 0..100 {
        let key = format!("key-{number}");
        assert_ne!(owner(&world, &second.url, &key).await, stranger.url(), "{key}");
        world.http.put(&second.url, &key, "v").await.expect(200);
        world.http.get(&first.url, &key).await.expect(200);
    }
    assert_eq!(keys(&world, &stranger).await, 0);
    let status = stranger.status(&world.http, 0).await.expect("it answers");
    assert_eq!((status.epoch, status.cluster), (0, None), "nobody claimed it");
}

#[tokio::test]
async fn a_coordinator_over_groups_of_two_clusters_mixes_nothing() {
    let mut world = World::new().await;
    let (left, left_coordinator) = claimed(&mut world, &["red", "green"]).await;
    let (right, right_coordinator) = claimed(&mut world, &["blue", "white"]).await;
    let mut confused = world.coordinator(&[left[0].url().to_string(), right[0].url().to_string()]);
    confused.start().expect("the coordinator can be started");
    until("it serves, or says why it doesn't", SOON, async || {
        if confused.ended().is_some() {
            return Ok(());
        }
        let health = world.http.path(&confused.url, "/health", &[]).await;
        health.map(|_| ()).map_err(|error| format!("{error:?}"))
    })
    .await;

    let mut taken = 0;
    for number in 0..50 {
        let key = format!("key-{number}");
        let query = [("key", key.as_str()), ("timeout", "200ms")];
        let body = Some((FORM, b"v".to_vec()));
        let put = world.http.send(Method::PUT, (&confused.url, "/kv"), &query, body).await;
        let Ok(answer) = put else { continue };
        if answer.status != 200 {
            continue;
        }
        // It may serve one of the clusters: then its coordinator finds the key where it belongs.
        taken += 1;
        let left = world.http.get(&left_coordinator.url, &key).await.status == 200;
        let right = world.http.get(&right_coordinator.url, &key).await.status == 200;
        assert!(left != right, "{key}: left {left}, right {right}");
    }
    let mut total = 0;
    for group in left.iter().chain(&right) {
        total += keys(&world, group).await;
    }
    assert_eq!(total, taken, "no other key was written anywhere");
}

#[tokio::test]
async fn a_group_with_foreign_keys_is_not_claimed() {
    let mut world = World::new().await;
    let red = world.started("red", 1, &["--id", "red"]).await;
    let green = world.started("green", 1, &["--id", "green"]).await;
    // Unclaimed, it takes every key: also those that the ring will give to the other group.
    for number in 0..40 {
        world.http.put(red.url(), &format!("key-{number}"), "v").await.expect(200);
    }
    let shards = [red.url().to_string(), green.url().to_string()];
    let mut coordinator = world.coordinator(&shards);
    coordinator.start().expect("the coordinator can be started");
    until("the coordinator says why it is not ready", SOON, async || {
        if coordinator.ended().is_some() {
            return Ok(());
        }
        match world.http.ready(&coordinator.url).await {
            Ok(()) => panic!("it claimed a group that holds keys of another"),
            Err(reason) if reason.contains("keys") => Ok(()),
            Err(reason) => Err(reason),
        }
    })
    .await;
    for number in 0..40 {
        world.http.get(red.url(), &format!("key-{number}")).await.expect(200);
    }
    until("the claim on the other group is released", SOON, async || {
        let status = green.status(&world.http, 0).await?;
        if status.epoch == 0 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test]
async fn no_shard_list_is_one_clear_line() {
    let mut world = World::new().await;
    let port = world.port().to_string();
    let ended = command::run(world.directory(), &["coordinator", "--port", &port]).await;
    ended.refused(&["--shards"]);
}
