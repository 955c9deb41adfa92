//! What servers say of themselves and of each other is what is the case: `/status`, `/metrics`, `/route`
//! and `/cluster` over a group of three and one of one.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use sagedb::types::clock::{Clock, SystemClock};
use sagedb::types::hash::Token;
use sagedb::types::http::{Role, ShardStatus};
use sagedb::types::key::Key;
use serde_json::{Value as Json, json};

use crate::common::group::Group;
use crate::common::http::JSON;
use crate::common::node::Node;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// How many keys there are.
const KEYS: usize = 40;
/// The value of each.
const VALUE: &str = "value";

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// `red` of three, `green` of one, a coordinator, and keys in both.
async fn cluster(world: &mut World) -> (Group, Group, Node) {
    let red = world.started("red", 3, &["--id", "red"]).await;
    let green = world.started("green", 1, &["--id", "green"]).await;
    let coordinator = world.routed(&[&red, &green]).await;
    for number in 0..KEYS {
        world.http.put(&coordinator.url, &key(number), VALUE).await.expect(200);
    }
    (red, green, coordinator)
}

async fn route(world: &World, url: &str, key: &str) -> Json {
    let answer = world.http.path(url, "/route", &[("key", key)]).await.expect("an answer");
    answer.expect(200).json()
}

/// The keys of each group, by its name.
async fn owned(world: &World, url: &str) -> BTreeMap<String, Vec<String>> {
    let mut owned = BTreeMap::<String, Vec<String>>::new();
    for key in (0..KEYS).map(key) {
        let route = route(world, url, &key).await;
        let shard = route["shard"].as_str().expect("a name").to_owned();
        owned.entry(shard).or_default().push(key);
    }
    owned
}

