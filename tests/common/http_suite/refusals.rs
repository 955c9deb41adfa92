//! What can't be done is refused in JSON, by name, and changes nothing.

use serde_json::{Value as Json, json};

use super::{FORM, Face, JSON, Subject, assert_refused, assert_write_refused};

pub(crate) async fn what_is_no_value_is_refused_and_changes_nothing(subject: &Subject) {
    let version = subject.put("kept", &[], b"kept").await;
    for bad in ["", "{", "{\"a\":1}x", "nul", "01", "\"\u{1}\""] {
        let answer = subject.send("PUT", &subject.kv("kept"), &[JSON], bad.as_bytes()).await;
        assert_write_refused(&answer, 400, "invalid_json");
        assert!(answer.json()["error"].as_str().expect("text").starts_with("Invalid JSON"));
    }
    for content_type in [&[][..], &[FORM], &[JSON]] {
        let answer = subject.send("PUT", &subject.kv("kept"), content_type, b"\"\xff\"").await;
        assert_eq!((answer.status, &answer.json()["outcome"]), (400, &json!("not_applied")));
    }
    let utf8 = subject.send("PUT", &subject.kv("kept"), &[], b"\xff").await;
    assert_write_refused(&utf8, 400, "invalid_utf8");
    let packed =
        subject.send("PUT", &subject.kv("kept"), &[("content-encoding", "gzip")], b"x").await;
    assert_write_refused(&packed, 400, "invalid_parameter");
    let got = subject.get(&subject.kv("kept")).await.json();
    assert_eq!((&got["value"], &got["version"]), (&json!("kept"), &json!(version)));
}

pub(crate) async fn what_is_no_key_is_refused(subject: &Subject) {
    for method in ["GET", "PUT", "DELETE"] {
        for target in ["/kv", "/kv?", "/kv?key=", "/kv?key", "/kv?&&"] {
            let answer = subject.send(method, target, &[], b"").await;
            assert_refused(&answer, 400, "missing_key");
            assert_eq!(answer.json()["error"], "missing key");
            let outcome = (method != "GET").then_some("not_applied");
            assert_eq!(answer.json().get("outcome").and_then(Json::as_str), outcome);
        }
        for bad in ["%FF", "%C3", "%ED%A0%80", "%C0%AF"] {
            let answer = subject.send(method, &subject.kv(bad), &[], b"").await;
            assert_refused(&answer, 400, "invalid_utf8");
        }
        for bad in ["%", "%4", "%zz", "%+1"] {
            let answer = subject.send(method, &subject.kv(bad), &[], b"").await;
            assert_refused(&answer, 400, "bad_request");
        }
        let too_long = subject.kv(&"k".repeat(4097 - subject.prefix.len()));
        assert_refused(&subject.send(method, &too_long, &[], b"").await, 413, "key_too_large");
    }
}

pub(crate) async fn an_unknown_parameter_is_refused_by_name(subject: &Subject) {
    let cases = [
        ("GET", "consistency=eventual", "consistency"),
        ("GET", "consistency=", "consistency"),
        ("GET", "raw=1", "raw"),
        ("GET", "Raw=true", "Raw"),
        ("GET", "raw=true&raw=true", "raw"),
        ("GET", "timeout=5", "timeout"),
        ("GET", "timeout=0s", "timeout"),
        ("GET", "timeout=-1s", "timeout"),
        ("GET", "timeout=3600s", "timeout"),
        ("GET", "pretty", "pretty"),
        ("GET", "key=b", "key"),
        ("PUT", "consistency=stale", "consistency"),
        ("PUT", "raw=true", "raw"),
        ("PUT", "ttl=0s", "ttl"),
        ("GET", "ttl=30s", "ttl"),
        ("DELETE", "prefix=a", "prefix"),
        ("DELETE", "timeout=2h", "timeout"),
    ];
    for (method, parameter, name) in cases {
        let target = format!("{}&{parameter}", subject.kv("parameter"));
        let answer = subject.send(method, &target, &[], b"").await;
        assert_refused(&answer, 400, "invalid_parameter");
        let sentence = answer.json()["error"].as_str().expect("text").to_owned();
        assert!(sentence.contains(&format!("parameter {name}:")), "{parameter}: {sentence}");
        let outcome = (method != "GET").then_some("not_applied");
        assert_eq!(answer.json().get("outcome").and_then(Json::as_str), outcome);
    }
    assert_eq!(subject.get(&subject.kv("parameter")).await.status, 404);
    for timeout in ["500ms", "2s", "1m"] {
        let target = format!("{}&timeout={timeout}", subject.kv("parameter"));
        assert_eq!(subject.send("PUT", &target, &[], b"x").await.status, 200);
        assert_eq!(subject.get(&target).await.status, 200);
        assert_eq!(subject.send("DELETE", &target, &[], b"").await.status, 200);
    }
}

pub(crate) async fn what_does_not_belong_to_a_request_is_refused_not_ignored(subject: &Subject) {
    let version = subject.put("condition", &[], b"before").await;
    let cases = [
        ("GET", ("If-Match", "\"1\""), "only writes have it"),
        ("GET", ("Idempotency-Key", "a"), "only writes have it"),
        ("PUT", ("X-Sage-Min-Index", "g:1"), "only reads have it"),
        ("DELETE", ("X-Sage-Min-Index", "g:1"), "only reads have it"),
        ("PUT", ("If-Unmodified-Since", "Tue, 15 Nov 1994 12:45:26 GMT"), "not supported"),
        ("GET", ("If-Unmodified-Since", "Tue, 15 Nov 1994 12:45:26 GMT"), "not supported"),
    ];
    for (method, header, reason) in cases {
        let answer = subject.send(method, &subject.kv("condition"), &[header], b"after").await;
        assert_refused(&answer, 400, "invalid_parameter");
        let sentence = answer.json()["error"].as_str().expect("text").to_owned();
        assert!(sentence.contains(&header.0.to_ascii_lowercase()), "{sentence}");
        assert!(sentence.contains(reason), "{sentence}");
    }
    let got = subject.get(&subject.kv("condition")).await.json();
    assert_eq!((&got["value"], &got["version"]), (&json!("before"), &json!(version)));
}

pub(crate) async fn paths_and_methods_are_known_or_refused_in_json(subject: &Subject) {
    let (here, elsewhere) = match subject.face {
        Face::Shard => (["/status", "/stats"], ["/cluster", "/route"]),
        Face::Coordinator => (["/cluster", "/route"], ["/status", "/stats"]),
    };
    for path in ["/", "/nowhere", "/kv/", "/KV", "/kv/a"].into_iter().chain(elsewhere) {
        let answer = subject.get(path).await;
        assert_refused(&answer, 404, "not_found");
        assert_eq!(answer.json()["error"], "not found", "{path}");
        let write = subject.send("PUT", path, &[], b"x").await;
        assert_write_refused(&write, 404, "not_found");
    }
    let wrong = [("POST", "/kv"), ("PATCH", "/kv"), ("OPTIONS", "/kv"), ("PUT", "/health")];
    let also = here.map(|path| ("DELETE", path));
    for (method, path) in wrong.into_iter().chain(also) {
        let answer = subject.send(method, path, &[], b"").await;
        assert_refused(&answer, 405, "method_not_allowed");
        assert_eq!(answer.json()["error"], "method not allowed");
        let allow = answer.header("allow").expect("405 says what is allowed");
        assert!(allow.contains("GET") && allow.contains("HEAD"), "{allow}");
        assert_eq!(allow.contains("PUT"), path == "/kv", "{allow}");
    }
}
