//! Reads are as fresh as they say, from whichever replica they are asked, and no client needs to
//! know the leader.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use crate::common::http::{Answer, FORM};
use crate::common::until::{SOON, until};
use crate::common::world::World;

async fn read(world: &World, url: &str, key: &str, consistency: &str) -> Answer {
    let query = [("key", key), ("consistency", consistency), ("timeout", "2s")];
    world.http.get_with(url, &query).await
}

/// The group and the index of `X-Sage-Index`.
#[track_caller]
fn index(answer: &Answer) -> (String, u64) {
    let text = answer.header("x-sage-index");
    let (group, index) = text.rsplit_once(':').unwrap_or_else(|| panic!("{text:?}: {answer:?}"));
    (group.to_string(), index.parse().expect("an index"))
}

#[tokio::test]
async fn a_read_sees_every_write_answered_before_it_on_every_replica() {
    let mut world = World::new().await;
    let group = world.started("group", 3, &["--id", "red"]).await;
    let coordinator = world.routed(&[&group]).await;
    let mut urls = group.urls();
    urls.push(coordinator.url.clone());
    for number in 0..100_usize {
        // Written through any of them, the leader or not.
        let value = number.to_string();
        let put = world.http.put(&urls[number % 4], "k", &value).await.expect(200);
        let (name, written) = index(&put);
        assert_eq!(name, "red");
        for url in &urls {
            for consistency in ["linearizable", "lease"] {
                let got = read(&world, url, "k", consistency).await.expect(200);
                assert_eq!(got.json()["value"], json!(value), "{consistency} read from {url}");
                assert!(index(&got).1 >= written, "{:?} after {written}", index(&got));
            }
        }
    }
}

#[tokio::test]
async fn a_stale_read_sees_what_its_reader_has_seen_on_every_replica_and_coordinator() {
    let mut world = World::new().await;
    let groups = [world.started("red", 3, &[]).await, world.started("blue", 3, &[]).await];
    let coordinator = world.routed(&[&groups[0], &groups[1]]).await;
    let mut seen = std::collections::BTreeMap::new();
    for number in 0..200_usize {
        let (key, value) = (format!("k{}", number % 10), number.to_string());
        let put = world.http.put(&coordinator.url, &key, &value).await.expect(200);
        let (name, written) = index(&put);
        seen.insert(name.clone(), written);
        let positions: Vec<_> = seen.iter().map(|(group, at)| format!("{group}:{at}")).collect();
        let mut urls = vec![coordinator.url.clone()];
        for group in &groups {
            let theirs = group.status(&world.http, 0).await.expect("it answers").name;
            urls.extend(if theirs == Some(name.clone()) { group.urls() } else { Vec::new() });
        }
        assert_eq!(urls.len(), 4);
        for url in urls {
            let query = [("key", key.as_str()), ("consistency", "stale")];
            let request = world.http.client.get(format!("{url}/kv")).query(&query);
            let request = request.header("X-Sage-Min-Index", positions.join(", "));
            let got = request.send().await.expect("an answer").text().await.expect("a body");
            assert!(got.contains(&format!("\"value\":\"{value}\"")), "{url}: {got}, not {value}");
        }
    }
}

#[tokio::test]
async fn a_stale_read_answers_at_once_and_says_how_old_it_may_be() {
    let mut world = World::new().await;
    let group = world.started("group", 3, &[]).await;
    let put = world.http.put(group.url(), "k", "v").await.expect(200);
    for node in &group.nodes {
        until("the write has arrived", SOON, async || {
            let got = read(&world, &node.url, "k", "stale").await;
            let lag = got.header("x-sage-lag").to_string();
            let lag: u64 = lag.parse().map_err(|_| format!("X-Sage-Lag: {lag:?}"))?;
            assert!(lag < 60_000, "{lag} ms");
            if got.status != 200 {
                return Err(got.text());
            }
            assert_eq!(got.json()["value"], json!("v"));
            assert!(index(&got).1 >= index(&put).1, "what it shows, it has applied");
            Ok(())
        })
        .await;
        let fresh = world.http.get(&node.url, "k").await.expect(200);
        assert!(fresh.headers.get("x-sage-lag").is_none(), "only stale reads may be old");
    }
}

