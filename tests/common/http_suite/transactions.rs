//! Transactions happen as a whole or not at all; of a batch each operation stands for itself.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::raw_http::Answer;
use super::{Subject, assert_refused, assert_write_refused, names};

/// A key that shares its group with all others of this file.
fn key(subject: &Subject, name: &str) -> String {
    format!("{{{}txn}}{name}", subject.prefix)
}

async fn post(subject: &Subject, path: &str, headers: &[(&str, &str)], body: &Json) -> Answer {
    subject.send("POST", path, headers, body.to_string().as_bytes()).await
}

async fn txn(subject: &Subject, body: Json) -> Json {
    let answer = post(subject, "/txn", &[], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("x-sage-index").is_some(), "{answer:?}");
    answer.json()
}

async fn batch(subject: &Subject, ops: Json) -> Vec<Json> {
    let answer = post(subject, "/batch", &[], &json!({"ops": ops})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["results"].as_array().expect("results").clone()
}

#[track_caller]
fn statuses(results: &[Json]) -> Vec<u64> {
    results.iter().map(|result| result["status"].as_u64().expect("a status")).collect()
}

pub(crate) async fn a_transaction_happens_if_its_conditions_hold(subject: &Subject) {
    let [a, b] = ["a", "b"].map(|name| key(subject, name));
    let first = txn(
        subject,
        json!({
            "if": [{"key": a, "exists": false}, {"key": b, "version": 0}],
            "then": [
                {"op": "put", "key": a, "value": "text"},
                {"op": "put", "key": b, "value": {"n": [1, 2]}, "ttl": "1h"},
                {"op": "get", "key": a},
            ],
        }),
    )
    .await;
    assert_eq!(names(&first), ["succeeded", "results", "version"].into());
    assert_eq!(first["succeeded"], true, "{first}");
    let results = first["results"].as_array().expect("results");
    assert_eq!(statuses(results), [200; 3]);
    assert_eq!((&results[0]["ok"], &results[2]["value"]), (&json!(true), &json!("text")));
    assert_eq!(results[0].get("existed"), None, "as alone: {first}");
    assert!(results[1]["expires"].is_u64() && results[0]["quorum"].is_u64(), "{first}");
    let version = results[0]["version"].clone();

    let second = txn(
        subject,
        json!({
            "if": [
                {"key": a, "version": version},
                {"key": a, "value": "text"},
                {"key": b, "value": {"n": [1, 2]}},
                {"key": b, "exists": true},
            ],
            "then": [{"op": "delete", "key": b}, {"op": "get", "key": b}],
            "else": [{"op": "put", "key": a, "value": "no"}],
        }),
    )
    .await;
    assert_eq!(second["succeeded"], true, "{second}");
    assert_eq!(statuses(second["results"].as_array().expect("results")), [200, 404]);
    assert!(second["version"].as_u64() > first["version"].as_u64(), "it rises: {second}");
    for condition in [
        json!({"key": a, "version": 999_999}),
        json!({"key": a, "value": "other"}),
        json!({"key": b, "exists": true}),
        json!({"key": a, "value": "dGV4dA==", "type": "bytes"}),
    ] {
        let refused = txn(
            subject,
            json!({
                "if": [{"key": a, "exists": true}, condition],
                "then": [{"op": "put", "key": a, "value": "no"}],
                "else": [{"op": "get", "key": a}],
            }),
        )
        .await;
        assert_eq!(refused["succeeded"], false, "{refused}");
        assert_eq!(refused["results"][0]["value"], "text", "{refused}");
    }
    // One that only reads, and one that does nothing.
    let read = txn(subject, json!({"then": [{"op": "get", "key": a}]})).await;
    assert_eq!(read["results"][0]["value"], "text", "{read}");
    let nothing = txn(subject, json!({"if": [{"key": a, "exists": true}]})).await;
    assert_eq!((&nothing["succeeded"], &nothing["results"]), (&json!(true), &json!([])));
}

pub(crate) async fn a_transaction_is_all_or_nothing(subject: &Subject) {
    let [from, to, text] = ["from", "to", "text"].map(|name| key(subject, name));
    let transfer = json!({
        "then": [
            {"op": "incr", "key": from, "by": -5},
            {"op": "incr", "key": to, "by": 5},
        ],
    });
    let moved = txn(subject, transfer.clone()).await;
    assert_eq!(
        (&moved["results"][0]["value"], &moved["results"][1]["value"]),
        (&json!(-5), &json!(5))
    );
    let stuck = json!({
        "then": [
            {"op": "put", "key": text, "value": "x"},
            {"op": "incr", "key": from},
            {"op": "incr", "key": text},
        ],
    });
    let answer = post(subject, "/txn", &[], &stuck).await;
    assert_write_refused(&answer, 409, "not_an_integer");
    let left = batch(
        subject,
        json!([{"op": "get", "key": from}, {"op": "get", "key": to}, {"op": "get", "key": text}]),
    )
    .await;
    assert_eq!(statuses(&left), [200, 200, 404]);
    assert_eq!((&left[0]["value"], &left[1]["value"]), (&json!(-5), &json!(5)));

    let named = [("Idempotency-Key", "transfer-1")];
    let one = post(subject, "/txn", &named, &transfer).await.json();
    let two = post(subject, "/txn", &named, &transfer).await.json();
    let said = |answer: &Json| {
        let first = &answer["results"][0];
        [first["value"].clone(), first["version"].clone(), answer["version"].clone()]
    };
    assert_eq!(
        (&one["results"][0]["value"], said(&one)),
        (&json!(-10), said(&two)),
        "it takes effect once"
    );
    let other = json!({"then": [{"op": "incr", "key": from}]});
    let reused = post(subject, "/txn", &named, &other).await;
    assert_write_refused(&reused, 422, "idempotency_key_reused");
}

pub(crate) async fn each_operation_of_a_batch_stands_for_itself(subject: &Subject) {
    let keys: Vec<String> = (0..20).map(|n| format!("{}batch:{n}", subject.prefix)).collect();
    let puts: Vec<Json> =
        keys.iter().map(|key| json!({"op": "put", "key": key, "value": key})).collect();
    assert_eq!(statuses(&batch(subject, json!(puts)).await), [200; 20]);
    let gets: Vec<Json> = keys.iter().map(|key| json!({"op": "get", "key": key})).collect();
    let read = batch(subject, json!(gets)).await;
    for (key, result) in keys.iter().zip(&read) {
        assert_eq!((&result["found"], &result["value"]), (&json!(true), &json!(key)), "{result}");
    }
    let mut first = read[0].clone();
    first.as_object_mut().expect("an object").remove("status");
    assert_eq!(first, subject.get(&format!("/kv?key={}", keys[0])).await.json(), "as alone");
    let mixed = batch(
        subject,
        json!([
            {"op": "delete", "key": keys[0]},
            {"op": "get", "key": keys[0]},
            {"op": "incr", "key": keys[1]},
            {"op": "touch", "key": keys[0], "ttl": "1s"},
            {"op": "touch", "key": keys[1], "ttl": "none"},
            {"op": "put", "key": keys[2], "value": "AP8=", "type": "bytes"},
            {"op": "put", "key": keys[3], "value": null},
            {"op": "delete", "key": keys[0]},
        ]),
    )
    .await;
    assert_eq!(statuses(&mixed), [200, 404, 409, 404, 200, 200, 200, 200], "{mixed:?}");
    assert_eq!((&mixed[0]["existed"], &mixed[7]["existed"]), (&json!(true), &json!(false)));
    let written = BTreeSet::from(["status", "ok", "acks", "quorum", "ts", "version"]);
    for put in [&mixed[4], &mixed[5], &mixed[6]] {
        assert_eq!(names(put), written, "as alone");
    }
    assert_eq!(names(&mixed[1]), ["status", "found"].into());
    assert_eq!(
        (&mixed[2]["code"], &mixed[2]["outcome"]),
        (&json!("not_an_integer"), &json!("not_applied"))
    );
    assert_eq!(mixed[3]["code"], "key_not_found");
    let bytes = subject.get(&format!("/kv?key={}", keys[2])).await.json();
    assert_eq!((&bytes["value"], &bytes["encoding"]), (&json!("AP8="), &json!("base64")));
    let null = subject.get(&format!("/kv?key={}", keys[3])).await.json();
    assert_eq!((&null["found"], &null["value"]), (&json!(true), &json!(null)));
}

pub(crate) async fn what_is_no_transaction_is_refused(subject: &Subject) {
    let k = key(subject, "refused");
    let put = json!({"op": "put", "key": k, "value": 1});
    let many: Vec<&Json> = vec![&put; 1001];
    for (path, body) in [
        ("/txn", json!({})),
        ("/txn", json!({"if": [], "then": [], "else": []})),
        ("/txn", json!({"if": [{"key": k}], "then": [put]})),
        ("/txn", json!({"if": [{"key": k, "version": 1, "exists": true}], "then": [put]})),
        ("/txn", json!({"if": [{"key": "", "exists": true}], "then": [put]})),
        ("/txn", json!({"if": [{"key": k, "exists": true, "type": "bytes"}], "then": [put]})),
        ("/txn", json!({"then": [{"op": "put", "key": k}]})),
        ("/txn", json!({"then": [{"op": "get", "key": k, "value": 1}]})),
        ("/txn", json!({"then": [{"op": "delete", "key": k, "ttl": "1s"}]})),
        ("/txn", json!({"then": [{"op": "put", "key": k, "value": 1, "by": 1}]})),
        ("/txn", json!({"then": [{"op": "put", "key": k, "value": 1, "ttl": "0s"}]})),
        ("/txn", json!({"then": [{"op": "put", "key": k, "value": 1, "ttl": "none"}]})),
        ("/txn", json!({"then": [{"op": "put", "key": k, "value": "%", "type": "bytes"}]})),
        ("/txn", json!({"then": [{"op": "touch", "key": k}]})),
        ("/batch", json!({"ops": []})),
        ("/batch", json!({"ops": [{"op": "get", "key": ""}]})),
    ] {
        let answer = post(subject, path, &[], &body).await;
        assert_write_refused(&answer, 400, "invalid_parameter");
    }
    for (path, body) in [
        ("/txn", "{"),
        ("/txn", ""),
        ("/txn", "[]"),
        ("/txn", "[[],[],[]]"),
        ("/batch", r#"{"ops":[["get","k"]]}"#),
        ("/txn", r#"{"if":[["k",1]],"then":[]}"#),
        ("/txn", r#"{"then":[],"more":[]}"#),
        ("/txn", r#"{"then":[{"op":"push","key":"k"}]}"#),
        ("/txn", r#"{"then":[{"op":"incr","key":"k","by":1.5}]}"#),
        ("/txn", r#"{"if":[{"key":"k","version":-1}],"then":[]}"#),
        ("/batch", r#"{"ops":[{"op":"get"}]}"#),
        ("/batch", r#"{"ops":[{"op":"get","key":"a","key":"b"}]}"#),
    ] {
        let answer = subject.send("POST", path, &[], body.as_bytes()).await;
        assert_write_refused(&answer, 400, "invalid_json");
    }
    for (path, list) in [("/txn", "if"), ("/txn", "then"), ("/txn", "else"), ("/batch", "ops")] {
        let answer = post(subject, path, &[], &json!({list: many})).await;
        assert_write_refused(&answer, 400, "invalid_json");
    }
    let long = json!({"ops": [{"op": "get", "key": "k".repeat(4097)}]});
    assert_write_refused(&post(subject, "/batch", &[], &long).await, 413, "key_too_large");
    for (path, header) in [("/txn", ("If-Match", "\"1\"")), ("/batch", ("X-Sage-Min-Index", "g:1"))]
    {
        let answer = post(subject, path, &[header], &json!({"then": [put]})).await;
        assert_write_refused(&answer, 400, "invalid_parameter");
    }
    for path in ["/txn", "/batch"] {
        assert_refused(&subject.get(path).await, 405, "method_not_allowed");
        let answer = post(subject, &format!("{path}?key=a"), &[], &json!({"then": [put]})).await;
        assert_write_refused(&answer, 400, "invalid_parameter");
    }
    let read = batch(subject, json!([{"op": "get", "key": k}])).await;
    assert_eq!(statuses(&read), [404], "nothing was written");
}
