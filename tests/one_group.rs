//! There is never a second group in the place of a first: replicas that lost their disks can't
//! found one while a member with data may still come back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use sagedb::types::http::Role;
use serde_json::json;

use crate::common::group::Group;
use crate::common::http::FORM;
use crate::common::world::World;

/// Many election timeouts: a second group would have formed and elected in the first two.
const WATCHED: Duration = Duration::from_secs(6);

/// Looks for a while that nobody leads and that no write is taken by anybody.
async fn nothing_is_served(world: &World, group: &Group, known: &BTreeSet<String>) {
    let start = Instant::now();
    while start.elapsed() < WATCHED {
        for (at, node) in group.nodes.iter().enumerate() {
            let Ok(status) = group.status(&world.http, at).await else { continue };
            assert_ne!(status.role, Role::Leader, "{status:?}");
            let new = status.group.filter(|group| !known.contains(&group.to_string()));
            assert_eq!(new, None, "a second group: {status:?}");
            let query = [("key", "intruder"), ("timeout", "200ms")];
            let body = Some((FORM, b"value".to_vec()));
            let put = world.http.send(Method::PUT, (&node.url, "/kv"), &query, body).await;
            let answer = put.expect("an answer");
            assert!([503, 504].contains(&answer.status), "{} {}", answer.status, answer.text());
        }
    }
}

#[tokio::test]
async fn two_wiped_replicas_of_three_never_form_a_second_group() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    world.http.put(group.url(), "precious", "value").await.expect(200);
    // That an entry is committed rides into a follower's log with the entries after it.
    for at in 0..3 {
        world.http.put(group.url(), "later", &format!("{at}")).await.expect(200);
    }
    let keeper = group.follower(&world.http).await;
    let kept = group.until_caught_up(&world.http, keeper).await;
    let known = BTreeSet::from([kept.group.expect("it has a group").to_string()]);

    // First the two that lost their disks, alone; then the one that has everything.
    group.kill();
    for at in (0..3).filter(|at| *at != keeper) {
        group.wipe(at);
    }
    nothing_is_served(&world, &group, &known).await;
    group.nodes[keeper].start().expect("a replica can be started");
    nothing_is_served(&world, &group, &known).await;

    let query = [("key", "precious"), ("consistency", "stale")];
    let stale = world.http.get_with(&group.nodes[keeper].url, &query).await.expect(200);
    assert_eq!(stale.json()["value"], json!("value"), "what is left can still be read");
}

#[tokio::test]
async fn a_replica_that_missed_the_formation_joins_the_one_group() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let before = group.until_voters(&world.http, 3).await;
    let victim = group.follower(&world.http).await;
    group.wipe(victim);
    let after = group.until_voters(&world.http, 3).await;
    let groups: BTreeSet<String> =
        before.iter().chain(&after).map(|status| format!("{:?}", status.group)).collect();
    assert_eq!(groups.len(), 1, "{groups:?}");
}
