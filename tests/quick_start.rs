//! The quick start: three groups of one and a coordinator, with the commands as a newcomer types
//! them, and every kind of value as it comes back.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::http::{Answer, BYTES, FORM, JSON};
use crate::common::node::{Node, url_of};
use crate::common::process::Launch;
use crate::common::world::{World, sage};

/// A server started with the words of the quick start, in its directory.
fn typed(directory: &Path, port: u16, words: &str) -> Node {
    let mut node = Node::coordinator(&sage(), directory, (&format!("typed-{port}"), port), &[]);
    let args = words.split_whitespace().map(String::from).collect();
    node.launch = Launch { args, ..node.launch };
    node.start().expect("sage can be started");
    node
}

/// Three groups of one and a coordinator; the URLs of the coordinator and the shards.
async fn quick_start(world: &mut World) -> (Vec<Node>, String, Vec<String>) {
    let ports = [world.port(), world.port(), world.port()];
    let mut nodes = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let words = format!("shard --port {port} --data data{}", at + 1);
        nodes.push(typed(world.directory(), *port, &words));
    }
    let shards: Vec<String> = ports.iter().map(|port| url_of(*port)).collect();
    let port = world.port();
    let words = format!("coordinator --port {port} --shards {}", shards.join(","));
    nodes.push(typed(world.directory(), port, &words));
    world.until_ready(&url_of(port)).await;
    (nodes, url_of(port), shards)
}

async fn put(world: &World, url: &str, key: &str, kind: &str, body: &str) -> Answer {
    let body = Some((kind, body.as_bytes().to_vec()));
    let answer = world.http.send(Method::PUT, (url, "/kv"), &[("key", key)], body).await;
    answer.expect("an answer")
}

/// Checks `{"found":true,"value":…,"ts":…}` and that the timestamp is of our days.
#[track_caller]
fn found(answer: Answer, value: &Value) {
    let body = answer.expect(200).json();
    assert_eq!(body["found"], json!(true), "{body}");
    assert_eq!(body["value"], *value, "{body}");
    assert!(body["ts"].as_u64().is_some_and(|ts| ts > 1_700_000_000_000), "{body}");
    assert!(body["version"].as_u64().is_some_and(|version| version >= 1), "{body}");
}

#[tokio::test]
async fn strings_and_objects_come_back_through_the_coordinator_and_from_the_shard() {
    let mut world = World::new().await;
    let (_nodes, coordinator, shards) = quick_start(&mut world).await;

    let written = put(&world, &coordinator, "user1", FORM, "hello").await.expect(200).json();
    assert_eq!(written["ok"], json!(true));
    assert_eq!((&written["acks"], &written["quorum"]), (&json!(1), &json!(1)));
    found(world.http.get(&coordinator, "user1").await, &json!("hello"));

    let object = r#"{"name":"Ann","tags":["a","b"]}"#;
    put(&world, &coordinator, "user2", JSON, object).await.expect(200);
    let object: Value = serde_json::from_str(object).expect("JSON");
    found(world.http.get(&coordinator, "user2").await, &object);

    for key in ["user1", "user2"] {
        let route = world.http.path(&coordinator, "/route", &[("key", key)]).await;
        let route = route.expect("an answer").expect(200).json();
        let owner = route["url"].as_str().expect("a URL");
        assert!(shards.iter().any(|shard| shard == owner), "{route}");
        let through = world.http.get(&coordinator, key).await.expect(200).json();
        let direct = world.http.get(owner, key).await.expect(200).json();
        assert_eq!(through, direct, "the same on both ways, timestamp included");
    }
}

#[tokio::test]
async fn a_shard_works_alone() {
    let mut world = World::new().await;
    let group = world.started("alone", 1, &[]).await;
    put(&world, group.url(), "k", FORM, "v").await.expect(200);
    found(world.http.get(group.url(), "k").await, &json!("v"));
    let missing = world.http.get(group.url(), "other").await.expect(404);
    assert_eq!(missing.json(), json!({"found": false}));
}

