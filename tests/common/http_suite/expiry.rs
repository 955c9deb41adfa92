//! Values with a time to live end, a touch gives them another while, and what is no such time is refused.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::raw_http::{Answer, patiently};
use super::{Subject, assert_refused, assert_write_refused};

async fn put(subject: &Subject, key: &str, ttl: &str) -> Answer {
    subject.send("PUT", &format!("{}&ttl={ttl}", subject.kv(key)), &[], b"passing").await
}

async fn touch(subject: &Subject, key: &str, ttl: &str, headers: &[(&str, &str)]) -> Answer {
    let target = format!("/kv/touch?key={}{key}&ttl={ttl}", subject.prefix);
    subject.send("POST", &target, headers, b"").await
}

#[track_caller]
fn number(answer: &Answer, name: &str) -> u64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()[name].as_u64().unwrap_or_else(|| panic!("no {name}: {answer:?}"))
}

async fn until_gone(subject: &Subject, key: &str) {
    let gone = async {
        while subject.get(&subject.kv(key)).await.status != 404 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently(gone).await;
}

async fn listed(subject: &Subject) -> (Json, Json) {
    let page = subject.get(&format!("/keys?prefix={}expiry:", subject.prefix)).await.json();
    let count = subject.get(&format!("/count?prefix={}expiry:", subject.prefix)).await.json();
    (page["items"].clone(), count["count"].clone())
}

pub(crate) async fn a_value_ends_when_its_time_is_over(subject: &Subject) {
    let written = put(subject, "expiry:short", "300ms").await;
    // By the group's time, which is never behind the stamp.
    assert!(number(&written, "expires") >= number(&written, "ts") + 300, "{written:?}");
    let stays = put(subject, "expiry:long", "365d").await;
    let expires = number(&stays, "expires");
    until_gone(subject, "expiry:short").await;
    let (items, count) = listed(subject).await;
    assert_eq!((items.as_array().map(Vec::len), count), (Some(1), json!(1)), "{items}");
    assert_eq!(items[0]["expires"], json!(expires));
    let got = subject.get(&subject.kv("expiry:long")).await;
    assert_eq!(number(&got, "expires"), expires);
    let raw = subject.get(&format!("{}&raw=true", subject.kv("expiry:long"))).await;
    assert_eq!(raw.header("x-sage-expires"), Some(expires.to_string().as_str()), "{raw:?}");

    // What is over is not there, for conditions too; its version is not used again.
    let absent = [("If-None-Match", "*")];
    let again = subject.send("PUT", &subject.kv("expiry:short"), &absent, b"again").await;
    assert!(number(&again, "version") > number(&written, "version"), "{again:?}");
    assert_eq!(again.json().get("expires"), None);
    // A put without a time is for ever, whatever was there.
    subject.put("expiry:long", &[], b"for ever").await;
    let got = subject.get(&subject.kv("expiry:long")).await;
    assert_eq!(got.json().get("expires"), None, "{got:?}");
    let raw = subject.get(&format!("{}&raw=true", subject.kv("expiry:long"))).await;
    assert_eq!(raw.header("x-sage-expires"), None, "{raw:?}");
}

pub(crate) async fn a_touch_gives_a_value_another_while_and_leaves_it_as_it_is(subject: &Subject) {
    assert_write_refused(&touch(subject, "touched", "1s", &[]).await, 404, "key_not_found");
    let written = put(subject, "touched", "1h").await;
    let (version, first) = (number(&written, "version"), number(&written, "expires"));
    let touched = touch(subject, "touched", "2h", &[]).await;
    assert!(number(&touched, "expires") >= first + 3_600_000, "{touched:?}");
    let tag = format!("\"{version}\"");
    assert_eq!((number(&touched, "version"), touched.header("etag")), (version, Some(&*tag)));
    assert!(touched.header("x-sage-index").is_some(), "{touched:?}");
    let got = subject.get(&subject.kv("touched")).await;
    assert_eq!((number(&got, "version"), number(&got, "ts")), (version, number(&written, "ts")));
    assert_eq!(number(&got, "expires"), number(&touched, "expires"));

    let other = touch(subject, "touched", "1s", &[("If-Match", "\"999999\"")]).await;
    assert_write_refused(&other, 412, "version_mismatch");
    let named = [("Idempotency-Key", "touch-1"), ("If-Match", tag.as_str())];
    let [one, two] = [
        touch(subject, "touched", "3h", &named).await,
        touch(subject, "touched", "3h", &named).await,
    ];
    assert_eq!(number(&one, "expires"), number(&two, "expires"), "it takes effect once");
    let for_ever = touch(subject, "touched", "none", &[]).await;
    assert_eq!((number(&for_ever, "version"), for_ever.json().get("expires")), (version, None));
    let got = subject.get(&subject.kv("touched")).await;
    assert_eq!(got.json().get("expires"), None, "{got:?}");
    touch(subject, "touched", "200ms", &[]).await;
    until_gone(subject, "touched").await;
    assert_write_refused(&touch(subject, "touched", "1s", &[]).await, 404, "key_not_found");
}

pub(crate) async fn what_is_no_time_to_live_is_refused(subject: &Subject) {
    let version = subject.put("untouched", &[], b"x").await;
    for bad in ["0s", "0ms", "366d", "8761h", "30", "-1s", "1.5s", "", "never", "1s&ttl=1s"] {
        assert_refused(&put(subject, "untouched", bad).await, 400, "invalid_parameter");
        assert_refused(&touch(subject, "untouched", bad, &[]).await, 400, "invalid_parameter");
    }
    assert_refused(&put(subject, "untouched", "none").await, 400, "invalid_parameter");
    let without = format!("/kv/touch?key={}untouched", subject.prefix);
    assert_refused(&subject.send("POST", &without, &[], b"").await, 400, "invalid_parameter");
    assert_refused(&subject.send("POST", "/kv/touch?ttl=1s", &[], b"").await, 400, "missing_key");
    assert_refused(&subject.get(&without).await, 405, "method_not_allowed");
    for (method, path) in [("GET", subject.kv("untouched")), ("DELETE", subject.kv("untouched"))] {
        let answer = subject.send(method, &format!("{path}&ttl=1s"), &[], b"").await;
        assert_refused(&answer, 400, "invalid_parameter");
    }
    let got = subject.get(&subject.kv("untouched")).await.json();
    assert_eq!((&got["version"], got.get("expires")), (&json!(version), None));
}
