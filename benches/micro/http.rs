//! What the HTTP face makes of a request, and of its answer: from the router, with a request whose head is parsed, to
//! the last byte of the body. Left out are the socket, hyper's work on it, and what lets a body run out.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use criterion::Criterion;
use http_body_util::BodyExt;
use sagedb::types::http::CONTENT_TEXT;
use tokio::runtime::Builder;
use tower_service::Service;

use crate::{data, replica};

pub(crate) fn benches(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let router = replica::router();
    let mut group = criterion.benchmark_group("http");
    let requests: [(_, fn() -> Request); 3] = [
        ("put", put),
        ("get", || get("/kv?key=user:0000000001")),
        ("get_raw", || get("/kv?key=user:0000000001&raw=true")),
    ];
    for (name, request) in requests {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| runtime.block_on(serve(&router, request, rounds)));
        });
    }
    group.finish();
}

fn put() -> Request {
    let value = data::value(1).data;
    let request = Request::put("/kv?key=user:0000000001").header(CONTENT_TYPE, CONTENT_TEXT);
    request.body(Body::from(value)).expect("a request")
}

fn get(path: &str) -> Request {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// How long the answers to so many requests take, one after the other.
async fn serve(router: &Router, request: fn() -> Request, rounds: u64) -> Duration {
    let mut taken = Duration::ZERO;
    for _ in 0..rounds {
        let request = request();
        let start = Instant::now();
        // As the server does for each request.
        let Ok(response) = router.clone().call(request).await;
        assert!(response.status().is_success(), "{}", response.status());
        let body = response.into_body().collect().await.expect("it is in memory");
        taken += start.elapsed();
        drop(body);
    }
    taken
}
