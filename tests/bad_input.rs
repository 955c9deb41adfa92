//! Every mistake a client can make is answered with its status, a sentence and a code in JSON, by
//! shards and coordinators alike, and changes nothing.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::group::Group;
use crate::common::http::{Answer, BYTES, FORM, JSON};
use crate::common::node::Node;
use crate::common::world::World;

/// The largest value by default.
const VALUE_BYTES: usize = 8 * 1024 * 1024;

/// A shard and a coordinator over it: every test asks both.
struct Both {
    group: Group,
    coordinator: Node,
}

impl Both {
    async fn start(world: &mut World) -> Self {
        let group = world.started("group", 1, &[]).await;
        let coordinator = world.routed(&[&group]).await;
        Self { group, coordinator }
    }

    fn urls(&self) -> [&str; 2] {
        [self.group.url(), &self.coordinator.url]
    }
}

/// One request as it stands in the URL, sent as it is: also what no client library would send.
async fn raw(
    world: &World,
    method: &Method,
    url: &str,
    path: &str,
    body: Option<(&str, &[u8])>,
) -> Answer {
    let body = body.map(|(kind, bytes)| (kind, bytes.to_vec()));
    let answer = world.http.send(method.clone(), (url, path), &[], body).await;
    answer.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
}

/// Checks an error's form: JSON with a sentence and a code, and on writes the outcome.
#[track_caller]
fn refused(answer: &Answer, method: &Method, status: u16, code: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert!(answer.header("content-type").starts_with(JSON), "{:?}", answer.headers);
    let body = answer.json();
    assert_eq!(body["code"], json!(code), "{text}");
    let sentence = body["error"].as_str().unwrap_or_default();
    assert!(!sentence.is_empty() && !sentence.contains("panicked"), "{text}");
    let write = [Method::PUT, Method::DELETE].contains(method);
    if write {
        assert_eq!(body["outcome"], json!("not_applied"), "{text}");
    }
}

