//! A replica whose disk damaged what it had acknowledged: nothing wrong is served, nothing is lost,
//! and it gets everything from its group again, but gives up nothing that the group still needs.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;

use crate::common::command::exit;
use crate::common::disk::{files, flip};
use crate::common::group::Group;
use crate::common::load::Load;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// Damages the first batch of the log.
fn damage(group: &Group, at: usize) {
    let log = files(&group.data(at), "wal", "log").remove(0);
    flip(&log, 4096 + 40);
}

/// Waits until a replica says that its data is damaged; it serves nothing else.
async fn until_damaged(world: &World, group: &Group, at: usize) {
    let url = &group.nodes[at].url;
    until("it says that its data is damaged", SOON, async || {
        let reason = world.http.ready(url).await.err().unwrap_or_default();
        if reason.contains("damaged") { Ok(()) } else { Err(reason) }
    })
    .await;
    for (method, body) in [(Method::GET, ""), (Method::PUT, "x"), (Method::DELETE, "")] {
        let request = world.http.client.request(method.clone(), format!("{url}/kv?key=w"));
        let answer = request.body(body).send().await.expect("it answers");
        assert_eq!(answer.status(), 503, "{method}");
        let body: serde_json::Value = answer.json().await.expect("it answers in JSON");
        assert_eq!(body["code"], "unavailable", "{body}");
        assert_eq!(body.get("outcome").is_some(), method != Method::GET, "{body}");
    }
    let health = world.http.client.get(format!("{url}/health")).send().await.expect("it answers");
    assert_eq!(health.status(), 200);
}

