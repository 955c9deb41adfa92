//! Sends one operation to a server and says what its answer means, in the words of the HTTP API:
//! only `504` and a connection that broke leave the fate of a write open. What the API does not
//! allow is a broken promise of its own: another status, a body that says something else than its
//! status, no answer long after the deadline.

pub(crate) mod txn;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use reqwest::{RequestBuilder, StatusCode};
use sagedb::types::error::WriteOutcome;
use sagedb::types::http::{
    ErrorBody, GetBody, HEADER_INDEX, HEADER_LAG, PATH_KV, PATH_TXN, WriteBody,
};

/// Longer than anybody is kept from answering: a server that takes so much longer than it was given
/// hangs.
const HANGS: Duration = Duration::from_secs(13);

/// A server that clients ask.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// As the history names it.
    pub(crate) name: Arc<str>,
    /// Where it is.
    pub(crate) url: Arc<str>,
    /// Its `/kv`.
    kv: String,
    /// Its `/txn`.
    txn: String,
}

impl Server {
    /// The server at `url`.
    pub(crate) fn new(name: &str, url: &str) -> Self {
        let (kv, txn) = (format!("{url}{PATH_KV}"), format!("{url}{PATH_TXN}"));
        Self { name: name.into(), url: url.into(), kv, txn }
    }
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Condition {
    /// Nothing.
    Always,
    /// The key has this version; 0 if it has no value.
    Version(u64),
}

/// What is written.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A text.
    Text(String),
    /// A list of numbers, as JSON.
    List(Vec<u64>),
    /// The key is removed.
    Nothing,
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// It was acknowledged.
    Ok(Acknowledged),
    /// It has not and never will take effect.
    Failed(String),
    /// Nobody knows.
    Unknown(String),
    /// Nobody knows, and no server may answer like that.
    Bad(String),
}

/// What an acknowledgement says; nothing, if it was cut off after its status.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// The key's version.
    pub(crate) version: Option<u64>,
    /// Of a delete, whether there was something to remove.
    pub(crate) existed: Option<bool>,
    /// The group that it was written to.
    pub(crate) group: Option<Arc<str>>,
}

/// How fresh a read shall be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freshness {
    /// As fresh as can be.
    Linearizable,
    /// As the leader's lease allows.
    Lease,
    /// As the asked replica has it.
    Stale,
}

/// What a read returned.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The value's JSON; `None` for no value.
    pub(crate) json: Option<String>,
    /// The key's version.
    pub(crate) version: Option<u64>,
    /// How old this may be, in milliseconds; `None` where it does not say.
    pub(crate) lag_ms: Option<u64>,
    /// The group that it was read from.
    pub(crate) group: Option<Arc<str>>,
}

/// Why a read returned nothing.
#[derive(Debug)]
pub(crate) enum Unread {
    /// Nobody could or would say.
    Refused(String),
    /// No server may answer like that.
    Bad(String),
}

/// One client with connections of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// What each request asks the server to keep to, as the API writes it.
    deadline: Arc<str>,
}

impl Client {
    /// A client that has no connection yet, whose requests have so much time.
    pub(crate) fn new(deadline: Duration) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(deadline + HANGS).build()?;
        Ok(Self { http, deadline: format!("{}ms", deadline.as_millis()).into() })
    }

    /// Writes or deletes.
    pub(crate) async fn write(
        &self,
        server: &Server,
        key: &str,
        body: &Body,
        condition: Condition,
    ) -> Written {
        let request = match body {
            Body::Text(text) => self.http.put(&server.kv).body(text.clone()),
            Body::List(list) => {
                let json = serde_json::to_string(list).expect("numbers have a JSON form");
                self.http.put(&server.kv).header(CONTENT_TYPE, "application/json").body(json)
            }
            Body::Nothing => self.http.delete(&server.kv),
        };
        let request = match condition {
            Condition::Always => request,
            Condition::Version(0) => request.header(IF_NONE_MATCH, "*"),
            Condition::Version(version) => request.header(IF_MATCH, format!("\"{version}\"")),
        };
        let deletes = matches!(body, Body::Nothing);
        written(request.query(&[("key", key), ("timeout", &self.deadline)]), deletes).await
    }

    /// Reads a key.
    pub(crate) async fn read(
        &self,
        server: &Server,
        key: &str,
        freshness: Freshness,
    ) -> Result<Found, Unread> {
        let consistency = match freshness {
            Freshness::Linearizable => "linearizable",
            Freshness::Lease => "lease",
            Freshness::Stale => "stale",
        };
        let query = [("key", key), ("consistency", consistency), ("timeout", &self.deadline)];
        let broken = |error: reqwest::Error| {
            let reason = format!("{error:?}");
            if error.is_timeout() { Unread::Bad(reason) } else { Unread::Refused(reason) }
        };
        let answer = self.http.get(&server.kv).query(&query).send().await.map_err(broken)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(broken)?;
        found(status, &headers, &body)
    }
}

