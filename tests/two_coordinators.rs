//! Coordinators agree: the ring follows from the names of the groups alone, not from the order in
//! which they were listed, and it is the one that the documentation describes.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream;
use sagedb::types::hash::Token;
use sagedb::types::http::RouteBody;
use sagedb::types::key::Key;

use crate::common::group::Group;
use crate::common::http::Http;
use crate::common::world::World;

/// Questions under way at a time.
const CLIENTS: usize = 32;
/// `--vnodes` by default.
const VNODES: u32 = 100;

async fn route(http: &Http, url: &str, key: &str) -> RouteBody {
    let answer = http.path(url, "/route", &[("key", key)]).await.expect("an answer");
    let answer = answer.expect(200);
    serde_json::from_slice(&answer.body).expect("a route")
}

/// The ring as the documentation describes it: the group of the first token at or after the
/// key's hash, wrapping.
struct Ring(BTreeMap<Token, String>);

impl Ring {
    fn of(names: &[&str]) -> Self {
        let tokens = names.iter().flat_map(|name| {
            (0..VNODES).map(|vnode| (Token::of_vnode(name, vnode), (*name).to_string()))
        });
        Self(tokens.collect())
    }

    fn owner(&self, key: &str) -> &str {
        let token = Token::of_key(&Key::new(key).expect("a key"));
        let after = self.0.range(token..).next();
        after.or_else(|| self.0.iter().next()).expect("the ring has tokens").1
    }
}

async fn groups(world: &mut World, names: &[&str]) -> Vec<Group> {
    let mut groups = Vec::new();
    for name in names {
        groups.push(world.started(name, 1, &["--id", name]).await);
    }
    groups
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_shards_in_another_order_give_the_same_routes() {
    let mut world = World::new().await;
    let names = ["red", "green", "blue"];
    let groups = groups(&mut world, &names).await;
    let one = world.routed(&[&groups[0], &groups[1], &groups[2]]).await;
    let two = world.routed(&[&groups[2], &groups[0], &groups[1]]).await;
    let ring = Ring::of(&names);
    let (http, ring, one, two) = (&world.http, &ring, &one.url, &two.url);
    let asked = stream::iter(0..10_000).map(|number| async move {
        let key = format!("key-{number}");
        let (first, second) = tokio::join!(route(http, one, &key), route(http, two, &key));
        assert_eq!(first, second);
        assert_eq!(first.shard, ring.owner(&key), "{key}");
        let token = Token::of_key(&Key::new(key.clone()).expect("a key"));
        assert_eq!(first.hash, format!("{:016x}", token.0), "{key}");
        first.shard
    });
    let mut shares = BTreeMap::<String, usize>::new();
    let mut asked = std::pin::pin!(asked.buffer_unordered(CLIENTS));
    while let Some(shard) = asked.next().await {
        *shares.entry(shard).or_default() += 1;
    }
    assert_eq!(shares.values().sum::<usize>(), 10_000);
    assert_eq!(shares.len(), 3, "every group owns a part: {shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_coordinators_that_start_at_once_agree_on_one_ring() {
    let mut world = World::new().await;
    let groups = groups(&mut world, &["red", "green", "blue"]).await;
    let urls: Vec<String> = groups.iter().flat_map(Group::urls).collect();
    let mut coordinators = Vec::new();
    for turn in 0..4 {
        let mut shards = urls.clone();
        shards.rotate_left(turn % 3);
        let mut coordinator = world.coordinator(&shards);
        coordinator.start().expect("the coordinator can be started");
        coordinators.push(coordinator);
    }
    let mut clusters = Vec::new();
    for coordinator in &coordinators {
        world.until_ready(&coordinator.url).await;
        let answer = world.http.path(&coordinator.url, "/cluster", &[]).await;
        let cluster = answer.expect("an answer").expect(200).json();
        clusters.push((cluster["cluster"].to_string(), cluster["epoch"].to_string()));
        world.http.put(&coordinator.url, &coordinator.url, "v").await.expect(200);
    }
    clusters.dedup();
    assert_eq!(clusters.len(), 1, "{clusters:?}");
    for reader in &coordinators {
        for writer in &coordinators {
            world.http.get(&reader.url, &writer.url).await.expect(200);
        }
    }
}

#[test]
fn a_fourth_group_takes_its_part_and_nothing_else_moves() {
    let names = ["red", "green", "blue", "white"];
    let (three, four) = (Ring::of(&names[..3]), Ring::of(&names));
    let keys = (0..100_000).map(|number| format!("key-{number}"));
    let moved: Vec<String> = keys.filter(|key| three.owner(key) != four.owner(key)).collect();
    assert!(moved.iter().all(|key| four.owner(key) == "white"));
    assert!((15_000..=35_000).contains(&moved.len()), "{} of 100,000 keys moved", moved.len());
}
