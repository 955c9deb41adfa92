//! `GET /keys` and `GET /count`: the keys of a span, a page at a time, over any [`Kv`]; and `DELETE /keys`.
//!
//! Where a page ended is in its cursor and nowhere else; a cursor is good for the query that it came
//! with, at any process. What is kept of the request is bounded: so many scans under way, and one
//! page of each.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use tokio::time::timeout_at;

use crate::api::Kv;
use crate::api::accepted::{self, END, KEYS_ONLY, PREFIX, REVERSE, START};
use crate::api::error::{About, json, plain, refuse};
use crate::api::extract::Query;
use crate::api::headers::unconditional;
use crate::api::routes::Shared;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::http::{
    CONTENT_JSON, CountBody, DeletedBody, HEADER_INDEX, HEADER_LAG, PageBody,
};
use crate::types::kv::{Consistency, GroupIndex};
use crate::types::limits::{DEADLINE_MARGIN, INDEX_HEADER_BYTES_MAX, SCAN_PAGE_BYTES_MAX};
use crate::types::scan::{Cursor, Deleted, Found, Listed, Scan, Scanned, Span, Want, query_hash};

/// `GET /keys`.
pub(super) async fn list<K: Kv>(
    State(shared): State<Arc<Shared<K>>>,
    request: Request,
) -> Response {
    try_list(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Read))
}

async fn try_list<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let query = Query::parse(request.uri(), accepted::GET_KEYS)?;
    unconditional(request.headers())?;
    let (deadline, consistency, limit) = (query.deadline()?, query.consistency()?, query.limit()?);
    let (reverse, keys_only) = (query.flag(REVERSE)?, query.flag(KEYS_ONLY)?);
    let (prefix, start, end) = (query.bound(PREFIX)?, query.bound(START)?, query.bound(END)?);
    let hash = query_hash(&(prefix, start, end, reverse, keys_only));
    let mut span = Span::of_prefix(prefix.as_bytes()).within(Span::new(start, end));
    if let Some(last) = query.cursor(hash)? {
        span = span.behind(&last, reverse);
    }
    let bytes = u32::try_from(SCAN_PAGE_BYTES_MAX).unwrap_or(u32::MAX);
    let want = Want::Page { limit, bytes, reverse, keys_only };
    let scanned = ask(shared, Scan { span, want, consistency }, deadline).await?;
    let Found::Page { items, more } = &scanned.found else {
        return Err(Error::unavailable("the store answered a scan with a count"));
    };
    let last = items.last().filter(|_| *more);
    let cursor = last.map(|Listed { key, .. }| Cursor::new(hash, key.clone()).text());
    let mut response =
        plain(StatusCode::OK, CONTENT_JSON, PageBody::render(items, cursor.as_deref()));
    describe(response.headers_mut(), &scanned, consistency);
    Ok(response)
}

/// `GET /count`.
pub(super) async fn count<K: Kv>(
    State(shared): State<Arc<Shared<K>>>,
    request: Request,
) -> Response {
    try_count(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Read))
}

async fn try_count<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let query = Query::parse(request.uri(), accepted::COUNT)?;
    unconditional(request.headers())?;
    let (deadline, consistency) = (query.deadline()?, query.consistency()?);
    let span = Span::of_prefix(query.bound(PREFIX)?.as_bytes());
    let scanned = ask(shared, Scan { span, want: Want::Count, consistency }, deadline).await?;
    let Found::Count(count) = scanned.found else {
        return Err(Error::unavailable("the store answered a count with a page"));
    };
    let mut response = json(StatusCode::OK, &CountBody { count });
    describe(response.headers_mut(), &scanned, consistency);
    Ok(response)
}

/// `DELETE /keys`.
pub(super) async fn delete<K: Kv>(
    State(shared): State<Arc<Shared<K>>>,
    request: Request,
) -> Response {
    try_delete(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Write))
}

async fn try_delete<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let query = Query::parse(request.uri(), accepted::DELETE_KEYS)?;
    unconditional(request.headers())?;
    let deadline = query.deadline()?;
    let prefix = query.given(PREFIX, "required, so that nobody deletes all keys by accident")?;
    let span = Span::of_prefix(prefix.as_bytes());
    let _place = shared.admit_scan()?;
    let late = Err(Error::outcome_unknown("no answer before the deadline"));
    let answer = shared.face.delete_span(span, deadline.earlier_by(DEADLINE_MARGIN));
    let Deleted { at, keys } =
        timeout_at(deadline.instant().into(), answer).await.unwrap_or(late)?;
    let mut response = json(StatusCode::OK, &DeletedBody { ok: true, deleted: keys });
    set_index(response.headers_mut(), &at);
    Ok(response)
}

/// Asks the store, and keeps the deadline even if the store does not.
async fn ask<K: Kv>(shared: &Shared<K>, scan: Scan, deadline: Deadline) -> Result<Scanned, Error> {
    let _place = shared.admit_scan()?;
    let late = Err(Error::unavailable("no answer before the deadline"));
    let answer = shared.face.scan(scan, deadline.earlier_by(DEADLINE_MARGIN));
    timeout_at(deadline.instant().into(), answer).await.unwrap_or(late)
}

/// Which state of each group was read, unless that is too long for a header, and for stale reads how
/// old the oldest may be.
fn describe(headers: &mut HeaderMap, scanned: &Scanned, consistency: Consistency) {
    set_index(headers, &scanned.at);
    if consistency == Consistency::Stale {
        let lag = scanned.lag_ms.map_or_else(|| "unknown".to_owned(), |ms| ms.to_string());
        set(headers, HEADER_LAG, &lag);
    }
}

/// Which state of each group that is, unless that is too long for a header.
pub(super) fn set_index(headers: &mut HeaderMap, at: &[GroupIndex]) {
    let at: Vec<_> = at.iter().map(GroupIndex::to_string).collect();
    let at = at.join(", ");
    if (1..=INDEX_HEADER_BYTES_MAX).contains(&at.len()) {
        set(headers, HEADER_INDEX, &at);
    }
}

/// Sets a header, unless no header can hold the text.
fn set(headers: &mut HeaderMap, name: &'static str, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
