//! `GET /watch`: changes as server-sent events, in order, from now on or from where an earlier watch was.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::raw_http::PATIENCE;
use super::{BYTES, JSON, Subject, assert_refused};

/// One block of a stream of events: an event, or an id alone.
#[derive(Clone, PartialEq, Debug)]
struct Block {
    id: String,
    event: Option<(String, Json)>,
}

/// A stream of events as a browser would read it.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(subject: &Subject, query: &str, last: Option<&str>) -> Self {
        let mut request = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client")
            .get(format!("{}/watch?{query}", subject.base));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = tokio::time::timeout(PATIENCE, request.send()).await.expect("in time");
        let response = response.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, text: String::new() }
    }

    fn index(&self) -> String {
        self.response.headers()["x-sage-index"].to_str().expect("text").to_owned()
    }

    async fn block(&mut self) -> Block {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return parse(&block);
            }
            let chunk =
                tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("in time");
            let chunk = chunk.expect("readable").expect("the stream goes on");
            self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }

    /// The next change, and the id behind it.
    async fn change(&mut self) -> (String, String, Json) {
        loop {
            let Block { id, event } = self.block().await;
            if let Some((name, data)) = event {
                return (id, name, data);
            }
        }
    }
}

fn parse(block: &str) -> Block {
    let field = |name: &str| {
        let mut lines = block.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    let data = field("data").map(|data| serde_json::from_str(&data).expect("JSON"));
    let known = block
        .lines()
        .all(|line| ["id: ", "event: ", "data: "].iter().any(|name| line.starts_with(name)));
    assert!(known, "{block:?}");
    Block { id: field("id").expect("each has an id"), event: field("event").zip(data) }
}

pub(crate) async fn changes_are_told_as_they_come(subject: &Subject) {
    let prefix = format!("{}watch:", subject.prefix);
    let mut stream = Stream::open(subject, &format!("prefix={prefix}"), None).await;
    let first = stream.block().await;
    assert!(first.event.is_none() && !first.id.is_empty(), "{first:?}");
    subject.put("watch:text", &[], b"say \"hi\"\nand go").await;
    subject.put("watch", &[], b"beside it").await;
    subject.put("watch:json", &[JSON], b"{\"a\": 1,\r\n \"b\": [2]}").await;
    subject.put("watch:bytes", &[BYTES], b"\xff\x00").await;
    subject.send("PUT", &format!("{}&ttl=1h", subject.kv("watch:while")), &[], b"w").await;
    subject.send("POST", &format!("/kv/incr?key={prefix}count&by=7"), &[], b"").await;
    subject.send("DELETE", &subject.kv("watch:text"), &[], b"").await;
    subject.send("DELETE", &subject.kv("watch:not there"), &[], b"").await;
    subject.put("watch:text", &[], b"again").await;
    // Between groups there is no order.
    let mut told = Vec::new();
    for _ in 0..7 {
        let (_, name, data) = stream.change().await;
        let key = data["key"].as_str().and_then(|key| key.strip_prefix(&prefix));
        told.push((key.expect("only these").to_owned(), name, data));
    }
    let of = |key: &str| {
        let of = told.iter().filter(|(told, ..)| told == key);
        of.map(|(_, name, data)| (name.as_str(), data)).collect::<Vec<_>>()
    };
    let text = of("text");
    let names: Vec<&str> = text.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["put", "delete", "put"]);
    assert_eq!(text[0].1["value"], "say \"hi\"\nand go");
    assert_eq!(super::names(text[0].1), ["key", "value", "ts", "version"].into());
    assert_eq!(super::names(text[1].1), ["key", "ts", "version"].into());
    let versions: Vec<u64> =
        text.iter().map(|(_, data)| data["version"].as_u64().expect("a version")).collect();
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    assert!(text.iter().all(|(_, data)| data["ts"].as_u64() > Some(1_700_000_000_000)));
    assert_eq!(of("json")[0].1["value"], json!({"a": 1, "b": [2]}));
    assert_eq!(
        (&of("bytes")[0].1["value"], &of("bytes")[0].1["encoding"]),
        (&json!("/wA="), &json!("base64"))
    );
    assert_eq!(of("count")[0].1["value"], 7);
    let lasting = of("while")[0].1;
    assert!(lasting["expires"].as_u64() > lasting["ts"].as_u64(), "{lasting}");
}

