//! The Rust client: typed values, typed errors, and never a write sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use sagedb::api::Options;
use sagedb::client::{Client, ClientError, OpAnswer, ReadOptions, ScanOptions, WriteOptions};
use sagedb::types::command::{Condition, Write};
use sagedb::types::error::{Error, WriteOutcome};
use sagedb::types::http::Role;
use sagedb::types::key::Key;
use sagedb::types::kv::Consistency;
use sagedb::types::once::IdempotencyKey;
use sagedb::types::scan::Listed;
use sagedb::types::txn::{Compare, Holds, Op};
use sagedb::types::value::{Value, ValueKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fake_kv::{Fake, Mode, Server};
use crate::http_suite::raw_http::patiently;

/// A server that is none of ours: reads each request, then answers with fixed bytes and closes,
/// or says nothing at all.
struct Rude {
    base: String,
    requests: Arc<AtomicUsize>,
}

impl Rude {
    async fn start(reply: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    if socket.read_buf(&mut request).await.expect("readable") == 0 {
                        break;
                    }
                }
                seen.fetch_add(1, Ordering::SeqCst);
                match reply {
                    Some(reply) => socket.write_all(reply.as_bytes()).await.expect("writable"),
                    None => silent.push(socket),
                }
            }
        });
        Self { base, requests }
    }
}

/// A URL where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

async fn working() -> Server {
    Server::coordinator(Fake::new(Mode::Works), Options::default()).await
}

async fn failing(error: Error) -> Server {
    Server::coordinator(Fake::new(Mode::Fails(error)), Options::default()).await
}

fn client<const N: usize>(urls: [&str; N]) -> Client {
    Client::new(urls).expect("valid URLs")
}

