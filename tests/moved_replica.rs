//! A replica comes back with its data under another URL: it stays a member and gets what follows.

use crate::common::node::url_of;
use crate::common::until::{SOON, until};
use crate::common::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_moves_to_another_port_stays_a_member() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    let leader = group.leader(&world.http).await;
    let moved = (leader + 1) % 3;
    let port = world.port();
    group.nodes[moved].kill();
    let args = &mut group.nodes[moved].launch.args;
    let at = args.iter().position(|arg| arg == "--port").expect("it has a port");
    args[at + 1] = port.to_string();
    group.nodes[moved].url = url_of(port);
    group.nodes[moved].start().expect("a replica can be started");

    until("the leader knows the new URL", SOON, async || {
        let status = group.status(&world.http, leader).await?;
        let urls: Vec<String> = status.members.into_iter().map(|member| member.url).collect();
        if urls.contains(&url_of(port)) { Ok(()) } else { Err(format!("{urls:?}")) }
    })
    .await;
    world.http.put(&group.nodes[leader].url, "after", "the move").await.expect(200);
    group.until_caught_up(&world.http, moved).await;
    assert_eq!(group.leader(&world.http).await, leader, "nobody had to be elected for it");
}
