//! Sends one operation to a coordinator and says what its answer means, in the words of the HTTP
//! API: only `504` and a connection that broke leave the fate of a write open.

use std::time::Duration;

use reqwest::StatusCode;
use sagedb::types::http::{ErrorBody, GetBody, PATH_KV};

/// Longer than any deadline of the server.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// It was acknowledged.
    Ok,
    /// It has not and never will take effect.
    Failed(String),
    /// Nobody knows.
    Unknown(String),
}

/// One client of one coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// A client with connections of its own.
    pub(crate) fn new(url: &str) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self { http, url: format!("{url}{PATH_KV}") })
    }

    /// Writes a text.
    pub(crate) async fn write(&self, key: &str, value: String) -> Written {
        let request = self.http.put(&self.url).query(&[("key", key)]).body(value);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Written::Failed(format!("{error:?}")),
            Err(error) => return Written::Unknown(format!("{error:?}")),
        };
        let status = answer.status();
        if status.is_success() {
            return Written::Ok;
        }
        // A status alone decides: its body may be cut off.
        let reason = format!("{status} {}", answer.text().await.unwrap_or_default());
        if status == StatusCode::GATEWAY_TIMEOUT {
            return Written::Unknown(reason);
        }
        Written::Failed(reason)
    }

    /// Reads a key, linearizable; what is not a text comes back as its JSON.
    pub(crate) async fn read(&self, key: &str) -> Result<Option<String>, String> {
        let answer = self.http.get(&self.url).query(&[("key", key)]).send().await;
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| format!("{error:?}"))?;
        if serde_json::from_slice::<ErrorBody>(&body).is_ok() {
            return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
        }
        let read: GetBody = serde_json::from_slice(&body)
            .map_err(|error| format!("{status}: {error}: {}", String::from_utf8_lossy(&body)))?;
        match (read.found, read.value) {
            (false, None) => Ok(None),
            (true, Some(json)) => {
                let text = serde_json::from_str(json.get());
                Ok(Some(text.unwrap_or_else(|_| json.get().to_string())))
            }
            (true, None) | (false, Some(_)) => Err(format!("{status}: found and value disagree")),
        }
    }
}
