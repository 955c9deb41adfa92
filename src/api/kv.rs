//! `PUT`, `GET` and `DELETE` of one key, and another time to live for it, over any [`Kv`].
//!
//! Each handler reads the request, asks the store within the deadline, and turns the reply into
//! HTTP. The deadline is kept here even if the store does not keep it: then a write's fate is
//! unknown and a read was not answered. A request that is refused before the store was asked has
//! changed nothing.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{ETAG, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use tokio::time::timeout_at;

use crate::api::Kv;
use crate::api::accepted;
use crate::api::body;
use crate::api::error::{About, json, not_modified, plain, refuse};
use crate::api::extract::Query;
use crate::api::headers::{at_least, condition, idempotency_key, unless, value_kind};
use crate::api::routes::Shared;
use crate::types::command::{KeyWrite, Write};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::http::{
    CONTENT_BYTES, CONTENT_JSON, CONTENT_TEXT, GetBody, HEADER_EXPIRES, HEADER_INDEX, HEADER_LAG,
    HEADER_TS, WriteBody,
};
use crate::types::item::{Item, Version};
use crate::types::kv::{Consistency, GroupIndex, KvReply, KvRequest, Read, Written};
use crate::types::limits::DEADLINE_MARGIN;
use crate::types::once::Once;
use crate::types::value::{Value, ValueKind};

/// `PUT /kv`.
pub(super) async fn put<K: Kv>(State(shared): State<Arc<Shared<K>>>, request: Request) -> Response {
    try_put(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Write))
}

async fn try_put<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let query = Query::parse(request.uri(), accepted::LASTING)?;
    let (key, deadline, ttl_ms) = (query.key()?, query.deadline()?, query.ttl_ms()?);
    let condition = condition(request.headers())?;
    let once = idempotency_key(request.headers())?.map(Once::Key);
    let kind = value_kind(request.headers())?;
    let _place = shared.admit()?;
    let body = request.into_body();
    let held = body::read(body, shared.max_value_bytes, &shared.body_budget, deadline).await?;
    let value = Value::new(kind, held.data)?;
    let put = match ttl_ms {
        None => Write::Put { value },
        Some(ttl_ms) => Write::PutFor { value, ttl_ms },
    };
    let put = KeyWrite { key, condition, write: put };
    let request = KvRequest::Write { write: put, once };
    let written = write(&*shared.face, request, deadline).await?;
    drop(held.permit);
    Ok(has_value(&written))
}

/// What there is after a put or a touch.
fn has_value(written: &Written) -> Response {
    let mut response = json(StatusCode::OK, &write_body(written, None));
    set_index(response.headers_mut(), &written.at);
    set_etag(response.headers_mut(), written.version);
    response
}

/// `POST /kv/touch`.
pub(super) async fn touch<K: Kv>(
    State(shared): State<Arc<Shared<K>>>,
    request: Request,
) -> Response {
    try_touch(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Write))
}

/// `POST /kv/incr`.
pub(super) async fn incr<K: Kv>(
    State(shared): State<Arc<Shared<K>>>,
    request: Request,
) -> Response {
    try_incr(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Write))
}

async fn try_incr<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let query = Query::parse(request.uri(), accepted::INCR)?;
    let (key, deadline, by) = (query.key()?, query.deadline()?, query.by()?);
    let condition = condition(request.headers())?;
    let once = idempotency_key(request.headers())?.map(Once::Key);
    let add = KeyWrite { key, condition, write: Write::Add { by } };
    let request = KvRequest::Write { write: add, once };
    let _place = shared.admit()?;
    let written = write(&*shared.face, request, deadline).await?;
    Ok(has_value(&written))
}

async fn try_touch<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let query = Query::parse(request.uri(), accepted::LASTING)?;
    let (key, deadline, ttl_ms) = (query.key()?, query.deadline()?, query.new_ttl_ms()?);
    let condition = condition(request.headers())?;
    let once = idempotency_key(request.headers())?.map(Once::Key);
    let touch = KeyWrite { key, condition, write: Write::Touch { ttl_ms } };
    let request = KvRequest::Write { write: touch, once };
    let _place = shared.admit()?;
    let written = write(&*shared.face, request, deadline).await?;
    Ok(has_value(&written))
}

/// `DELETE /kv`.
pub(super) async fn delete<K: Kv>(
    State(shared): State<Arc<Shared<K>>>,
    request: Request,
) -> Response {
    try_delete(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Write))
}