/// Damages a replica by `how`, and looks at everything that must follow.
async fn rejoins(flags: &[&str], how: impl Fn(&Path)) {
    let mut world = World::new().await;
    let flags: Vec<&str> = ["--quorum", "2"].iter().chain(flags).copied().collect();
    let mut group = world.started("group", 3, &flags).await;
    let load = Load::start("w", &group.urls(), 8);
    load.until_more(400).await;
    let victim = group.follower(&world.http).await;
    until("it has a snapshot, if there is to be one", SOON, async || {
        let status = group.status(&world.http, victim).await?;
        let due = flags.contains(&"--snapshot-log-size") && status.snapshot_index.is_none();
        if due { Err(format!("{status:?}")) } else { Ok(()) }
    })
    .await;
    let old = group.status(&world.http, victim).await.expect("it answers").node;
    group.nodes[victim].kill();
    how(&group.data(victim));
    group.nodes[victim].start().expect("it can be started");
    load.until_more(100).await;
    group.until_voters(&world.http, 3).await;
    let status = group.until_caught_up(&world.http, victim).await;
    assert_ne!(status.node, old, "it is a new member");
    assert!(group.data(victim).join("wal.damaged-1").exists(), "the old data is kept");

    let written = load.stop().await;
    group.until_caught_up(&world.http, victim).await;
    let other = (0..3).find(|at| *at != victim).expect("another replica");
    group.nodes[other].kill();
    written.verify(&world.http, &group.nodes[victim].url).await;
    world.http.put(&group.nodes[victim].url, "after", "all").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_damaged_log_rejoins_and_gets_everything() {
    rejoins(&[], |data| flip(&files(data, "wal", "log")[0], 4096 + 40)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_damaged_snapshot_rejoins_and_gets_everything() {
    let flags = ["--snapshot-log-size", "65536", "--keep-log-entries", "50"];
    rejoins(&flags, |data| {
        let newest = files(data, "snapshot", "snap").pop().expect("it has one");
        flip(&newest, fs::metadata(&newest).expect("it is there").len() / 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_damaged_again_and_again_ends_and_says_what_to_do() {
    const REJOINS_MAX: usize = 3;
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    world.http.put(group.url(), "key", "value").await.expect(200);
    let victim = group.follower(&world.http).await;
    let aside = |group: &Group, number: u32| {
        let damaged = group.data(victim).join(format!("wal.damaged-{number}"));
        fs::read_dir(&damaged)
            .expect("it is kept")
            .next()
            .expect("it has a file")
            .expect("one")
            .path()
    };
    let mut first = None;
    for _ in 0..REJOINS_MAX {
        group.until_caught_up(&world.http, victim).await;
        group.nodes[victim].kill();
        damage(&group, victim);
        group.nodes[victim].start().expect("it can be started");
        group.until_voters(&world.http, 3).await;
        let status = group.until_caught_up(&world.http, victim).await;
        first.get_or_insert_with(|| fs::read(aside(&group, 1)).expect("it can be read"));
        assert_eq!(status.keys, 1, "{status:?}");
    }
    let kept = fs::read(aside(&group, 1)).expect("it can be read");
    assert!(first == Some(kept), "the evidence of the first is kept");
    assert!(aside(&group, 2).exists(), "and of the newest");

    // Once more is too often, however often it is started.
    group.nodes[victim].kill();
    damage(&group, victim);
    for _ in 0..2 {
        group.nodes[victim].start().expect("it can be started");
        let status = exit(&mut group.nodes[victim], SOON).await;
        assert_eq!(status.code(), Some(2));
        let log = fs::read_to_string(group.nodes[victim].launch.log()).expect("it said why");
        assert!(
            log.contains("3 times within 24 hours") && log.contains("replace the disk"),
            "{log}"
        );
        assert!(group.data(victim).join("wal").exists(), "nothing more is given up");
    }
    world.http.put(group.url(), "key", "others").await.expect(200);

    // A person says that the cause is gone.
    fs::remove_file(group.data(victim).join("REJOINED")).expect("it is there");
    group.nodes[victim].start().expect("it can be started");
    group.until_voters(&world.http, 3).await;
    group.until_caught_up(&world.http, victim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_log_rejoins_and_gets_everything() {
    rejoins(&[], |data| {
        // Kept beside, so that there is something to set aside.
        for file in files(data, "wal", "log") {
            fs::remove_file(file).expect("it is there");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_data_is_kept_until_the_group_can_do_without_it() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    let load = Load::start("w", &group.urls(), 8);
    load.until_more(200).await;
    let written = load.stop().await;
    let victim = group.follower(&world.http).await;
    let other = group.leader(&world.http).await;
    group.nodes[other].kill();
    group.nodes[victim].kill();
    damage(&group, victim);
    group.nodes[victim].start().expect("it can be started");
    until_damaged(&world, &group, victim).await;
    // One line a second while it looks around.
    until("it has waited for a while", SOON, async || {
        let log = fs::read_to_string(group.nodes[victim].launch.log()).unwrap_or_default();
        let lines = log.lines().filter(|line| line.contains("waiting=")).count();
        if lines >= 4 { Ok(()) } else { Err(format!("{lines} lines")) }
    })
    .await;
    assert!(group.data(victim).join("wal").exists(), "it may be the last copy");
    assert!(!group.data(victim).join("wal.damaged-1").exists());

    group.nodes[other].start().expect("it can be started");
    group.until_voters(&world.http, 3).await;
    group.until_caught_up(&world.http, victim).await;
    written.verify(&world.http, &group.nodes[victim].url).await;
}

/// Sampled: that every byte counts is tested where a start is cheap, in `store::crashes::lies`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_anywhere_while_another_replica_is_down_loses_nothing() {
    const ROUNDS: u64 = 8;
    let mut world = World::new().await;
    let flags = ["--quorum", "2", "--snapshot-log-size", "64KiB", "--keep-log-entries", "50"];
    let mut group = world.started("group", 3, &flags).await;
    let (mut refused, mut served) = (0, 0);
    for round in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(round);
        let load = Load::start(&format!("r{round}"), &group.urls(), 8);
        load.until_more(600).await;
        let written = load.stop().await;
        let victim = random.random_range(0..3);
        let down = (victim + random.random_range(1..3)) % 3;
        group.nodes[victim].kill();
        group.nodes[down].kill();
        // As if the disk had been replaced: a replica does not rejoin so often by itself.
        fs::remove_file(group.data(victim).join("REJOINED")).ok();
        let (file, offset) = anywhere(&group.data(victim), &mut random);
        flip(&file, offset);
        let place = format!("round {round}: byte {offset} of {}", file.display());
        group.nodes[victim].start().expect("it can be started");
        // It serves the truth, with the third one, or nothing.
        let url = group.nodes[victim].url.clone();
        let ready = until(&place, SOON, async || match world.http.ready(&url).await {
            Ok(()) => Ok(true),
            Err(reason) if reason.contains("damaged") => Ok(false),
            Err(reason) => Err(reason),
        })
        .await;
        if ready {
            served += 1;
            written.verify(&world.http, &url).await;
        } else {
            refused += 1;
        }
        group.nodes[down].start().expect("it can be started");
        group.until_voters(&world.http, 3).await;
        for at in 0..3 {
            group.until_caught_up(&world.http, at).await;
        }
        written.verify(&world.http, &url).await;
    }
    assert!(refused > 0 && served > 0, "{refused} refused, {served} served");
}

/// A byte of the log that is in use, of a snapshot or of the mark.
fn anywhere(data: &Path, random: &mut StdRng) -> (PathBuf, u64) {
    let mut places = files(data, "wal", "log");
    places.extend(files(data, "snapshot", "snap"));
    places.push(data.join("wal/synced"));
    let place = places.swap_remove(random.random_range(0..places.len()));
    let bytes = fs::read(&place).expect("it is there");
    let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    (place, random.random_range(0..used as u64))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_replicas_are_all_damaged_begins_no_new_one() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &["--quorum", "2"]).await;
    world.http.put(group.url(), "key", "value").await.expect(200);
    group.kill();
    (0..3).for_each(|at| damage(&group, at));
    group.start();
    for at in 0..3 {
        until_damaged(&world, &group, at).await;
    }
    for node in &group.nodes {
        until("it has waited for a while", SOON, async || {
            let log = fs::read_to_string(node.launch.log()).unwrap_or_default();
            let lines = log.lines().filter(|line| line.contains("waiting=")).count();
            if lines >= 4 { Ok(()) } else { Err(format!("{lines} lines")) }
        })
        .await;
    }
    for at in 0..3 {
        until_damaged(&world, &group, at).await;
        assert!(group.data(at).join("wal").exists(), "it may be the last copy");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_without_a_group_says_where_and_ends() {
    let mut world = World::new().await;
    let mut group = world.started("group", 1, &[]).await;
    for value in ["one", "two", "three"] {
        world.http.put(group.url(), "key", value).await.expect(200);
    }
    group.kill();
    damage(&group, 0);
    let before = fs::read(files(&group.data(0), "wal", "log").remove(0)).expect("it is there");
    group.nodes[0].start().expect("it can be started");
    let status = exit(&mut group.nodes[0], SOON).await;
    assert_eq!(status.code(), Some(2));
    let log = fs::read_to_string(group.nodes[0].launch.log()).expect("it said why");
    assert!(log.contains("is damaged at byte 4096, batch 1"), "{log}");
    let after = fs::read(files(&group.data(0), "wal", "log").remove(0)).expect("it is there");
    assert!(before == after, "nothing on disk was changed");
}
