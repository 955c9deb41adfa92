//! Watching over real processes: no change is lost or told twice, whoever dies; what is not kept any more
//! is refused; and a server that stops lets its watchers go.

use std::time::Duration;

use rustix::process::Signal;
use sagedb::client::{Client, ClientError, EventKind, Watch, WatchOptions, Watched};
use sagedb::types::value::Value;
use tokio::time::timeout;

use crate::common::until::{SOON, until};
use crate::common::world::World;

fn prefix(prefix: &str) -> WatchOptions {
    WatchOptions { keys: Watched::Prefix(prefix.into()), since: None }
}

fn client(urls: &[&str]) -> Client {
    Client::new(urls).expect("a client").with_timeout(Duration::from_secs(10))
}

/// The next change: its key and version.
async fn next(watch: &mut Watch) -> (String, u64) {
    let event = timeout(SOON, watch.next()).await.expect("in time").expect("a change");
    assert_eq!(event.kind, EventKind::Put);
    (event.item.key.to_string(), event.item.version)
}

/// Puts until it is certain that it is there: a version may be left out, none comes twice.
async fn put(client: &Client, key: &str, value: &str) {
    until("the value is there", SOON, async || {
        client.put(key, Value::text(value.to_owned())).await.map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_is_lost_or_told_twice_whoever_dies() {
    let mut world = World::new().await;
    let mut red = world.started("red", 3, &[]).await;
    let blue = world.started("blue", 1, &[]).await;
    let mut one = world.routed(&[&red, &blue]).await;
    let two = world.routed(&[&red, &blue]).await;
    let writer = client(&[&two.url]);
    let mut watch =
        client(&[&one.url, &two.url]).watch(prefix("k")).await.expect("it can be watched");
    let mut last = std::collections::BTreeMap::<String, u64>::new();
    for round in 0..6 {
        match round {
            1 | 4 => {
                let leader = red.leader(&world.http).await;
                red.nodes[leader].kill();
                red.nodes[leader].start().expect("it starts");
            }
            2 => one.kill(),
            3 => {
                one.start().expect("it starts");
                world.until_ready(&one.url).await;
            }
            _ => {}
        }
        for number in 0..40 {
            put(&writer, &format!("k{}", number % 10), &format!("{round}-{number}")).await;
        }
        put(&writer, &format!("kend{round}"), "").await;
        loop {
            let (key, version) = next(&mut watch).await;
            let before = last.insert(key.clone(), version).unwrap_or(0);
            // Versions rise by one with each change of a key that is never deleted.
            assert_eq!(version, before + 1, "{key} in round {round}");
            if key == format!("kend{round}") {
                break;
            }
        }
    }
    // Those of the other group may come later than the last of all that was written.
    for number in 0..10 {
        let key = format!("k{number}");
        let newest = writer.get(&key).await.expect("a read").expect("it is there").version;
        while last.get(&key) != Some(&newest) {
            let (key, version) = next(&mut watch).await;
            let before = last.insert(key.clone(), version).unwrap_or(0);
            assert_eq!(version, before + 1, "{key} at the end");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_kept_any_more_is_refused_and_says_what_is() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &["--watch-history", "64KiB", "--id", "g"]).await;
    let client = client(&[group.url()]);
    let first =
        client.put("k", Value::text("first")).await.expect("a write").index.expect("it says");
    for _ in 0..100 {
        put(&client, "k", &"v".repeat(1000)).await;
    }
    let watched = Watched::Key("k".into());
    let since = |since: &str| WatchOptions { keys: watched.clone(), since: Some(since.into()) };
    let error = client.watch(since(&first)).await.expect_err("it is not kept");
    assert!(
        matches!(&error, ClientError::Api { status: 410, code, .. } if code == "compacted"),
        "{error:?}"
    );
    let answer = world.http.path(group.url(), "/watch", &[("key", "k"), ("since", &first)]).await;
    let oldest = answer.expect("an answer").expect(410).json()["oldest"].clone();
    let oldest = oldest.as_str().expect("where it can begin");
    let mut watch = client.watch(since(oldest)).await.expect("the oldest is kept");
    let (_, mut version) = next(&mut watch).await;
    assert!(version > 2, "something was forgotten");
    while version < 101 {
        let (_, next) = next(&mut watch).await;
        assert_eq!(next, version + 1);
        version = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_larger_than_all_that_is_kept_is_told_and_ends_nobody() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &["--watch-history", "64KiB"]).await;
    let coordinator = world.routed(&[&group]).await;
    let client = client(&[&coordinator.url]);
    let other = WatchOptions { keys: Watched::Key("other".into()), since: None };
    let mut other = client.watch(other).await.expect("it tells");
    let mut all = client.watch(prefix("")).await.expect("it tells");
    for round in 1..=5 {
        let large = Value::bytes(vec![7; 1024 * 1024]);
        client.put("large", large.clone()).await.expect("a write");
        put(&client, "other", "v").await;
        let event = timeout(SOON, all.next()).await.expect("in time").expect("a change");
        assert_eq!((event.item.version, event.item.value), (round, Some(large)));
        assert_eq!(next(&mut all).await, ("other".into(), round));
        assert_eq!(next(&mut other).await, ("other".into(), round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_tells_and_goes_on_where_another_was() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let urls = group.urls();
    let leader = group.leader(&world.http).await;
    let writer = client(&[&urls[leader]]);
    let mut since = None;
    let mut version = 0;
    // Twice around: each goes on behind the id of the one before.
    for turn in 0..6 {
        let options = WatchOptions { keys: Watched::Key("k".into()), since: since.take() };
        let mut watch = client(&[&urls[turn % 3]]).watch(options).await.expect("it tells");
        for _ in 0..2 {
            put(&writer, "k", "v").await;
        }
        for _ in 0..2 {
            let (_, next) = next(&mut watch).await;
            version += 1;
            assert_eq!(next, version, "at replica {}", turn % 3);
        }
        since = watch.since().map(str::to_owned);
    }
    // What was applied again after a restart is kept again.
    group.kill();
    group.start();
    group.until_ready(&world.http).await;
    let all = WatchOptions { keys: Watched::Key("k".into()), since };
    let mut watch = client(&[&urls[0]]).watch(all).await.expect("it tells");
    put(&client(&[&urls[1]]), "k", "after").await;
    assert_eq!(next(&mut watch).await, ("k".into(), version + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_can_not_confirm_lets_its_watchers_go() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let leader = group.leader(&world.http).await;
    let url = group.nodes[leader].url.clone();
    let request = world.http.client.get(format!("{url}/watch?prefix=")).send();
    let mut response = request.await.expect("an answer");
    for at in 0..3 {
        if at != leader {
            group.nodes[at].kill();
        }
    }
    // Ids go on coming for a while, then it ends and says why: silence must not be taken for peace.
    let mut text = String::new();
    while let Some(chunk) =
        timeout(SOON, response.chunk()).await.expect("in time").expect("readable")
    {
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    assert!(text.contains("has not answered for 10 s"), "{text}");
    let refused = world.http.path(&url, "/watch", &[("prefix", ""), ("timeout", "1s")]).await;
    refused.expect("an answer").expect(503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_lets_its_watchers_go() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &[]).await;
    let mut coordinator = world.routed(&[&group]).await;
    let request = world.http.client.get(format!("{}/watch?prefix=", coordinator.url)).send();
    let mut response = request.await.expect("an answer");
    coordinator.process.as_mut().expect("it runs").signal(Signal::TERM);
    let mut text = String::new();
    while let Some(chunk) =
        timeout(SOON, response.chunk()).await.expect("in time").expect("readable")
    {
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    assert!(text.contains(": the server is stopping"), "{text}");
    until("it has ended well", SOON, async || match coordinator.ended() {
        Some(status) if status.success() => Ok(()),
        ended => Err(format!("{ended:?}")),
    })
    .await;
}
