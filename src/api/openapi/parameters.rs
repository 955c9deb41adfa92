//! What each query parameter and header looks like, with its bounds.
//!
//! A name that is not known here has been added to an operation without being described: that ends the
//! process as it starts, in every test that starts one.

use serde_json::{Value, json};
use utoipa::openapi::Required;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

use crate::api::accepted::{
    BY, CONSISTENCY, CURSOR, END, KEY, KEYS_ONLY, LIMIT, PREFIX, RAW, REVERSE, SINCE, START,
    TIMEOUT, TTL,
};
use crate::api::openapi::operations::Method;
use crate::types::http::{
    HEADER_EXPIRES, HEADER_IDEMPOTENCY_KEY, HEADER_INDEX, HEADER_LAG, HEADER_LAST_EVENT_ID,
    HEADER_MIN_INDEX, HEADER_TS, PATH_KEYS, PATH_TOUCH, PATH_WATCH,
};
use crate::types::limits::{
    CONDITION_VERSIONS_MAX, CURSOR_BYTES_MAX, IDEMPOTENCY_KEPT, IDEMPOTENCY_KEY_BYTES_MAX,
    KEY_BYTES_MAX, MIN_INDEXES_MAX, REQUEST_TIMEOUT_DEFAULT, REQUEST_TIMEOUT_MAX,
    SCAN_LIMIT_DEFAULT, SCAN_LIMIT_MAX, TTL_MAX,
};

/// A duration as people write it, more than none.
const DURATION: &str = "^0*[1-9][0-9]*(ms|s|m|h|d)$";
/// The same, or for ever.
const DURATION_OR_NONE: &str = "^(0*[1-9][0-9]*(ms|s|m|h|d)|none)$";
/// One position of a group's log.
const POSITION: &str = "[^,:\\s]+:[0-9]+";

/// Where a watch begins.
fn since() -> String {
    format!("^([A-Za-z0-9_-]*|{POSITION}( *, *{POSITION})*)$")
}

/// A query parameter of an operation.
pub(super) fn query(name: &'static str, (method, path): (Method, &str)) -> Parameter {
    let touch = path == PATH_TOUCH;
    let watch = path == PATH_WATCH;
    let deletes = (method, path) == (Method::Delete, PATH_KEYS);
    let (schema, says) = match name {
        KEY if watch => (key(1), "The key; either this or `prefix` is required.".into()),
        PREFIX if watch => (key(0), "What the keys start with; empty for all.".into()),
        SINCE => {
            let says = "The id of an event, or positions as `X-Sage-Index` had them, one of each group that is \
                        watched: what came after is told first. From now on without it.";
            (text(&since()), says.into())
        }
        KEY => (key(1), format!("The key: 1 to {KEY_BYTES_MAX} bytes of UTF-8.")),
        PREFIX => (key(0), "What the keys start with; empty means all keys.".into()),
        START => (key(0), "The first key, inclusive; empty for no bound.".into()),
        END => (key(0), "The key to end before; empty for no bound.".into()),
        TIMEOUT => {
            let most = REQUEST_TIMEOUT_MAX.as_secs();
            let default = format!("{}s", REQUEST_TIMEOUT_DEFAULT.as_secs());
            let says = format!("How long the request may take, at most {most}s.");
            (text(DURATION).default(Some(default.into())), says)
        }
        TTL => {
            let days = TTL_MAX.as_secs() / (24 * 60 * 60);
            let pattern = if touch { DURATION_OR_NONE } else { DURATION };
            let none = if touch { "`none`" } else { "not given" };
            (
                text(pattern),
                format!("How long the value lasts, at most {days}d; for ever if {none}."),
            )
        }
        CONSISTENCY => {
            let names = ["linearizable", "lease", "stale"];
            let schema = typed(Type::String).enum_values(Some(names));
            (schema.default(Some(json!(names[0]))), "How fresh the read must be.".into())
        }
        RAW => (flag(), "Whether to answer with the bare value.".into()),
        REVERSE => (flag(), "Whether to go from the last key down.".into()),
        KEYS_ONLY => (flag(), "Whether to leave the values out.".into()),
        LIMIT => {
            let schema = typed(Type::Integer).minimum(Some(1)).maximum(Some(SCAN_LIMIT_MAX));
            let schema = schema.default(Some(SCAN_LIMIT_DEFAULT.into()));
            (schema, "How many keys a page has at most.".into())
        }
        CURSOR => {
            let schema = text("^[A-Za-z0-9_-]*$").max_length(Some(CURSOR_BYTES_MAX));
            (schema, "Where the page before ended, as it said itself; empty for the first.".into())
        }
        BY => {
            let schema =
                typed(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
            (schema.default(Some(json!(1))), "How much is added; may be negative.".into())
        }
        other => {
            panic!("parameter {other} of {path} is not described in api/openapi/parameters.rs")
        }
    };
    let required = name == KEY && !watch || name == TTL && touch || name == PREFIX && deletes;
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(if required { Required::True } else { Required::False })
        .description(Some(says))
        .schema(Some(schema))
        .build()
}

/// A header of a request.
pub(super) fn header(name: &'static str, method: Method) -> Parameter {
    let reads = method == Method::Get;
    let (pattern, says) = match name {
        "If-Match" => (
            r#"^(\*|"[0-9]+"( *, *"[0-9]+")*)$"#.to_owned(),
            format!(
                "The write happens only if the key has one of these versions (at most \
                 {CONDITION_VERSIONS_MAX}, in quotes), or with `*` any value. Not together with `If-None-Match`."
            ),
        ),
        "If-None-Match" if reads => (
            r#"^(\*|"[0-9]+"( *, *"[0-9]+")*)$"#.to_owned(),
            format!("The versions that the reader has, at most {CONDITION_VERSIONS_MAX}, or `*`."),
        ),
        "If-None-Match" => {
            (r"^\*$".to_owned(), "`*`: the write happens only if the key has no value.".to_owned())
        }
        HEADER_IDEMPOTENCY_KEY => (
            format!("^[!-~]{{1,{IDEMPOTENCY_KEY_BYTES_MAX}}}$"),
            format!(
                "A name for the write: sent again under it within {} minutes, it takes effect once and has its \
                 first answer.",
                IDEMPOTENCY_KEPT.as_secs() / 60
            ),
        ),
        HEADER_MIN_INDEX => (
            format!("^{POSITION}( *, *{POSITION})*$"),
            format!(
                "Positions as `X-Sage-Index` had them, one of a group, at most {MIN_INDEXES_MAX}: the read sees at \
                 least these."
            ),
        ),
        HEADER_LAST_EVENT_ID => (
            since(),
            "As `since`, and before it: what a browser sends that comes again.".to_owned(),
        ),
        other => panic!("header {other} is not described in api/openapi/parameters.rs"),
    };
    ParameterBuilder::new()
        .name(canonical(name))
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(says))
        .schema(Some(text(&pattern).min_length(Some(1))))
        .build()
}