#[tokio::test]
async fn json_is_kept_byte_for_byte() {
    let mut world = World::new().await;
    let (_nodes, coordinator, _) = quick_start(&mut world).await;
    let texts = [
        r#"{"z":1,"a":2,"z":3}"#,
        r#"{"big":123456789012345678901234567890,"exact":1.10,"tiny":1e-400}"#,
        "9007199254740993",
        r#""a string with \u00e9 and \"quotes\"""#,
        "null",
        "[ 1 ,\n 2 ]",
    ];
    for text in texts {
        put(&world, &coordinator, "json", JSON, text).await.expect(200);
        let answer = world.http.get(&coordinator, "json").await.expect(200);
        let value = format!("\"value\":{text},");
        assert!(answer.text().contains(&value), "{text} came back in {}", answer.text());
        let raw = world.http.get_with(&coordinator, &[("key", "json"), ("raw", "true")]).await;
        assert_eq!(raw.header("content-type"), JSON);
        assert_eq!(raw.expect(200).text(), text);
    }
}

#[tokio::test]
async fn text_and_bytes_come_back_as_they_were_sent() {
    let mut world = World::new().await;
    let (_nodes, coordinator, _) = quick_start(&mut world).await;

    for text in ["", "a=b&c=%20", "naïve ☃", "{\"not\":\"parsed\"}"] {
        put(&world, &coordinator, "text", FORM, text).await.expect(200);
        found(world.http.get(&coordinator, "text").await, &json!(text));
        let raw = world.http.get_with(&coordinator, &[("key", "text"), ("raw", "true")]).await;
        assert_eq!(raw.expect(200).text(), text);
    }

    let bytes: Vec<u8> = (0..=255).collect();
    let body = Some((BYTES, bytes.clone()));
    let query = [("key", "bytes")];
    let answer = world.http.send(Method::PUT, (&coordinator, "/kv"), &query, body).await;
    answer.expect("an answer").expect(200);
    let answer = world.http.get(&coordinator, "bytes").await.expect(200).json();
    assert_eq!(answer["encoding"], json!("base64"), "{answer}");
    assert!(answer["value"].as_str().is_some_and(|text| text.starts_with("AAECAwQF")), "{answer}");
    let raw = world.http.get_with(&coordinator, &[("key", "bytes"), ("raw", "true")]).await;
    assert_eq!(raw.header("content-type"), BYTES);
    assert_eq!(raw.expect(200).body, bytes);
}

#[tokio::test]
async fn any_utf8_is_a_key() {
    let mut world = World::new().await;
    let (_nodes, coordinator, _) = quick_start(&mut world).await;
    let longest = "k".repeat(4096);
    for key in ["a b", "a/b?c=d&e#f", "☃", "%41", "+", "\u{0}", longest.as_str()] {
        put(&world, &coordinator, key, FORM, key).await.expect(200);
        found(world.http.get(&coordinator, key).await, &json!(key));
    }
}

#[tokio::test]
async fn versions_rise_and_deletes_say_what_was_there() {
    let mut world = World::new().await;
    let (_nodes, coordinator, _) = quick_start(&mut world).await;
    let mut last = 0;
    for round in 0..5 {
        let written = put(&world, &coordinator, "k", FORM, "v").await.expect(200).json();
        let deleted = world.http.delete(&coordinator, "k").await.expect(200).json();
        let again = world.http.delete(&coordinator, "k").await.expect(200).json();
        assert_eq!((&deleted["existed"], &again["existed"]), (&json!(true), &json!(false)));
        for answer in [&written, &deleted] {
            let version = answer["version"].as_u64().expect("a version");
            assert!(version > last, "round {round}: {answer} after version {last}");
            last = version;
        }
        world.http.get(&coordinator, "k").await.expect(404);
    }
}

#[tokio::test]
async fn keys_with_one_tag_share_a_group() {
    let mut world = World::new().await;
    let (_nodes, coordinator, _) = quick_start(&mut world).await;
    let mut shards = Vec::new();
    for part in 0..20 {
        let key = format!("{{user1}}:{part}");
        let route = world.http.path(&coordinator, "/route", &[("key", &key)]).await;
        shards.push(route.expect("an answer").expect(200).json()["shard"].clone());
    }
    shards.dedup();
    assert_eq!(shards.len(), 1, "{shards:?}");
}
