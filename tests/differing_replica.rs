//! A replica whose memory is not what its log says: the others show it, it takes itself out of service,
//! and it comes back as a new member with what the others have. Nothing that was acknowledged is lost.
//!
//! Needs a server that can be broken on purpose: `cargo test --features planted-bugs --test promises
//! differing`.

use std::fs;

use crate::common::group::Group;
use crate::common::load::Load;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// Its memory goes wrong from its next start on.
fn break_memory(group: &mut Group, at: usize) {
    group.nodes[at].launch.env.push(("SAGE_BUG".into(), "flip-bit".into()));
}

/// Waits until a replica says that it serves nothing, and why, and waits to be spared.
async fn until_condemned(world: &World, group: &Group, at: usize) {
    until("it says that it is condemned", SOON, async || {
        let reason = world.http.ready(&group.nodes[at].url).await.err().unwrap_or_default();
        let waits = reason.contains("damaged") && reason.contains("condemned");
        if waits { Ok(()) } else { Err(reason) }
    })
    .await;
}

/// Waits until a replica shows that another's state is not as its own.
async fn until_differs(world: &World, group: &Group, at: usize) {
    until("it shows that another differs", SOON, async || {
        let status = group.status(&world.http, at).await?;
        status.differs.map(|_| ()).ok_or_else(|| format!("{status:?}"))
    })
    .await;
}

fn log(group: &Group, at: usize) -> String {
    fs::read_to_string(group.nodes[at].launch.log()).expect("it has a log")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_state_differs_is_taken_out_and_gets_that_of_the_others() {
    let mut world = World::new().await;
    let mut group = world.group("group", 3, &["--quorum", "2"]);
    break_memory(&mut group, 0);
    group.start();
    group.until_ready(&world.http).await;
    let old = group.status(&world.http, 0).await.expect("it answers").node;
    let load = Load::start("w", &group.urls(), 8);
    until_condemned(&world, &group, 0).await;
    // It dies before it could give its data up, and must not come back as if nothing were wrong.
    group.nodes[0].kill();
    assert!(group.data(0).join("CONDEMNED").exists(), "it is written down");
    assert!(!group.data(0).join("wal.damaged-1").exists(), "nobody knew that it can be spared");
    // It knows of both others. The first of them has its answer; the other may have asked, and not have
    // heard before it was killed.
    let witness = until("another shows that it differs", SOON, async || {
        for at in [1, 2] {
            if group.status(&world.http, at).await?.differs.is_some() {
                return Ok(at);
            }
        }
        Err("neither does".into())
    })
    .await;
    let url = &group.nodes[witness].url;
    let metrics = world.http.path(url, "/metrics", &[]).await.expect("an answer").text();
    assert!(metrics.contains("\nsage_differs 1\n"), "{metrics}");
    assert!(log(&group, 0).contains("THIS REPLICA IS WRONG"), "{}", log(&group, 0));
    assert!(log(&group, witness).contains("TWO REPLICAS DIFFER"), "{}", log(&group, witness));

    group.nodes[0].launch.env.clear();
    group.nodes[0].start().expect("it can be started");
    until_condemned(&world, &group, 0).await;
    group.until_voters(&world.http, 3).await;
    let status = group.until_caught_up(&world.http, 0).await;
    assert_ne!(status.node, old, "it is a new member");
    assert!(group.data(0).join("wal.damaged-1").exists(), "the old data is kept");
    load.until_more(600).await;
    let written = load.stop().await;

    // All agree, and know it.
    let seen = group.settled(&world.http).await;
    assert!(seen.iter().all(|status| status.hash == seen[0].hash), "{seen:?}");
    let due = seen[0].applied.expect("it has applied something").index / 512 * 512;
    for at in 0..3 {
        until("it has compared itself with the others", SOON, async || {
            let status = group.status(&world.http, at).await?;
            let agreed = status.compared >= Some(due) && status.differs.is_none();
            if agreed { Ok(()) } else { Err(format!("not at {due}: {status:?}")) }
        })
        .await;
    }
    group.nodes[1].kill();
    written.verify(&world.http, &group.nodes[0].url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_state_differs_leads_no_more_and_rejoins_without_a_restart() {
    let mut world = World::new().await;
    let mut group = world.group("group", 3, &["--quorum", "2"]);
    break_memory(&mut group, 0);
    group.start();
    group.until_ready(&world.http).await;
    for _ in 0..100 {
        let leader = group.leader(&world.http).await;
        if leader == 0 {
            break;
        }
        group.nodes[leader].kill();
        group.nodes[leader].start().expect("it can be started");
        group.until_ready(&world.http).await;
    }
    let before = group.status(&world.http, 0).await.expect("it answers");
    assert_eq!(before.leader, Some(before.node), "it leads");
    let load = Load::start("w", &group.urls(), 8);
    until_condemned(&world, &group, 0).await;
    load.until_more(100).await;
    let written = load.stop().await;
    until("it is back as a new member", SOON, async || {
        let status = group.status(&world.http, 0).await?;
        if status.node == before.node { Err("it is as before".into()) } else { Ok(()) }
    })
    .await;
    assert!(group.nodes[0].is_up(), "its process has not ended");
    group.nodes[0].kill();
    group.nodes[0].launch.env.clear();
    group.nodes[0].start().expect("it can be started");
    group.until_voters(&world.http, 3).await;
    group.until_caught_up(&world.http, 0).await;
    written.verify(&world.http, group.url()).await;
    let seen = group.settled(&world.http).await;
    assert!(seen.iter().all(|status| status.hash == seen[0].hash), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_differ_nobody_is_condemned_and_both_say_so() {
    let mut world = World::new().await;
    let mut group = world.group("group", 2, &[]);
    break_memory(&mut group, 0);
    group.start();
    group.until_ready(&world.http).await;
    let load = Load::start("w", &group.urls(), 8);
    for at in 0..2 {
        until_differs(&world, &group, at).await;
    }
    load.until_more(600).await;
    load.stop().await;
    for at in 0..2 {
        world.http.ready(&group.nodes[at].url).await.expect("it serves");
        assert!(log(&group, at).contains("TWO REPLICAS DIFFER"), "{}", log(&group, at));
        assert!(!group.data(at).join("CONDEMNED").exists());
    }
}