/// The states of all replicas once they have the same, and the leader knows it.
async fn settled(world: &World, group: &Group) -> Vec<ShardStatus> {
    until("all replicas have the whole log", SOON, async || {
        let mut seen = Vec::new();
        for at in 0..group.nodes.len() {
            seen.push(group.status(&world.http, at).await?);
        }
        let applied = |status: &ShardStatus| status.applied.map(|id| id.index);
        let same =
            seen.iter().all(|one| one.last_index == applied(one) && one.hash == seen[0].hash);
        let leader = seen.iter().find(|one| one.role == Role::Leader).ok_or("no leader")?;
        let known = leader.members.iter().all(|member| member.matched == leader.last_index);
        if same && known { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_status_has_the_figures_of_its_replica() {
    let mut world = World::new().await;
    let (red, green, coordinator) = cluster(&mut world).await;
    let owned = owned(&world, &coordinator.url).await;
    for (group, name) in [(&red, "red"), (&green, "green")] {
        let statuses = settled(&world, group).await;
        let keys = &owned[name];
        let bytes: usize = keys.iter().map(|key| key.len() + VALUE.len()).sum();
        let leaders: Vec<_> = statuses.iter().filter(|one| one.role == Role::Leader).collect();
        let [leader] = leaders[..] else { panic!("{statuses:?}") };
        assert_eq!(leader.quorum as usize, group.nodes.len() / 2 + 1);
        let urls: BTreeSet<&str> = leader.members.iter().map(|member| &*member.url).collect();
        assert_eq!(urls, group.nodes.iter().map(|node| &*node.url).collect());
        for (status, node) in statuses.iter().zip(&group.nodes) {
            assert_eq!((status.keys, status.bytes), (keys.len() as u64, bytes as u64));
            assert_eq!((&status.url, status.name.as_deref()), (&node.url, Some(name)));
            assert_eq!((status.leader, status.term), (Some(leader.node), leader.term));
            assert_eq!(status.leader_url.as_ref(), Some(&leader.url));
            assert!(status.role == Role::Follower || status.node == leader.node, "{status:?}");
            assert!(status.committed <= status.last_index && status.committed.is_some());
            assert!(status.wal_bytes > status.bytes, "all of it is in the log: {status:?}");
            assert_eq!(status.snapshot_bytes > 0, status.snapshot_index.is_some());
            let stats = world.http.path(&node.url, "/stats", &[]).await.expect("an answer");
            let stats: ShardStatus = serde_json::from_value(stats.json()).expect("the same form");
            assert_eq!((stats.node, stats.keys), (status.node, status.keys));
        }
    }
}

/// The samples of a text in Prometheus' exposition format, without those that have labels.
#[track_caller]
fn samples(text: &str) -> BTreeMap<&str, u64> {
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let known = ["HELP ", "TYPE ", "EOF"].iter().any(|word| comment.starts_with(word));
            assert!(known, "{line}");
            continue;
        }
        let (name, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let number = number.parse().unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let (bare, labels) = name.split_once('{').map_or((name, None), |(a, b)| (a, Some(b)));
        assert!(bare.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
        assert!(labels.is_none_or(|labels| labels.ends_with("\"}")), "{line}");
        if labels.is_none() {
            samples.insert(name, number);
        }
    }
    samples
}

#[tokio::test]
async fn metrics_are_the_figures_of_the_status() {
    let mut world = World::new().await;
    let (red, _green, coordinator) = cluster(&mut world).await;
    settled(&world, &red).await;
    for (at, node) in red.nodes.iter().enumerate() {
        let (status, text) = until("nothing changes meanwhile", SOON, async || {
            let before = red.status(&world.http, at).await?;
            let text = world.http.path(&node.url, "/metrics", &[]).await.expect("an answer").text();
            let after = red.status(&world.http, at).await?;
            let same = (before.last_index, before.wal_bytes, before.applied)
                == (after.last_index, after.wal_bytes, after.applied);
            if same { Ok((after, text)) } else { Err(format!("{before:?}, {after:?}")) }
        })
        .await;
        let samples = samples(&text);
        let expected = [
            ("sage_ready", Some(1)),
            ("sage_leader", Some(u64::from(status.role == Role::Leader))),
            ("sage_term", Some(status.term)),
            ("sage_last_index", status.last_index),
            ("sage_committed_index", status.committed),
            ("sage_applied_index", status.applied.map(|id| id.index)),
            ("sage_keys", Some(status.keys)),
            ("sage_data_bytes", Some(status.bytes)),
            ("sage_wal_bytes", Some(status.wal_bytes)),
            ("sage_quorum", Some(2)),
            ("sage_epoch", Some(1)),
        ];
        for (name, value) in expected {
            assert_eq!(samples.get(name).copied(), value, "{name} in {text}");
        }
    }
    let text = world.http.path(&coordinator.url, "/metrics", &[]).await.expect("an answer").text();
    let samples = samples(&text);
    let expected = [("sage_ready", 1), ("sage_epoch", 1), ("sage_groups", 2)];
    for (name, value) in expected.into_iter().chain([("sage_groups_without_leader", 0)]) {
        assert_eq!(samples.get(name), Some(&value), "{name} in {text}");
    }
}

#[tokio::test]
async fn the_route_of_a_key_leads_to_the_leader_of_its_group() {
    let mut world = World::new().await;
    let (mut red, green, coordinator) = cluster(&mut world).await;
    let owned = owned(&world, &coordinator.url).await;
    // Not by luck: whoever is named first among the replicas does not lead.
    let first = route(&world, &coordinator.url, &owned["red"][0]).await["replicas"][0].clone();
    let first = red.nodes.iter().position(|node| first == node.url).expect("it is one of them");
    if red.leader(&world.http).await == first {
        red.nodes[first].kill();
        red.nodes[first].start().expect("it can be started");
    }
    let leader = until("the route leads to another leader", SOON, async || {
        let leader = red.nodes[red.leader(&world.http).await].url.clone();
        let said = route(&world, &coordinator.url, &owned["red"][0]).await["url"].clone();
        let other = leader != red.nodes[first].url;
        if other && said == leader { Ok(leader) } else { Err(format!("{said} for {leader}")) }
    })
    .await;
    red.until_ready(&world.http).await;
    for (name, group, leader) in [("red", &red, &*leader), ("green", &green, green.url())] {
        let key = &owned[name][0];
        let route = route(&world, &coordinator.url, key).await;
        let replicas = route["replicas"].as_array().expect("URLs").iter();
        let replicas: BTreeSet<String> =
            replicas.map(|url| url.as_str().expect("a URL").to_owned()).collect();
        assert_eq!(replicas, group.urls().into_iter().collect());
        let hash = Token::of_key(&Key::new(key.clone()).expect("a key")).0;
        let said = (&route["key"], &route["shard"], &route["url"], &route["epoch"], &route["hash"]);
        let hash = json!(format!("{hash:016x}"));
        assert_eq!(said, (&json!(key), &json!(name), &json!(leader), &json!(1), &hash));
        // Only the group that has it takes it, whichever of its replicas is asked.
        for node in red.nodes.iter().chain(&green.nodes) {
            let wanted = if replicas.contains(&node.url) { 200 } else { 421 };
            world.http.get(&node.url, key).await.expect(wanted);
        }
    }
}

#[tokio::test]
async fn the_cluster_is_shown_as_it_is() {
    let mut world = World::new().await;
    let (red, green, coordinator) = cluster(&mut world).await;
    let leader = red.nodes[red.leader(&world.http).await].url.clone();
    let cluster = world.http.path(&coordinator.url, "/cluster", &[]).await.expect("an answer");
    let cluster = cluster.expect(200).json();
    assert_eq!((&cluster["epoch"], &cluster["vnodes"]), (&json!(1), &json!(100)));
    let groups = cluster["groups"].as_array().expect("groups");
    let expected = [("green", &green, green.url()), ("red", &red, &leader)];
    assert_eq!(groups.len(), expected.len(), "{cluster}");
    let mut shares = 0.0;
    for (said, (name, group, leader)) in groups.iter().zip(expected) {
        assert_eq!((&said["name"], &said["leader"]), (&json!(name), &json!(leader)));
        let urls = |list: &Json| -> BTreeSet<String> {
            let list = list.as_array().expect("a list").iter();
            list.map(|url| url.as_str().expect("a URL").to_owned()).collect()
        };
        assert_eq!(urls(&said["members"]), group.urls().into_iter().collect());
        assert_eq!(said["replicas"].as_array().map(Vec::len), Some(group.nodes.len()));
        let share = said["share"].as_f64().expect("a share");
        assert!((0.2..0.8).contains(&share), "with 100 vnodes each: {share}");
        shares += share;
    }
    assert!((shares - 1.0_f64).abs() < 0.001, "{shares}");
}

#[tokio::test]
async fn a_write_is_stamped_once_for_ever_and_acknowledged_by_a_majority_if_not_told_otherwise() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let before = SystemClock.now_ms();
    let put = world.http.put(group.url(), "k", "v").await.expect(200).json();
    let after = SystemClock.now_ms();
    let ts = put["ts"].as_u64().expect("a stamp");
    assert!((before..=after).contains(&ts), "{ts} is not in {before} to {after}");
    assert_eq!(put["quorum"], json!(2), "{put}");
    assert!(put["acks"].as_u64() >= Some(2), "{put}");
    for _ in 0..2 {
        for node in &group.nodes {
            let got = world.http.get(&node.url, "k").await.expect(200).json();
            assert_eq!((&got["ts"], &got["version"]), (&put["ts"], &put["version"]), "{got}");
        }
        group.kill();
        group.start();
        group.until_ready(&world.http).await;
    }
}

#[tokio::test]
async fn a_replica_is_ready_only_once_it_has_its_log_again() {
    const KEYS: usize = 1000;
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let follower = group.follower(&world.http).await;
    let url = group.nodes[follower].url.clone();
    // Its newest entries are those of which only a leader can tell it that they are committed.
    for round in 1..=5 {
        let put = |number| json!({"op": "put", "key": format!("{round}-{number}"), "value": VALUE});
        let ops: Vec<Json> = (0..KEYS).map(put).collect();
        let body = Some((JSON, json!({"ops": ops}).to_string().into_bytes()));
        let answer = world.http.send(Method::POST, (group.url(), "/batch"), &[], body).await;
        answer.expect("an answer").expect(200);
        group.until_caught_up(&world.http, follower).await;
        group.nodes[follower].kill();
        group.nodes[follower].start().expect("it can be started");
        // Without a pause in between, lest the moment is missed.
        let ready = async { while world.http.ready(&url).await.is_err() {} };
        tokio::time::timeout(SOON, ready).await.expect("it gets ready");
        // What it knew before, it knows when it says so.
        let count = world.http.path(&url, "/count", &[("consistency", "stale")]).await;
        let count = count.expect("an answer").expect(200).json();
        assert_eq!(count["count"], json!(round * KEYS));
    }
}