async fn try_delete<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let query = Query::parse(request.uri(), accepted::ONE_KEY)?;
    let (key, deadline) = (query.key()?, query.deadline()?);
    let condition = condition(request.headers())?;
    let once = idempotency_key(request.headers())?.map(Once::Key);
    let delete = KeyWrite { key, condition, write: Write::Delete };
    let request = KvRequest::Write { write: delete, once };
    let _place = shared.admit()?;
    let written = write(&*shared.face, request, deadline).await?;
    let mut response = json(StatusCode::OK, &write_body(&written, Some(written.existed)));
    set_index(response.headers_mut(), &written.at);
    Ok(response)
}

/// `GET /kv`; the router makes it `HEAD` too.
pub(super) async fn get<K: Kv>(State(shared): State<Arc<Shared<K>>>, request: Request) -> Response {
    try_get(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Read))
}

async fn try_get<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let query = Query::parse(request.uri(), accepted::GET_KV)?;
    let (key, deadline) = (query.key()?, query.deadline()?);
    let (raw, consistency) = (query.raw()?, query.consistency()?);
    let (unless, at_least) = (unless(request.headers())?, at_least(request.headers())?);
    let _place = shared.admit()?;
    let read = read(&*shared.face, KvRequest::Get { key, consistency, at_least }, deadline).await?;
    let has_it = |version| unless.as_ref().is_some_and(|held| held.holds(Some(version)));
    let mut response = match &read.item {
        Some(item) if has_it(item.version) => not_modified(),
        None => plain(StatusCode::NOT_FOUND, CONTENT_JSON, GetBody::NOT_FOUND),
        Some(item) if raw => raw_value(item),
        Some(item) => plain(StatusCode::OK, CONTENT_JSON, GetBody::render(item)),
    };
    let headers = response.headers_mut();
    set_index(headers, &read.at);
    if let Some(item) = &read.item {
        set_etag(headers, item.version);
    }
    if consistency == Consistency::Stale {
        let lag = read.lag_ms.map_or_else(|| "unknown".to_owned(), |lag_ms| lag_ms.to_string());
        set(headers, HeaderName::from_static(HEADER_LAG), lag);
    }
    Ok(response)
}

async fn write<K: Kv>(kv: &K, request: KvRequest, deadline: Deadline) -> Result<Written, Error> {
    match call(kv, request, deadline).await? {
        KvReply::Written(written) => Ok(written),
        KvReply::Read(_) | KvReply::Txn(_) => {
            Err(Error::outcome_unknown("the store answered a write with something else"))
        }
    }
}

async fn read<K: Kv>(kv: &K, request: KvRequest, deadline: Deadline) -> Result<Read, Error> {
    match call(kv, request, deadline).await? {
        KvReply::Read(read) => Ok(read),
        KvReply::Written(_) | KvReply::Txn(_) => {
            Err(Error::unavailable("the store answered a read with something else"))
        }
    }
}

/// Asks the store, and keeps the deadline even if the store does not.
async fn call<K: Kv>(kv: &K, request: KvRequest, deadline: Deadline) -> Result<KvReply, Error> {
    if deadline.has_passed() {
        return Err(Error::unavailable("the time was over before the request could be tried"));
    }
    let writes = request.is_write();
    let answer = kv.call(request, deadline.earlier_by(DEADLINE_MARGIN));
    let answered = timeout_at(deadline.instant().into(), answer).await;
    answered.unwrap_or_else(|_| {
        let late = "no answer before the deadline";
        Err(if writes { Error::outcome_unknown(late) } else { Error::unavailable(late) })
    })
}

fn write_body(written: &Written, existed: Option<bool>) -> WriteBody {
    WriteBody {
        ok: true,
        acks: written.acks,
        quorum: written.quorum,
        ts: written.ts,
        version: written.version,
        expires: written.expires,
        value: written.value,
        existed,
        index: None,
    }
}

/// The bare value with its content type, which a browser must not guess anew.
fn raw_value(item: &Item) -> Response {
    let content_type = match item.value.kind {
        ValueKind::Text => CONTENT_TEXT,
        ValueKind::Json => CONTENT_JSON,
        ValueKind::Bytes => CONTENT_BYTES,
    };
    let mut response = plain(StatusCode::OK, content_type, item.value.data.clone());
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set(headers, HeaderName::from_static(HEADER_TS), item.ts.to_string());
    if let Some(expires) = item.expires.at() {
        set(headers, HeaderName::from_static(HEADER_EXPIRES), expires.to_string());
    }
    response
}

fn set_index(headers: &mut HeaderMap, at: &GroupIndex) {
    set(headers, HeaderName::from_static(HEADER_INDEX), at.to_string());
}

fn set_etag(headers: &mut HeaderMap, version: Version) {
    set(headers, ETAG, format!("\"{version}\""));
}

/// Sets a header; text that no header can hold (a group's name with a line break, from a peer
/// that did not check it) is left out.
fn set(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
        headers.insert(name, value);
    }
}
