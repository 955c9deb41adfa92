//! A leader whose process has ended is replaced at once, unless it may still be trusted by those
//! who read by its lease; and a broken connection is no reason to replace one that is there.
//!
//! Timeouts are so long that only what is tested here can be faster or slower than them.

use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

use crate::common::group::Group;
use crate::common::load::Load;
use crate::common::node::{Node, url_of};
use crate::common::until::{SOON, until};
use crate::common::world::{World, sage};

/// Waits until a replica that is not `old` leads and takes writes; says how long that took.
async fn replaced(world: &World, group: &Group, old: usize, within: Duration) -> Duration {
    let start = Instant::now();
    let other = &group.nodes[(old + 1) % group.nodes.len()].url;
    until("another leads and takes writes", within, async || {
        let put = world.http.put(other, "after", "v").await;
        if put.status == 200 { Ok(()) } else { Err(put.text()) }
    })
    .await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_long_before_its_election_timeout() {
    let mut world = World::new().await;
    let flags = ["--heartbeat", "1s", "--election-timeout-min", "15s"];
    let flags = [&flags[..], &["--election-timeout-max", "20s"]].concat();
    let mut group = world.started("group", 3, &flags).await;
    let old = group.leader(&world.http).await;
    world.http.put(&group.nodes[old].url, "before", "v").await.expect(200);

    group.nodes[old].kill();
    // openraft alone takes a lease of 20 s and another 15 s at least.
    let took = replaced(&world, &group, old, Duration::from_secs(14)).await;
    println!("replaced after {took:?}");
    let other = &group.nodes[(old + 1) % 3].url;
    world.http.get(other, "before").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_not_replaced_before_its_lease_is_over() {
    let mut world = World::new().await;
    let flags = ["--heartbeat", "100ms", "--election-timeout-min", "3s"];
    let flags = [&flags[..], &["--election-timeout-max", "4s"]].concat();
    let mut group = world.started("group", 3, &flags).await;
    let old = group.leader(&world.http).await;
    let url = group.nodes[old].url.clone();
    world.http.put(&url, "k", "v").await.expect(200);
    for _ in 0..100 {
        let query = [("key", "k"), ("consistency", "lease")];
        world.http.get_with(&url, &query).await.expect(200);
    }

    group.nodes[old].kill();
    let took = replaced(&world, &group, old, SOON).await;
    println!("replaced after {took:?}");
    // The followers owe 1 s, the longest lease there is, from the last heartbeat before.
    assert!(took > Duration::from_millis(500), "{took:?}");
}

/// A way to one replica whose connections can all be broken.
struct Link {
    url: String,
    broken: broadcast::Sender<()>,
    _task: AbortOnDropHandle<()>,
}

impl Link {
    /// From one port of ours to another.
    async fn open(from: u16, to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", from)).await.expect("a free port");
        let (broken, _) = broadcast::channel(1);
        let breaks = broken.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut broken = breaks.subscribe();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = broken.recv() => {}
                    }
                });
            }
        });
        Self { url: url_of(from), broken, _task: AbortOnDropHandle::new(task) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_depose_no_leader_that_answers() {
    let mut world = World::new().await;
    let ports: Vec<u16> = (0..3).map(|_| world.port()).collect();
    let mut links = Vec::new();
    for port in &ports {
        links.push(Link::open(world.port(), *port).await);
    }
    let mut nodes = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let peers = links.iter().enumerate().filter(|(other, _)| *other != at);
        let peers: Vec<String> = peers.map(|(_, link)| link.url.clone()).collect();
        let flags = ["--advertise".to_owned(), links[at].url.clone()];
        let name = format!("linked-{at}");
        nodes.push(Node::shard(&sage(), world.directory(), (&name, *port), &peers, &flags));
    }
    let mut group = Group { nodes };
    group.start();
    group.until_ready(&world.http).await;
    let leader = group.leader(&world.http).await;
    let before = group.status(&world.http, leader).await.expect("the leader answers");

    let load = Load::start("w", std::slice::from_ref(&group.nodes[leader].url), 4);
    for _ in 0..10 {
        load.until_more(50).await;
        // An error means that nothing was connected there.
        let broken: usize = links.iter().filter_map(|link| link.broken.send(()).ok()).sum();
        assert!(broken > 0, "connections were broken");
    }
    load.until_more(200).await;
    let written = load.stop().await;
    let after = group.status(&world.http, leader).await.expect("the leader answers");
    assert_eq!((after.leader, after.term), (before.leader, before.term), "it still leads");
    written.verify(&world.http, &group.nodes[leader].url).await;
}
