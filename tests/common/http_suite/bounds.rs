//! Bodies that are too long, too slow or not wanted still get their answer.

use std::time::{Duration, Instant};

use super::raw_http::{Connection, head};
use super::{Subject, assert_write_refused};

pub(crate) async fn a_value_has_a_bound(subject: &Subject) {
    let largest = vec![b'v'; subject.max_value_bytes];
    subject.put("large", &[], &largest).await;
    let got = subject.get(&format!("{}&raw=true", subject.kv("large"))).await;
    assert!(got.body == largest, "the largest value comes back whole");

    let larger = vec![b'v'; subject.max_value_bytes + 1];
    let answer = subject.send("PUT", &subject.kv("larger"), &[], &larger).await;
    assert_write_refused(&answer, 413, "value_too_large");

    // Without a declared length.
    let mut connection = Connection::open(&subject.base).await;
    let chunked = [("transfer-encoding", "chunked")];
    let request = head(&subject.base, "PUT", &subject.kv("larger"), &chunked);
    connection.send(format!("{request}\r\n{:x}\r\n", larger.len()).as_bytes()).await;
    connection.send(&larger).await;
    connection.send(b"\r\n0\r\n\r\n").await;
    assert_write_refused(&connection.answer(false).await, 413, "value_too_large");

    // Declared beyond all bounds: refused before a byte of it is sent, and never asked for.
    for expect in [
        &[("content-length", "1000000000000")][..],
        &[("content-length", "1000000000000"), ("expect", "100-continue")],
    ] {
        let mut connection = Connection::open(&subject.base).await;
        let request = head(&subject.base, "PUT", &subject.kv("larger"), expect);
        connection.send(format!("{request}\r\n").as_bytes()).await;
        assert_write_refused(&connection.answer(false).await, 413, "value_too_large");
    }
    assert_eq!(subject.get(&subject.kv("larger")).await.status, 404);

    let request = head(
        &subject.base,
        "PUT",
        &subject.kv("large"),
        &[("content-length", "2"), ("expect", "100-continue")],
    );
    let mut connection = Connection::open(&subject.base).await;
    connection.send(format!("{request}\r\n").as_bytes()).await;
    assert_eq!(connection.answer(true).await.status, 100);
    connection.send(b"ok").await;
    assert_eq!(connection.answer(false).await.status, 200);
}

pub(crate) async fn a_refused_body_does_not_swallow_the_answer(subject: &Subject) {
    let body = vec![b'v'; 4 * 1024 * 1024];
    for (method, target, status) in
        [("PUT", "/kv", 400), ("POST", "/kv?key=a", 405), ("PUT", "/nowhere", 404)]
    {
        let mut connection = Connection::open(&subject.base).await;
        let length = body.len().to_string();
        let request = head(&subject.base, method, target, &[("content-length", &length)]);
        connection.send(format!("{request}\r\n").as_bytes()).await;
        connection.send(&body).await;
        assert_eq!(connection.answer(false).await.status, status, "{method} {target}");
        // The connection is still good, and the body is not taken for a request.
        let next = head(&subject.base, "GET", "/health", &[]);
        connection.send(format!("{next}\r\n").as_bytes()).await;
        assert_eq!(connection.answer(false).await.status, 200, "{method} {target}");
    }
}

pub(crate) async fn a_body_that_stalls_ends_with_the_deadline(subject: &Subject) {
    let begun = Instant::now();
    let mut connection = Connection::open(&subject.base).await;
    let target = format!("{}&timeout=300ms", subject.kv("stalled"));
    let request = head(&subject.base, "PUT", &target, &[("content-length", "10")]);
    connection.send(format!("{request}\r\nhalf").as_bytes()).await;
    let answer = connection.answer(false).await;
    assert_write_refused(&answer, 400, "bad_request");
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    assert_eq!(subject.get(&subject.kv("stalled")).await.status, 404);
}