pub(crate) async fn a_watch_goes_on_behind_any_of_its_ids(subject: &Subject) {
    let query = format!("key={}resumed", subject.prefix);
    let mut stream = Stream::open(subject, &query, None).await;
    let mut ids = vec![(stream.block().await.id, 0)];
    for number in 1..=5 {
        subject.put("resumed", &[], number.to_string().as_bytes()).await;
    }
    for number in 1..=5 {
        let (id, _, data) = stream.change().await;
        assert_eq!(data["value"], number.to_string());
        ids.push((id, number));
    }
    drop(stream);
    for (id, seen) in ids {
        // As a browser does, and as a program may.
        let query_with = format!("{query}&since={id}");
        for (query, last) in
            [(&query, Some(id.as_str())), (&query_with, None), (&query_with, Some(&id))]
        {
            let mut again = Stream::open(subject, query, last).await;
            assert_eq!(again.block().await, Block { id: id.clone(), event: None });
            for number in seen + 1..=5 {
                assert_eq!(again.change().await.2["value"], number.to_string());
            }
        }
    }
}

pub(crate) async fn a_watch_begins_behind_what_was_read(subject: &Subject) {
    let key = format!("{}read", subject.prefix);
    subject.put("read", &[], b"1").await;
    let read = subject.get(&subject.kv("read")).await;
    let index = read.header("x-sage-index").expect("a position").to_owned();
    subject.put("read", &[], b"2").await;
    let mut stream = Stream::open(subject, &format!("key={key}&since={index}"), None).await;
    assert_eq!(stream.index(), index);
    assert_eq!(stream.change().await.2["value"], "2");
    // A list names the positions of all groups.
    let listed = subject.get(&format!("/keys?prefix={key}")).await;
    let index = listed.header("x-sage-index").expect("positions").replace(' ', "+");
    subject.put("read", &[], b"3").await;
    let mut stream = Stream::open(subject, &format!("prefix={key}&since={index}"), None).await;
    assert_eq!(stream.change().await.2["value"], "3");
}

pub(crate) async fn a_value_that_is_over_is_told(subject: &Subject) {
    let key = format!("{}over", subject.prefix);
    let mut stream = Stream::open(subject, &format!("key={key}"), None).await;
    let put = subject.send("PUT", &format!("{}&ttl=1ms", subject.kv("over")), &[], b"v").await;
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(stream.change().await.1, "put");
    // Nobody has to look for it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (_, name, data) = stream.change().await;
    assert_eq!((name.as_str(), data.get("value")), ("expire", None));
    assert!(data["version"].as_u64() > put.json()["version"].as_u64(), "{data}");
}

pub(crate) async fn what_is_no_watch_is_refused(subject: &Subject) {
    for (query, code) in [
        ("", "invalid_parameter"),
        ("key=a&prefix=a", "invalid_parameter"),
        ("key=", "missing_key"),
        ("prefix=a&prefix=b", "invalid_parameter"),
        ("prefix=a&limit=1", "invalid_parameter"),
        ("prefix=%ff", "invalid_utf8"),
        ("prefix=a&since=nonsense", "invalid_parameter"),
        ("prefix=a&since=nobody:1", "invalid_parameter"),
        ("prefix=a&since=g:1,g:2", "invalid_parameter"),
        ("prefix=a&timeout=0s", "invalid_parameter"),
    ] {
        let answer = subject.get(&format!("/watch?{query}")).await;
        assert_refused(&answer, 400, code);
    }
    let long = subject.get(&format!("/watch?prefix={}", "k".repeat(4097))).await;
    assert_refused(&long, 413, "key_too_large");
    let headers = [("if-none-match", "\"1\""), ("x-sage-min-index", "g:1"), ("last-event-id", "?")];
    for header in headers {
        let answer = subject.send("GET", "/watch?prefix=a", &[header], b"").await;
        assert_refused(&answer, 400, "invalid_parameter");
    }
    let answer = subject.send("POST", "/watch?prefix=a", &[], b"").await;
    assert_eq!(answer.status, 405, "{answer:?}");
    let head = subject.send("HEAD", "/watch?prefix=a", &[], b"").await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    // Of a group that has come further under the same name: what it was told then is not known here.
    let read = subject.get(&subject.kv("read")).await;
    let group =
        read.header("x-sage-index").and_then(|at| at.rsplit_once(':')).expect("a position").0;
    let ahead =
        subject.get(&format!("/watch?key={}read&since={group}:999999999", subject.prefix)).await;
    assert_refused(&ahead, 410, "compacted");
    // Of another ring: nobody can say what has changed since.
    let foreign = subject.get("/watch?prefix=a&since=AQEA").await;
    assert_refused(&foreign, 410, "compacted");
    let oldest = foreign.json()["oldest"].as_str().expect("where it can begin").replace(' ', "+");
    drop(Stream::open(subject, &format!("prefix=a&since={oldest}"), None).await);
}