/// What a whole answer to a read says.
fn found(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Found, Unread> {
    let text = format!("{status} {}", String::from_utf8_lossy(body));
    if let Ok(error) = serde_json::from_slice::<ErrorBody>(body) {
        let allowed = may_refuse(status) && error.outcome.is_none();
        return Err(if allowed { Unread::Refused(text) } else { Unread::Bad(text) });
    }
    let read: GetBody = serde_json::from_slice(body)
        .map_err(|error| Unread::Bad(format!("not the body of a read: {error}: {text}")))?;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let lag_ms = header(HEADER_LAG).and_then(|lag| lag.parse().ok());
    let group = group(headers);
    match (status, read.found, read.value) {
        _ if group.is_none() => Err(Unread::Bad(format!("no {HEADER_INDEX}: {text}"))),
        (StatusCode::NOT_FOUND, false, None) => Ok(Found { lag_ms, group, ..Found::default() }),
        (StatusCode::OK, true, Some(json)) if read.version.is_some() => {
            Ok(Found { json: Some(json.get().into()), version: read.version, lag_ms, group })
        }
        _ => Err(Unread::Bad(format!("status and body disagree: {text}"))),
    }
}

async fn written(request: RequestBuilder, deletes: bool) -> Written {
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return Written::Failed(format!("{error:?}")),
        Err(error) if error.is_timeout() => return Written::Bad(format!("{error:?}")),
        Err(error) => return Written::Unknown(format!("{error:?}")),
    };
    let (status, headers) = (answer.status(), answer.headers().clone());
    // A status alone decides, if its body is cut off.
    match answer.bytes().await {
        Ok(body) => answered((status, &headers), &body, deletes),
        Err(_) if status.is_success() => {
            Written::Ok(Acknowledged { group: group(&headers), ..Acknowledged::default() })
        }
        Err(error) if status == StatusCode::GATEWAY_TIMEOUT => {
            Written::Unknown(format!("{status} {error:?}"))
        }
        Err(error) => Written::Failed(format!("{status} {error:?}")),
    }
}

/// What a whole answer to a write says.
fn answered((status, headers): (StatusCode, &HeaderMap), body: &[u8], deletes: bool) -> Written {
    let text = format!("{status} {}", String::from_utf8_lossy(body));
    if status == StatusCode::OK {
        let Ok(ok) = serde_json::from_slice::<WriteBody>(body) else { return Written::Bad(text) };
        let group = group(headers);
        if !ok.ok || ok.acks < ok.quorum || ok.existed.is_some() != deletes || group.is_none() {
            return Written::Bad(text);
        }
        return Written::Ok(Acknowledged { version: Some(ok.version), existed: ok.existed, group });
    }
    let Ok(error) = serde_json::from_slice::<ErrorBody>(body) else { return Written::Bad(text) };
    match error.outcome {
        Some(WriteOutcome::Unknown) if status == StatusCode::GATEWAY_TIMEOUT => {
            Written::Unknown(text)
        }
        Some(WriteOutcome::NotApplied) if may_refuse(status) => Written::Failed(text),
        _ => Written::Bad(text),
    }
}

/// Whether a server may refuse what is asked here like that: nothing is wrong with the requests.
fn may_refuse(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PRECONDITION_FAILED
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::INSUFFICIENT_STORAGE
    )
}

/// The group that an answer says that it comes from.
fn group(headers: &HeaderMap) -> Option<Arc<str>> {
    Some(position(headers)?.0.into())
}

/// Where in the group's log.
fn index(headers: &HeaderMap) -> Option<u64> {
    Some(position(headers)?.1)
}

fn position(headers: &HeaderMap) -> Option<(&str, u64)> {
    let (group, index) = headers.get(HEADER_INDEX)?.to_str().ok()?.rsplit_once(':')?;
    Some((group, index.parse().ok()?))
}

#[cfg(test)]
mod tests;
