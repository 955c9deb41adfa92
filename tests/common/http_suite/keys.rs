//! `GET /keys` and `GET /count`: the keys of a span in order, a page at a time, and how many they are.

use serde_json::{Value as Json, json};

use super::{BYTES, Face, JSON, Subject, assert_refused, names};

/// In byte order, which is not that of the alphabet; they do not share a group.
const KEYS: [&str; 7] = ["B", "a", "a+b", "a0", "b", "\u{e9}", "\u{10ffff}"];

fn target(subject: &Subject, path: &str, rest: &str) -> String {
    format!("{path}?prefix={}list:{rest}", subject.prefix)
}

async fn page(subject: &Subject, rest: &str) -> Json {
    let answer = subject.get(&target(subject, "/keys", rest)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The keys of a page, without the prefix of this suite.
fn keys(subject: &Subject, page: &Json) -> Vec<String> {
    let prefix = format!("{}list:", subject.prefix);
    let items = page["items"].as_array().expect("items").iter();
    let keys = items.map(|item| item["key"].as_str().expect("a key"));
    keys.map(|key| key.strip_prefix(&prefix).expect("only these").to_owned()).collect()
}

async fn fill(subject: &Subject) {
    for key in KEYS {
        let escaped: Vec<_> = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
        subject.put(&format!("list:{}", escaped.concat()), &[], key.as_bytes()).await;
    }
    subject.put("lisu", &[], b"beside it").await;
}

pub(crate) async fn keys_are_listed_in_byte_order(subject: &Subject) {
    assert_eq!(page(subject, "").await, json!({"items": [], "cursor": null}));
    fill(subject).await;
    let all = page(subject, "").await;
    assert_eq!(
        (keys(subject, &all), &all["cursor"]),
        (KEYS.map(String::from).to_vec(), &json!(null))
    );
    let mut backwards = KEYS.map(String::from).to_vec();
    backwards.reverse();
    assert_eq!(keys(subject, &page(subject, "&reverse=true").await), backwards);
    // From `start` on, up to and without `end`; what is empty bounds nothing.
    let at = |key: &str| format!("{}list:{key}", subject.prefix);
    let between = format!("&start={}&end={}", at("a"), at("b"));
    assert_eq!(keys(subject, &page(subject, &between).await), ["a", "a+b", "a0"]);
    let reverse = format!("{between}&reverse=true");
    assert_eq!(keys(subject, &page(subject, &reverse).await), ["a0", "a+b", "a"]);
    for nothing in [("b", "a"), ("a", "a")] {
        let span = format!("&start={}&end={}", at(nothing.0), at(nothing.1));
        assert_eq!(page(subject, &span).await, json!({"items": [], "cursor": null}));
    }
    assert_eq!(keys(subject, &page(subject, "a&start=&end=&cursor=").await), ["a", "a+b", "a0"]);
}

pub(crate) async fn a_page_goes_on_where_the_one_before_ended(subject: &Subject) {
    fill(subject).await;
    for reverse in [false, true] {
        for limit in [1, 2, 3, 7, 8, 10_000] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let rest = format!("&reverse={reverse}&limit={limit}&cursor={cursor}");
                let page = page(subject, &rest).await;
                let keys = keys(subject, &page);
                assert!(keys.len() <= limit, "{keys:?}");
                seen.extend(keys);
                let Some(next) = page["cursor"].as_str() else { break };
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                assert!(next.bytes().all(plain), "it is safe in a URL: {next}");
                next.clone_into(&mut cursor);
            }
            if reverse {
                seen.reverse();
            }
            assert_eq!(seen, KEYS);
        }
    }
}

pub(crate) async fn a_page_has_100_keys_unless_it_is_told_how_many(subject: &Subject) {
    let key = |number: u32| format!("{}page:{number:03}", subject.prefix);
    let puts: Vec<Json> =
        (0..101).map(|number| json!({"op": "put", "key": key(number), "value": number})).collect();
    let body = json!({"ops": puts}).to_string();
    assert_eq!(subject.send("POST", "/batch", &[], body.as_bytes()).await.status, 200);
    let target = format!("/keys?prefix={}page:", subject.prefix);
    // Of several groups a page may be shorter, but never longer, and all pages together have all keys.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    let first = subject.get(&target).await.json()["items"].as_array().map_or(0, Vec::len);
    assert!(first == 100 || subject.face == Face::Coordinator && first > 50, "{first}");
    loop {
        let page = subject.get(&format!("{target}&cursor={cursor}")).await.json();
        assert_eq!(names(&page), ["items", "cursor"].into());
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 100, "{}", items.len());
        seen.extend(items.iter().map(|item| item["key"].as_str().expect("a key").to_owned()));
        let Some(next) = page["cursor"].as_str() else { break };
        next.clone_into(&mut cursor);
    }
    assert_eq!(seen, (0..101).map(key).collect::<Vec<_>>());
    assert_eq!(subject.send("DELETE", &target, &[], b"").await.json()["deleted"], 101);
}

