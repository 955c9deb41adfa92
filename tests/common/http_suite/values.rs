//! What is stored comes back: values of each kind, versions, keys, consistencies.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::{BYTES, FORM, JSON, Subject, assert_index, assert_refused, names};

pub(crate) async fn text_comes_back_as_a_json_string(subject: &Subject) {
    let odd = ("content-type", "image/svg+xml");
    for (content_type, body) in [
        (&[][..], "plain \"quoted\"\n\u{e9}"),
        (&[FORM][..], "a=b&c=%20"),
        (&[odd], "{\"not\": \"parsed\""),
        (&[], ""),
    ] {
        let put = subject.send("PUT", &subject.kv("text"), content_type, body.as_bytes()).await;
        assert_eq!(put.status, 200, "{put:?}");
        let written = put.json();
        assert_eq!(names(&written), BTreeSet::from(["ok", "acks", "quorum", "ts", "version"]));
        assert_eq!(written["ok"], true);
        assert!(written["acks"].as_u64() >= written["quorum"].as_u64(), "{written}");
        assert!(written["quorum"].as_u64() >= Some(1), "{written}");
        assert_eq!(put.header("etag"), Some(format!("\"{}\"", written["version"]).as_str()));
        assert_index(&put);

        let got = subject.get(&subject.kv("text")).await;
        let expected = json!({
            "found": true, "value": body, "ts": written["ts"], "version": written["version"],
        });
        assert_eq!((got.status, got.json()), (200, expected));
        assert_eq!(got.header("etag"), put.header("etag"));
        assert_eq!(got.header("cache-control"), Some("no-store"));
        assert_eq!(got.header("x-sage-lag"), None);
        assert_index(&got);
    }
}

pub(crate) async fn json_is_kept_byte_for_byte(subject: &Subject) {
    let stored = r#"{"b":12345678901234567890123,  "a":1e400,"a":[null,"\u00e9"]}"#;
    subject.put("json", &[JSON], format!(" \n{stored} ").as_bytes()).await;
    let got = subject.get(&subject.kv("json")).await;
    let start = format!("{{\"found\":true,\"value\":{stored},\"ts\":");
    assert!(got.text().starts_with(&start), "{got:?}");
    for stored in ["null", "\"text\"", "0", "[]"] {
        let content_type = ("content-type", "Application/Json ; charset=UTF-8");
        subject.put("json", &[content_type], stored.as_bytes()).await;
        let got = subject.get(&subject.kv("json")).await;
        assert_eq!(got.json()["value"], serde_json::from_str::<Json>(stored).expect("JSON"));
    }
}

pub(crate) async fn bytes_come_back_as_base64(subject: &Subject) {
    subject.put("bytes", &[BYTES], b"\x00\xff\xfe").await;
    let got = subject.get(&subject.kv("bytes")).await.json();
    assert_eq!((&got["value"], &got["encoding"]), (&json!("AP/+"), &json!("base64")));
    subject.put("bytes", &[BYTES], b"").await;
    let got = subject.get(&subject.kv("bytes")).await.json();
    assert_eq!((&got["value"], &got["encoding"]), (&json!(""), &json!("base64")));
}

pub(crate) async fn raw_is_just_the_value_with_its_type(subject: &Subject) {
    let cases = [
        (&[][..], &b"text"[..], "text/plain; charset=utf-8"),
        (&[JSON], b"[1, 2]", "application/json"),
        (&[BYTES], b"\x00\xff", "application/octet-stream"),
    ];
    for (content_type, body, expected) in cases {
        let version = subject.put("raw", content_type, body).await;
        let got = subject.get(&format!("{}&raw=true", subject.kv("raw"))).await;
        assert_eq!((got.status, got.body.as_slice()), (200, body));
        assert_eq!(got.header("content-type"), Some(expected));
        assert_eq!(got.header("etag"), Some(format!("\"{version}\"").as_str()));
        assert!(got.header("x-sage-ts").is_some_and(|ts| ts.parse::<u64>().is_ok()), "{got:?}");
        assert_index(&got);
        let not_raw = subject.get(&format!("{}&raw=false", subject.kv("raw"))).await;
        assert_eq!(not_raw.json()["found"], true);
    }
    let missing = subject.get(&format!("{}&raw=true", subject.kv("raw-missing"))).await;
    assert_eq!((missing.status, missing.json()), (404, json!({"found": false})));
}

