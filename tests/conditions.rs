//! Read, change, write back if nobody else has written meanwhile: no update is ever lost, through
//! whichever coordinator, and while leaders are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use reqwest::Method;
use tokio::task::JoinSet;

use crate::common::http::Http;
use crate::common::until::{SOON, until};
use crate::common::world::World;

const CLIENTS: usize = 8;
const KILLS: usize = 3;
/// Increments between two kills, so that each happens under load.
const BETWEEN: u64 = 100;

/// What all clients have done.
#[derive(Default)]
struct Done {
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    enough: AtomicBool,
}

/// Reads the counter and its version; `None` without an answer.
async fn look(http: &Http, url: &str) -> Option<(u64, String)> {
    let got = http.get(url, "counter").await;
    if got.status != 200 {
        return None;
    }
    let value = got.json()["value"].as_str().expect("a text").parse().expect("a number");
    Some((value, got.header("etag").to_string()))
}

/// Adds one again and again, each time to what was just read.
async fn increment(http: Http, url: String, done: Arc<Done>) {
    while !done.enough.load(Ordering::Relaxed) {
        let Some((value, tag)) = look(&http, &url).await else { continue };
        let request = http.client.request(Method::PUT, format!("{url}/kv?key=counter"));
        let request = request.header("If-Match", tag).body((value + 1).to_string());
        match request.send().await.map(|answer| answer.status().as_u16()) {
            Ok(200) => done.acknowledged.fetch_add(1, Ordering::Relaxed),
            // Somebody else was faster, or there was no leader: nothing has changed.
            Ok(412 | 503) => 0,
            Ok(504) => done.unknown.fetch_add(1, Ordering::Relaxed),
            other => panic!("{other:?}"),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_conditional_update_is_lost_while_leaders_are_killed() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let coordinators = [world.routed(&[&group]).await, world.routed(&[&group]).await];
    world.http.put(&coordinators[0].url, "counter", "0").await.expect(200);

    let done = Arc::new(Done::default());
    let mut clients = JoinSet::new();
    for coordinator in coordinators.iter().cycle().take(CLIENTS) {
        clients.spawn(increment(Http::new(), coordinator.url.clone(), Arc::clone(&done)));
    }
    for _ in 0..KILLS {
        let goal = done.acknowledged.load(Ordering::Relaxed) + BETWEEN;
        until("the counter rises", SOON, async || {
            let now = done.acknowledged.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        })
        .await;
        let leader = group.leader(&world.http).await;
        group.nodes[leader].kill();
        group.nodes[leader].start().expect("it starts again");
    }
    done.enough.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client got an answer that it should not");
    }

    let url = &coordinators[1].url;
    let (value, _) = until("the counter can be read", SOON, async || {
        look(&world.http, url).await.ok_or_else(|| "no answer".to_string())
    })
    .await;
    let acknowledged = done.acknowledged.load(Ordering::Relaxed);
    let unknown = done.unknown.load(Ordering::Relaxed);
    println!("{acknowledged} acknowledged, {unknown} of unknown fate, the counter is at {value}");
    assert!(value >= acknowledged, "{acknowledged} acknowledged, but only {value} are there");
    assert!(value <= acknowledged + unknown, "{value} of {acknowledged} and {unknown}");
}
