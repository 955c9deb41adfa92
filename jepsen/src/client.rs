//! Sends one operation to a server and says what its answer means, in the words of the HTTP API:
//! only `504` and a connection that broke leave the fate of a write open.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use reqwest::{RequestBuilder, StatusCode};
use sagedb::types::http::{ErrorBody, GetBody, HEADER_LAG, PATH_KV, WriteBody};

/// What each request asks the server to keep to.
const DEADLINE: &str = "2s";
/// Longer than that: a server that takes so long hangs.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A server that clients ask.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// As the history names it.
    pub(crate) name: Arc<str>,
    /// Its `/kv`.
    kv: String,
}

impl Server {
    /// The server at `url`.
    pub(crate) fn new(name: &str, url: &str) -> Self {
        Self { name: name.into(), kv: format!("{url}{PATH_KV}") }
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
    /// It was acknowledged, with this version.
    Ok(Option<u64>),
    /// It has not and never will take effect.
    Failed(String),
    /// Nobody knows.
    Unknown(String),
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
}

/// One client with connections of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
}

impl Client {
    /// A client that has no connection yet.
    pub(crate) fn new() -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self { http })
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
        written(request.query(&[("key", key), ("timeout", DEADLINE)])).await
    }

    /// Reads a key.
    pub(crate) async fn read(
        &self,
        server: &Server,
        key: &str,
        freshness: Freshness,
    ) -> Result<Found, String> {
        let consistency = match freshness {
            Freshness::Linearizable => "linearizable",
            Freshness::Lease => "lease",
            Freshness::Stale => "stale",
        };
        let query = [("key", key), ("consistency", consistency), ("timeout", DEADLINE)];
        let answer = self.http.get(&server.kv).query(&query).send().await;
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let status = answer.status();
        let lag = answer.headers().get(HEADER_LAG).and_then(|lag| lag.to_str().ok());
        let lag_ms = lag.and_then(|lag| lag.parse().ok());
        let body = answer.bytes().await.map_err(|error| format!("{error:?}"))?;
        if serde_json::from_slice::<ErrorBody>(&body).is_ok() {
            return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
        }
        let read: GetBody = serde_json::from_slice(&body)
            .map_err(|error| format!("{status}: {error}: {}", String::from_utf8_lossy(&body)))?;
        match (read.found, read.value) {
            (false, None) => Ok(Found { lag_ms, ..Found::default() }),
            (true, Some(json)) => {
                Ok(Found { json: Some(json.get().into()), version: read.version, lag_ms })
            }
            (true, None) | (false, Some(_)) => Err(format!("{status}: found and value disagree")),
        }
    }
}

async fn written(request: RequestBuilder) -> Written {
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return Written::Failed(format!("{error:?}")),
        Err(error) => return Written::Unknown(format!("{error:?}")),
    };
    let status = answer.status();
    // A status alone decides: its body may be cut off.
    let body = answer.bytes().await.unwrap_or_default();
    if status.is_success() {
        return Written::Ok(serde_json::from_slice::<WriteBody>(&body).ok().map(|ok| ok.version));
    }
    let reason = format!("{status} {}", String::from_utf8_lossy(&body));
    if status == StatusCode::GATEWAY_TIMEOUT {
        return Written::Unknown(reason);
    }
    Written::Failed(reason)
}
