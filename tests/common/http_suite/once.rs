//! A write with an idempotency key takes effect once, and a reader is not sent what it has.

use serde_json::json;

use super::raw_http::Answer;
use super::{Subject, assert_refused, assert_write_refused};

/// Sends a write under the name `key`, which this subject has for itself.
async fn send(subject: &Subject, method: &str, key: &str, value: &str) -> Answer {
    let key = format!("{}{key}", subject.prefix);
    let header = ("Idempotency-Key", key.as_str());
    subject.send(method, &subject.kv("once"), &[header], value.as_bytes()).await
}

pub(crate) async fn a_write_with_an_idempotency_key_takes_effect_once(subject: &Subject) {
    let first = send(subject, "PUT", "a", "one").await;
    assert_eq!(first.status, 200, "{first:?}");
    let between = subject.put("once", &[], b"between").await;
    let again = send(subject, "PUT", "a", "one").await;
    let of = |answer: &Answer| {
        let (body, index) = (answer.json(), answer.header("x-sage-index").map(str::to_owned));
        (answer.status, body["version"].clone(), body["ts"].clone(), index)
    };
    assert_eq!(of(&again), of(&first), "the first answer");
    let got = subject.get(&subject.kv("once")).await.json();
    assert_eq!((&got["value"], &got["version"]), (&json!("between"), &json!(between)));

    // The name belongs to that write.
    for answer in [send(subject, "PUT", "a", "two").await, send(subject, "DELETE", "a", "").await] {
        assert_write_refused(&answer, 422, "idempotency_key_reused");
    }

    let deleted = send(subject, "DELETE", "b", "").await;
    assert_eq!((deleted.status, &deleted.json()["existed"]), (200, &json!(true)));
    subject.put("once", &[], b"back").await;
    let again = send(subject, "DELETE", "b", "").await;
    assert_eq!((again.status, &again.json()["existed"]), (200, &json!(true)));
    assert_eq!(subject.get(&subject.kv("once")).await.json()["value"], "back");
}

pub(crate) async fn an_idempotency_key_remembers_that_a_condition_did_not_hold(subject: &Subject) {
    let key = format!("{}c", subject.prefix);
    let headers = [("Idempotency-Key", key.as_str()), ("If-None-Match", "*")];
    let target = subject.kv("once-conditional");
    let version = subject.put("once-conditional", &[], b"there").await;
    for _ in 0..2 {
        let refused = subject.send("PUT", &target, &headers, b"new").await;
        assert_write_refused(&refused, 412, "version_mismatch");
        assert_eq!(refused.json()["version"], json!(version));
        subject.send("DELETE", &target, &[], b"").await;
    }
    assert_eq!(subject.get(&target).await.status, 404);
}

pub(crate) async fn what_is_no_idempotency_key_is_refused(subject: &Subject) {
    let longest = "x".repeat(64);
    let headers = [("Idempotency-Key", longest.as_str())];
    let answer = subject.send("DELETE", &subject.kv("unnamed"), &headers, b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let long = "x".repeat(65);
    for bad in ["", "two words", long.as_str()] {
        let headers = [("Idempotency-Key", bad)];
        let answer = subject.send("PUT", &subject.kv("unnamed"), &headers, b"x").await;
        assert_write_refused(&answer, 400, "invalid_parameter");
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")];
    let answer = subject.send("DELETE", &subject.kv("unnamed"), &twice, b"").await;
    assert_write_refused(&answer, 400, "invalid_parameter");
    assert_eq!(subject.get(&subject.kv("unnamed")).await.status, 404);
}

pub(crate) async fn a_reader_is_not_sent_what_it_has(subject: &Subject) {
    let version = subject.put("cached", &[], b"value").await;
    let (tag, other) = (format!("\"{version}\""), format!("\"{}\"", version + 1));
    let either = format!("{other}, {tag}");
    for target in [subject.kv("cached"), subject.kv("cached") + "&raw=true"] {
        for has in [tag.as_str(), either.as_str(), "*"] {
            let answer = subject.send("GET", &target, &[("If-None-Match", has)], b"").await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{has}: {answer:?}");
            assert_eq!(answer.header("etag"), Some(tag.as_str()));
            assert!(answer.header("x-sage-index").is_some());
        }
        let answer = subject.send("GET", &target, &[("If-None-Match", &other)], b"").await;
        assert_eq!((answer.status, answer.header("etag")), (200, Some(tag.as_str())));
    }
    // What is not there nobody has.
    let missing = subject.kv("not-cached");
    let answer = subject.send("GET", &missing, &[("If-None-Match", "*")], b"").await;
    assert_eq!(answer.status, 404);
    let answer = subject.send("GET", &missing, &[("If-None-Match", "17")], b"").await;
    assert_refused(&answer, 400, "invalid_parameter");
}
