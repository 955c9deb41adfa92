//! A replica loses its disk and comes back under its URL: it is a new member, gets everything, and
//! never votes as its former self.

use sagedb::types::http::Role;

use crate::common::command::run;
use crate::common::disk::files;
use crate::common::load::Load;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// Wipes a follower or the leader and looks at everything that must follow.
async fn wipe(victim: Role) {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    let load = Load::start("w", &group.urls(), 8);
    load.until_more(300).await;
    let leader = group.leader(&world.http).await;
    let victim = if victim == Role::Leader { leader } else { (leader + 1) % 3 };
    let old = group.status(&world.http, victim).await.expect("it answers").node;
    group.wipe(victim);
    load.until_more(100).await;

    let members = until("the group has three voters and none is the old one", SOON, async || {
        let leader = group.leader(&world.http).await;
        let status = group.status(&world.http, leader).await?;
        let voters = status.members.iter().filter(|member| member.voter).count();
        let gone = status.members.iter().all(|member| member.node != old);
        let seen = format!("{:?}", status.members);
        if voters == 3 && status.members.len() == 3 && gone { Ok(seen) } else { Err(seen) }
    })
    .await;
    let written = load.stop().await;
    let status = group.until_caught_up(&world.http, victim).await;
    assert_ne!(status.node, old, "a new identity: {members}");
    assert_eq!(status.url, group.nodes[victim].url);
    group.until_voters(&world.http, 3).await;

    // Its vote counts and its data is whole: with one of the others gone, the group still serves.
    let other = (0..3).find(|at| *at != victim).expect("another replica");
    group.nodes[other].kill();
    written.verify(&world.http, &group.nodes[victim].url).await;
    world.http.put(&group.nodes[victim].url, "after", "all").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_its_disk_rejoins_as_a_new_member() {
    wipe(Role::Follower).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_its_disk_rejoins_as_a_new_member() {
    wipe(Role::Leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_replica_gets_everything_also_when_the_log_is_purged() {
    gets_a_snapshot("lz4", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_packed_with_zstd_is_read_as_any_other() {
    gets_a_snapshot("zstd", &["--snapshot-codec", "zstd"]).await;
}

async fn gets_a_snapshot(codec: &str, flags: &[&str]) {
    let mut world = World::new().await;
    let purging = ["--quorum", "2", "--snapshot-log-size", "65536", "--keep-log-entries", "50"];
    let flags = [&purging, flags].concat();
    let mut group = world.started("group", 3, &flags).await;
    let load = Load::start("w", &group.urls(), 8);
    until("the log is purged", SOON, async || {
        let status = group.status(&world.http, 0).await?;
        status.purged.ok_or(format!("{:?}", status.last_index))
    })
    .await;
    let written = load.stop().await;
    let victim = group.follower(&world.http).await;
    group.wipe(victim);
    group.until_voters(&world.http, 3).await;
    let status = group.until_caught_up(&world.http, victim).await;
    assert_eq!(status.role, Role::Follower);
    assert!(status.keys >= written.acked.len() as u64, "{status:?}");
    group.kill();
    let snapshots: Vec<_> =
        (0..3).flat_map(|at| files(&group.data(at), "snapshot", "snap")).collect();
    assert!(!snapshots.is_empty(), "what is purged is in one");
    for snapshot in snapshots {
        let dump = ["dump", "snapshot", snapshot.to_str().expect("text")];
        let dumped = run(world.directory(), &dump).await;
        assert!(dumped.stdout.contains(&format!(", codec {codec}\n")), "{dumped:?}");
    }
    group.start();
    group.until_ready(&world.http).await;
    written.verify(&world.http, group.url()).await;
}
