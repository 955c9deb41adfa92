//! A write under a condition happens if the condition holds just then, and otherwise not at all.

use serde_json::json;

use super::raw_http::Answer;
use super::{Subject, assert_write_refused};

type Header<'a> = (&'a str, &'a str);

const ABSENT: Header<'_> = ("If-None-Match", "*");
const PRESENT: Header<'_> = ("If-Match", "*");

async fn put(subject: &Subject, condition: Header<'_>, value: &str) -> Answer {
    subject.send("PUT", &subject.kv("conditional"), &[condition], value.as_bytes()).await
}

async fn delete(subject: &Subject, condition: Header<'_>) -> Answer {
    subject.send("DELETE", &subject.kv("conditional"), &[condition], b"").await
}

/// The condition did not hold; this is the key's version, if it has a value.
#[track_caller]
fn assert_mismatch(answer: &Answer, version: Option<u64>) {
    assert_write_refused(answer, 412, "version_mismatch");
    let body = answer.json();
    assert_eq!(body["error"], "version mismatch");
    assert_eq!(body.get("version"), version.map(|version| json!(version)).as_ref(), "{body}");
}

#[track_caller]
fn version(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["version"].as_u64().expect("a version")
}

pub(crate) async fn a_condition_decides_whether_a_write_happens(subject: &Subject) {
    assert_mismatch(&put(subject, PRESENT, "no").await, None);
    assert_mismatch(&put(subject, ("If-Match", "\"0\""), "no").await, None);
    assert_mismatch(&delete(subject, PRESENT).await, None);
    let first = version(&put(subject, ABSENT, "first").await);
    assert_mismatch(&put(subject, ABSENT, "no").await, Some(first));
    assert_mismatch(&delete(subject, ABSENT).await, Some(first));
    let wrong = format!("\"{}\"", first + 1);
    assert_mismatch(&put(subject, ("If-Match", &wrong), "no").await, Some(first));
    assert_mismatch(&delete(subject, ("If-Match", &wrong)).await, Some(first));
    // What was refused has changed nothing.
    let got = subject.get(&subject.kv("conditional")).await;
    assert_eq!((&got.json()["value"], &got.json()["version"]), (&json!("first"), &json!(first)));

    // The tag of an answer is the condition of the next write.
    let tag = got.header("etag").expect("a read has a tag").to_string();
    let second = version(&put(subject, ("If-Match", &tag), "second").await);
    assert!(second > first);
    assert_mismatch(&put(subject, ("If-Match", &tag), "no").await, Some(second));
    let either = format!("{tag}, \"{second}\"");
    let third = version(&put(subject, ("if-match", &either), "third").await);
    let fourth = version(&put(subject, PRESENT, "fourth").await);
    assert!(fourth > third && third > second);
    let tag = format!("\"{fourth}\"");
    let deleted = delete(subject, ("If-Match", &tag)).await;
    assert_eq!((deleted.status, &deleted.json()["existed"]), (200, &json!(true)), "{deleted:?}");
    assert_mismatch(&delete(subject, ("If-Match", &tag)).await, None);
    let again = version(&put(subject, ABSENT, "again").await);
    assert!(again > fourth, "a version never comes back");
}

pub(crate) async fn what_is_no_condition_is_refused(subject: &Subject) {
    let kept = subject.put("unconditional", &[], b"kept").await;
    let tag = format!("\"{kept}\"");
    let cases: [&[Header<'_>]; 8] = [
        &[("If-Match", "1")],
        &[("If-Match", "W/\"1\"")],
        &[("If-Match", "\"one\"")],
        &[("If-Match", "")],
        &[("If-None-Match", "\"1\"")],
        &[("If-None-Match", "")],
        &[("If-Match", &tag), ("If-None-Match", "*")],
        &[("If-Match", &tag), ("If-Match", &tag)],
    ];
    for headers in cases {
        for method in ["PUT", "DELETE"] {
            let target = subject.kv("unconditional");
            let answer = subject.send(method, &target, headers, b"changed").await;
            assert_write_refused(&answer, 400, "invalid_parameter");
        }
    }
    let got = subject.get(&subject.kv("unconditional")).await.json();
    assert_eq!((&got["value"], &got["version"]), (&json!("kept"), &json!(kept)));
}