#[tokio::test]
async fn a_replica_that_is_cut_off_serves_only_what_may_be_old() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    world.http.put(group.url(), "k", "v").await.expect(200);
    let left = group.follower(&world.http).await;
    group.until_caught_up(&world.http, left).await;
    for at in (0..3).filter(|at| *at != left) {
        group.nodes[at].kill();
    }
    let url = group.nodes[left].url.clone();
    for consistency in ["linearizable", "lease"] {
        let got = read(&world, &url, "k", consistency).await.expect(503);
        assert!(!got.header("retry-after").is_empty(), "{consistency}");
    }
    let lag = async || {
        let got = read(&world, &url, "k", "stale").await.expect(200);
        assert_eq!(got.json()["value"], json!("v"));
        got.header("x-sage-lag").parse::<u64>().expect("it has heard a leader")
    };
    let first = lag().await;
    until("the lag grows", SOON, async || {
        let now = lag().await;
        if now > first + 500 { Ok(()) } else { Err(format!("{now} after {first}")) }
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_lost_its_followers_serves_no_fresh_read() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    world.http.put(group.url(), "k", "v").await.expect(200);
    let leader = group.leader(&world.http).await;
    for at in (0..3).filter(|at| *at != leader) {
        group.nodes[at].kill();
    }
    let url = group.nodes[leader].url.clone();
    read(&world, &url, "k", "linearizable").await.expect(503);
    // The lease runs out: then nobody may trust it any more.
    until("lease reads end", SOON, async || {
        let got = read(&world, &url, "k", "lease").await;
        if got.status == 503 { Ok(()) } else { Err(got.text()) }
    })
    .await;
    read(&world, &url, "k", "stale").await.expect(200);
}

#[tokio::test]
async fn a_lease_read_asks_nobody() {
    /// Lease reads one after the other, 20 ms apart: some heartbeats long.
    const WARM: u32 = 15;
    let mut world = World::alone().await;
    let mut group = world.started("group", 3, &[]).await;
    world.http.put(group.url(), "k", "v").await.expect(200);
    let leader = group.leader(&world.http).await;
    let url = group.nodes[leader].url.clone();
    let mut signal = |signal: Signal| {
        for at in (0..3).filter(|at| *at != leader) {
            group.nodes[at].process.as_mut().expect("it runs").signal(signal);
        }
    };
    let ask = async |consistency: &str| {
        let query = [("key", "k"), ("consistency", consistency), ("timeout", "150ms")];
        world.http.get_with(&url, &query).await.status
    };
    // Followers grant leases with the heartbeats after a read that wanted one. They are short: it is tried
    // until both reads come before the end of one.
    let mut served = 0;
    until("a leader that nobody answers serves a lease read and no other", SOON, async || {
        served = if ask("lease").await == 200 { served + 1 } else { 0 };
        if served < WARM {
            return Err(format!("{served} lease reads were served"));
        }
        served = 0;
        signal(Signal::STOP);
        let seen = (ask("linearizable").await, ask("lease").await);
        signal(Signal::CONT);
        if seen == (503, 200) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_follower_forwards_writes_and_deletes() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "3"]).await;
    let follower = group.follower(&world.http).await;
    let url = group.nodes[follower].url.clone();
    let body = Some((FORM, b"v".to_vec()));
    let put = world.http.send(Method::PUT, (&url, "/kv"), &[("key", "k")], body).await;
    let put = put.expect("an answer").expect(200).json();
    assert_eq!((&put["acks"], &put["quorum"]), (&json!(3), &json!(3)), "{put}");
    for node in &group.nodes {
        let got = world.http.get(&node.url, "k").await.expect(200).json();
        assert_eq!((&got["value"], &got["ts"]), (&json!("v"), &put["ts"]), "the same everywhere");
    }
    let delete = world.http.delete(&url, "k").await.expect(200).json();
    assert_eq!(delete["existed"], json!(true));
    for node in &group.nodes {
        world.http.get(&node.url, "k").await.expect(404);
    }
}

#[tokio::test]
async fn a_write_that_wants_every_disk_is_not_acknowledged_with_one_missing() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "3"]).await;
    let follower = group.follower(&world.http).await;
    let leader = group.leader(&world.http).await;
    group.nodes[follower].kill();
    let url = group.nodes[leader].url.clone();
    let body = Some((FORM, b"v".to_vec()));
    let query = [("key", "k"), ("timeout", "1s")];
    let put = world.http.send(Method::PUT, (&url, "/kv"), &query, body).await;
    let put = put.expect("an answer");
    assert!([503, 504].contains(&put.status), "{} {}", put.status, put.text());
    group.start();
    until("writes are taken again", SOON, async || {
        let put = world.http.put(&url, "k", "w").await;
        if put.status == 200 { Ok(()) } else { Err(put.text()) }
    })
    .await;
}
