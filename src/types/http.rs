//! The HTTP face as data: paths, headers and JSON bodies, used by the server and the client alike.
//!
//! What processes say of themselves is in [`status`](crate::types::status), transactions are in
//! [`txn_body`](crate::types::txn_body).

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::types::code::Code;
use crate::types::error::WriteOutcome;
use crate::types::item::{Item, Version};
use crate::types::scan::Listed;
use crate::types::topology::Epoch;
use crate::types::txn_body::given;
use crate::types::value::{Value, ValueKind};

pub use crate::types::status::{
    ClusterBody, GroupBody, MemberStatus, RingStatus, Role, ShardStatus, Unreachable,
};

/// `PUT`, `GET`, `DELETE` of one key.
pub const PATH_KV: &str = "/kv";
/// Numbers for Prometheus.
pub const PATH_METRICS: &str = "/metrics";
/// Another time to live for the value that a key has.
pub const PATH_TOUCH: &str = "/kv/touch";
/// Adds to the integer that a key has.
pub const PATH_INCR: &str = "/kv/incr";
/// A transaction.
pub const PATH_TXN: &str = "/txn";
/// Several operations in one request.
pub const PATH_BATCH: &str = "/batch";
/// The keys of all groups, in order.
pub const PATH_KEYS: &str = "/keys";
/// The changes of keys, as they come.
pub const PATH_WATCH: &str = "/watch";
/// How many keys there are.
pub const PATH_COUNT: &str = "/count";
/// Where a key lives (coordinator).
pub const PATH_ROUTE: &str = "/route";
/// Whether the process serves.
pub const PATH_HEALTH: &str = "/health";
/// Whether requests can succeed.
pub const PATH_READY: &str = "/ready";
/// What a replica knows of itself and its group (shard).
pub const PATH_STATUS: &str = "/status";
/// The seed's name for [`PATH_STATUS`].
pub const PATH_STATS: &str = "/stats";
/// The topology and every replica's state (coordinator).
pub const PATH_CLUSTER: &str = "/cluster";
/// What this process serves, as `OpenAPI`.
pub const PATH_OPENAPI: &str = "/openapi.json";
/// The same for people.
pub const PATH_DOCS: &str = "/docs";
/// Where a connection is upgraded to [`UPGRADE_PROTOCOL`].
pub const PATH_RPC: &str = "/rpc";

/// The protocol named in `Upgrade:`.
pub const UPGRADE_PROTOCOL: &str = "sage-rpc/1";
/// `<group>:<index>` of the state that an answer speaks of.
pub const HEADER_INDEX: &str = "x-sage-index";
/// The name that a client gives a write, so that it may send it again.
pub const HEADER_IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Positions `<group>:<index>` that the state must have reached that is read, with commas.
pub const HEADER_MIN_INDEX: &str = "x-sage-min-index";
/// How old a stale read may be, in milliseconds; `unknown` before a leader was heard.
pub const HEADER_LAG: &str = "x-sage-lag";
/// Where a watch goes on that was there before: the last `id:` of its events (server-sent events, HTML
/// standard).
pub const HEADER_LAST_EVENT_ID: &str = "last-event-id";
/// With `raw=true`, whose body has no room for it: when the value was written, milliseconds since
/// the epoch.
pub const HEADER_TS: &str = "x-sage-ts";
/// Beside [`HEADER_TS`]: when the value is over, milliseconds since the epoch, if it is not for ever.
pub const HEADER_EXPIRES: &str = "x-sage-expires";

/// What `/metrics` comes as.
pub const CONTENT_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// What `/docs` comes as.
pub const CONTENT_HTML: &str = "text/html; charset=utf-8";
/// What a text value is sent and comes back as.
pub const CONTENT_TEXT: &str = "text/plain; charset=utf-8";
/// What a JSON value and every JSON body is sent and comes back as.
pub const CONTENT_JSON: &str = "application/json";
/// What changes come as.
pub const CONTENT_EVENTS: &str = "text/event-stream";
/// What bytes are sent and come back as.
pub const CONTENT_BYTES: &str = "application/octet-stream";

