//! Damage to what nobody reads is found while a replica runs, and repaired from memory, without a
//! restart and without the group.

use std::path::Path;

use sagedb::types::http::ShardStatus;

use crate::common::command::run;
use crate::common::disk::{files, flip};
use crate::common::group::Group;
use crate::common::until::{SOON, until};
use crate::common::world::World;

const FLAGS: [&str; 2] = ["--scrub-interval", "200ms"];

fn log_of(group: &Group, at: usize) -> String {
    std::fs::read_to_string(group.nodes[at].launch.log()).unwrap_or_default()
}

async fn until_logged(group: &Group, at: usize, words: &str) {
    until(&format!("it says: {words}"), SOON, async || {
        let log = log_of(group, at);
        if log.contains(words) { Ok(()) } else { Err(log) }
    })
    .await;
}

/// Kills a replica, has its data checked, and starts it again: it must be the same member.
async fn restarts_whole(world: &World, group: &mut Group, at: usize, before: &ShardStatus) {
    group.nodes[at].kill();
    let data = group.data(at);
    let checked = run(world.directory(), &["check", text(&data)]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    group.nodes[at].start().expect("it can be started");
    let after = group.until_caught_up(&world.http, at).await;
    assert_eq!(after.node, before.node, "it is the same member");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_is_found_and_done_without() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &FLAGS).await;
    // More than a segment, and less than what a snapshot is taken after.
    let value = "x".repeat(1 << 20);
    for key in 0..20 {
        world.http.put(group.url(), &format!("k{key}"), &value).await.expect(200);
    }
    let victim = group.follower(&world.http).await;
    let before = group.until_caught_up(&world.http, victim).await;
    assert_eq!(before.purged, None, "nothing but damage takes anything away here");
    let first = files(&group.data(victim), "wal", "log").remove(0);
    flip(&first, 5 << 20);
    until_logged(&group, victim, "the log does without the damaged segment now").await;
    assert!(log_of(&group, victim).contains("the log is damaged on disk"), "it said so");
    until("the damaged segment is gone", SOON, async || {
        let segments = files(&group.data(victim), "wal", "log");
        if segments.contains(&first) { Err(format!("{segments:?}")) } else { Ok(()) }
    })
    .await;
    restarts_whole(&world, &mut group, victim, &before).await;
    for key in 0..20 {
        let got = world.http.get(&group.nodes[victim].url, &format!("k{key}")).await.expect(200);
        assert_eq!(got.json()["value"], value.as_str(), "k{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_found_and_written_anew() {
    let mut world = World::new().await;
    let flags = [&FLAGS[..], &["--snapshot-log-size", "64KiB"]].concat();
    let mut group = world.started("group", 1, &flags).await;
    let value = "x".repeat(4096);
    for key in 0..40 {
        world.http.put(group.url(), &format!("k{key}"), &value).await.expect(200);
    }
    until("it has a snapshot", SOON, async || {
        let status = group.status(&world.http, 0).await?;
        status.snapshot_index.map(drop).ok_or_else(|| format!("{status:?}"))
    })
    .await;
    let before = group.status(&world.http, 0).await.expect("it answers");
    let newest = files(&group.data(0), "snapshot", "snap").pop().expect("there is one");
    flip(&newest, 150);
    until_logged(&group, 0, "the damaged snapshot is replaced").await;
    restarts_whole(&world, &mut group, 0, &before).await;
    for key in 0..40 {
        let got = world.http.get(group.url(), &format!("k{key}")).await.expect(200).json();
        assert_eq!(got["value"], value.as_str(), "k{key}");
    }
}
