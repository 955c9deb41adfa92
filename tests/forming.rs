//! Replicas find each other and form one group, in whatever order they are started, and only when
//! all of them mean the same group.

use std::collections::BTreeSet;

use reqwest::Method;
use sagedb::types::http::Role;
use serde_json::json;

use crate::common::group::Group;
use crate::common::http::FORM;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// Waits until a replica serves, formed or not.
async fn until_up(world: &World, url: &str) {
    until("the replica serves", SOON, async || {
        let health = world.http.path(url, "/health", &[]).await;
        health.map(|_| ()).map_err(|error| format!("{error:?}"))
    })
    .await;
}

/// Checks that the group is one: three voters, one identity, one name, and it takes writes.
async fn is_one(world: &World, group: &Group) {
    group.until_ready(&world.http).await;
    let statuses = group.until_voters(&world.http, 3).await;
    let ids: BTreeSet<String> =
        statuses.iter().map(|s| format!("{:?} {:?}", s.group, s.name)).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    world.http.put(group.url(), "k", "v").await.expect(200);
    for node in &group.nodes {
        assert_eq!(world.http.get(&node.url, "k").await.expect(200).json()["value"], json!("v"));
    }
}

#[tokio::test]
async fn the_order_of_starting_does_not_matter() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut world = World::new().await;
        let mut group = world.group("group", 3, &[]);
        for at in order {
            group.nodes[at].start().expect("a replica can be started");
            until_up(&world, &group.nodes[at].url).await;
        }
        is_one(&world, &group).await;
    }
}

#[tokio::test]
async fn two_of_three_wait_and_say_so() {
    let mut world = World::new().await;
    let mut group = world.group("group", 3, &[]);
    for at in [0, 1] {
        group.nodes[at].start().expect("a replica can be started");
        until_up(&world, &group.nodes[at].url).await;
    }
    for at in [0, 1] {
        let url = &group.nodes[at].url;
        let missing = group.nodes[2].url.clone();
        // It says, over and over, for whom it waits.
        until("its log names who is missing", SOON, async || {
            let log = std::fs::read_to_string(group.nodes[at].launch.log()).unwrap_or_default();
            let lines = log.lines().skip(1).filter(|line| line.contains(&missing)).count();
            if lines >= 2 { Ok(()) } else { Err(log) }
        })
        .await;
        assert_eq!(group.status(&world.http, at).await.expect("it answers").role, Role::Forming);
        world.http.ready(url).await.expect_err("it is not ready");
        let body = Some((FORM, b"v".to_vec()));
        let query = [("key", "k"), ("timeout", "500ms")];
        let put = world.http.send(Method::PUT, (url, "/kv"), &query, body).await;
        let put = put.expect("an answer").expect(503);
        assert!(!put.header("retry-after").is_empty());
        assert_eq!(put.json()["outcome"], json!("not_applied"));
    }
    group.start();
    is_one(&world, &group).await;
}

#[tokio::test]
async fn replicas_that_die_while_forming_form_one_group_later() {
    let mut world = World::new().await;
    let mut group = world.group("group", 3, &[]);
    for at in [0, 1, 0, 1, 2, 0, 2, 1] {
        group.nodes[at].kill();
        group.nodes[at].start().expect("a replica can be started");
        until_up(&world, &group.nodes[at].url).await;
    }
    group.start();
    is_one(&world, &group).await;
}

#[tokio::test]
async fn members_with_different_names_are_refused() {
    let mut world = World::new().await;
    let mut group = world.group("group", 3, &[]);
    for (node, id) in group.nodes.iter_mut().zip(["red", "red", "blue"]) {
        node.launch.args.extend(["--id".into(), id.into()]);
    }
    group.start();
    let at = until("a replica refuses", SOON, async || {
        let ended = (0..3).find(|at| group.nodes[*at].ended().is_some());
        ended.ok_or("all run".into())
    })
    .await;
    let code = group.nodes[at].ended().and_then(|status| status.code());
    let log = std::fs::read_to_string(group.nodes[at].launch.log()).expect("a log");
    assert_eq!(code, Some(2), "{log}");
    let line = log.lines().find(|line| line.starts_with("error")).unwrap_or_default();
    assert!(line.contains("red") && line.contains("blue"), "{log}");
    for node in &group.nodes {
        assert!(world.http.ready(&node.url).await.is_err(), "no group was formed");
    }
}

#[tokio::test]
async fn one_name_is_enough_and_none_is_the_port_of_the_founder() {
    let mut world = World::new().await;
    let mut named = world.group("named", 3, &[]);
    named.nodes[1].launch.args.extend(["--id".into(), "red".into()]);
    named.start();
    let mut nameless = world.group("nameless", 3, &[]);
    nameless.start();

    named.until_ready(&world.http).await;
    nameless.until_ready(&world.http).await;

    for status in named.until_voters(&world.http, 3).await {
        assert_eq!(status.name.as_deref(), Some("red"), "{status:?}");
    }
    let ports = nameless.urls().into_iter().map(|url| {
        let port = url.rsplit_once(':').expect("a port").1;
        format!("shard-{port}")
    });
    let ports: BTreeSet<String> = ports.collect();
    for status in nameless.until_voters(&world.http, 3).await {
        assert!(status.name.as_ref().is_some_and(|name| ports.contains(name)), "{status:?}");
    }
}

#[tokio::test]
async fn a_formed_group_comes_back_in_any_order() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let before = group.until_voters(&world.http, 3).await;
    world.http.put(group.url(), "old", "v").await.expect(200);
    group.kill();
    for at in [2, 0, 1] {
        group.nodes[at].start().expect("a replica can be started");
        until_up(&world, &group.nodes[at].url).await;
    }
    is_one(&world, &group).await;
    let after = group.until_voters(&world.http, 3).await;
    let nodes = |statuses: &[sagedb::types::http::ShardStatus]| {
        statuses.iter().map(|status| (status.node, status.group)).collect::<Vec<_>>()
    };
    assert_eq!(nodes(&before), nodes(&after), "the same members of the same group");
    world.http.get(group.url(), "old").await.expect(200);
}