pub(crate) async fn the_version_rises_with_every_write(subject: &Subject) {
    let first = subject.put("version", &[], b"same").await;
    let second = subject.put("version", &[], b"same").await;
    let deleted = subject.send("DELETE", &subject.kv("version"), &[], b"").await.json();
    let third = subject.put("version", &[], b"same").await;
    let deletion = deleted["version"].as_u64().expect("a version");
    assert!(first < second && second < deletion && deletion < third && third < 1 << 53);
}

pub(crate) async fn deleting_what_is_not_there_is_done(subject: &Subject) {
    let missing = subject.get(&subject.kv("gone")).await;
    assert_eq!((missing.status, missing.text()), (404, r#"{"found":false}"#));
    assert_eq!(missing.header("etag"), None);
    assert_index(&missing);
    for existed in [false, true, false] {
        if existed {
            subject.put("gone", &[], b"here").await;
        }
        let deleted = subject.send("DELETE", &subject.kv("gone"), &[], b"").await;
        assert_eq!(deleted.status, 200, "{deleted:?}");
        let body = deleted.json();
        assert_eq!(
            names(&body),
            BTreeSet::from(["ok", "acks", "quorum", "ts", "version", "existed"])
        );
        assert_eq!((&body["ok"], &body["existed"]), (&json!(true), &json!(existed)));
        assert_index(&deleted);
        assert_eq!(subject.get(&subject.kv("gone")).await.status, 404);
    }
}

pub(crate) async fn a_key_is_any_text_up_to_its_bound(subject: &Subject) {
    let longest = "k".repeat(4096 - subject.prefix.len());
    let keys = [
        "{user1}:cart",
        "a+b%20c",
        "a%2Fb%26c%3D%25",
        "%D0%BA%D0%BB",
        "\u{43a}\u{43b}",
        "%00",
        &longest,
    ];
    for key in keys {
        subject.put(key, &[], key.as_bytes()).await;
        assert_eq!(subject.get(&subject.kv(key)).await.json()["value"], key);
    }
    // One key, written in several ways.
    assert_eq!(subject.get(&subject.kv("a%20b+c")).await.json()["value"], "a+b%20c");
    assert_eq!(subject.get(&subject.kv("%d0%ba%d0%bb")).await.json()["value"], "\u{43a}\u{43b}");
}

pub(crate) async fn each_consistency_is_served(subject: &Subject) {
    subject.put("read", &[], b"fresh").await;
    for consistency in ["linearizable", "lease"] {
        let target = format!("{}&consistency={consistency}", subject.kv("read"));
        let got = subject.get(&target).await;
        assert_eq!((got.status, &got.json()["value"]), (200, &json!("fresh")));
        assert_eq!(got.header("x-sage-lag"), None);
    }
    let stale = subject.get(&format!("{}&consistency=stale", subject.kv("read"))).await;
    assert!(matches!(stale.status, 200 | 404), "{stale:?}");
    let lag = stale.header("x-sage-lag").expect("a stale read says how stale");
    assert!(lag == "unknown" || lag.parse::<u64>().is_ok(), "{lag}");
    assert_index(&stale);
}

pub(crate) async fn a_read_waits_for_what_the_reader_has_seen(subject: &Subject) {
    let written = subject.send("PUT", &subject.kv("seen"), &[], b"mine").await;
    let seen = written.header("x-sage-index").expect("a write has a position").to_owned();
    let (group, index) = seen.rsplit_once(':').expect("<group>:<index>");
    let index: u64 = index.parse().expect("a number");
    for consistency in ["linearizable", "lease", "stale"] {
        let target = format!("{}&consistency={consistency}", subject.kv("seen"));
        for seen in [seen.clone(), format!("elsewhere:99999999, {seen}")] {
            let got = subject.send("GET", &target, &[("X-Sage-Min-Index", &seen)], b"").await;
            assert_eq!((got.status, &got.json()["value"]), (200, &json!("mine")), "{got:?}");
        }
        // Nobody has seen that yet.
        let future = format!("{group}:{}", index + 1_000_000);
        let target = format!("{target}&timeout=300ms");
        let got = subject.send("GET", &target, &[("X-Sage-Min-Index", &future)], b"").await;
        assert_refused(&got, 503, "unavailable");
    }
    for bad in ["", "17", ":17", "g:x", "g:1,g:2"] {
        let headers = [("X-Sage-Min-Index", bad)];
        let got = subject.send("GET", &subject.kv("seen"), &headers, b"").await;
        assert_refused(&got, 400, "invalid_parameter");
    }
}
