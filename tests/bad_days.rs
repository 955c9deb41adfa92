//! Bad days of whoever runs the servers: mistakes on the command line, directories that are not
//! theirs, groups without a leader. One clear line and exit 2, or an answer in time; never damage,
//! never a hang.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::common::command::{exit, run, run_with};
use crate::common::group::Group;
use crate::common::http::{Answer, FORM};
use crate::common::node::url_of;
use crate::common::until::{SOON, until};
use crate::common::world::World;

/// What is added to a deadline before an answer counts as late.
const GRACE: Duration = Duration::from_secs(2);

/// One request with a deadline of two seconds; fails if the answer comes late.
async fn in_time(world: &World, method: Method, url: &str, key: &str) -> Answer {
    let start = Instant::now();
    let body = (method == Method::PUT).then(|| (FORM, b"v".to_vec()));
    let query = [("key", key), ("timeout", "2s")];
    let answer = world.http.send(method, (url, "/kv"), &query, body).await.expect("an answer");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2) + GRACE, "{took:?}: {}", answer.text());
    answer
}

/// Checks a `503` that says that the request was not taken and when to come again.
#[track_caller]
fn unavailable(answer: &Answer, write: bool) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    let after = answer.header("retry-after");
    assert!(after.parse::<u64>().is_ok_and(|seconds| seconds >= 1), "Retry-After: {after}");
    let body = answer.json();
    assert!(["no_leader", "unavailable"].contains(&body["code"].as_str().unwrap_or("")), "{body}");
    if write {
        assert_eq!(body["outcome"], json!("not_applied"), "{body}");
    }
}

#[tokio::test]
async fn a_mistake_on_the_command_line_is_one_clear_line_and_exit_2() {
    let mut world = World::new().await;
    let port = world.port().to_string();
    let other = url_of(world.port());
    let more = [url_of(world.port()), other.clone()].join(",");
    let shard = |flags: &[&str]| {
        let words = ["shard", "--port", &port, "--data", "data"].into_iter();
        words.chain(flags.iter().copied()).map(String::from).collect::<Vec<_>>()
    };
    let coordinator = |shards: &str| {
        ["coordinator", "--port", &port, "--shards", shards].map(String::from).to_vec()
    };
    let cases = [
        (shard(&["--colour", "red"]), "--colour"),
        (shard(&["--replicas", "not a url"]), "not a url"),
        (shard(&["--replicas", "ftp://127.0.0.1:1"]), "ftp://127.0.0.1:1"),
        (shard(&["--replicas", "127.0.0.1:4102"]), "127.0.0.1:4102"),
        (shard(&["--advertise", "nowhere"]), "nowhere"),
        (shard(&["--listen", "everywhere"]), "everywhere"),
        (shard(&["--quorum", "2"]), "quorum"),
        (shard(&["--quorum", "4", "--replicas", &more]), "quorum"),
        (shard(&["--quorum", "many"]), "many"),
        (shard(&["--election-timeout-min", "soon"]), "soon"),
        (shard(&["--election-timeout-min", "2s", "--election-timeout-max", "1s"]), "election"),
        (shard(&["--id", ""]), "id"),
        (shard(&["--max-memory", "4KiB"]), "--max-memory must be at least 1 MiB"),
        (coordinator("not a url"), "not a url"),
        (coordinator(""), "shards"),
        (vec!["shard".into(), "--port".into(), "70000".into()], "70000"),
        (vec!["fly".into()], "fly"),
    ];
    for (args, word) in cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run(world.directory(), &args).await.refused(&[word]);
        assert!(!world.directory().join("data").exists(), "{args:?} made a data directory");
    }
}

#[tokio::test]
async fn a_flag_can_come_from_the_environment() {
    let mut world = World::new().await;
    let port = world.port().to_string();
    let env = [("SAGE_PORT", port.as_str()), ("SAGE_QUORUM", "9")];
    run_with(world.directory(), &["shard"], &env).await.refused(&["quorum"]);
}