pub(crate) async fn a_listed_value_looks_as_it_does_alone(subject: &Subject) {
    let kinds = [
        (&[][..], &b"text \"quoted\""[..]),
        (&[JSON], br#"{"b":12345678901234567890123, "a":1}"#),
        (&[BYTES], b"\x00\xff"),
        (&[], b""),
    ];
    for (at, (content_type, body)) in kinds.into_iter().enumerate() {
        subject.put(&format!("list:kind:{at}"), content_type, body).await;
    }
    let listed = subject.get(&target(subject, "/keys", "kind:")).await;
    let items = listed.json()["items"].as_array().expect("items").clone();
    assert_eq!(items.len(), kinds.len());
    for (at, mut item) in items.into_iter().enumerate() {
        let alone = subject.get(&subject.kv(&format!("list:kind:{at}"))).await;
        let fields = item.as_object_mut().expect("an object");
        assert_eq!(fields.remove("key"), Some(json!(format!("{}list:kind:{at}", subject.prefix))));
        fields.insert("found".into(), json!(true));
        assert_eq!(item, alone.json());
    }
    assert!(listed.text().contains(r#":{"b":12345678901234567890123, "a":1}"#), "byte for byte");
    let bare = page(subject, "kind:&keys_only=true&limit=1").await;
    assert_eq!(names(&bare["items"][0]), ["key", "ts", "version"].into());
    for key in 0..kinds.len() {
        subject.send("DELETE", &subject.kv(&format!("list:kind:{key}")), &[], b"").await;
    }
    assert_eq!(page(subject, "kind:").await["items"], json!([]));
}

pub(crate) async fn keys_are_counted(subject: &Subject) {
    fill(subject).await;
    for (prefix, count) in [("", 7), ("a", 3), ("b", 1), ("nothing", 0)] {
        let answer = subject.get(&target(subject, "/count", prefix)).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"count": count})));
    }
    let all = subject.get("/count").await.json()["count"].as_u64().expect("a number");
    assert!(all >= 8, "{all}");
}

