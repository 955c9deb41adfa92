//! Both routers keep the HTTP contract over a store that works, and stay honest over one that
//! fails, lies or hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fake_kv::{Fake, Mode, Server};
use crate::http_suite::raw_http::{Connection, head, patiently, send};
use crate::http_suite::{Face, Subject, every_promise};
use sagedb::api::Options;
use sagedb::types::error::{Decline, Error, Space};
use sagedb::types::ids::NodeId;
use sagedb::types::kv::GroupIndex;
use sagedb::types::topology::Member;
use serde_json::{Value as Json, json};

const MAX_VALUE_BYTES: usize = 1024 * 1024;

fn options() -> Options {
    Options { max_value_bytes: MAX_VALUE_BYTES, ..Options::default() }
}

fn subject(server: &Server, face: Face) -> Subject {
    let (base, prefix) = (server.base.clone(), "suite:".into());
    Subject { base, face, max_value_bytes: MAX_VALUE_BYTES, prefix }
}

#[tokio::test]
async fn a_shard_keeps_every_promise() {
    let server = Server::shard(Fake::new(Mode::Works), options()).await;
    every_promise(&subject(&server, Face::Shard)).await;
}

#[tokio::test]
async fn a_coordinator_keeps_every_promise() {
    let server = Server::coordinator(Fake::new(Mode::Works), options()).await;
    every_promise(&subject(&server, Face::Coordinator)).await;
}

/// Every error that a store can give, with the status and code it becomes.
fn every_error() -> Vec<(Error, u16, &'static str)> {
    let leader = Some(Member { node: NodeId(1), url: "http://127.0.0.1:1".into() });
    let text = || "why".to_owned();
    let declined = |why| Error::Declined { why, at: GroupIndex { group: "g1".into(), index: 9 } };
    vec![
        (Error::MissingKey, 400, "missing_key"),
        (Error::InvalidJson(text()), 400, "invalid_json"),
        (Error::InvalidUtf8(text()), 400, "invalid_utf8"),
        (Error::InvalidParameter { name: text(), reason: text() }, 400, "invalid_parameter"),
        (Error::BadRequest(text()), 400, "bad_request"),
        (Error::UnknownPath, 404, "not_found"),
        (Error::MethodNotAllowed, 405, "method_not_allowed"),
        (Error::KeyTooLarge { bytes: 5000 }, 413, "key_too_large"),
        (Error::ValueTooLarge { max: 5000 }, 413, "value_too_large"),
        (Error::WrongShard { epoch: 3 }, 421, "wrong_shard"),
        (Error::NotLeader { leader }, 503, "no_leader"),
        (Error::unavailable("why"), 503, "unavailable"),
        (Error::Overloaded { queue: text() }, 503, "overloaded"),
        (Error::outcome_unknown("why"), 504, "outcome_unknown"),
        (Error::NoRoom(Space::Memory { max: 5000 }), 507, "out_of_memory_budget"),
        (Error::NoRoom(Space::Disk), 507, "disk_full"),
        (declined(Decline::VersionMismatch { version: Some(3) }), 412, "version_mismatch"),
        (declined(Decline::IdempotencyKeyReused), 422, "idempotency_key_reused"),
        (declined(Decline::KeyNotFound), 404, "key_not_found"),
        (declined(Decline::NotAnInteger), 409, "not_an_integer"),
        (declined(Decline::AnswerTooLarge), 413, "answer_too_large"),
        (declined(Decline::AnswerNotKept), 504, "answer_not_kept"),
        (Error::NoSession, 503, "unavailable"),
    ]
}

#[tokio::test]
async fn every_error_of_the_store_says_what_became_of_a_write() {
    for (error, status, code) in every_error() {
        let server = Server::shard(Fake::new(Mode::Fails(error.clone())), options()).await;
        for method in ["PUT", "DELETE"] {
            let answer = send(&server.base, method, "/kv?key=a", &[], b"").await;
            let body = answer.json();
            assert_eq!((answer.status, &body["code"]), (status, &json!(code)));
            assert_eq!(body["error"], error.to_string());
            let outcome = if status == 504 { "unknown" } else { "not_applied" };
            assert_eq!(body["outcome"], outcome, "{error:?}");
            assert_eq!(answer.header("retry-after"), (status == 503).then_some("1"));
            let at = matches!(error, Error::Declined { .. }).then_some("g1:9");
            assert_eq!(answer.header("x-sage-index"), at, "{error:?}");
            assert_eq!(body.get("epoch").and_then(Json::as_u64), (status == 421).then_some(3));
        }
    }
}

#[tokio::test]
async fn a_read_that_fails_has_no_outcome() {
    // No read has a name under which an answer could have been kept.
    let of_a_write = |error: &Error| error.code() == "answer_not_kept";
    for (error, status, code) in every_error().into_iter().filter(|(error, ..)| !of_a_write(error))
    {
        let server = Server::shard(Fake::new(Mode::Fails(error)), options()).await;
        let answer = send(&server.base, "GET", "/kv?key=a", &[], b"").await;
        let expected = if status == 504 { (503, "unavailable") } else { (status, code) };
        let body = answer.json();
        assert_eq!((answer.status, body["code"].as_str()), (expected.0, Some(expected.1)));
        assert_eq!(body.get("outcome"), None, "{body}");
        assert_eq!(answer.header("retry-after"), (expected.0 == 503).then_some("1"));
    }
}

