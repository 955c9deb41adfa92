//! A scan over all groups gives each key that is there throughout exactly once and in order, whatever
//! is written meanwhile, whoever is killed, and whichever coordinator is asked for the next page.

use futures::stream::{self, StreamExt};
use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::common::http::Http;
use crate::common::load::Load;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// Keys that are there from before the first page to after the last.
const STAY: usize = 3000;
/// Writes under way at a time.
const CLIENTS: usize = 16;

fn stays(number: usize) -> String {
    format!("stay:{number:05}")
}

async fn put(http: &Http, url: &str, key: &str) {
    until("a write is taken", SOON, async || {
        let answer = http.put(url, key, key).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

/// Puts them all, through any of the servers.
async fn fill(http: &Http, url: &str) {
    let puts = (0..STAY).map(|number| async move { put(http, url, &stays(number)).await });
    stream::iter(puts).buffer_unordered(CLIENTS).collect::<Vec<()>>().await;
}

/// One page of a scan, however long it takes to get it.
async fn page(http: &Http, url: &str, query: &str, cursor: &str) -> Json {
    until("a page comes", SOON, async || {
        let target = format!("/keys?{query}&cursor={cursor}&timeout=15s");
        let answer = http.path(url, &target, &[]).await.map_err(|error| format!("{error:?}"))?;
        if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text()) }
    })
    .await
}

/// Adds the keys of a page to those that were seen before, and returns the cursor to the next.
fn take(seen: &mut Vec<String>, page: &Json) -> Option<String> {
    for item in page["items"].as_array().expect("items") {
        let key = item["key"].as_str().expect("a key");
        let passing = key.ends_with('+') && item["value"] == "passing";
        assert!(item["value"] == key || passing || !key.starts_with("stay:"), "{item}");
        seen.push(key.to_owned());
    }
    page["cursor"].as_str().map(str::to_owned)
}

#[track_caller]
fn assert_in_order_and_complete(seen: &[String]) {
    let disorder = seen.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(disorder, None, "each key once, in order");
    let stay = |key: &&String| key.starts_with("stay:") && !key.ends_with('+');
    assert!(seen.iter().filter(stay).cloned().eq((0..STAY).map(stays)), "{seen:?}");
}

/// Puts and deletes keys between those that stay, for ever.
async fn come_and_go(http: Http, url: String) {
    for number in (0..STAY).step_by(7).cycle() {
        let key = format!("{}+", stays(number));
        http.put(&url, &key, "passing").await;
        http.delete(&url, &key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_there_throughout_is_seen_once_and_in_order() {
    let mut world = World::new().await;
    let mut red = world.started("red", 3, &["--id", "red"]).await;
    let mut green = world.started("green", 1, &["--id", "green"]).await;
    let blue = world.started("blue", 1, &["--id", "blue"]).await;
    let mut first = world.routed(&[&red, &green, &blue]).await;
    let second = world.routed(&[&red, &green, &blue]).await;
    fill(&world.http, &first.url).await;
    let load = Load::start("w", std::slice::from_ref(&second.url), 4);
    let passing = tokio::spawn(come_and_go(Http::new(), second.url.clone()));
    load.until_more(50).await;

    for reverse in [false, true] {
        let query = format!("limit=100&reverse={reverse}");
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let url = if first.is_up() { &first.url } else { &second.url };
            let answer = page(&world.http, url, &query, &cursor).await;
            let Some(next) = take(&mut seen, &answer) else { break };
            cursor = next;
            pages += 1;
            match (reverse, pages) {
                (false, 5) => {
                    let leader = red.leader(&world.http).await;
                    red.nodes[leader].kill();
                }
                // Nothing of a scan is kept in a process.
                (false, 10) => first.kill(),
                (true, 5) => {
                    green.kill();
                    green.start();
                }
                _ => {}
            }
        }
        assert!(pages >= STAY / 100, "{pages}");
        if reverse {
            seen.reverse();
        }
        assert_in_order_and_complete(&seen);
    }
    passing.abort();
    let written = load.stop().await;
    // What was acknowledged before it was asked for is counted.
    let answer = world.http.path(&second.url, "/count", &[("prefix", "w-")]).await;
    let counted =
        answer.expect("an answer").expect(200).json()["count"].as_u64().expect("a number");
    let acked = written.acked.len() as u64;
    assert!(
        (acked..=acked + written.unknown).contains(&counted),
        "{counted}, {acked} acknowledged"
    );
    written.verify(&world.http, &second.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_lists_the_keys_of_its_own_group_whichever_is_asked() {
    let mut world = World::new().await;
    let red = world.started("red", 3, &["--id", "red"]).await;
    let green = world.started("green", 1, &["--id", "green"]).await;
    let coordinator = world.routed(&[&red, &green]).await;
    for number in 0..100 {
        put(&world.http, &coordinator.url, &stays(number)).await;
    }
    let keys = async |url: &str| {
        let mut seen = Vec::new();
        let last = take(&mut seen, &page(&world.http, url, "prefix=stay:", "").await);
        assert_eq!(last, None, "{url}");
        seen
    };
    let of_red = keys(red.url()).await;
    for url in red.urls() {
        assert_eq!(keys(&url).await, of_red, "{url}");
    }
    let of_green = keys(green.url()).await;
    assert!(!of_red.is_empty() && !of_green.is_empty(), "each has some");
    let mut all = [of_red, of_green].concat();
    all.sort();
    assert_eq!(all, keys(&coordinator.url).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_is_deleted_while_a_leader_dies_and_each_key_counts_once() {
    let mut world = World::new().await;
    let mut red = world.started("red", 3, &["--id", "red"]).await;
    let green = world.started("green", 1, &["--id", "green"]).await;
    let coordinator = world.routed(&[&red, &green]).await;
    fill(&world.http, &coordinator.url).await;
    put(&world.http, &coordinator.url, "beside").await;
    let leader = red.leader(&world.http).await;
    let (http, url) = (Http::new(), coordinator.url.clone());
    let deletion = tokio::spawn(async move {
        let query = [("prefix", "stay:"), ("timeout", "30s")];
        http.send(Method::DELETE, (&url, "/keys"), &query, None).await.expect("an answer")
    });
    red.nodes[leader].kill();
    let deleted = deletion.await.expect("no panic").expect(200).json();
    assert_eq!(deleted, json!({"ok": true, "deleted": STAY}));
    let left = page(&world.http, &coordinator.url, "keys_only=true", "").await;
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_with_a_tag_are_listed_while_other_groups_are_down() {
    let mut world = World::new().await;
    let red = world.started("red", 1, &["--id", "red"]).await;
    let mut green = world.started("green", 1, &["--id", "green"]).await;
    let coordinator = world.routed(&[&red, &green]).await;
    let url = coordinator.url.as_str();
    let mut tags = (0..).map(|number| format!("{{tag{number}}}"));
    let tag = until("red has a tag", SOON, async || {
        let tag = tags.next().expect("there are many");
        let route = world.http.path(url, "/route", &[("key", &tag)]).await;
        let route = route.map_err(|error| error.to_string())?.expect(200).json();
        if route["shard"] == "red" { Ok(tag) } else { Err(route.to_string()) }
    })
    .await;
    for key in ["a", "b", "c"] {
        world.http.put(url, &format!("{tag}:{key}"), "v").await.expect(200);
    }
    green.kill();
    let list = async |prefix: &str| {
        let query = [("prefix", prefix), ("timeout", "2s")];
        world.http.path(url, "/keys", &query).await.expect("an answer")
    };
    let page = list(&format!("{tag}:")).await.expect(200);
    assert_eq!(page.json()["items"].as_array().map(Vec::len), Some(3));
    assert!(page.header("x-sage-index").starts_with("red:"), "{:?}", page.headers);
    // A page with a gap would be a lie.
    list("").await.expect(503);
}
