//! `GET /watch`: changes of keys as server-sent events (HTML standard, §9.2), over any [`Kv`].
//!
//! A change is one event, whose `id:` is where to resume behind it; so is an `id:` alone, which comes from
//! time to time and moves nothing but that. A watch that ends says why in a comment, and its client
//! comes again with the last `id:` it has seen.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use crate::api::Kv;
use crate::api::accepted::{self, KEY, PREFIX, SINCE};
use crate::api::error::{About, plain, refuse};
use crate::api::extract::{Query, invalid};
use crate::api::headers::{positions, unconditional};
use crate::api::keys::set_index;
use crate::api::routes::Shared;
use crate::types::error::Error;
use crate::types::http::{CONTENT_EVENTS, HEADER_LAST_EVENT_ID, ItemBody};
use crate::types::limits::{DEADLINE_MARGIN, GROUPS_MAX, WATCH_SHARED_BYTES_MIN};
use crate::types::scan::Listed;
use crate::types::watch::{Change, Event, Filter, Resume, Since, Watch};
use crate::watch::{News, Watching};

/// `GET /watch`.
pub(super) async fn watch<K: Kv>(
    State(shared): State<Arc<Shared<K>>>,
    request: Request,
) -> Response {
    try_watch(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Read))
}

async fn try_watch<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let query = Query::parse(request.uri(), accepted::WATCH)?;
    unconditional(request.headers())?;
    let deadline = query.deadline()?;
    let watch = Watch { filter: filter(&query)?, since: since(&query, request.headers())? };
    let place = shared.admit_watch()?;
    let late = Err(Error::unavailable("no answer before the deadline"));
    let watching = shared.face.watch(watch, deadline.earlier_by(DEADLINE_MARGIN));
    let watching = timeout_at(deadline.instant().into(), watching).await.unwrap_or(late)?;
    let at = watching.positions();
    let body = if request.method() == Method::HEAD {
        Body::empty()
    } else {
        body(Told { watching, stopping: shared.stopping.clone(), _place: place })
    };
    let mut response = plain(StatusCode::OK, CONTENT_EVENTS, body);
    set_index(response.headers_mut(), &at);
    Ok(response)
}

/// Which keys: one, or those with a prefix, which may be all.
fn filter(query: &Query<'_>) -> Result<Filter, Error> {
    match (query.has(KEY), query.has(PREFIX)) {
        (true, false) => Ok(Filter::Key(query.key()?)),
        (false, true) => Ok(Filter::Prefix(query.bound(PREFIX)?.to_owned())),
        (true, true) => Err(invalid(PREFIX, "not together with key")),
        (false, false) => {
            Err(invalid(PREFIX, "required, or key; an empty prefix watches all keys"))
        }
    }
}

/// From where on. A client that comes again by itself says so in the header, whatever its first query was.
fn since(query: &Query<'_>, headers: &HeaderMap) -> Result<Option<Since>, Error> {
    let (name, text) = match headers.get(HEADER_LAST_EVENT_ID) {
        Some(id) => (HEADER_LAST_EVENT_ID, id.to_str().unwrap_or("?")),
        None => (SINCE, query.since()?.unwrap_or_default()),
    };
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(resume) = Resume::parse(text.as_bytes()) {
        return Ok(Some(Since::Resume(resume)));
    }
    match positions(name, text, GROUPS_MAX) {
        Ok(at) => Ok(Some(Since::Indexes(at))),
        Err(_) => {
            Err(invalid(name, "neither an id of a watch nor <group>:<index>, as in x-sage-index"))
        }
    }
}

/// A watch that is told to a client.
struct Told {
    watching: Watching,
    stopping: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// The events, as the client takes them.
fn body(told: Told) -> Body {
    let first = format!("id: {}\n\n", told.watching.resume().text());
    let frames = stream::unfold((vec![Bytes::from(first)], Some(told)), async |(frames, told)| {
        if !frames.is_empty() {
            return Some((frames, (Vec::new(), told)));
        }
        let mut told = told?;
        let news = tokio::select! {
            biased;
            () = told.stopping.cancelled() => Err("the server is stopping".to_owned()),
            news = told.watching.next() => news,
        };
        Some(match news {
            Ok(news) => (render(&news), (Vec::new(), Some(told))),
            Err(why) => (vec![format!(": {why}\n\n").into()], (Vec::new(), None)),
        })
    });
    Body::from_stream(frames.flat_map(|frames| stream::iter(frames).map(Ok::<_, Infallible>)))
}

/// One event. A long one is put in its form once, and then shared by all connections that send it.
fn render(news: &News) -> Vec<Bytes> {
    match news {
        News::Progress(resume) => vec![format!("id: {}\n\n", resume.text()).into()],
        News::Event { event, resume } => {
            let head = format!("id: {}\nevent: {}\n", resume.text(), event.change.name());
            if event.bytes() >= WATCH_SHARED_BYTES_MIN {
                return vec![head.into(), event.form(data)];
            }
            let mut text = head.into_bytes();
            text.extend_from_slice(&data(event));
            vec![text.into()]
        }
    }
}

/// Its data, and its end. It has no line break: JSON of ours has none, and that of a client loses them, which
/// stand between its parts only.
fn data(event: &Event) -> Bytes {
    let mut text = b"data: ".to_vec();
    ItemBody::render(&listed(event), &mut text);
    for byte in &mut text {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.extend_from_slice(b"\n\n");
    text.into()
}

/// The key as it is behind the change.
fn listed(event: &Event) -> Listed {
    let (value, expires) = match &event.change {
        Change::Put { value, expires } => (Some(value.clone()), *expires),
        Change::Delete | Change::Expire => (None, None),
    };
    Listed { key: event.key.clone(), value, ts: event.ts, version: event.version, expires }
}
