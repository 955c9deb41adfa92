//! A client that says exactly what was sent and what came back, errors included.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;

/// Longer than any deadline of the servers: when this passes, a request hung.
const HANG: Duration = Duration::from_secs(20);
/// What `curl -d` says its body is.
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
/// JSON.
pub(crate) const JSON: &str = "application/json";
/// Bytes.
pub(crate) const BYTES: &str = "application/octet-stream";

/// One answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; every answer but a raw value is.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// A header's text; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Fails with the whole answer unless it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// A client with connections of its own.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) client: reqwest::Client,
}

impl Http {
    pub(crate) fn new() -> Self {
        let builder = reqwest::Client::builder().no_proxy().timeout(HANG);
        Self { client: builder.build().expect("a client needs nothing") }
    }

    /// Sends one request to `/kv` or another path; fails only if no whole answer came back.
    pub(crate) async fn send(
        &self,
        method: Method,
        (url, path): (&str, &str),
        query: &[(&str, &str)],
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, format!("{url}{path}")).query(query);
        if let Some((kind, bytes)) = body {
            request = request.header(CONTENT_TYPE, kind).body(bytes);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        Ok(Answer { status, headers, body: answer.bytes().await?.to_vec() })
    }

    /// `PUT /kv` of a text, as `curl -d` sends it.
    pub(crate) async fn put(&self, url: &str, key: &str, value: &str) -> Answer {
        let body = Some((FORM, value.as_bytes().to_vec()));
        self.send(Method::PUT, (url, "/kv"), &[("key", key)], body).await.expect("an answer")
    }

    /// `GET /kv`.
    pub(crate) async fn get(&self, url: &str, key: &str) -> Answer {
        self.get_with(url, &[("key", key)]).await
    }

    /// `GET /kv` with parameters.
    pub(crate) async fn get_with(&self, url: &str, query: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, (url, "/kv"), query, None).await.expect("an answer")
    }

    /// `DELETE /kv`.
    pub(crate) async fn delete(&self, url: &str, key: &str) -> Answer {
        let answer = self.send(Method::DELETE, (url, "/kv"), &[("key", key)], None).await;
        answer.expect("an answer")
    }

    /// `GET` of any path.
    pub(crate) async fn path(
        &self,
        url: &str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Answer, reqwest::Error> {
        self.send(Method::GET, (url, path), query, None).await
    }

    /// Whether the server says that requests can succeed, and if not, why.
    pub(crate) async fn ready(&self, url: &str) -> Result<(), String> {
        match self.path(url, "/ready", &[]).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{url}: {} {}", answer.status, answer.text())),
            Err(error) => Err(format!("{url}: {error:?}")),
        }
    }
}
