//! One HTTP answer, read within bounds and taken apart.
//!
//! Decides which answers are ours: a body that is none of our JSON forms is never taken for a
//! refusal, because a proxy's error page says nothing about a write.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap};
use serde::de::DeserializeOwned;

use crate::client::error::ClientError;
use crate::types::http::{
    CONTENT_BYTES, CONTENT_JSON, CONTENT_TEXT, ErrorBody, GetBody, HEADER_EXPIRES, HEADER_INDEX,
    HEADER_TS, WriteBody,
};
use crate::types::item::Item;
use crate::types::kv::GroupIndex;
use crate::types::limits::ANSWER_BYTES_MAX;
use crate::types::value::{Value, ValueKind};

/// A whole answer.
#[expect(clippy::struct_excessive_bools, reason = "two independent facts, each with its name")]
#[derive(Debug)]
pub(super) struct Answer {
    url: String,
    write: bool,
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    /// Whether an earlier attempt of unknown fate was made: what this one says of a write that was not
    /// applied then speaks of itself only.
    pub(super) after_lost: bool,
}

impl Answer {
    /// Reads the body.
    pub(super) async fn read(
        mut response: reqwest::Response,
        url: &str,
        write: bool,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        let lost = |error| ClientError::lost(error, url, write, timeout);
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if chunk.len() > ANSWER_BYTES_MAX - body.len() {
                let reason = format!("more than {ANSWER_BYTES_MAX} bytes");
                return Err(ClientError::protocol(url, write, reason));
            }
            body.extend_from_slice(&chunk);
        }
        let (url, body) = (url.to_owned(), body.into());
        Ok(Self { url, write, status, headers, body, after_lost: false })
    }

    /// The answer if it is a result: a 2xx, or the 404 of a key that is not there.
    pub(super) fn accepted(self) -> Result<Self, ClientError> {
        if matches!(self.status, 200..=299) || self.says_not_found() {
            return Ok(self);
        }
        Err(match serde_json::from_slice::<ErrorBody>(&self.body) {
            Ok(body) => ClientError::api(self.status, body, self.write),
            Err(_) => self.odd(format!("status {} without our JSON", self.status)),
        })
    }

    /// The JSON body of a result.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            match serde_json::from_slice(&self.body) {
                Ok(refusal) => ClientError::api(self.status, refusal, self.write),
                Err(_) => self.odd(format!("status {}, {error}", self.status)),
            }
        })
    }

    /// What a `GET` with `raw=true` found.
    pub(super) fn item(self) -> Result<Option<Item>, ClientError> {
        if self.status == 404 {
            return Ok(None);
        }
        let kind = match self.header(CONTENT_TYPE.as_str()) {
            Some(CONTENT_TEXT) => ValueKind::Text,
            Some(CONTENT_JSON) => ValueKind::Json,
            Some(CONTENT_BYTES) => ValueKind::Bytes,
            _ => return Err(self.odd("a value of no known type")),
        };
        let version = self.header(ETAG.as_str()).map(|etag| etag.trim_matches('"').parse());
        let ts = self.header(HEADER_TS).map(str::parse);
        let (Some(Ok(version)), Some(Ok(ts))) = (version, ts) else {
            return Err(self.odd("a value without its version or time"));
        };
        let expires = self.header(HEADER_EXPIRES).map(str::parse).transpose();
        let Ok(expires) = expires else {
            return Err(self.odd("a value with an odd time of expiry"));
        };
        match Value::new(kind, self.body.clone()) {
            Ok(value) => Ok(Some(Item { value, ts, version, expires: expires.into() })),
            Err(error) => Err(self.odd(error.to_string())),
        }
    }

    /// What a write came to.
    pub(super) fn written(&self) -> Result<WriteBody, ClientError> {
        let mut body: WriteBody = self.body()?;
        body.index = self.header(HEADER_INDEX).map(str::to_owned);
        Ok(body)
    }

    /// The states that it tells of.
    pub(super) fn positions(&self) -> impl Iterator<Item = GroupIndex> + '_ {
        let positions = self.header(HEADER_INDEX).unwrap_or_default().split(',');
        positions.filter_map(|position| position.trim().parse().ok())
    }

    fn says_not_found(&self) -> bool {
        let body = serde_json::from_slice::<GetBody>(&self.body);
        self.status == 404 && body.is_ok_and(|body| !body.found)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// It is none that a server of ours gives.
    pub(super) fn odd(&self, reason: impl Into<String>) -> ClientError {
        ClientError::protocol(&self.url, self.write, reason)
    }
}
