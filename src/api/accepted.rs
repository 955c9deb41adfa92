//! Which query parameters and headers each operation takes.
//!
//! The handlers refuse all others, and the `OpenAPI` document lists exactly these, from the same lists.

/// The key.
pub(super) const KEY: &str = "key";
/// How long the request may take.
pub(super) const TIMEOUT: &str = "timeout";
/// How fresh a read must be.
pub(super) const CONSISTENCY: &str = "consistency";
/// Whether a read answers with the bare value.
pub(super) const RAW: &str = "raw";
/// What each key of a scan starts with.
pub(super) const PREFIX: &str = "prefix";
/// The first key of a scan.
pub(super) const START: &str = "start";
/// The key that a scan ends before.
pub(super) const END: &str = "end";
/// How many keys a page has.
pub(super) const LIMIT: &str = "limit";
/// Whether a scan goes from the last key down.
pub(super) const REVERSE: &str = "reverse";
/// Whether a page comes without values.
pub(super) const KEYS_ONLY: &str = "keys_only";
/// Where the page before ended.
pub(super) const CURSOR: &str = "cursor";
/// From where on a watch tells.
pub(super) const SINCE: &str = "since";
/// How long a value lasts.
pub(super) const TTL: &str = "ttl";
/// How much is added to a counter.
pub(super) const BY: &str = "by";

/// Of paths that only have to end in time.
pub(super) const ONLY_TIMEOUT: &[&str] = &[TIMEOUT];
/// Of `GET /kv`.
pub(super) const GET_KV: &[&str] = &[KEY, RAW, CONSISTENCY, TIMEOUT];
/// Of `PUT /kv` and `POST /kv/touch`.
pub(super) const LASTING: &[&str] = &[KEY, TTL, TIMEOUT];
/// Of `DELETE /kv` and `GET /route`.
pub(super) const ONE_KEY: &[&str] = &[KEY, TIMEOUT];
/// Of `POST /kv/incr`.
pub(super) const INCR: &[&str] = &[KEY, BY, TIMEOUT];
/// Of `GET /keys`.
pub(super) const GET_KEYS: &[&str] =
    &[PREFIX, START, END, LIMIT, REVERSE, KEYS_ONLY, CURSOR, CONSISTENCY, TIMEOUT];
/// Of `DELETE /keys`.
pub(super) const DELETE_KEYS: &[&str] = &[PREFIX, TIMEOUT];
/// Of `GET /count`.
pub(super) const COUNT: &[&str] = &[PREFIX, CONSISTENCY, TIMEOUT];
/// Of `GET /watch`.
pub(super) const WATCH: &[&str] = &[KEY, PREFIX, SINCE, TIMEOUT];
/// Of `GET /metrics`: Prometheus adds none.
pub(super) const NONE: &[&str] = &[];