#[tokio::test]
async fn values_of_every_kind_come_back_as_they_were_stored() {
    let server = working().await;
    let client = client([&server.base]);
    let json = Value::new(ValueKind::Json, r#"{"b":12345678901234567890123,"a":"x"}"#.into());
    let values = [
        Value::text("text"),
        Value::text(""),
        Value::text("\"quoted\""),
        Value::new(ValueKind::Json, "\"quoted\"".into()).expect("JSON"),
        json.expect("JSON"),
        Value::bytes(&b"\x00\xff"[..]),
    ];
    for value in values {
        let written = client.put("{a} &=+%\u{e9}", value.clone()).await.expect("written");
        let item = client.get("{a} &=+%\u{e9}").await.expect("read").expect("found");
        assert_eq!((item.value, item.version, item.ts), (value, written.version, written.ts));
    }
    let stale = ReadOptions { consistency: Consistency::Stale, ..ReadOptions::default() };
    let stale = client.get_with("{a} &=+%\u{e9}", &stale).await.expect("read");
    assert!(stale.is_some());
    assert_eq!(client.delete("{a} &=+%\u{e9}").await.expect("deleted").existed, Some(true));
    assert_eq!(client.delete("{a} &=+%\u{e9}").await.expect("deleted").existed, Some(false));
    assert_eq!(client.get("{a} &=+%\u{e9}").await, Ok(None));
}

#[tokio::test]
async fn keys_are_listed_a_page_at_a_time_or_all_in_one_stream() {
    let server = working().await;
    let client = client([&server.base]);
    let json = Value::new(ValueKind::Json, "[1, 2]".into()).expect("JSON");
    let values = [Value::text("say \"a\""), json, Value::bytes(&b"\x00\xff"[..]), Value::text("")];
    for (at, value) in values.iter().enumerate() {
        client.put(&format!("key+{at}"), value.clone()).await.expect("written");
    }
    client.put("other", Value::text("x")).await.expect("written");
    let options = ScanOptions { prefix: "key+".into(), limit: 3, ..ScanOptions::default() };
    let first = client.scan(&options, None).await.expect("a page");
    let second = client.scan(&options, first.cursor.as_deref()).await.expect("a page");
    assert_eq!((first.items.len(), second.items.len(), &second.cursor), (3, 1, &None));
    let paged: Vec<Listed> = first.items.into_iter().chain(second.items).collect();
    let streamed: Vec<Listed> =
        client.scan_all(options.clone()).try_collect().await.expect("all of them");
    assert_eq!(paged, streamed);
    let listed: Vec<_> = paged.into_iter().map(|item| item.value.expect("a value")).collect();
    assert_eq!(listed, values);
    let bare = ScanOptions { keys_only: true, reverse: true, ..options };
    let bare = client.scan(&bare, None).await.expect("a page");
    assert_eq!((bare.items[0].key.as_str(), &bare.items[0].value), ("key+3", &None));
    assert_eq!((client.count("key+").await, client.count("").await), (Ok(4), Ok(5)));
    assert_eq!(client.delete_prefix("key+0").await, Ok(1));
    assert_eq!((client.count("key+").await, client.count("").await), (Ok(3), Ok(4)));
    let unequal = client.scan(&ScanOptions::default(), bare.cursor.as_deref()).await;
    assert!(matches!(unequal, Err(ClientError::Api { status: 400, .. })), "{unequal:?}");
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn put_op(at: &str, value: Value) -> Op {
    Op::Write { key: key(at), write: Write::Put { value } }
}

#[tokio::test]
async fn transactions_and_batches_come_back_as_they_were_asked_for() {
    let server = working().await;
    let client = client([&server.base]);
    let null = Value::new(ValueKind::Json, "null".into()).expect("JSON");
    let values = [Value::text("text"), Value::bytes(&b"\x00\xff"[..]), null];
    let puts: Vec<Op> =
        (0..).zip(&values).map(|(at, value)| put_op(&format!("{at}"), value.clone())).collect();
    let gets: Vec<Op> = (0..4).map(|at| Op::Get { key: key(&format!("{at}")) }).collect();
    let written = client.batch(&puts, None).await.expect("a batch");
    assert!(
        written.iter().all(|one| matches!(one, OpAnswer::Written(body) if body.ok)),
        "{written:?}"
    );
    let read = client.batch(&gets, None).await.expect("a batch");
    for (value, answer) in values.iter().zip(&read) {
        let OpAnswer::Read(Some(item)) = answer else { panic!("{answer:?}") };
        assert_eq!(item.value, *value);
    }
    assert_eq!(read[3], OpAnswer::Read(None));

    let compare = [
        Compare { key: key("0"), holds: Holds::Value(values[0].clone()) },
        Compare { key: key("1"), holds: Holds::Value(values[1].clone()) },
        Compare { key: key("3"), holds: Holds::Exists(false) },
        Compare { key: key("0"), holds: Holds::Version(1) },
    ];
    let lasting = Write::PutFor { value: Value::text("x"), ttl_ms: 60_000 };
    let then = [
        Op::Write { key: key("3"), write: lasting },
        Op::Write { key: key("3"), write: Write::Touch { ttl_ms: None } },
        Op::Write { key: key("n"), write: Write::Add { by: -7 } },
        Op::Write { key: key("0"), write: Write::Delete },
    ];
    let name = IdempotencyKey::new("once").expect("a key");
    let first = client.txn((&compare, &then, &[]), Some(&name)).await.expect("a transaction");
    assert!(first.succeeded && first.version > 0);
    let [
        OpAnswer::Written(put),
        OpAnswer::Written(touched),
        OpAnswer::Written(counted),
        OpAnswer::Written(deleted),
    ] = &first.results[..]
    else {
        panic!("{first:?}")
    };
    assert!(put.expires.is_some() && touched.expires.is_none());
    assert_eq!((counted.value, deleted.existed), (Some(-7), Some(true)));
    assert_eq!(client.txn((&compare, &then, &[]), Some(&name)).await, Ok(first));
    let refused = client.txn((&compare, &then, &gets[..1]), None).await.expect("a transaction");
    assert_eq!((refused.succeeded, &refused.results[..]), (false, &[OpAnswer::Read(None)][..]));
    let bad = [Op::Write { key: key("1"), write: Write::Add { by: 1 } }];
    let failed = client.batch(&bad, None).await.expect("a batch");
    assert!(
        matches!(&failed[0], OpAnswer::Failed { status: 409, code, .. } if code == "not_an_integer")
    );
    let failed = client.txn((&[], &bad, &[]), None).await;
    assert!(matches!(failed, Err(ClientError::Api { status: 409, .. })), "{failed:?}");
}

#[tokio::test]
async fn values_end_and_counters_count() {
    let server = working().await;
    let client = client([&server.base]);
    let options = WriteOptions { ttl: Some(Duration::from_secs(60)), ..WriteOptions::default() };
    let put = client.put_with("a", Value::text("x"), &options).await.expect("written");
    let item = client.get("a").await.expect("read").expect("found");
    assert_eq!((put.expires.is_some(), item.expires.at()), (true, put.expires));
    let for_ever = client.touch("a", None, &WriteOptions::default()).await.expect("touched");
    assert_eq!((for_ever.expires, for_ever.version), (None, put.version));
    let missing = client.touch("b", Some(Duration::from_secs(1)), &WriteOptions::default()).await;
    assert!(matches!(missing, Err(ClientError::Api { status: 404, .. })), "{missing:?}");
    for expected in [5, 10] {
        let counted = client.incr("n", 5, &WriteOptions::default()).await.expect("counted");
        assert_eq!(counted.value, Some(expected));
    }
}

/// The second server stands for a replica that is behind.
#[tokio::test]
async fn a_session_never_reads_what_is_older_than_what_it_has_seen() {
    let (first, second) = (working().await, working().await);
    let client = client([&first.base, &second.base]);
    let session = client.clone().with_session();
    let written = session.put("a", Value::text("new")).await.expect("written");
    assert_eq!(written.index.as_deref(), Some("fake:1"));
    let at_least = vec![written.index.expect("a position").parse().expect("a position")];
    let stale = ReadOptions { consistency: Consistency::Stale, ..ReadOptions::default() };
    assert!(session.get_with("a", &stale).await.expect("read").is_some());
    drop(first);
    assert_eq!(client.get_with("a", &stale).await, Ok(None), "without a session");
    for (client, options) in
        [(&session, &stale), (&client, &ReadOptions { at_least, ..stale.clone() })]
    {
        let refused = client.get_with("a", options).await;
        assert!(refused.is_err(), "{refused:?}");
    }
}

#[tokio::test]
async fn a_session_has_seen_what_declined_its_write() {
    let (first, second) = (working().await, working().await);
    client([&first.base]).put("a", Value::text("theirs")).await.expect("written");
    let session = client([&first.base, &second.base]).with_session();
    let absent = WriteOptions { condition: Some(Condition::Absent), ..WriteOptions::default() };
    let declined = session.put_with("a", Value::text("mine"), &absent).await;
    let Err(ClientError::Api { status: 412, version, .. }) = declined else {
        panic!("not declined: {declined:?}");
    };
    assert_eq!(version, Some(1));
    drop(first);
    let stale = ReadOptions { consistency: Consistency::Stale, ..ReadOptions::default() };
    let read = session.get_with("a", &stale).await;
    assert!(read.is_err(), "the second server has no such value: {read:?}");
}

#[tokio::test]
async fn each_kind_of_server_speaks_of_itself() {
    let coordinator = working().await;
    let shard = Server::shard(Fake::new(Mode::Works), Options::default()).await;
    let client_of = |server: &Server| client([&server.base]);
    let (coordinator, shard) = (client_of(&coordinator), client_of(&shard));
    assert_eq!(coordinator.route("a").await.expect("a route").key, "a");
    assert_eq!(coordinator.cluster().await.expect("a cluster").vnodes, 100);
    assert_eq!(shard.status().await.expect("a status").role, Role::Leader);
    assert_eq!(shard.health().await.expect("health").role, "shard");
    assert!(shard.ready().await.expect("readiness").ready);
    let wrong = coordinator.status().await.expect_err("a coordinator has no /status");
    assert!(matches!(wrong, ClientError::Api { status: 404, .. }), "{wrong:?}");
}

#[tokio::test]
async fn who_is_not_ready_says_why_to_the_client_too() {
    let server = failing(Error::unavailable("no leader yet")).await;
    let ready = client([&server.base]).ready().await.expect("an answer");
    assert_eq!((ready.ready, ready.reason.as_deref()), (false, Some("no leader yet")));
}

#[tokio::test]
async fn a_refusal_is_typed() {
    let server = working().await;
    let error = client([&server.base]).put("", Value::text("x")).await.expect_err("no key");
    let expected = ClientError::Api {
        status: 400,
        code: "missing_key".into(),
        error: "missing key".into(),
        outcome: WriteOutcome::NotApplied,
        version: None,
    };
    assert_eq!(error, expected);
}

#[tokio::test]
async fn nobody_there_means_not_applied() {
    let error = client([&nobody().await]).put("a", Value::text("x")).await.expect_err("nobody");
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert_eq!(error.outcome(), WriteOutcome::NotApplied);
}

#[tokio::test]
async fn a_write_goes_on_while_nothing_can_have_been_applied() {
    let refusing = failing(Error::unavailable("no leader")).await;
    let works = working().await;
    let client = client([&nobody().await, &refusing.base, &works.base]);
    for _ in 0..2 {
        client.put("a", Value::text("x")).await.expect("the third takes it");
    }
    assert!(client.get("a").await.expect("read").is_some());
}

#[tokio::test]
async fn a_write_that_may_have_been_taken_is_never_sent_again() {
    let proxy = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops";
    let moved = "HTTP/1.1 307 Moved\r\nlocation: /kv?key=a\r\ncontent-length: 0\r\n\r\n";
    let odd_refusal =
        "HTTP/1.1 503 No\r\ncontent-length: 26\r\n\r\n{\"error\":\"x\",\"code\":\"busy\"}";
    let torn = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"ok\":true";
    for reply in [
        Some(""),
        Some("HTTP/1.1 2"),
        Some(proxy),
        Some(moved),
        Some(odd_refusal),
        Some(torn),
        None,
    ] {
        let (rude, works) = (Rude::start(reply).await, working().await);
        let client = client([&rude.base, &works.base]).with_timeout(Duration::from_millis(500));
        let error = patiently(client.put("a", Value::text("x"))).await.expect_err("no answer");
        assert_eq!(error.outcome(), WriteOutcome::Unknown, "{reply:?} {error:?}");
        assert_eq!(rude.requests.load(Ordering::SeqCst), 1, "{reply:?}");
        // A read is free to go on, and shows that the second server never saw the write.
        assert_eq!(patiently(client.get("a")).await, Ok(None), "{reply:?}");
    }
}

#[tokio::test]
async fn the_servers_word_that_the_outcome_is_unknown_is_final() {
    let (unknown, works) =
        (failing(Error::outcome_unknown("the leader died")).await, working().await);
    let client = client([&unknown.base, &works.base]);
    let error = client.put("a", Value::text("x")).await.expect_err("unknown");
    assert_eq!(error, ClientError::OutcomeUnknown { reason: "the leader died".into() });
    assert_eq!(client.get("a").await, Ok(None), "the other server was not asked to write");
}

#[tokio::test]
async fn every_call_ends_within_its_timeout() {
    let rude = Rude::start(None).await;
    let client = client([&rude.base]).with_timeout(Duration::from_millis(300));
    let begun = Instant::now();
    let write = patiently(client.put("a", Value::text("x"))).await.expect_err("no answer");
    let read = patiently(client.get("a")).await.expect_err("no answer");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let is_timeout = |error: &ClientError| matches!(error, ClientError::Timeout { .. });
    assert!(is_timeout(&write) && is_timeout(&read), "{write:?} {read:?}");
    assert_eq!(write.outcome(), WriteOutcome::Unknown);
    assert_eq!(read.outcome(), WriteOutcome::NotApplied);
}

#[tokio::test]
async fn the_servers_own_answer_comes_before_the_timeout() {
    let server = Server::shard(Fake::new(Mode::Hangs), Options::default()).await;
    let client = client([&server.base]).with_timeout(Duration::from_secs(1));
    let write = client.put("a", Value::text("x")).await.expect_err("it hangs");
    assert!(matches!(write, ClientError::OutcomeUnknown { .. }), "{write:?}");
    let read = client.get("a").await.expect_err("it hangs");
    assert!(matches!(read, ClientError::Api { status: 503, .. }), "{read:?}");
}

#[tokio::test]
async fn the_server_that_answered_last_is_asked_first() {
    let (rude, works) = (Rude::start(Some("")).await, working().await);
    let client = client([&rude.base, &works.base]);
    for _ in 0..3 {
        assert_eq!(client.get("a").await, Ok(None));
    }
    assert_eq!(rude.requests.load(Ordering::SeqCst), 1);
    client.put("a", Value::text("x")).await.expect("the good server takes it at once");
}

#[test]
fn urls_are_checked_before_anything_is_sent() {
    for urls in [&[][..], &["https://a:1"], &["http://a:1", "b:2"]] {
        let error = Client::new(urls).expect_err("bad URLs");
        assert!(matches!(error, ClientError::Config { .. }), "{error:?}");
    }
}
