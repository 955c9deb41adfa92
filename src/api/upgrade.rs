//! `GET /rpc`: where a connection stops being HTTP and becomes `sage-rpc/1`.
//!
//! One port per process: peers and coordinators come in through the same listener as clients and
//! ask for the other protocol (RFC 9110 §7.8). Whoever does not ask gets a 426 that says how.
//! Every upgraded connection is a tracked task that ends with the shutdown token.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::api::error::{About, refuse, upgrade_required};
use crate::api::routes::Rpc;
use crate::rpc;
use crate::types::error::Error;
use crate::types::http::UPGRADE_PROTOCOL;
use crate::types::limits::CONNECT_TIMEOUT;

/// `GET /rpc`.
pub(super) async fn upgrade<R: rpc::Service>(
    State(rpc): State<Rpc<R>>,
    request: Request,
) -> Response {
    let asked = has_token(request.headers(), &UPGRADE, UPGRADE_PROTOCOL)
        && has_token(request.headers(), &CONNECTION, "upgrade");
    if !asked || request.method() != Method::GET {
        return upgrade_required();
    }
    if rpc.shutdown.is_cancelled() {
        return refuse(Error::unavailable("the process is stopping"), About::Read);
    }
    let tracker = rpc.tracker.clone();
    tracker.spawn(serve(hyper::upgrade::on(request), rpc));

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static(UPGRADE_PROTOCOL));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

async fn serve<R: rpc::Service>(on_upgrade: OnUpgrade, rpc: Rpc<R>) {
    // The other side has the 101 once this resolves; it never does if the connection breaks first.
    match timeout(CONNECT_TIMEOUT, on_upgrade).await {
        Ok(Ok(io)) => rpc::serve(TokioIo::new(io), Arc::clone(&rpc.service), rpc.shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection broke before its upgrade"),
        Err(_) => tracing::debug!("a connection was not upgraded in time"),
    }
}

/// Whether a header that is a list of tokens has `token`.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = values.flat_map(|value| value.split(','));
    tokens.any(|given| given.trim().eq_ignore_ascii_case(token))
}