pub(crate) async fn a_scan_says_which_states_it_read(subject: &Subject) {
    fill(subject).await;
    for path in ["/keys", "/count"] {
        for consistency in ["linearizable", "lease", "stale"] {
            let rest = format!("&consistency={consistency}");
            let answer = subject.get(&target(subject, path, &rest)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            for at in answer.header("x-sage-index").expect("it says so").split(", ") {
                let (group, index) = at.rsplit_once(':').expect("<group>:<index>");
                assert!(!group.is_empty() && index.parse::<u64>().is_ok(), "{answer:?}");
            }
            let lag = answer.header("x-sage-lag");
            assert_eq!(lag.is_some(), consistency == "stale", "{answer:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
        let head = subject.send("HEAD", &target(subject, path, ""), &[], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
}

pub(crate) async fn what_is_no_scan_is_refused(subject: &Subject) {
    fill(subject).await;
    let cases = [
        ("/keys", "limit=0", "limit"),
        ("/keys", "limit=10001", "limit"),
        ("/keys", "limit=", "limit"),
        ("/keys", "limit=%2B1", "limit"),
        ("/keys", "limit=99999999999999999999", "limit"),
        ("/keys", "limit=1&limit=1", "limit"),
        ("/keys", "reverse=1", "reverse"),
        ("/keys", "keys_only=yes", "keys_only"),
        ("/keys", "key=a", "key"),
        ("/keys", "raw=true", "raw"),
        ("/keys", "consistency=eventual", "consistency"),
        ("/keys", "timeout=0s", "timeout"),
        ("/keys", "prefix=b", "prefix"),
        ("/count", "limit=1", "limit"),
        ("/count", "start=a", "start"),
        ("/count", "prefix=b", "prefix"),
    ];
    for (path, parameter, name) in cases {
        let answer = subject.get(&target(subject, path, &format!("&{parameter}"))).await;
        assert_refused(&answer, 400, "invalid_parameter");
        let sentence = answer.json()["error"].as_str().expect("text").to_owned();
        assert!(sentence.contains(&format!("parameter {name}:")), "{parameter}: {sentence}");
    }
    for name in ["prefix", "start", "end"] {
        let long = format!("/keys?{name}={}", "k".repeat(4097));
        assert_refused(&subject.get(&long).await, 413, "key_too_large");
        assert_refused(&subject.get(&format!("/keys?{name}=%ff")).await, 400, "invalid_utf8");
    }
    let for_one_key = [
        ("If-None-Match", "*"),
        ("If-Match", "\"1\""),
        ("Idempotency-Key", "a"),
        ("X-Sage-Min-Index", "g:1"),
    ];
    for header in for_one_key {
        for path in ["/keys", "/count"] {
            let answer = subject.send("GET", &target(subject, path, ""), &[header], b"").await;
            assert_refused(&answer, 400, "invalid_parameter");
        }
    }
}

pub(crate) async fn all_keys_with_a_prefix_are_deleted(subject: &Subject) {
    fill(subject).await;
    let delete =
        async |rest: &str| subject.send("DELETE", &target(subject, "/keys", rest), &[], b"").await;
    let deleted = delete("a").await;
    assert_eq!((deleted.status, deleted.json()), (200, json!({"ok": true, "deleted": 3})));
    assert!(deleted.header("x-sage-index").is_some_and(|at| at.contains(':')), "{deleted:?}");
    assert_eq!(keys(subject, &page(subject, "").await), ["B", "b", "\u{e9}", "\u{10ffff}"]);
    assert_eq!(delete("a").await.json(), json!({"ok": true, "deleted": 0}));
    // A key that comes again has a greater version than it had.
    subject.put("list:a", &[], b"again").await;
    let again = subject.get(&format!("/kv?key={}list:a", subject.prefix)).await;
    assert!(again.json()["version"].as_u64() >= Some(3), "{again:?}");
    assert_eq!(delete("").await.json()["deleted"], 5);
    assert_eq!(page(subject, "").await["items"], json!([]));
    let beside = subject.get(&format!("/kv?key={}lisu", subject.prefix)).await;
    assert_eq!(beside.status, 200, "it has another prefix");
}

pub(crate) async fn what_deletes_many_keys_must_say_which(subject: &Subject) {
    fill(subject).await;
    // Without a prefix it would be all of them.
    let refused = subject.send("DELETE", "/keys", &[], b"").await;
    assert_refused(&refused, 400, "invalid_parameter");
    assert_eq!(refused.json()["outcome"], "not_applied");
    for parameter in ["start=a", "limit=1", "reverse=true", "key=a", "prefix=b"] {
        let at = target(subject, "/keys", &format!("&{parameter}"));
        let refused = subject.send("DELETE", &at, &[], b"").await;
        assert_refused(&refused, 400, "invalid_parameter");
    }
    for header in [("If-Match", "*"), ("Idempotency-Key", "a"), ("X-Sage-Min-Index", "g:1")] {
        let at = target(subject, "/keys", "");
        let refused = subject.send("DELETE", &at, &[header], b"").await;
        assert_refused(&refused, 400, "invalid_parameter");
    }
    assert_eq!(keys(subject, &page(subject, "").await), KEYS);
}

pub(crate) async fn a_cursor_is_good_for_its_query_only(subject: &Subject) {
    fill(subject).await;
    let first = page(subject, "&limit=2").await;
    let cursor = first["cursor"].as_str().expect("there is more");
    // Another size of page, or another freshness, is the same query.
    let next = page(subject, &format!("&limit=3&consistency=lease&cursor={cursor}")).await;
    assert_eq!(keys(subject, &next), ["a+b", "a0", "b"]);
    let end = format!("&end={}list:b", subject.prefix);
    for other in ["a", &end, "&reverse=true", "&keys_only=true"] {
        let answer =
            subject.get(&target(subject, "/keys", &format!("{other}&cursor={cursor}"))).await;
        assert_refused(&answer, 400, "invalid_parameter");
    }
    let cut = &cursor[..cursor.len() - 1];
    let long = "A".repeat(10_000);
    for hostile in ["A", "AAAA", "%00", "%ff", "a+b", "!", cut, &format!("{cursor}AAAA"), &long] {
        let answer = subject.get(&target(subject, "/keys", &format!("&cursor={hostile}"))).await;
        assert_refused(&answer, 400, "invalid_parameter");
        assert!(answer.json()["error"].as_str().expect("text").contains("parameter cursor:"));
    }
}