/// Body of a successful `PUT` or `DELETE`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WriteBody {
    /// Always true.
    pub ok: bool,
    /// Voters known to have it on disk.
    pub acks: u32,
    /// Voters that had to.
    pub quorum: u32,
    /// The leader's stamp, milliseconds since the epoch.
    pub ts: u64,
    /// The key's version as of this write.
    pub version: Version,
    /// When the value is over, milliseconds since the epoch, if it is not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// What a counter has come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// On `DELETE`: whether the key had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existed: Option<bool>,
    /// Where it stands in its group's log, `<group>:<index>`: for [`HEADER_MIN_INDEX`]. A server says it in
    /// [`HEADER_INDEX`]; our client puts it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
}

/// Body of a `GET` that found the key. One that did not is `{"found":false}`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GetBody {
    /// Whether there is a value.
    pub found: bool,
    /// The value: any JSON, a JSON string for text, base64 for bytes.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value)]
    pub value: Option<Box<RawValue>>,
    /// `base64` for bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// When it was written, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<u64>,
    /// The key's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// When it is over, milliseconds since the epoch, if it is not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

impl GetBody {
    /// The body of a `GET` that found no value.
    pub const NOT_FOUND: &str = r#"{"found":false}"#;

    /// The JSON of a `GET` that found `item`: as the derived encoding would make it, without
    /// reading the stored JSON again.
    ///
    /// # Panics
    /// Never: text always has a JSON form.
    pub fn render(item: &Item) -> Vec<u8> {
        let data = &item.value.data;
        let mut body = Vec::with_capacity(data.len() + data.len() / 2 + 128);
        body.extend_from_slice(br#"{"found":true,"value":"#);
        render_value(&item.value, &mut body);
        render_times(item.ts, item.version, item.expires.at(), &mut body);
        body
    }
}

/// What stands behind the value.
fn render_times(ts: u64, version: Version, expires: Option<u64>, body: &mut Vec<u8>) {
    write!(body, r#","ts":{ts},"version":{version}"#).expect("a Vec takes all");
    if let Some(expires) = expires {
        write!(body, r#","expires":{expires}"#).expect("a Vec takes all");
    }
    body.push(b'}');
}

/// The value as JSON, and its encoding if it needs one.
fn render_value(value: &Value, body: &mut Vec<u8>) {
    match value.kind {
        ValueKind::Json => body.extend_from_slice(&value.data),
        ValueKind::Text => render_text(&String::from_utf8_lossy(&value.data), body),
        ValueKind::Bytes => {
            body.push(b'"');
            body.extend_from_slice(BASE64_STANDARD.encode(&value.data).as_bytes());
            body.extend_from_slice(br#"","encoding":"base64"#);
            body.push(b'"');
        }
    }
}

fn render_text(text: &str, body: &mut Vec<u8>) {
    serde_json::to_writer(body, text).expect("text has a JSON form");
}

/// One key in the body of `GET /keys`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ItemBody {
    /// The key.
    pub key: String,
    /// As in [`GetBody`]; absent with `keys_only=true`.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value)]
    pub value: Option<Box<RawValue>>,
    /// `base64` for bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// When it was written, milliseconds since the epoch.
    pub ts: u64,
    /// The key's version.
    pub version: Version,
    /// When it is over, milliseconds since the epoch, if it is not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

impl ItemBody {
    /// Appends the JSON of one key: as the derived encoding would make it, without reading the stored
    /// JSON again.
    ///
    /// # Panics
    /// Never: keys always have a JSON form.
    pub fn render(item: &Listed, body: &mut Vec<u8>) {
        body.extend_from_slice(br#"{"key":"#);
        render_text(item.key.as_str(), body);
        if let Some(value) = &item.value {
            body.extend_from_slice(br#","value":"#);
            render_value(value, body);
        }
        render_times(item.ts, item.version, item.expires, body);
    }
}

/// Body of `GET /keys`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PageBody {
    /// The keys, in the order asked for.
    pub items: Vec<ItemBody>,
    /// What the next page is asked for with; `None` after the last one.
    #[schema(required)]
    pub cursor: Option<String>,
}

impl PageBody {
    /// The JSON of a page.
    pub fn render(items: &[Listed], cursor: Option<&str>) -> Vec<u8> {
        let room = items.iter().map(Listed::bytes).sum::<usize>();
        let mut body = Vec::with_capacity(room + room / 8 + 128);
        body.extend_from_slice(br#"{"items":["#);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            ItemBody::render(item, &mut body);
        }
        body.extend_from_slice(br#"],"cursor":"#);
        match cursor {
            Some(cursor) => render_text(cursor, &mut body),
            None => body.extend_from_slice(b"null"),
        }
        body.push(b'}');
        body
    }
}

/// Body of `GET /count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CountBody {
    /// How many keys there are.
    pub count: u64,
}

/// Body of `DELETE /keys`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeletedBody {
    /// Always `true`: what did not work is an error.
    pub ok: bool,
    /// How many keys there were.
    pub deleted: u64,
}

/// Body of every error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// A sentence.
    pub error: String,
    /// What programs match on.
    #[schema(value_type = Code)]
    pub code: String,
    /// On writes: whether it may have taken effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<WriteOutcome>,
    /// With `wrong_shard`: the epoch of the group's claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// With `version_mismatch`: the key's version; absent if the key has no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// With `compacted`: the oldest positions that a watch can begin behind, as in [`HEADER_INDEX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
}

/// Body of `GET /route`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteBody {
    /// The key asked about.
    pub key: String,
    /// The name of the group that owns it.
    pub shard: String,
    /// The leader's URL; another member's while no leader is known.
    pub url: String,
    /// The URLs of all members.
    pub replicas: Vec<String>,
    /// The key's point of the ring, 16 hex digits.
    pub hash: String,
    /// The topology's epoch.
    pub epoch: Epoch,
}

/// Body of `GET /health`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HealthBody {
    /// Always `ok`.
    pub status: String,
    /// `shard` or `coordinator`.
    pub role: String,
    /// The version of the program.
    pub version: String,
}

/// Body of `GET /ready`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReadyBody {
    /// Whether requests can succeed.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::types::key::Key;