/// A header of an answer, as it is usually written.
pub(super) fn answered(name: &'static str) -> (String, Header) {
    let number = typed(Type::Integer).minimum(Some(0));
    let (schema, says) = match name {
        "ETag" => (text(r#"^"[0-9]+"$"#), "The key's version."),
        HEADER_INDEX => (
            text(&format!("^{POSITION}(, {POSITION})*$")),
            "`<group>:<index>` of the state that the answer speaks of.",
        ),
        HEADER_LAG => (
            text("^([0-9]+|unknown)$"),
            "Of stale reads: how old the state may be, in milliseconds.",
        ),
        HEADER_TS => {
            (number, "With `raw=true`: when it was written, milliseconds since the epoch.")
        }
        HEADER_EXPIRES => {
            (number, "With `raw=true`: when the value is over, unless it is for ever.")
        }
        "Retry-After" => (number, "When to try again, in seconds."),
        "Upgrade" => (typed(Type::String), "The protocol that is spoken here."),
        "Allow" => (typed(Type::String), "The methods that the path has."),
        "Content-Security-Policy" => (typed(Type::String), "Nothing from anywhere else."),
        other => panic!("header {other} is not described in api/openapi/parameters.rs"),
    };
    let header = HeaderBuilder::new().schema(Some(schema)).description(Some(says));
    (canonical(name), header.build())
}

/// `x-sage-index` as people write it.
fn canonical(name: &str) -> String {
    if !name.starts_with("x-") && name != HEADER_IDEMPOTENCY_KEY {
        return name.to_owned();
    }
    let words = name.split('-').map(|word| word[..1].to_ascii_uppercase() + &word[1..]);
    words.collect::<Vec<_>>().join("-")
}

fn typed(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn text(pattern: &str) -> ObjectBuilder {
    typed(Type::String).pattern(Some(pattern))
}

/// The bound counts bytes, and a schema's characters: a key within it may still be too long.
fn key(least: usize) -> ObjectBuilder {
    typed(Type::String).min_length(Some(least)).max_length(Some(KEY_BYTES_MAX))
}

fn flag() -> ObjectBuilder {
    typed(Type::Boolean).default(Some(Value::Bool(false)))
}
