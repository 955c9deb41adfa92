//! `sage dev`: a cluster from one command, stopped with Ctrl-C, and there again the next time.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::common::command;
use crate::common::http::FORM;
use crate::common::node::Node;
use crate::common::process::Launch;
use crate::common::until::{SOON, until};
use crate::common::world::{World, sage};

fn dev(world: &mut World) -> Node {
    dev_with(world, &[])
}

fn dev_with(world: &mut World, flags: &[&str]) -> Node {
    let port = world.port();
    let mut node = Node::coordinator(&sage(), world.directory(), ("dev", port), &[]);
    let port = port.to_string();
    let args = ["dev", "--port", &port, "--data", "dev-data"].into_iter();
    let args = args.chain(flags.iter().copied()).map(String::from).collect();
    node.launch = Launch { args, ..node.launch };
    node
}

/// Starts it and waits for a new line that says how to `curl` a first value.
async fn started(node: &mut Node) -> (String, Duration) {
    let log = node.launch.log();
    let before = std::fs::read_to_string(&log).unwrap_or_default().len();
    let start = Instant::now();
    node.start().expect("sage can be started");
    let line = until("it prints a curl line", SOON, async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default().split_off(before);
        // Only whole lines: the last may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut lines = whole.lines().filter(|line| line.contains("curl -X PUT"));
        lines.next().map(String::from).ok_or(text.clone())
    })
    .await;
    (line, start.elapsed())
}

#[tokio::test]
async fn ctrl_c_stops_it_and_a_second_start_finds_the_data() {
    let mut world = World::alone().await;
    let mut node = dev(&mut world);
    let (line, took) = started(&mut node).await;
    println!("the curl line came after {took:?}");
    let url = node.url.clone();
    let named = line.contains(&url) || line.contains(&url.replace("127.0.0.1", "localhost"));
    assert!(named, "the line speaks of this cluster: {line}");

    // Ready when it says so: nothing is waited for here.
    for key in 0..50 {
        let key = format!("key-{key}");
        world.http.put(&url, &key, "kept").await.expect(200);
    }
    let log = node.launch.log();
    let printed = || std::fs::read_to_string(&log).expect("what it printed");
    let before = printed().len();
    let ended = command::stop(&mut node, Signal::INT).await;
    assert_eq!(ended.code(), Some(0), "Ctrl-C is no failure");
    let farewell = printed().split_off(before);
    assert!(!farewell.contains("leadership"), "all stop, so nobody takes it over: {farewell}");

    let (_, took) = started(&mut node).await;
    println!("the second curl line came after {took:?}");
    for key in 0..50 {
        let answer = world.http.get(&url, &format!("key-{key}")).await.expect(200);
        assert_eq!(answer.json()["value"], json!("kept"));
    }
    let ended = command::stop(&mut node, Signal::TERM).await;
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn it_is_three_groups_of_three() {
    let mut world = World::alone().await;
    let mut node = dev(&mut world);
    started(&mut node).await;
    let answer = world.http.path(&node.url, "/cluster", &[]).await.expect("an answer");
    let cluster = answer.expect(200).json();
    let groups = cluster["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 3, "{cluster}");
    for group in groups {
        assert_eq!(group["members"].as_array().map(Vec::len), Some(3), "{group}");
    }
}

#[tokio::test]
async fn its_size_is_as_told_and_it_prints_every_url_and_a_first_line_that_works() {
    let mut world = World::alone().await;
    let mut node = dev_with(&mut world, &["--shards", "2", "--replicas", "1"]);
    let (line, _) = started(&mut node).await;
    let printed = std::fs::read_to_string(node.launch.log()).expect("what it printed");
    let answer = world.http.path(&node.url, "/cluster", &[]).await.expect("an answer");
    let cluster = answer.expect(200).json();
    let groups = cluster["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 2, "{cluster}");
    for group in groups {
        assert_eq!(group["members"].as_array().map(Vec::len), Some(1), "{group}");
        let url = group["members"][0].as_str().expect("a URL");
        assert!(printed.split_whitespace().any(|word| word == url), "{url} is not in: {printed}");
        world.http.ready(url).await.expect("it is ready");
    }
    assert!(printed.contains(&format!("ready at {}", node.url)), "{printed}");

    // As a shell and curl take it: one word in quotes, and a form as the body.
    let (before, rest) = line.split_once('\'').expect("a quoted URL");
    let (url, after) = rest.split_once('\'').expect("a quoted URL");
    assert_eq!((before.trim(), after), ("curl -X PUT", " -d hello"));
    let put = world.http.client.put(url).header("content-type", FORM).body("hello");
    assert_eq!(put.send().await.expect("an answer").status(), 200);
    // Not even its sudden death takes anything away.
    node.kill();
    started(&mut node).await;
    let got = world.http.client.get(url).send().await.expect("an answer");
    assert!(got.text().await.expect("a body").contains("\"value\":\"hello\""));
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_line() {
    let mut world = World::new().await;
    let port = world.port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let args = ["dev", "--port", &port.to_string(), "--data", "dev-data"];
    let ended = command::run(world.directory(), &args).await;
    ended.refused(&[&port.to_string()]);
}
