//! The two servers that are the measure of what HTTP alone costs: one that stores nothing, and a proxy before it.
//!
//! `serve-bare` answers `PUT` and `GET /kv` as `SageDB` does, after reading the whole request, and remembers nothing of
//! it. `serve-proxy` hands each request to another server over a kept connection. Both are this
//! program, started as processes of their own.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use axum::body::Bytes;
use axum::extract::Query;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use axum::routing::put;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sagedb::types::http::WriteBody;
use serde::Deserialize;
use tokio::net::TcpListener;

/// What every read is answered with.
const VALUE: [u8; 100] = [b'v'; 100];

/// As in `SageDB`'s API; other parameters are none of its business.
#[derive(Deserialize)]
struct KeyQuery {
    key: String,
}

/// Serves until the process is killed.
pub(crate) async fn bare(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap_or_default());
    let routes = Router::new().route("/kv", put(write).get(read));
    axum::serve(listener, routes).await.context("the server has ended")
}

async fn write(Query(query): Query<KeyQuery>, value: Bytes) -> Result<Json<WriteBody>, StatusCode> {
    if query.key.is_empty() || value.is_empty() {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(Json(WriteBody {
        ok: true,
        acks: 2,
        quorum: 2,
        ts: 1_755_248_123_456,
        version: 1,
        expires: None,
        value: None,
        existed: None,
        index: None,
    }))
}

async fn read(
    Query(query): Query<KeyQuery>,
) -> Result<([(hyper::header::HeaderName, &'static str); 1], &'static [u8]), StatusCode> {
    if query.key.is_empty() {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], &VALUE))
}

/// Hands requests on to `to` until the process is killed.
pub(crate) async fn proxy(port: u16, to: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        let hand_on = service_fn(move |request| {
            let client = client.clone();
            async move { hyper::Result::Ok(answer(&client, request, to).await) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        let serving = http.serve_connection(TokioIo::new(stream), hand_on);
        // A connection that breaks ends alone.
        tokio::spawn(async move { drop(serving.await) });
    }
}

type Upstream = Client<HttpConnector, Incoming>;

async fn answer(
    client: &Upstream,
    request: Request<Incoming>,
    to: SocketAddr,
) -> Response<Either<Incoming, Full<Bytes>>> {
    let failed = |text: String| {
        let mut response = Response::new(Either::Right(Full::from(text)));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    };
    let request = match readdressed(request, to) {
        Ok(request) => request,
        Err(error) => return failed(error.to_string()),
    };
    match client.request(request).await {
        Ok(response) => response.map(Either::Left),
        Err(error) => failed(error.to_string()),
    }
}

/// The request as the other server is to get it.
fn readdressed<B>(mut request: Request<B>, to: SocketAddr) -> Result<Request<B>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(to.to_string()).path_and_query(path);
    *request.uri_mut() = uri.build()?;
    let host = HeaderValue::from_str(&to.to_string())?;
    request.headers_mut().insert(hyper::header::HOST, host);
    request.headers_mut().remove(CONNECTION);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_path_and_loses_its_host() {
        let request = Request::builder().uri("/kv?key=a%20b&raw=true").header("host", "a:1");
        let request = request.header("connection", "close").body(()).expect("valid");
        let to = SocketAddr::from(([127, 0, 0, 1], 4000));
        let request = readdressed(request, to).expect("valid");
        assert_eq!(request.uri(), "http://127.0.0.1:4000/kv?key=a%20b&raw=true");
        assert_eq!(request.headers()["host"], "127.0.0.1:4000");
        assert!(!request.headers().contains_key("connection"));
    }
}
