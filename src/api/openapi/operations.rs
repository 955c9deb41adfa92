//! What each operation is: the one place to add to when a path or a method is added.
//!
//! One entry for each method of each path, in words and lists; what a parameter, a header or an error looks
//! like is said once, beside them. A router that serves what is not described here does not start.

use crate::api::accepted;
use crate::types::code::Code;
use crate::types::http::{
    CONTENT_EVENTS, CONTENT_HTML, CONTENT_METRICS, HEADER_EXPIRES, HEADER_IDEMPOTENCY_KEY,
    HEADER_INDEX, HEADER_LAG, HEADER_LAST_EVENT_ID, HEADER_MIN_INDEX, HEADER_TS, PATH_BATCH,
    PATH_CLUSTER, PATH_COUNT, PATH_DOCS, PATH_HEALTH, PATH_INCR, PATH_KEYS, PATH_KV, PATH_METRICS,
    PATH_OPENAPI, PATH_READY, PATH_ROUTE, PATH_RPC, PATH_STATS, PATH_STATUS, PATH_TOUCH, PATH_TXN,
    PATH_WATCH,
};

/// A method of a path.
pub(in crate::api) type Served = (Method, &'static str);

/// The methods that paths have; `HEAD` is `GET`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::api) enum Method {
    /// Reads.
    Get,
    /// Writes a value.
    Put,
    /// Removes.
    Delete,
    /// Anything else.
    Post,
}

/// The body of an answer.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// None at all.
    Empty,
    /// JSON, of this schema.
    Json(&'static str),
    /// `GET /kv`: JSON, or with `raw=true` the bare value.
    Found,
    /// Text of this content type.
    Text(&'static str),
    /// Any JSON object.
    AnyJson,
}

/// The body of a request.
#[derive(Clone, Copy)]
pub(super) enum Sent {
    /// None.
    Nothing,
    /// A value, stored by its content type.
    Value,
    /// JSON, of this schema.
    Json(&'static str),
}

/// An answer that is no error.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) says: &'static str,
    pub(super) body: Body,
    pub(super) headers: &'static [&'static str],
}

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    /// What the summary has no room for.
    pub(super) more: &'static str,
    pub(super) query: &'static [&'static str],
    pub(super) headers: &'static [&'static str],
    pub(super) sent: Sent,
    pub(super) answers: &'static [Answer],
    pub(super) codes: &'static [&'static [Code]],
}

/// What most operations have not.
const PLAIN: Operation = Operation {
    method: Method::Get,
    path: "",
    id: "",
    tag: "",
    summary: "",
    more: "",
    query: accepted::ONLY_TIMEOUT,
    headers: &[],
    sent: Sent::Nothing,
    answers: &[],
    codes: &[REQUEST],
};

