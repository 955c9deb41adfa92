//! A group whose memory budget is spent refuses puts, and only puts: it goes on reading, deleting
//! and overwriting with less, and what was refused is never seen. No burst of writers makes it take
//! more than it may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use sagedb::types::http::ShardStatus;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use crate::common::command::run;
use crate::common::group::Group;
use crate::common::http::{Answer, FORM, Http};
use crate::common::until::{SOON, until};
use crate::common::world::World;

const BUDGET: &str = "1MiB";
const BUDGET_BYTES: u64 = 1024 * 1024;
/// The values that the tests write: some 60 fill the budget.
const VALUE_BYTES: usize = 16 * 1024;
/// More puts than any test needs to fill it.
const PUTS_MAX: usize = 200;

fn value(bytes: usize) -> String {
    "v".repeat(bytes)
}

/// Checks a `507` that says that the write was not taken.
#[track_caller]
fn refused(answer: &Answer) {
    assert_eq!(answer.status, 507, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["code"], json!("out_of_memory_budget"), "{body}");
    assert_eq!(body["outcome"], json!("not_applied"), "{body}");
    let sentence = body["error"].as_str().expect("a sentence");
    assert!(sentence.contains(&format!("--max-memory is {BUDGET_BYTES} bytes")), "{sentence}");
}

/// Puts `<name>-0`, `<name>-1` and so on until one is refused, and says how many were taken.
async fn fill(http: &Http, url: &str, name: &str) -> usize {
    for number in 0..PUTS_MAX {
        let answer = http.put(url, &format!("{name}-{number}"), &value(VALUE_BYTES)).await;
        if answer.status != 200 {
            refused(&answer);
            return number;
        }
    }
    panic!("{PUTS_MAX} puts do not fill it");
}

/// What all replicas that run say of themselves, none of them over the budget.
async fn within_budget(http: &Http, group: &Group) -> Vec<ShardStatus> {
    let mut statuses = Vec::new();
    for at in 0..group.nodes.len() {
        if let Ok(status) = group.status(http, at).await {
            assert_eq!(status.max_memory, Some(BUDGET_BYTES));
            assert!(status.memory <= BUDGET_BYTES, "{} of {BUDGET_BYTES}", status.memory);
            statuses.push(status);
        }
    }
    statuses
}

#[tokio::test]
async fn a_full_group_refuses_puts_and_goes_on_with_everything_else() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--max-memory", BUDGET]).await;
    let coordinator = world.routed(&[&group]).await;
    let (leader, follower) = (group.leader(&world.http).await, group.follower(&world.http).await);
    let urls = [&coordinator.url, &group.nodes[leader].url, &group.nodes[follower].url];
    let http = &world.http;
    let taken = fill(http, &coordinator.url, "k").await;
    assert!(taken > 50, "only {taken} of {VALUE_BYTES} bytes fit into {BUDGET}");
    within_budget(http, &group).await;

    for (at, url) in urls.into_iter().enumerate() {
        refused(&http.put(url, "new", &value(VALUE_BYTES)).await);
        refused(&http.put(url, "k-0", &value(4 * VALUE_BYTES)).await);
        let conditional = http.client.put(format!("{url}/kv?key=new")).header("If-None-Match", "*");
        let conditional = conditional.body(value(VALUE_BYTES)).send().await.expect("an answer");
        assert_eq!(conditional.status().as_u16(), 507);

        assert_eq!(http.get(url, "new").await.status, 404);
        http.get(url, &format!("k-{}", at + 1)).await.expect(200);
        http.put(url, "k-0", &value(VALUE_BYTES)).await.expect(200);
        // A put that makes its key no larger, then room for one.
        http.put(url, &format!("k-{at}"), "less").await.expect(200);
        http.delete(url, &format!("k-{}", at + 10)).await.expect(200);
        http.put(url, &format!("k-{at}"), &value(VALUE_BYTES)).await.expect(200);
        http.put(url, &format!("k-{}", at + 10), &value(VALUE_BYTES)).await.expect(200);
    }
    let printed =
        run(world.directory(), &["put", "k", &value(VALUE_BYTES), "--url", urls[0]]).await;
    printed.refused(&["out of memory budget", "--max-memory"]);
    let status = run(world.directory(), &["status", "--url", urls[0]]).await;
    assert!(status.stdout.contains("% of 1.0 MiB)"), "{}", status.stdout);

    for number in 0..10 {
        http.delete(urls[0], &format!("k-{number}")).await.expect(200);
    }
    let log = std::fs::read_to_string(group.nodes[leader].launch.log()).expect("a log");
    for (said, times) in [("out of memory budget", 1), ("within the memory budget again", 1)] {
        let lines = log.lines().filter(|line| line.contains(said)).count();
        assert_eq!(lines, times, "{said}: {log}");
    }
}

