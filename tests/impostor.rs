//! A replica that is started under the URL of another does not keep that one from rejoining.

use crate::common::node::Node;
use crate::common::until::{SOON, until};
use crate::common::world::{World, sage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_never_answers_makes_room_for_the_next() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    let leader = group.leader(&world.http).await;
    let victim = (leader + 1) % 3;
    let url = group.nodes[victim].url.clone();
    let others: Vec<String> = group.urls().into_iter().filter(|other| *other != url).collect();
    let flags = ["--advertise".to_owned(), url];
    let port = world.port();
    let mut impostor = Node::shard(&sage(), world.directory(), ("impostor", port), &others, &flags);
    impostor.start().expect("it can be started");
    until("the impostor is a learner", SOON, async || {
        let status = group.status(&world.http, leader).await?;
        let members = status.members.len();
        if members == 4 { Ok(()) } else { Err(format!("{members} members")) }
    })
    .await;
    impostor.kill();

    group.wipe(victim);
    group.until_voters(&world.http, 3).await;
    // The last step of the change may still be under way: the former voter is dropped by it.
    until("nobody else is left", SOON, async || {
        let members = group.status(&world.http, leader).await?.members;
        if members.len() == 3 { Ok(()) } else { Err(format!("{members:?}")) }
    })
    .await;
}
