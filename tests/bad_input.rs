//! Every mistake a client can make is answered with its status, a sentence and a code in JSON, by
//! shards and coordinators alike, and changes nothing.
//!
//! The contract itself is one suite, which everything that serves `/kv` must pass; here it meets
//! real processes: a leader, a follower and a coordinator. Beside it stands what only a process
//! has: its flags, its stack, its sockets.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::http::{Answer, FORM, JSON};
use crate::common::http_suite::raw_http::{Connection, head};
use crate::common::http_suite::{Face, Subject, every_promise};
use crate::common::until::SOON;
use crate::common::world::World;

/// The largest value by default.
const VALUE_BYTES: usize = 8 * 1024 * 1024;

fn subject(base: &str, face: Face, max_value_bytes: usize) -> Subject {
    Subject { base: base.into(), face, max_value_bytes, prefix: "suite:".into() }
}

async fn put(world: &World, url: &str, (kind, bytes): (&str, &[u8])) -> Answer {
    let body = Some((kind, bytes.to_vec()));
    let answer = world.http.send(Method::PUT, (url, "/kv"), &[("key", "k")], body).await;
    answer.expect("an answer")
}

#[tokio::test]
async fn a_leader_keeps_the_contract() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &[]).await;
    every_promise(&subject(group.url(), Face::Shard, VALUE_BYTES)).await;
}

#[tokio::test]
async fn a_follower_keeps_the_contract() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let follower = group.follower(&world.http).await;
    every_promise(&subject(&group.nodes[follower].url, Face::Shard, VALUE_BYTES)).await;
}

#[tokio::test]
async fn a_coordinator_keeps_the_contract() {
    let mut world = World::new().await;
    let red = world.started("red", 3, &["--id", "red"]).await;
    let green = world.started("green", 1, &["--id", "green"]).await;
    let coordinator = world.routed(&[&red, &green]).await;
    every_promise(&subject(&coordinator.url, Face::Coordinator, VALUE_BYTES)).await;
}

#[tokio::test]
async fn a_smaller_limit_is_kept() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &["--max-value-size", "1000"]).await;
    put(&world, group.url(), (FORM, &[b'v'; 1000])).await.expect(200);
    let refused = put(&world, group.url(), (FORM, &[b'v'; 1001])).await.expect(413);
    assert_eq!(refused.json()["code"], json!("value_too_large"));
    assert_eq!(refused.json()["outcome"], json!("not_applied"));
}

#[tokio::test]
async fn deeply_nested_json_is_answered_and_harms_nobody() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &[]).await;
    let coordinator = world.routed(&[&group]).await;
    let deep = "[".repeat(1_000_000);
    for url in [group.url(), &coordinator.url] {
        let refused = put(&world, url, (JSON, deep.as_bytes())).await.expect(400);
        assert_eq!(refused.json()["code"], json!("invalid_json"));
        put(&world, url, (JSON, b"[]")).await.expect(200);
    }
}

#[tokio::test]
async fn what_is_not_http_is_ended_and_harms_nobody() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &[]).await;
    let coordinator = world.routed(&[&group]).await;
    let garbage: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"GET /kv?key=k HTTP/9.9\r\n\r\n",
        b"PUT /kv?key=k HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET /rpc HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: sage-rpc/1\r\n\r\n\
          \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for url in [group.url(), &coordinator.url] {
        let address = url.trim_start_matches("http://");
        for bytes in garbage {
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            socket.write_all(bytes).await.expect("the server reads");
            socket.shutdown().await.ok();
            // It ends the connection, with an answer or without.
            let mut answer = Vec::new();
            let end = socket.read_to_end(&mut answer);
            let ended = tokio::time::timeout(SOON, end).await;
            assert!(ended.is_ok(), "the connection is left open after {bytes:?}");
        }
        put(&world, url, (FORM, b"v")).await.expect(200);
        world.http.get(url, "k").await.expect(200);
    }
}

const BAD: &[(u16, &str)] = &[(400, "bad_request")];
const LONG: &[(u16, &str)] = &[(414, "uri_too_long"), (431, "headers_too_large")];

#[tokio::test]
async fn what_is_not_http_is_refused_in_json() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &[]).await;
    let url = group.url();
    let names: Vec<String> = (0..200).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let cases = [
        // Which of the two depends on how much of it comes at once.
        (head(url, "GET", &format!("/kv?key={}", "k".repeat(65_600)), &[]), LONG),
        (head(url, "GET", "/health", &many), &LONG[1..]),
        (head(url, "PUT", "/kv?key=k", &[("content-length", "many")]), BAD),
        ("GET /health HTTP/9.9\r\n".to_owned(), BAD),
        ("\u{16}\u{3} a TLS hello\r\n".to_owned(), BAD),
    ];
    let good = format!("{}\r\n", head(url, "GET", "/health", &[]));
    for (request, answers) in cases {
        // Alone, behind a request that was answered, and together with one.
        for (answered, with) in [(false, ""), (true, ""), (true, &good)] {
            let mut connection = Connection::open(url).await;
            if answered {
                connection.send(good.as_bytes()).await;
                assert_eq!(connection.answer(false).await.status, 200);
            }
            connection.send(format!("{with}{request}\r\n").as_bytes()).await;
            if !with.is_empty() {
                assert_eq!(connection.answer(false).await.status, 200);
            }
            let refused = connection.answer(false).await;
            let code = refused.json()["code"].clone();
            let is_it = |(status, of): &(u16, &str)| *status == refused.status && code == *of;
            assert!(answers.iter().any(is_it), "{refused:?}");
            assert_eq!(refused.json()["outcome"], "not_applied", "{refused:?}");
            assert!(refused.json()["error"].as_str().is_some_and(|text| !text.is_empty()));
            assert_eq!(refused.header("connection"), Some("close"), "{refused:?}");
        }
    }
}