    use super::*;
    use crate::types::item::Expiry;

    #[test]
    fn a_rendered_body_is_what_the_derived_one_would_be() {
        let values = [
            Value::text("say \"hi\"\n\u{1} ключ"),
            Value::new(ValueKind::Json, Bytes::from(r#"{"b":1, "a":123456789012345678901}"#))
                .expect("JSON"),
            Value::bytes(&b"\xff\x00"[..]),
            Value::bytes(&b""[..]),
        ];
        for value in values {
            let item = Item { value, ts: 1_755_248_123_456, version: 17, expires: Expiry::NEVER };
            let rendered = String::from_utf8(GetBody::render(&item)).expect("UTF-8");
            let parsed: GetBody = serde_json::from_str(&rendered).expect(&rendered);
            assert_eq!(serde_json::to_string(&parsed).expect("JSON"), rendered);
            assert_eq!((parsed.ts, parsed.version), (Some(1_755_248_123_456), Some(17)));
            let key = Key::new("say \"ключ\"").expect("a key");
            let listed = [true, false].map(|keys_only| Listed::of(&key, &item, keys_only));
            for cursor in [None, Some("AQ-_")] {
                let rendered = PageBody::render(&listed, cursor);
                let rendered = String::from_utf8(rendered).expect("UTF-8");
                let parsed: PageBody = serde_json::from_str(&rendered).expect(&rendered);
                assert_eq!(serde_json::to_string(&parsed).expect("JSON"), rendered);
            }
        }
    }
}