#[tokio::test]
async fn every_command_shows_an_example() {
    let world = World::new().await;
    for command in ["dev", "shard", "coordinator", "put", "get", "del", "route", "status"] {
        let ended = run(world.directory(), &[command, "--help"]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains(&format!("sage {command}")), "{}", ended.stdout);
        assert!(ended.stdout.to_lowercase().contains("example"), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn a_port_in_use_is_refused_before_anything_is_touched() {
    let mut world = World::new().await;
    let port = world.port();
    let _taken = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let port = port.to_string();
    let args = ["shard", "--port", &port, "--data", "data"];
    run(world.directory(), &args).await.refused(&[&port]);
    assert!(!world.directory().join("data").exists());
    let args = ["coordinator", "--port", &port, "--shards", "http://127.0.0.1:1"];
    run(world.directory(), &args).await.refused(&[&port]);
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_refused() {
    let mut world = World::new().await;
    let port = world.port().to_string();
    // Below a file, where not even root can make a directory.
    std::fs::write(world.directory().join("file"), "text").expect("a file");
    let args = ["shard", "--port", &port, "--data", "file/data"];
    run(world.directory(), &args).await.refused(&["file/data"]);
}

#[tokio::test]
async fn a_second_process_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &[]).await;
    world.http.put(group.url(), "k", "v").await.expect(200);
    let port = world.port().to_string();
    let data = group.data(0).display().to_string();
    let ended = run(world.directory(), &["shard", "--port", &port, "--data", &data]).await;
    ended.refused(&[&data, "use"]);
    world.http.put(group.url(), "k", "w").await.expect(200);
    assert_eq!(world.http.get(group.url(), "k").await.json()["value"], json!("w"));
}

#[tokio::test]
async fn data_of_a_group_with_another_name_is_refused_and_not_damaged() {
    let mut world = World::new().await;
    let mut group = world.started("group", 1, &["--id", "red"]).await;
    world.http.put(group.url(), "k", "v").await.expect(200);
    group.kill();
    let port = world.port().to_string();
    let data = group.data(0).display().to_string();
    let args = ["shard", "--port", &port, "--data", &data, "--id", "blue"];
    run(world.directory(), &args).await.refused(&["red", "blue"]);
    group.start();
    group.until_ready(&world.http).await;
    assert_eq!(world.http.get(group.url(), "k").await.expect(200).json()["value"], json!("v"));
}

#[tokio::test]
async fn a_replica_with_the_data_of_another_group_is_refused_by_its_peers() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let mut other = world.started("other", 1, &[]).await;
    world.http.put(other.url(), "k", "v").await.expect(200);
    let follower = group.follower(&world.http).await;
    let other_data = other.data(0).display().to_string();
    other.kill();
    let own_data = group.data(follower).display().to_string();
    let node = &mut group.nodes[follower];
    node.kill();
    let original = node.launch.clone();
    for arg in &mut node.launch.args {
        *arg = arg.replace(&own_data, &other_data);
    }
    node.start().expect("a replica can be started");
    assert_eq!(exit(node, SOON).await.code(), Some(2));
    let log = std::fs::read_to_string(node.launch.log()).expect("a log");
    assert!(log.lines().any(|line| line.starts_with("error") && line.contains("group")), "{log}");

    // Neither is harmed: both go on with their own.
    node.launch = original;
    group.start();
    group.until_voters(&world.http, 3).await;
    other.start();
    other.until_ready(&world.http).await;
    assert_eq!(world.http.get(other.url(), "k").await.expect(200).json()["value"], json!("v"));
}

/// Kills the leader and one follower; what is left can't elect.
async fn lonely(world: &World, group: &mut Group) -> usize {
    let leader = group.leader(&world.http).await;
    let left = group.follower(&world.http).await;
    assert_ne!(left, leader);
    // The leader last: the other two would elect another within milliseconds.
    let other = (0..3).find(|at| *at != left && *at != leader).expect("there are three");
    group.nodes[other].kill();
    group.nodes[leader].kill();
    left
}

#[tokio::test]
async fn without_a_leader_requests_are_refused_in_time() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let coordinator = world.routed(&[&group]).await;
    world.http.put(&coordinator.url, "k", "v").await.expect(200);
    let left = lonely(&world, &mut group).await;
    let left = group.nodes[left].url.clone();
    for url in [&left, &coordinator.url] {
        for method in [Method::PUT, Method::GET, Method::DELETE] {
            let write = method != Method::GET;
            unavailable(&in_time(&world, method, url, "k").await, write);
        }
        until(&format!("{url} says that it is not ready"), SOON, async || {
            world.http.ready(url).await.err().map(|_| ()).ok_or("it says it is".into())
        })
        .await;
    }
    let health = world.http.path(&left, "/health", &[]).await.expect("an answer");
    health.expect(200);

    // What was refused never happened.
    group.start();
    group.until_ready(&world.http).await;
    assert_eq!(world.http.get(&left, "k").await.expect(200).json()["value"], json!("v"));
}

#[tokio::test]
async fn a_leader_without_its_followers_answers_in_time() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let leader = group.leader(&world.http).await;
    for at in (0..3).filter(|at| *at != leader) {
        group.nodes[at].kill();
    }
    let url = group.nodes[leader].url.clone();
    let write = in_time(&world, Method::PUT, &url, "k").await;
    match write.status {
        503 => unavailable(&write, true),
        504 => assert_eq!(write.json()["outcome"], json!("unknown"), "{}", write.text()),
        _ => panic!("{} {}", write.status, write.text()),
    }
    unavailable(&in_time(&world, Method::GET, &url, "k").await, false);
}

#[tokio::test]
async fn a_coordinator_with_a_group_down_serves_the_others() {
    let mut world = World::new().await;
    let mut red = world.started("red", 1, &["--id", "red"]).await;
    let green = world.started("green", 1, &["--id", "green"]).await;
    let blue = world.started("blue", 1, &["--id", "blue"]).await;
    let first = world.routed(&[&red, &green, &blue]).await;
    red.kill();

    // Also one that starts only now.
    let urls = [&red, &green, &blue].map(|group| group.url().to_string());
    let mut second = world.coordinator(&urls);
    second.start().expect("the coordinator can be started");
    until("the second coordinator routes", SOON, async || {
        let answer = world.http.path(&second.url, "/route", &[("key", "k")]).await;
        match answer {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for coordinator in [&first, &second] {
        let (mut served, mut refused) = (0, 0);
        for number in 0..30 {
            let key = format!("key-{number}");
            let route = world.http.path(&coordinator.url, "/route", &[("key", &key)]).await;
            let route = route.expect("an answer").expect(200).json();
            if route["shard"] == json!("red") {
                if refused < 2 {
                    let put = in_time(&world, Method::PUT, &coordinator.url, &key).await;
                    unavailable(&put, true);
                }
                refused += 1;
            } else {
                world.http.put(&coordinator.url, &key, "v").await.expect(200);
                world.http.get(&coordinator.url, &key).await.expect(200);
                served += 1;
            }
        }
        assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
    }

    red.start();
    until("the group that came back is served again", SOON, async || {
        for number in 0..30 {
            let put = in_time(&world, Method::PUT, &first.url, &format!("key-{number}")).await;
            if put.status != 200 {
                return Err(put.text());
            }
        }
        Ok(())
    })
    .await;
}