const fn answer(says: &'static str, body: Body, headers: &'static [&'static str]) -> Answer {
    Answer { status: 200, says, body, headers }
}

/// Of everything: what is wrong with the request as such.
const REQUEST: &[Code] = &[
    Code::InvalidParameter,
    Code::InvalidUtf8,
    Code::BadRequest,
    Code::UriTooLong,
    Code::HeadersTooLarge,
];
/// Of everything about one key; `wrong_shard` comes from replicas only.
const KEYED: &[Code] = &[Code::MissingKey, Code::KeyTooLarge, Code::WrongShard];
/// Of everything about a part of the keys.
const SPANNING: &[Code] = &[Code::KeyTooLarge];
/// Of everything that asks the store.
const SERVING: &[Code] = &[Code::Unavailable, Code::NoLeader, Code::Overloaded];
/// Of everything that writes.
const WRITING: &[Code] = &[Code::OutcomeUnknown];
/// Of everything that may have a name.
const NAMED: &[Code] = &[Code::IdempotencyKeyReused];
/// Of everything that may have a condition.
const CONDITIONAL: &[Code] = &[Code::VersionMismatch];
/// Of everything that needs room.
const GROWING: &[Code] = &[Code::OutOfMemoryBudget, Code::DiskFull];
/// Of everything that sends a value.
const VALUED: &[Code] = &[Code::InvalidJson, Code::ValueTooLarge];
/// Of transactions and batches, beyond the above.
const SEVERAL: &[Code] =
    &[Code::KeyTooLarge, Code::WrongShard, Code::AnswerTooLarge, Code::AnswerNotKept];

const IF_MATCH: &str = "If-Match";
const IF_NONE_MATCH: &str = "If-None-Match";
const OF_WRITES: &[&str] = &[IF_MATCH, IF_NONE_MATCH, HEADER_IDEMPOTENCY_KEY];
const OF_READS: &[&str] = &[IF_NONE_MATCH, HEADER_MIN_INDEX];
const WRITTEN: &[&str] = &[HEADER_INDEX, "ETag"];

const KEYS: &str = "one key";
const MANY: &str = "many keys";
const PROCESS: &str = "the process";

/// All of them.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        path: PATH_KV,
        id: "getValue",
        tag: KEYS,
        summary: "Reads a key",
        more: "`consistency` says how fresh; with `raw=true` the answer is the value itself with its content type. \
               `If-None-Match` with versions is answered `304` if the key still has one of them.",
        query: accepted::GET_KV,
        headers: OF_READS,
        answers: &[
            answer(
                "the value",
                Body::Found,
                &[HEADER_INDEX, "ETag", HEADER_LAG, HEADER_TS, HEADER_EXPIRES],
            ),
            Answer {
                status: 304,
                says: "the key still has the version that the reader named",
                body: Body::Empty,
                headers: &[HEADER_INDEX, "ETag", HEADER_LAG],
            },
            Answer {
                status: 404,
                says: "the key has no value",
                body: Body::Json("GetBody"),
                headers: &[HEADER_INDEX, HEADER_LAG],
            },
        ],
        codes: &[REQUEST, KEYED, SERVING],
        ..PLAIN
    },
    Operation {
        method: Method::Put,
        path: PATH_KV,
        id: "putValue",
        tag: KEYS,
        summary: "Writes a value",
        more: "The content type says what the value is: `application/json` is checked and kept byte for byte, \
               `application/octet-stream` are bytes, anything else is UTF-8 text.",
        query: accepted::LASTING,
        headers: OF_WRITES,
        sent: Sent::Value,
        answers: &[answer("it is on the disks of a majority", Body::Json("WriteBody"), WRITTEN)],
        codes: &[REQUEST, KEYED, VALUED, CONDITIONAL, NAMED, SERVING, WRITING, GROWING],
    },
    Operation {
        method: Method::Delete,
        path: PATH_KV,
        id: "deleteValue",
        tag: KEYS,
        summary: "Removes a value",
        more: "What is not there is removed, too: `existed` says which it was.",
        query: accepted::ONE_KEY,
        headers: OF_WRITES,
        answers: &[answer("there is no value", Body::Json("WriteBody"), &[HEADER_INDEX])],
        codes: &[REQUEST, KEYED, CONDITIONAL, NAMED, SERVING, WRITING, GROWING],
        ..PLAIN
    },
    Operation {
        method: Method::Post,
        path: PATH_TOUCH,
        id: "touchValue",
        tag: KEYS,
        summary: "Gives a value another time to live",
        more: "Its version and time stay.",
        query: accepted::LASTING,
        headers: OF_WRITES,
        answers: &[answer("it lasts that long from now on", Body::Json("WriteBody"), WRITTEN)],
        codes: &[
            REQUEST,
            KEYED,
            &[Code::KeyNotFound],
            CONDITIONAL,
            NAMED,
            SERVING,
            WRITING,
            GROWING,
        ],
        ..PLAIN
    },
    Operation {
        method: Method::Post,
        path: PATH_INCR,
        id: "addToCounter",
        tag: KEYS,
        summary: "Adds to a counter",
        more: "The value must be a JSON integer of 64 bits; a key without a value counts from 0.",
        query: accepted::INCR,
        headers: OF_WRITES,
        answers: &[answer("`value` is what it comes to", Body::Json("WriteBody"), WRITTEN)],
        codes: &[
            REQUEST,
            KEYED,
            &[Code::NotAnInteger],
            CONDITIONAL,
            NAMED,
            SERVING,
            WRITING,
            GROWING,
        ],
        ..PLAIN
    },
    Operation {
        method: Method::Post,
        path: PATH_TXN,
        id: "transact",
        tag: MANY,
        summary: "Carries out operations on keys of one group as a whole, under conditions",
        more: "If all conditions in `if` hold, the operations in `then`, otherwise those in `else`. A part of a key in \
               braces keeps keys in one group.",
        headers: &[HEADER_IDEMPOTENCY_KEY],
        sent: Sent::Json("TxnBody"),
        answers: &[answer("all of it took effect", Body::Json("TxnAnswer"), &[HEADER_INDEX])],
        codes: &[
            REQUEST,
            VALUED,
            SEVERAL,
            &[Code::CrossShard, Code::KeyNotFound, Code::NotAnInteger],
            NAMED,
            SERVING,
            WRITING,
            GROWING,
        ],
        ..PLAIN
    },
    Operation {
        method: Method::Post,
        path: PATH_BATCH,
        id: "batch",
        tag: MANY,
        summary: "Carries out several operations on any keys",
        more: "Each stands for itself, and each result has its own status.",
        headers: &[HEADER_IDEMPOTENCY_KEY],
        sent: Sent::Json("BatchBody"),
        answers: &[answer(
            "what became of each operation",
            Body::Json("BatchAnswer"),
            &[HEADER_INDEX],
        )],
        codes: &[REQUEST, VALUED, SEVERAL, NAMED, SERVING, WRITING, GROWING],
        ..PLAIN
    },
    Operation {
        path: PATH_KEYS,
        id: "listKeys",
        tag: MANY,
        summary: "Lists keys and values in order, a page at a time",
        more: "The next page is asked for with the same parameters and the `cursor` of the last one; only \
               `\"cursor\":null` says that there is no more.",
        query: accepted::GET_KEYS,
        answers: &[answer("a page", Body::Json("PageBody"), &[HEADER_INDEX, HEADER_LAG])],
        codes: &[REQUEST, SPANNING, SERVING],
        ..PLAIN
    },
    Operation {
        method: Method::Delete,
        path: PATH_KEYS,
        id: "deleteKeys",
        tag: MANY,
        summary: "Removes all keys that start with a prefix",
        more: "Not one change but many; after `504` it is safe to ask again.",
        query: accepted::DELETE_KEYS,
        answers: &[answer("they are gone", Body::Json("DeletedBody"), &[HEADER_INDEX])],
        codes: &[REQUEST, SPANNING, SERVING, WRITING],
        ..PLAIN
    },
    Operation {
        path: PATH_COUNT,
        id: "countKeys",
        tag: MANY,
        summary: "Counts keys",
        query: accepted::COUNT,
        answers: &[answer("how many", Body::Json("CountBody"), &[HEADER_INDEX, HEADER_LAG])],
        codes: &[REQUEST, SPANNING, SERVING],
        ..PLAIN
    },
    Operation {
        path: PATH_WATCH,
        id: "watch",
        tag: MANY,
        summary: "Tells changes of keys as they come, as server-sent events",
        more: "Of one `key`, or of all that start with `prefix`, which may be empty. Each event has an `id` to resume \
               behind it, at any process; `event` is `put`, `delete` or `expire`; its `data` is the key as `/keys` \
               lists it. An `id` alone comes when nothing has changed for a while. A stream that ends says why in a \
               comment. `timeout` is for the beginning only.",
        query: accepted::WATCH,
        headers: &[HEADER_LAST_EVENT_ID],
        answers: &[answer(
            "the changes, until one side ends it",
            Body::Text(CONTENT_EVENTS),
            &[HEADER_INDEX],
        )],
        codes: &[REQUEST, KEYED, &[Code::Compacted], SERVING],
        ..PLAIN
    },
    Operation {
        path: PATH_ROUTE,
        id: "route",
        tag: PROCESS,
        summary: "Says which group has a key",
        query: accepted::ONE_KEY,
        answers: &[answer("its group", Body::Json("RouteBody"), &[])],
        codes: &[REQUEST, &[Code::MissingKey, Code::KeyTooLarge], SERVING],
        ..PLAIN
    },
    Operation {
        path: PATH_CLUSTER,
        id: "cluster",
        tag: PROCESS,
        summary: "Shows the topology, and what every replica says of itself",
        answers: &[answer("the cluster", Body::Json("ClusterBody"), &[])],
        codes: &[REQUEST, SERVING],
        ..PLAIN
    },
    Operation {
        path: PATH_STATUS,
        id: "status",
        answers: &[answer("the replica", Body::Json("ShardStatus"), &[])],
        tag: PROCESS,
        summary: "Shows what a replica knows of itself and its group",
        ..PLAIN
    },
    Operation {
        path: PATH_STATS,
        id: "stats",
        answers: &[answer("the replica", Body::Json("ShardStatus"), &[])],
        tag: PROCESS,
        summary: "Another name for `/status`",
        ..PLAIN
    },
    Operation {
        path: PATH_HEALTH,
        id: "health",
        tag: PROCESS,
        summary: "Answers as long as the process serves",
        answers: &[answer("it does", Body::Json("HealthBody"), &[])],
        ..PLAIN
    },
    Operation {
        path: PATH_READY,
        id: "ready",
        tag: PROCESS,
        summary: "Says whether requests can succeed",
        answers: &[
            answer("they can", Body::Json("ReadyBody"), &[]),
            Answer {
                status: 503,
                says: "not now, for the reason given",
                body: Body::Json("ReadyBody"),
                headers: &["Retry-After"],
            },
        ],
        ..PLAIN
    },
    Operation {
        path: PATH_METRICS,
        id: "metrics",
        tag: PROCESS,
        summary: "Gives numbers to Prometheus",
        query: accepted::NONE,
        answers: &[answer("the numbers", Body::Text(CONTENT_METRICS), &[])],
        codes: &[REQUEST, &[Code::Unavailable]],
        ..PLAIN
    },
    Operation {
        path: PATH_OPENAPI,
        id: "openapi",
        tag: PROCESS,
        summary: "This document",
        answers: &[answer("OpenAPI 3.1", Body::AnyJson, &[])],
        ..PLAIN
    },
    Operation {
        path: PATH_DOCS,
        id: "docs",
        tag: PROCESS,
        summary: "This document, for people",
        answers: &[answer(
            "a page that needs no network and no script",
            Body::Text(CONTENT_HTML),
            &["Content-Security-Policy"],
        )],
        ..PLAIN
    },
    Operation {
        path: PATH_RPC,
        id: "rpc",
        tag: PROCESS,
        summary: "Where other processes of the cluster come in",
        more: "Not for clients: with `Upgrade: sage-rpc/1` the connection stops being HTTP.",
        query: accepted::NONE,
        answers: &[Answer {
            status: 101,
            says: "the connection speaks another protocol from here on",
            body: Body::Empty,
            headers: &["Upgrade"],
        }],
        codes: &[&[Code::UpgradeRequired, Code::Unavailable]],
        ..PLAIN
    },
];
