//! `sage check`, `dump` and `repair`: what is wrong with a data directory is found without a server,
//! and the only copy of something is given up only by a command that names the loss.

use std::path::Path;

use serde_json::Value;

use crate::common::command::{Ended, exit, run};
use crate::common::disk::{files, flip};
use crate::common::group::Group;
use crate::common::until::{SOON, until};
use crate::common::world::World;

async fn sage(world: &World, args: &[&str]) -> Ended {
    run(world.directory(), args).await
}

/// What `sage check` says, after it has ended with `code`.
async fn check(world: &World, data: &Path, code: i32) -> Value {
    let ended = sage(world, &["check", text(data), "-o", "json"]).await;
    assert_eq!(ended.code, Some(code), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("it is JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

/// A group of one with the keys `k0` to `k<keys>`, killed.
async fn alone(world: &mut World, keys: usize, flags: &[&str]) -> Group {
    let mut group = world.started("group", 1, flags).await;
    for key in 0..keys {
        world.http.put(group.url(), &format!("k{key}"), &format!("value {key}")).await.expect(200);
    }
    group.kill();
    group
}

/// Where in the first segment the batch with entry `index` begins, from `sage dump`.
async fn batch_of(world: &World, segment: &Path, index: u64) -> u64 {
    let ended = sage(world, &["dump", "wal", text(segment), "-o", "json"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut pieces =
        ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
    let has = |piece: &Value| {
        let records = piece["records"].as_array().map_or(&[][..], Vec::as_slice);
        records.iter().any(|record| record["entry"]["id"]["index"] == index)
    };
    let piece = pieces.find(has).expect("it is in the log");
    piece["offset"].as_u64().expect("it has a place")
}

/// The command that ends an error line, without `sage`.
fn command(line: &str) -> Vec<&str> {
    let at = line.find("sage repair ").unwrap_or_else(|| panic!("no command in: {line}"));
    line[at..].split_whitespace().skip(1).collect()
}

#[tokio::test]
async fn a_whole_directory_is_called_whole_and_is_not_changed() {
    let mut world = World::new().await;
    let group = alone(&mut world, 5, &[]).await;
    let data = group.data(0);
    let logs = || {
        files(&data, "wal", "log")
            .iter()
            .map(|path| std::fs::read(path).expect("it is there"))
            .collect()
    };
    let before: Vec<Vec<u8>> = logs();
    let report = check(&world, &data, 0).await;
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["members"][0], group.url(), "{report}");
    let last = report["log"]["last"]["index"].as_u64().expect("it has entries");
    assert!(last >= 5, "{report}");
    let for_eyes = sage(&world, &["check", text(&data)]).await;
    assert!(for_eyes.stdout.contains("ok: every byte of log and snapshots"), "{for_eyes:?}");
    assert!(for_eyes.stdout.contains(&format!("entries    0 to {last}")), "{for_eyes:?}");
    assert!(before == logs(), "nothing was changed");

    let refused = sage(&world, &["repair", text(&data), "--lose-after", "1"]).await;
    refused.refused(&["not damaged"]);
    let nowhere = sage(&world, &["check", "nowhere"]).await;
    nowhere.refused(&["nowhere"]);
    let elsewhere = sage(&world, &["check", "."]).await;
    elsewhere.refused(&["holds no data"]);
}

#[tokio::test]
async fn a_directory_in_use_is_left_alone() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &[]).await;
    let data = group.data(0);
    sage(&world, &["check", text(&data)]).await.refused(&["in use"]);
    sage(&world, &["repair", text(&data), "--lose-after", "1"]).await.refused(&["in use"]);
    world.http.put(group.url(), "still", "here").await.expect(200);
}

#[tokio::test]
async fn dump_shows_what_was_written() {
    let mut world = World::new().await;
    let group = alone(&mut world, 3, &["--snapshot-log-size", "64KiB"]).await;
    let segment = files(&group.data(0), "wal", "log").remove(0);
    let dumped = sage(&world, &["dump", "wal", text(&segment)]).await;
    assert_eq!(dumped.code, Some(0), "{dumped:?}");
    for words in ["segment 1, written by n", "put \"k2\" text, 7 B: \"value 2\"", "vote  term 1"] {
        assert!(dumped.stdout.contains(words), "{words}: {}", dumped.stdout);
    }
    flip(&segment, batch_of(&world, &segment, 4).await + 30);
    let dumped = sage(&world, &["dump", "wal", text(&segment)]).await;
    assert_eq!(dumped.code, Some(1), "{dumped:?}");
    assert!(dumped.stdout.contains("UNREADABLE up to byte"), "{}", dumped.stdout);
    sage(&world, &["dump", "wal", "nowhere.log"]).await.refused(&["nowhere.log"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_alone_says_what_is_lost_and_goes_on_by_command() {
    let mut world = World::new().await;
    let mut group = alone(&mut world, 40, &[]).await;
    let data = group.data(0);
    let segment = files(&data, "wal", "log").remove(0);
    let last = check(&world, &data, 0).await["log"]["last"]["index"].as_u64().expect("entries");
    // The entries of the last keys are the last entries.
    let (keep, lost_key) = (last - 10, 40 - 10);
    flip(&segment, batch_of(&world, &segment, keep + 1).await + 30);

    group.nodes[0].start().expect("it can be started");
    assert_eq!(exit(&mut group.nodes[0], SOON).await.code(), Some(2));
    let log = std::fs::read_to_string(group.nodes[0].launch.log()).expect("it said why");
    let error = log.lines().find(|line| line.starts_with("error")).expect("one line says why");
    let missing = format!("entries {} to {last} at least are lost", keep + 1);
    assert!(error.contains(&missing), "{error}");
    assert!(error.contains(&format!("({} to {last} can be read", keep + 2)), "{error}");
    let report = check(&world, &data, 1).await;
    assert_eq!(report["loss"]["keep"], keep, "{report}");

    let other = (keep + 1).to_string();
    let wrong = sage(&world, &["repair", text(&data), "--lose-after", &other]).await;
    wrong.refused(&[&missing]);
    assert!(!data.join("wal.damaged-1").exists(), "nothing was changed");
    let repaired = sage(&world, &command(error)).await;
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    assert!(data.join("wal.damaged-1").exists(), "the damaged log is kept");
    check(&world, &data, 0).await;

    group.start();
    group.until_ready(&world.http).await;
    for key in 0..40 {
        let status = if key < lost_key { 200 } else { 404 };
        world.http.get(group.url(), &format!("k{key}")).await.expect(status);
    }
    world.http.put(group.url(), "new", "life").await.expect(200);
    group.kill();
    group.start();
    group.until_ready(&world.http).await;
    let value = world.http.get(group.url(), "new").await.expect(200).json();
    assert_eq!(value["value"], "life");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "it stands for a crash")]
async fn a_repair_that_was_cut_off_goes_on() {
    let mut world = World::new().await;
    let mut group = alone(&mut world, 10, &[]).await;
    let data = group.data(0);
    let last = check(&world, &data, 0).await["log"]["last"]["index"].as_u64().expect("entries");
    // As if the old log had just been set aside.
    std::fs::rename(data.join("wal"), data.join("wal.repaired")).expect("it is there");
    group.nodes[0].start().expect("it can be started");
    assert_eq!(exit(&mut group.nodes[0], SOON).await.code(), Some(2), "nothing is begun anew");
    let keep = |index: u64| index.to_string();
    let other = sage(&world, &["repair", text(&data), "--lose-after", &keep(last - 1)]).await;
    assert_eq!(other.code, Some(2), "that is not what it was to keep: {other:?}");
    let repaired = sage(&world, &["repair", text(&data), "--lose-after", &keep(last)]).await;
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    group.start();
    group.until_ready(&world.http).await;
    world.http.get(group.url(), "k9").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_costs_nothing_while_the_log_has_everything() {
    let mut world = World::new().await;
    let flags = ["--snapshot-log-size", "64KiB"];
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
    group.kill();
    let data = group.data(0);
    let snapshot = files(&data, "snapshot", "snap").remove(0);
    let dumped = sage(&world, &["dump", "snapshot", text(&snapshot)]).await;
    assert_eq!(dumped.code, Some(0), "{dumped:?}");
    assert!(dumped.stdout.contains("\"k0\"  version 1, at "), "{}", dumped.stdout);
    flip(&snapshot, 200);
    let dumped = sage(&world, &["dump", "snapshot", text(&snapshot), "-o", "json"]).await;
    assert_eq!(dumped.code, Some(1), "{dumped:?}");

    let report = check(&world, &data, 1).await;
    let keep = report["loss"]["keep"].to_string();
    let repaired = sage(&world, &["repair", text(&data), "--lose-after", &keep]).await;
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    group.start();
    group.until_ready(&world.http).await;
    for key in 0..40 {
        let got = world.http.get(group.url(), &format!("k{key}")).await.expect(200).json();
        assert_eq!(got["value"], value.as_str(), "k{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_a_group_is_not_repaired() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    world.http.put(group.url(), "key", "value").await.expect(200);
    group.kill();
    let data = group.data(0);
    flip(&files(&data, "wal", "log")[0], 4096 + 40);
    let report = check(&world, &data, 1).await;
    assert_eq!(report["ok"], false, "{report}");
    for keep in ["0", "1"] {
        let refused = sage(&world, &["repair", text(&data), "--lose-after", keep]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
    }
    assert!(!data.join("wal.damaged-1").exists(), "nothing was changed");
}
