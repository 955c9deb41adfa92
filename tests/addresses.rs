//! Where processes listen, what others call them, and what a coordinator leaves behind: nothing.

use std::net::Ipv4Addr;

use serde_json::json;
use tokio::net::TcpStream;

use crate::common::until::{SOON, until};
use crate::common::world::World;

/// Another address of this machine, if it is one of Linux.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[track_caller]
fn port_of(url: &str) -> u16 {
    let (_, port) = url.rsplit_once(':').expect("a port");
    port.parse().expect("a number")
}

async fn is_open(address: Ipv4Addr, url: &str) -> bool {
    TcpStream::connect((address, port_of(url))).await.is_ok()
}

#[tokio::test]
async fn a_process_listens_on_127_0_0_1_and_nowhere_else() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &[]).await;
    let coordinator = world.routed(&[&group]).await;
    for url in [group.url(), &coordinator.url] {
        assert!(is_open(Ipv4Addr::LOCALHOST, url).await, "{url}");
        assert!(!is_open(ELSEWHERE, url).await, "{url} is open to others");
    }
    let url = group.url();
    let status = group.status(&world.http, 0).await.expect("it answers");
    assert_eq!(status.url, url, "what it advertises");
    assert_eq!(status.name, Some(format!("shard-{}", port_of(url))), "what it is called");
}

/// Where the whole of 127.0.0.0/8 is this machine.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_listens_where_it_is_told() {
    let mut world = World::new().await;
    let listen = ["--listen", "127.0.0.2"];
    let mut group = world.group("group", 1, &listen);
    group.start();
    let shard = format!("http://{ELSEWHERE}:{}", port_of(group.url()));
    world.until_ready(&shard).await;
    let mut coordinator = world.coordinator(std::slice::from_ref(&shard));
    coordinator.launch.args.extend(listen.map(String::from));
    coordinator.start().expect("the coordinator can be started");
    let router = format!("http://{ELSEWHERE}:{}", port_of(&coordinator.url));
    world.until_ready(&router).await;
    world.http.put(&router, "k", "v").await.expect(200);
    for url in [&shard, &router] {
        assert!(!is_open(Ipv4Addr::LOCALHOST, url).await, "{url} is open at 127.0.0.1 too");
    }
}

#[tokio::test]
async fn others_reach_a_replica_at_the_url_that_it_advertises() {
    let mut world = World::new().await;
    let mut group = world.group("group", 1, &[]);
    let url = group.url().replace("127.0.0.1", "localhost");
    group.nodes[0].launch.args.extend(["--advertise".into(), url.clone()]);
    group.start();
    group.until_ready(&world.http).await;
    assert_eq!(group.status(&world.http, 0).await.expect("it answers").url, url);
    let coordinator = world.routed(&[&group]).await;
    world.http.put(&coordinator.url, "k", "v").await.expect(200);
    let route = world.http.path(&coordinator.url, "/route", &[("key", "k")]).await;
    let route = route.expect("an answer").expect(200).json();
    assert_eq!((&route["url"], &route["replicas"]), (&json!(url), &json!([url])));
}

#[tokio::test]
async fn a_coordinator_leaves_nothing_behind() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &[]).await;
    let mut coordinator = world.coordinator(&group.urls());
    let own = world.directory().join("own");
    std::fs::create_dir(&own).expect("a directory can be made");
    coordinator.launch.directory.clone_from(&own);
    coordinator.start().expect("the coordinator can be started");
    world.until_ready(&coordinator.url).await;
    world.http.put(&coordinator.url, "k", "v").await.expect(200);
    coordinator.kill();
    let left = std::fs::read_dir(&own).expect("readable").map(|entry| entry.expect("one").path());
    let left: Vec<_> = left.collect();
    assert_eq!(left, [coordinator.launch.log()], "its log is ours");
    // Another that knows nothing goes on in its place.
    std::fs::remove_dir_all(&own).expect("it can be removed");
    std::fs::create_dir(&own).expect("a directory can be made");
    coordinator.start().expect("the coordinator can be started");
    world.until_ready(&coordinator.url).await;
    world.http.get(&coordinator.url, "k").await.expect(200);
}

#[tokio::test]
async fn a_coordinator_starts_from_any_members_while_others_are_down() {
    let mut world = World::new().await;
    let mut red = world.started("red", 3, &["--id", "red"]).await;
    let green = world.started("green", 1, &["--id", "green"]).await;
    let follower = red.follower(&world.http).await;
    red.nodes[follower].kill();
    let leader = red.leader(&world.http).await;
    let other = (0..3).find(|at| ![leader, follower].contains(at)).expect("there are three");
    // The one that is down first, and not the leader.
    let lists = [
        vec![red.nodes[follower].url.clone(), red.nodes[other].url.clone(), green.url().into()],
        vec![green.url().to_string(), red.nodes[other].url.clone()],
    ];
    for shards in lists {
        let mut coordinator = world.coordinator(&shards);
        coordinator.start().expect("the coordinator can be started");
        world.until_ready(&coordinator.url).await;
        until("both groups are served", SOON, async || {
            for number in 0..20 {
                let put = world.http.put(&coordinator.url, &format!("key-{number}"), "v").await;
                if put.status != 200 {
                    return Err(put.text());
                }
            }
            Ok(())
        })
        .await;
        let cluster = world.http.path(&coordinator.url, "/cluster", &[]).await;
        let cluster = cluster.expect("an answer").expect(200).json();
        let members = |at: usize| cluster["groups"][at]["members"].as_array().map(Vec::len);
        assert_eq!((members(0), members(1)), (Some(1), Some(3)), "{cluster}");
    }
}
