//! What a process says of itself.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Face, Subject, assert_refused, names};

pub(crate) async fn head_is_get_without_a_body(subject: &Subject) {
    subject.put("head", &[], b"value").await;
    for (target, status) in
        [(subject.kv("head"), 200), (subject.kv("no-head"), 404), ("/kv".into(), 400)]
    {
        let got = subject.get(&target).await;
        let answer = subject.send("HEAD", &target, &[], b"").await;
        assert_eq!((got.status, answer.status), (status, status), "{target}");
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(answer.header(name), got.header(name), "{target} {name}");
        }
    }
}

pub(crate) async fn the_process_speaks_of_itself(subject: &Subject) {
    let health = subject.get("/health").await;
    let role = if subject.face == Face::Shard { "shard" } else { "coordinator" };
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("ok")));
    assert_eq!(health.json()["role"], role);
    let ready = subject.get("/ready").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true})));
    let metrics = subject.get("/metrics").await;
    assert_eq!(metrics.status, 200, "{metrics:?}");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(metrics.body).expect("text");
    let theirs: &[&str] = match subject.face {
        Face::Shard => &["keys", "term", "differs", "memory_bytes", "disk_full", "wal_bytes"],
        Face::Coordinator => &["epoch", "groups", "groups_without_leader"],
    };
    for name in ["ready"].iter().chain(theirs) {
        let line = text.lines().find(|line| line.starts_with(&format!("sage_{name} ")));
        let (_, number) = line.and_then(|line| line.split_once(' ')).unwrap_or_default();
        assert!(number.parse::<u64>().is_ok(), "{name} in {text}");
        assert!(text.contains(&format!("# TYPE sage_{name} gauge\n")), "{name} in {text}");
    }
    assert_refused(&subject.get("/metrics?name=keys").await, 400, "invalid_parameter");
    let odd = subject.get("/health?verbose=1").await;
    assert_refused(&odd, 400, "invalid_parameter");
    match subject.face {
        Face::Shard => the_shard_speaks_of_itself(subject).await,
        Face::Coordinator => the_coordinator_speaks_of_the_ring(subject).await,
    }
}

pub(crate) async fn the_process_describes_itself(subject: &Subject) {
    let answer = subject.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths: BTreeSet<_> =
        document["paths"].as_object().expect("paths").keys().cloned().collect();
    for path in ["/kv", "/keys", "/txn", "/openapi.json", "/docs"] {
        assert!(paths.contains(path), "{path} in {paths:?}");
    }
    for (path, face) in [("/cluster", Face::Coordinator), ("/status", Face::Shard)] {
        assert_eq!(paths.contains(path), subject.face == face, "{path} in {paths:?}");
    }
    let docs = subject.get("/docs").await;
    assert_eq!((docs.status, docs.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = docs.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let page = String::from_utf8(docs.body).expect("text");
    for path in &paths {
        assert!(page.contains(&format!("<code>{path}</code>")), "{path} in {page}");
    }
    // What would be fetched, or run.
    for needed in ["<script", "src=", "<link", "http-equiv", "url(", "@import"] {
        assert!(!page.contains(needed), "{needed} in {page}");
    }
    for path in ["/openapi.json?x=1", "/docs?x=1"] {
        assert_refused(&subject.get(path).await, 400, "invalid_parameter");
    }
}

async fn the_shard_speaks_of_itself(subject: &Subject) {
    for path in ["/status", "/stats", "/status?timeout=1s"] {
        let status = subject.get(path).await;
        assert_eq!(status.status, 200, "{status:?}");
        let body = status.json();
        for name in ["keys", "bytes", "role", "term", "leader", "last_index", "committed"] {
            assert!(body.get(name).is_some(), "{name} in {body}");
        }
        for name in ["applied", "members", "wal_bytes", "snapshot_bytes"] {
            assert!(body.get(name).is_some(), "{name} in {body}");
        }
    }
    let bare = subject.get("/rpc").await;
    assert_refused(&bare, 426, "upgrade_required");
    assert_eq!(bare.header("upgrade"), Some("sage-rpc/1"));
    let other = [("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(subject.send("GET", "/rpc", &other, b"").await.status, 426);
}

async fn the_coordinator_speaks_of_the_ring(subject: &Subject) {
    let route = subject.get(&format!("/route?key={}%7Bu%7D:a", subject.prefix)).await;
    assert_eq!(route.status, 200, "{route:?}");
    let body = route.json();
    assert_eq!(names(&body), BTreeSet::from(["key", "shard", "url", "replicas", "hash", "epoch"]));
    assert_eq!(body["key"], format!("{}{{u}}:a", subject.prefix));
    let hash = body["hash"].as_str().expect("text");
    assert!(hash.len() == 16 && u64::from_str_radix(hash, 16).is_ok(), "{hash}");
    let sibling = subject.get(&format!("/route?key={}%7Bu%7D:b", subject.prefix)).await.json();
    assert_eq!(sibling["hash"], body["hash"], "a tag is what is hashed");
    assert_refused(&subject.get("/route").await, 400, "missing_key");
    assert_refused(&subject.get("/route?key=%ff").await, 400, "invalid_utf8");
    assert_refused(&subject.get("/route?key=a&raw=true").await, 400, "invalid_parameter");

    let cluster = subject.get("/cluster?timeout=5s").await;
    assert_eq!(cluster.status, 200, "{cluster:?}");
    let body = cluster.json();
    assert_eq!(names(&body), BTreeSet::from(["cluster", "epoch", "vnodes", "groups"]));
    let shares = body["groups"].as_array().expect("groups").iter();
    let whole: f64 = shares.map(|group| group["share"].as_f64().expect("a share")).sum();
    assert!((whole - 1.0).abs() < 0.001, "{whole}");
    assert_refused(&subject.get("/cluster?timeout=0s").await, 400, "invalid_parameter");
}
