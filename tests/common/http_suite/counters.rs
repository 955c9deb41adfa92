//! A counter is a JSON integer that is added to.

use serde_json::json;

use super::raw_http::Answer;
use super::{Subject, assert_refused, assert_write_refused, names};

async fn incr(subject: &Subject, rest: &str, headers: &[(&str, &str)]) -> Answer {
    let target = format!("/kv/incr?key={}{rest}", subject.prefix);
    subject.send("POST", &target, headers, b"").await
}

#[track_caller]
fn value(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["value"].as_i64().unwrap_or_else(|| panic!("no value: {answer:?}"))
}

pub(crate) async fn a_counter_counts_from_nothing_and_is_an_integer_for_everybody(
    subject: &Subject,
) {
    let first = incr(subject, "visits", &[]).await;
    assert_eq!(value(&first), 1);
    assert_eq!(names(&first.json()), ["ok", "acks", "quorum", "ts", "version", "value"].into());
    let second = incr(subject, "visits&by=41", &[]).await;
    assert_eq!((value(&second), &second.json()["ok"]), (42, &json!(true)));
    assert!(second.json()["version"].as_u64() > first.json()["version"].as_u64());
    assert!(second.header("etag").is_some() && second.header("x-sage-index").is_some());
    assert_eq!(value(&incr(subject, "visits&by=-50", &[]).await), -8);
    assert_eq!(value(&incr(subject, "visits&by=0", &[]).await), -8);
    let got = subject.get(&subject.kv("visits")).await.json();
    assert_eq!(got["value"], json!(-8));

    // What was stored as an integer is one, and keeps its time.
    let headers = [("Content-Type", "application/json")];
    let put = subject.kv("lasting&ttl=1h");
    let put = subject.send("PUT", &put, &headers, b" 9223372036854775806 ").await;
    let expires = put.json()["expires"].clone();
    let counted = incr(subject, "lasting", &[]).await;
    assert_eq!((value(&counted), &counted.json()["expires"]), (i64::MAX, &expires));
    assert_write_refused(&incr(subject, "lasting", &[]).await, 409, "not_an_integer");

    let named = [("Idempotency-Key", "visit-1")];
    for _ in 0..2 {
        assert_eq!(value(&incr(subject, "visits&by=8", &named).await), 0);
    }
    let wrong = [("If-Match", "\"999999\"")];
    assert_write_refused(&incr(subject, "visits", &wrong).await, 412, "version_mismatch");
}

pub(crate) async fn what_can_not_be_counted_is_left_alone(subject: &Subject) {
    subject.put("text", &[], b"5").await;
    let json = [("Content-Type", "application/json")];
    for (key, body) in [("float", &b"1.5"[..]), ("object", b"{}"), ("wide", b"9223372036854775808")]
    {
        subject.put(key, &json, body).await;
    }
    for key in ["text", "float", "object", "wide"] {
        assert_write_refused(&incr(subject, key, &[]).await, 409, "not_an_integer");
    }
    for bad in ["", "x", "1.5", "%2b1", "9223372036854775808", "1&by=1"] {
        let answer = incr(subject, &format!("text&by={bad}"), &[]).await;
        assert_refused(&answer, 400, "invalid_parameter");
    }
    assert_refused(&subject.send("POST", "/kv/incr", &[], b"").await, 400, "missing_key");
    let got = subject.get(&format!("/kv/incr?key={}text", subject.prefix)).await;
    assert_refused(&got, 405, "method_not_allowed");
    assert_eq!(subject.get(&subject.kv("text")).await.json()["value"], "5");
}