#[tokio::test]
async fn a_store_that_hangs_does_not_make_its_clients_hang() {
    let shard = Server::shard(Fake::new(Mode::Hangs), options()).await;
    let coordinator = Server::coordinator(Fake::new(Mode::Hangs), options()).await;
    let cases = [
        (&shard, "PUT", "/kv?key=a&timeout=200ms", 504, Some("unknown")),
        (&coordinator, "DELETE", "/kv?key=a&timeout=200ms", 504, Some("unknown")),
        (&shard, "GET", "/kv?key=a&timeout=200ms", 503, None),
        (&coordinator, "GET", "/cluster?timeout=200ms", 503, None),
        (&shard, "GET", "/keys?timeout=200ms", 503, None),
        (&coordinator, "GET", "/count?timeout=200ms", 503, None),
        (&shard, "DELETE", "/keys?prefix=a&timeout=200ms", 504, Some("unknown")),
    ];
    for (server, method, target, status, outcome) in cases {
        let begun = Instant::now();
        let answer = send(&server.base, method, target, &[], b"").await;
        let took = begun.elapsed();
        assert_eq!(answer.status, status, "{method} {target}");
        assert_eq!(answer.json().get("outcome").and_then(Json::as_str), outcome);
        assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test]
async fn who_names_no_timeout_is_answered_after_five_seconds() {
    let shard = Server::shard(Fake::new(Mode::Hangs), options()).await;
    let coordinator = Server::coordinator(Fake::new(Mode::Hangs), options()).await;
    let ask = async |server: &Server, method: &str, target: &str, status: u16| {
        let begun = Instant::now();
        let answer = send(&server.base, method, target, &[], b"").await;
        let took = begun.elapsed();
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        assert!(took >= Duration::from_millis(4900) && took < Duration::from_secs(8), "{took:?}");
    };
    tokio::join!(
        ask(&shard, "PUT", "/kv?key=a", 504),
        ask(&shard, "GET", "/kv?key=a", 503),
        ask(&coordinator, "DELETE", "/kv?key=a", 504),
        ask(&coordinator, "POST", "/kv/incr?key=a", 504),
        ask(&coordinator, "GET", "/keys", 503),
        ask(&coordinator, "DELETE", "/keys?prefix=a", 504),
        ask(&coordinator, "GET", "/cluster", 503),
    );
}

#[tokio::test]
async fn a_store_that_answers_the_wrong_question_is_not_believed() {
    let server = Server::shard(Fake::new(Mode::Confused), options()).await;
    let write = send(&server.base, "PUT", "/kv?key=a", &[], b"x").await;
    assert_eq!((write.status, &write.json()["outcome"]), (504, &json!("unknown")));
    for read in ["/kv?key=a", "/keys", "/count"] {
        assert_eq!(send(&server.base, "GET", read, &[], b"").await.status, 503, "{read}");
    }
}

#[tokio::test]
async fn who_is_not_ready_says_why() {
    let fake = Fake::new(Mode::Fails(Error::unavailable("the group has not formed")));
    let shard = Server::shard(Arc::clone(&fake), options()).await;
    let coordinator = Server::coordinator(fake, options()).await;
    for server in [&shard, &coordinator] {
        let ready = send(&server.base, "GET", "/ready", &[], b"").await;
        let expected = json!({"ready": false, "reason": "the group has not formed"});
        assert_eq!((ready.status, ready.json()), (503, expected));
        assert_eq!(ready.header("retry-after"), Some("1"));
        let health = send(&server.base, "GET", "/health", &[], b"").await;
        assert_eq!(health.status, 200, "it still serves");
    }
    for target in ["/route?key=a", "/cluster"] {
        let answer = send(&coordinator.base, "GET", target, &[], b"").await;
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("unavailable")));
    }
}

#[tokio::test]
async fn an_upgrade_is_answered_tracked_and_ended_by_the_shutdown() {
    let server = Server::shard(Fake::new(Mode::Works), options()).await;
    let asking = [("connection", "keep-alive, Upgrade"), ("upgrade", "sage-rpc/1")];
    let request = head(&server.base, "GET", "/rpc", &asking);
    let mut connection = Connection::open(&server.base).await;
    connection.send(format!("{request}\r\n").as_bytes()).await;
    let answer = connection.answer(true).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("upgrade"), Some("sage-rpc/1"));
    assert_eq!(answer.header("connection"), Some("upgrade"));

    server.shutdown.cancel();
    server.tracker.close();
    patiently(server.tracker.wait()).await;
    let late = send(&server.base, "GET", "/rpc", &asking, b"").await;
    assert_eq!(late.status, 503, "a stopping process takes no new peers");
}