/// Writers that put, overwrite and delete without a pause, and somebody who watches how much that
/// takes.
struct Burst {
    enough: Arc<AtomicBool>,
    writers: JoinSet<[usize; 3]>,
    watcher: JoinHandle<u64>,
}

/// What came of a burst.
#[derive(Debug)]
struct Ended {
    taken: usize,
    refused: usize,
    /// Not taken for another reason, or of unknown fate.
    other: usize,
    /// The most memory that any replica counted.
    most: u64,
}

impl Burst {
    const WRITERS: usize = 32;

    /// Every key that it may have written.
    fn keys() -> impl Iterator<Item = String> {
        let owners = (0..Self::WRITERS).map(|writer| writer.to_string());
        let owners = std::iter::once("all".to_string()).chain(owners);
        owners.flat_map(|owner| (0..10).map(move |number| format!("{owner}-{number}")))
    }

    fn start(url: &str, replicas: Vec<String>) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..Self::WRITERS {
            writers.spawn(Self::write(writer, url.to_string(), Arc::clone(&enough)));
        }
        let watcher = tokio::spawn(Self::watch(replicas, Arc::clone(&enough)));
        Self { enough, writers, watcher }
    }

    async fn write(writer: usize, url: String, enough: Arc<AtomicBool>) -> [usize; 3] {
        let http = Http::new();
        let [mut taken, mut full, mut other] = [0; 3];
        for number in 0.. {
            if enough.load(Ordering::Relaxed) {
                break;
            }
            // Half of the keys are everybody's, so that they grow, shrink and go meanwhile.
            let owner = if number % 2 == 0 { "all".into() } else { writer.to_string() };
            let key = format!("{owner}-{}", number % 10);
            let bytes = [1, 100, 4096, VALUE_BYTES, 8 * VALUE_BYTES][(writer + number) % 5];
            let answer = match (writer + number) % 7 {
                0 => http.delete(&url, &key).await,
                _ => http.put(&url, &key, &value(bytes)).await,
            };
            match answer.status {
                200 => taken += 1,
                503 | 504 => other += 1,
                _ => {
                    refused(&answer);
                    full += 1;
                }
            }
        }
        [taken, full, other]
    }

    async fn watch(replicas: Vec<String>, enough: Arc<AtomicBool>) -> u64 {
        let (http, mut most) = (Http::new(), 0);
        while !enough.load(Ordering::Relaxed) {
            for url in &replicas {
                let Ok(answer) = http.path(url, "/status", &[]).await else { continue };
                most = most.max(answer.json()["memory"].as_u64().expect("a number"));
            }
        }
        most
    }

    async fn stop(self) -> Ended {
        self.enough.store(true, Ordering::Relaxed);
        let counts = self.writers.join_all().await;
        let [taken, refused, other] =
            counts.into_iter().fold([0; 3], |[a, b, c], [d, e, f]| [a + d, b + e, c + f]);
        Ended { taken, refused, other, most: self.watcher.await.expect("it watches") }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_writers_never_exceeds_the_budget() {
    let mut world = World::new().await;
    let group = world.started("group", 3, &["--max-memory", BUDGET]).await;
    let coordinator = world.routed(&[&group]).await;
    let leader = group.leader(&world.http).await;
    let applied = async || {
        let status = group.status(&world.http, leader).await?;
        status.applied.map(|id| id.index).ok_or_else(|| "nothing is applied".to_string())
    };
    let burst = Burst::start(&coordinator.url, group.urls());
    until("a thousand writes are applied", SOON, async || {
        let index = applied().await?;
        if index > 1000 { Ok(()) } else { Err(index.to_string()) }
    })
    .await;
    let ended = burst.stop().await;
    println!("{ended:?}");
    assert!(ended.most <= BUDGET_BYTES && ended.other == 0, "{ended:?}");
    assert!(ended.most > BUDGET_BYTES / 2, "it was no burst: {ended:?}");
    assert!(ended.taken > 0 && ended.refused > 0, "it was no burst: {ended:?}");
    for at in 0..3 {
        group.until_caught_up(&world.http, at).await;
    }
    within_budget(&world.http, &group).await;

    // Nothing holds room that no key has: all that the keys leave can be had. They may have left hardly any.
    let memory = async || group.status(&world.http, leader).await.expect("it answers").memory;
    for key in Burst::keys() {
        if memory().await < BUDGET_BYTES / 2 {
            break;
        }
        world.http.delete(&coordinator.url, &key).await;
    }
    let memory = memory().await;
    let rest = usize::try_from(BUDGET_BYTES - memory).expect("small") - 1024;
    world.http.put(&coordinator.url, "rest", &value(rest)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_through_failovers_never_exceeds_the_budget() {
    const KILLS: usize = 8;
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--max-memory", BUDGET]).await;
    let coordinator = world.routed(&[&group]).await;
    let burst = Burst::start(&coordinator.url, group.urls());
    for _ in 0..KILLS {
        let leader = group.leader(&world.http).await;
        let goal = group.status(&world.http, leader).await.expect("it answers").last_index;
        until("writes go on", SOON, async || {
            let index = group.status(&world.http, leader).await?.last_index;
            if index > goal.map(|index| index + 200) { Ok(()) } else { Err(format!("{index:?}")) }
        })
        .await;
        group.nodes[leader].kill();
        group.leader(&world.http).await;
        group.nodes[leader].start().expect("it starts again");
        group.until_caught_up(&world.http, leader).await;
    }
    let ended = burst.stop().await;
    println!("{ended:?}");
    assert!(ended.most <= BUDGET_BYTES, "{ended:?}");
    assert!(ended.taken > 0 && ended.refused > 0, "it was no burst: {ended:?}");
    for at in 0..3 {
        group.until_caught_up(&world.http, at).await;
    }
    within_budget(&world.http, &group).await;
}

/// Puts that were taken, by key, and keys whose puts were refused.
#[derive(Default)]
struct Seen {
    taken: BTreeMap<String, u16>,
    refused: Vec<String>,
}

impl Seen {
    /// Puts new keys until several were refused.
    async fn write(&mut self, http: &Http, url: &str, name: &str) {
        for number in 0..PUTS_MAX {
            let key = format!("{name}-{number}");
            let query = [("key", key.as_str())];
            let body = Some((FORM, value(VALUE_BYTES).into_bytes()));
            let answer = http.send(Method::PUT, (url, "/kv"), &query, body).await;
            match answer.map(|answer| answer.status) {
                Ok(507) => self.refused.push(key),
                Ok(200) => drop(self.taken.insert(key, 200)),
                // Not taken, or unknown: it proves nothing.
                Ok(503 | 504) | Err(_) => {}
                Ok(status) => panic!("{status}"),
            }
            if self.refused.iter().filter(|key| key.starts_with(name)).count() == 5 {
                return;
            }
        }
        panic!("{PUTS_MAX} puts do not fill it");
    }

    async fn verify(&self, http: &Http, url: &str) {
        for key in self.taken.keys() {
            http.get(url, key).await.expect(200);
        }
        for key in &self.refused {
            http.get(url, key).await.expect(404);
        }
    }
}

#[tokio::test]
async fn a_refused_put_is_never_seen_after_failover_and_restart() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--max-memory", BUDGET]).await;
    let coordinator = world.routed(&[&group]).await;
    let mut seen = Seen::default();
    seen.write(&world.http, &coordinator.url, "first").await;
    let leader = group.leader(&world.http).await;
    group.nodes[leader].kill();
    group.leader(&world.http).await;
    // The next leader counts as the former did.
    seen.write(&world.http, &coordinator.url, "second").await;
    seen.verify(&world.http, &coordinator.url).await;
    within_budget(&world.http, &group).await;

    group.kill();
    group.start();
    group.until_ready(&world.http).await;
    world.until_ready(&coordinator.url).await;
    seen.write(&world.http, &coordinator.url, "third").await;
    for at in 0..3 {
        group.until_caught_up(&world.http, at).await;
        seen.verify(&world.http, &group.nodes[at].url).await;
    }
    assert_eq!(within_budget(&world.http, &group).await.len(), 3);
}

#[tokio::test]
async fn a_replica_with_a_smaller_budget_follows_beyond_it_and_refuses_only_when_it_leads() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let leader = group.leader(&world.http).await;
    for at in (0..3).filter(|at| *at != leader) {
        group.nodes[at].kill();
        group.nodes[at].launch.env.push(("SAGE_MAX_MEMORY".into(), BUDGET.into()));
        group.start();
        group.until_ready(&world.http).await;
    }
    let url = group.nodes[leader].url.clone();
    for number in 0..PUTS_MAX {
        world.http.put(&url, &format!("k-{number}"), &value(VALUE_BYTES)).await.expect(200);
    }
    for at in (0..3).filter(|at| *at != leader) {
        let status = group.until_caught_up(&world.http, at).await;
        assert_eq!(status.max_memory, Some(BUDGET_BYTES));
        assert!(status.memory > 2 * BUDGET_BYTES, "{}", status.memory);
    }

    group.nodes[leader].kill();
    let next = group.leader(&world.http).await;
    let url = group.nodes[next].url.clone();
    let http = &world.http;
    until("the next leader refuses", SOON, async || {
        let answer = http.put(&url, "new", "small").await;
        if answer.status == 507 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    http.put(&url, "k-0", "less").await.expect(200);
    assert_eq!(http.get(&url, "k-0").await.expect(200).json()["value"], json!("less"));
    for number in 0..PUTS_MAX {
        http.delete(&url, &format!("k-{number}")).await.expect(200);
    }
    http.put(&url, "new", "small").await.expect(200);
}

/// Resident memory of a replica's process, in bytes.
fn resident(group: &Group) -> u64 {
    let process = group.nodes[0].process.as_ref().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id()));
    let status = status.expect("the system tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// What an item takes beside its key and value, for `ITEM_OVERHEAD_BYTES` and for the docs: the
/// difference of two sizes, so that what the process takes anyway is left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of some minutes, to be run alone"]
async fn how_much_memory_an_item_takes() {
    const KEYS: [u64; 2] = [200_000, 1_000_000];
    const WRITERS: u64 = 128;
    let mut world = World::alone().await;
    let value_bytes = std::env::var("VALUE_BYTES").map_or(100, |text| text.parse().expect("bytes"));
    for order in ["rising", "random"] {
        let mut group = world.started(order, 1, &[]).await;
        let mut seen = Vec::new();
        for (from, to) in [(0, KEYS[0]), (KEYS[0], KEYS[1])] {
            let mut writers = JoinSet::new();
            for writer in 0..WRITERS {
                let (http, url) = (world.http.clone(), group.url().to_string());
                writers.spawn(async move {
                    for number in
                        (from + writer..to).step_by(usize::try_from(WRITERS).expect("small"))
                    {
                        // An odd multiplier: each number once, in another order.
                        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                        let place = if order == "random" { mixed } else { number };
                        let key = format!("key-{place:016x}");
                        http.put(&url, &key, &value(value_bytes)).await.expect(200);
                    }
                });
            }
            writers.join_all().await;
            seen.push((group.status(&world.http, 0).await.expect("it answers"), resident(&group)));
        }
        let [(few, few_resident), (many, many_resident)] = &seen[..] else { panic!("{seen:?}") };
        let grown = many_resident.saturating_sub(*few_resident);
        let overhead = grown.saturating_sub(many.bytes - few.bytes) / (many.keys - few.keys);
        group.kill();
        group.start();
        group.until_ready(&world.http).await;
        println!(
            "{order} keys, values of {value_bytes} bytes: {overhead} bytes beside each item; \
             counted {}, resident {many_resident}, after a restart {}",
            many.memory,
            resident(&group)
        );
    }
}
