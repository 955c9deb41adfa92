//! A leader whose disk is nearly full: puts are refused, reads and deletes go on, and when there is
//! room again so do puts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use serde_json::Value;

use crate::common::command::exit;
use crate::common::http::Http;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// Sends a request about `key` and returns the status and the body.
async fn send(http: &Http, method: Method, url: &str, key: &str) -> (u16, Value) {
    let request = http.client.request(method, format!("{url}/kv?key={key}")).body("value");
    let answer = request.send().await.expect("it answers");
    (answer.status().as_u16(), answer.json().await.expect("it answers in JSON"))
}

/// Waits until a put is refused, and looks at how.
async fn until_full(world: &World, url: &str) {
    let body = until("puts are refused", SOON, async || {
        let (status, body) = send(&world.http, Method::PUT, url, "refused").await;
        if status == 507 { Ok(body) } else { Err(format!("{status} {body}")) }
    })
    .await;
    assert_eq!(body["code"], "disk_full", "{body}");
    assert_eq!(body["outcome"], "not_applied", "{body}");
    assert!(body["error"].as_str().is_some_and(|error| error.contains("--min-free-disk")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_refuses_puts_and_nothing_else() {
    let mut world = World::new().await;
    // More than any disk has.
    let group = world.started("group", 3, &["--min-free-disk", "1000000GiB"]).await;
    let coordinator = world.routed(&[&group]).await;
    let leader = group.leader(&world.http).await;
    let follower = (leader + 1) % 3;
    until_full(&world, &group.nodes[leader].url).await;
    for url in [&coordinator.url, &group.nodes[leader].url, &group.nodes[follower].url] {
        let (status, body) = send(&world.http, Method::PUT, url, "never").await;
        assert_eq!((status, &body["code"]), (507, &"disk_full".into()), "{url} {body}");
        let (status, body) = send(&world.http, Method::GET, url, "never").await;
        assert_eq!((status, &body["found"]), (404, &false.into()), "{url} {body}");
        let (status, body) = send(&world.http, Method::DELETE, url, "never").await;
        assert_eq!((status, &body["existed"]), (200, &false.into()), "{url} {body}");
    }
    let status = group.status(&world.http, leader).await.expect("it answers");
    assert!(status.disk_full, "{status:?}");
}

/// A small file system of its own, where this user may mount one.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("a directory can be made");
        let size = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a server may still have files open.
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

/// Writes a file that leaves little room.
fn fill(directory: &Path, mebibytes: usize) -> PathBuf {
    let file = directory.join("ballast");
    std::fs::write(&file, vec![1; mebibytes << 20]).expect("there is room for that");
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_go_on_when_there_is_room_again() {
    let mut world = World::new().await;
    let data = world.directory().join("group-0");
    let Some(_mounted) = Mounted::new(data.clone(), "256m") else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let group = world.started("group", 1, &["--min-free-disk", "64MiB"]).await;
    let url = group.url();
    world.http.put(url, "key", "value").await.expect(200);
    let ballast = fill(&data, 180);
    until_full(&world, url).await;
    world.http.get(url, "key").await.expect(200);
    let (status, _) = send(&world.http, Method::DELETE, url, "other").await;
    assert_eq!(status, 200);
    std::fs::remove_file(ballast).expect("it is there");
    until("puts go on", SOON, async || {
        let (status, body) = send(&world.http, Method::PUT, url, "after").await;
        if status == 200 { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
}

/// Another program may take what was kept free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_any_room_ends_and_comes_back_when_there_is_some() {
    let mut world = World::new().await;
    let data = world.directory().join("group-2");
    let Some(_mounted) = Mounted::new(data.clone(), "96m") else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let mut group = world.started("group", 3, &["--quorum", "2", "--min-free-disk", "1MiB"]).await;
    let before = group.status(&world.http, 2).await.expect("it answers");
    let leader = group.nodes[group.leader(&world.http).await].url.clone();
    assert_ne!(leader, group.nodes[2].url, "the first founds the group");
    let ballast = data.join("ballast");
    let full = fill_up(&ballast);
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let value = "x".repeat(1 << 20);
    for key in 0..40 {
        world.http.put(&leader, &format!("k{key}"), &value).await.expect(200);
    }
    let ended = exit(&mut group.nodes[2], SOON).await;
    assert_eq!(ended.code(), Some(2));
    let log = std::fs::read_to_string(group.nodes[2].launch.log()).expect("it said why");
    let error = log.lines().rfind(|line| line.starts_with("error")).expect("in one line");
    assert!(error.contains("No space left on device"), "{error}");
    assert!(!log.contains("panicked"), "{log}");
    world.http.put(&leader, "after", "value").await.expect(200);

    std::fs::remove_file(ballast).expect("it is there");
    group.nodes[2].start().expect("it can be started");
    let after = group.until_caught_up(&world.http, 2).await;
    assert_eq!(after.node, before.node, "it is the same member");
    for key in 0..40 {
        let got = world.http.get(&group.nodes[2].url, &format!("k{key}")).await.expect(200);
        assert_eq!(got.json()["value"], value.as_str(), "k{key}");
    }
}

/// Writes a file until there is no room at all.
fn fill_up(file: &Path) -> std::io::Error {
    let mut file = std::fs::File::create(file).expect("there is room for a name");
    loop {
        if let Err(full) = file.write_all(&[1; 4096]) {
            return full;
        }
    }
}