#[tokio::test]
async fn a_missing_or_bad_key_is_refused() {
    let mut world = World::new().await;
    let both = Both::start(&mut world).await;
    let long = format!("/kv?key={}", "k".repeat(4097));
    let cases = [
        ("/kv", 400, "missing_key"),
        ("/kv?key=", 400, "missing_key"),
        ("/kv?raw=true", 400, "missing_key"),
        ("/kv?key=%FF%FE", 400, "invalid_utf8"),
        (long.as_str(), 413, "key_too_large"),
    ];
    for url in both.urls() {
        for (path, status, code) in cases {
            for method in [Method::GET, Method::PUT, Method::DELETE] {
                let body = (method == Method::PUT).then_some((FORM, b"v".as_slice()));
                // `raw` belongs to reads.
                if path.contains("raw") && method != Method::GET {
                    continue;
                }
                let answer = raw(&world, &method, url, path, body).await;
                refused(&answer, &method, status, code);
                if code == "missing_key" {
                    assert_eq!(answer.json()["error"], json!("missing key"));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_bad_value_is_refused_and_changes_nothing() {
    let mut world = World::new().await;
    let both = Both::start(&mut world).await;
    let cases: [(&str, &[u8], &str); 7] = [
        (JSON, b"", "invalid_json"),
        (JSON, b"{", "invalid_json"),
        (JSON, b"{} {}", "invalid_json"),
        (JSON, b"nul", "invalid_json"),
        (JSON, b"01", "invalid_json"),
        ("application/json; charset=utf-8", b"{'a':1}", "invalid_json"),
        (FORM, b"\xff\xfe", "invalid_utf8"),
    ];
    for url in both.urls() {
        world.http.put(url, "k", "before").await.expect(200);
        for (kind, bytes, code) in cases {
            let answer = raw(&world, &Method::PUT, url, "/kv?key=k", Some((kind, bytes))).await;
            refused(&answer, &Method::PUT, 400, code);
            if code == "invalid_json" {
                let error = answer.json()["error"].to_string();
                assert!(error.starts_with("\"Invalid JSON"), "{error}");
            }
        }
        let answer = world.http.get(url, "k").await.expect(200);
        assert_eq!(answer.json()["value"], json!("before"));
    }
}

#[tokio::test]
async fn deeply_nested_json_is_answered_and_harms_nobody() {
    let mut world = World::new().await;
    let both = Both::start(&mut world).await;
    let deep = "[".repeat(100_000);
    for url in both.urls() {
        let body = Some((JSON, deep.as_bytes()));
        let answer = raw(&world, &Method::PUT, url, "/kv?key=k", body).await;
        refused(&answer, &Method::PUT, 400, "invalid_json");
        world.http.put(url, "k", "v").await.expect(200);
    }
}

#[tokio::test]
async fn the_largest_value_fits_and_one_byte_more_does_not() {
    let mut world = World::new().await;
    let both = Both::start(&mut world).await;
    let value: Vec<u8> =
        (0..VALUE_BYTES).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let longer = [value.as_slice(), b"!"].concat();
    for url in both.urls() {
        let put = raw(&world, &Method::PUT, url, "/kv?key=big", Some((BYTES, &value))).await;
        put.expect(200);
        let put = raw(&world, &Method::PUT, url, "/kv?key=big", Some((BYTES, &longer))).await;
        refused(&put, &Method::PUT, 413, "value_too_large");
        let got = raw(&world, &Method::GET, url, "/kv?key=big&raw=true", None).await.expect(200);
        assert!(got.body == value, "the value that fitted is still there, byte for byte");
    }
}

#[tokio::test]
async fn a_smaller_limit_is_kept() {
    let mut world = World::new().await;
    let group = world.started("group", 1, &["--max-value-size", "1000"]).await;
    let put = async |bytes: usize| {
        let value = vec![b'v'; bytes];
        raw(&world, &Method::PUT, group.url(), "/kv?key=k", Some((FORM, &value))).await
    };
    put(1000).await.expect(200);
    refused(&put(1001).await, &Method::PUT, 413, "value_too_large");
}

#[tokio::test]
async fn an_unknown_parameter_or_value_is_refused() {
    let mut world = World::new().await;
    let both = Both::start(&mut world).await;
    let cases = [
        (Method::GET, "/kv?key=k&consistency=eventual"),
        (Method::GET, "/kv?key=k&raw=perhaps"),
        (Method::GET, "/kv?key=k&timeout=soon"),
        (Method::GET, "/kv?key=k&timeout=-1s"),
        (Method::GET, "/kv?key=k&timeout=1h"),
        (Method::PUT, "/kv?key=k&timeout=soon"),
        (Method::DELETE, "/kv?key=k&timeout=soon"),
        (Method::GET, "/kv?key=k&colour=red"),
        (Method::PUT, "/kv?key=k&colour=red"),
        (Method::DELETE, "/kv?key=k&colour=red"),
    ];
    for url in both.urls() {
        for (method, path) in &cases {
            let body = (method == Method::PUT).then_some((FORM, b"v".as_slice()));
            let answer = raw(&world, method, url, path, body).await;
            refused(&answer, method, 400, "invalid_parameter");
        }
        world.http.get(url, "k").await.expect(404);
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_so_in_json() {
    let mut world = World::new().await;
    let both = Both::start(&mut world).await;
    for url in both.urls() {
        for path in ["/nope", "/kv/", "/kv/key", "/KV", "/..", "/%00"] {
            let answer = raw(&world, &Method::GET, url, path, None).await;
            refused(&answer, &Method::GET, 404, "not_found");
            assert_eq!(answer.json()["error"], json!("not found"));
        }
        let wrong = [
            (Method::POST, "/kv?key=k"),
            (Method::PATCH, "/kv?key=k"),
            (Method::PUT, "/health"),
            (Method::DELETE, "/ready"),
        ];
        for (method, path) in &wrong {
            let answer = raw(&world, method, url, path, None).await;
            assert_eq!(answer.json()["error"], json!("method not allowed"), "{method} {path}");
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (405, &json!("method_not_allowed"))
            );
        }
    }
    // Each has the paths of its kind only.
    for (url, path) in [(both.group.url(), "/cluster"), (&both.coordinator.url, "/status")] {
        let answer = raw(&world, &Method::GET, url, path, None).await;
        refused(&answer, &Method::GET, 404, "not_found");
    }
    let route = raw(&world, &Method::GET, &both.coordinator.url, "/route", None).await;
    refused(&route, &Method::GET, 400, "missing_key");
}

#[tokio::test]
async fn what_is_not_http_is_ended_and_harms_nobody() {
    let mut world = World::new().await;
    let both = Both::start(&mut world).await;
    let garbage: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"GET /kv?key=k HTTP/9.9\r\n\r\n",
        b"PUT /kv?key=k HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET /rpc HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: sage-rpc/1\r\n\r\n\
          \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for url in both.urls() {
        let address = url.trim_start_matches("http://");
        for bytes in garbage {
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            socket.write_all(bytes).await.expect("the server reads");
            socket.shutdown().await.ok();
            // It ends the connection, with an answer or without.
            let mut answer = Vec::new();
            let end = socket.read_to_end(&mut answer);
            let ended = tokio::time::timeout(crate::common::until::SOON, end).await;
            assert!(ended.is_ok(), "the connection is left open after {bytes:?}");
        }
        world.http.put(url, "k", "v").await.expect(200);
        world.http.get(url, "k").await.expect(200);
    }
}

#[tokio::test]
async fn health_ready_and_status_answer_in_their_form() {
    let mut world = World::new().await;
    let both = Both::start(&mut world).await;
    for (url, role) in both.urls().into_iter().zip(["shard", "coordinator"]) {
        let health = world.http.path(url, "/health", &[]).await.expect("an answer").expect(200);
        assert_eq!(health.json()["status"], json!("ok"));
        assert_eq!(health.json()["role"], json!(role));
        let ready = world.http.path(url, "/ready", &[]).await.expect("an answer").expect(200);
        assert_eq!(ready.json()["ready"], json!(true));
    }
    let of = |path: &'static str| world.http.path(both.group.url(), path, &[]);
    let status = of("/status").await.expect("an answer").expect(200).json();
    let same = of("/stats").await.expect("an answer").expect(200).json();
    assert_eq!(status["role"], json!("leader"));
    assert_eq!(status["node"], same["node"], "the same under the old name");
    for field in ["keys", "bytes", "term", "last_index", "committed", "wal_bytes", "members"] {
        assert!(!status[field].is_null(), "{field} is missing: {status}");
    }
}
