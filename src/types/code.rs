//! Every code that an error may have, with its status and when it comes.
//!
//! This table is the only place where they are written down: [`Error`](crate::types::error::Error) takes
//! code and status from it, and the `OpenAPI` document lists it. A code that is out is never renamed.

use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

macro_rules! codes {
    ($($name:ident = $text:literal, $status:literal, $when:literal;)*) => {
        /// What programs match on.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
        pub enum Code {
            $(#[doc = $when] #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// As it stands in an answer.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that it comes with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// When it comes.
            pub const fn when(self) -> &'static str {
                match self { $(Self::$name => $when,)* }
            }
        }
    };
}

codes! {
    MissingKey = "missing_key", 400, "no key, or an empty one";
    InvalidJson = "invalid_json", 400, "the body is not one JSON text, or not one of this form";
    InvalidUtf8 = "invalid_utf8", 400, "a key, a parameter or a text value is not UTF-8";
    InvalidParameter = "invalid_parameter", 400, "an unknown, repeated or unsupported parameter or header, or a bad value of one";
    BadRequest = "bad_request", 400, "the request can't be read, or its body stopped coming";
    CrossShard = "cross_shard", 400, "the keys of a transaction belong to several groups, which the sentence names";
    NotFound = "not_found", 404, "no such path";
    KeyNotFound = "key_not_found", 404, "the key has no value that could be touched";
    MethodNotAllowed = "method_not_allowed", 405, "the path has no such method; `Allow` names those it has";
    NotAnInteger = "not_an_integer", 409, "what was to be counted is no integer of 64 bits, or would be none any more";
    Compacted = "compacted", 410, "what has changed since then is not kept any more; `oldest` beside it is where a watch can begin";
    VersionMismatch = "version_mismatch", 412, "the condition of a write did not hold; `version` beside it, if the key has a value";
    KeyTooLarge = "key_too_large", 413, "a key or a bound of keys is too long";
    ValueTooLarge = "value_too_large", 413, "the value or the body is too long";
    AnswerTooLarge = "answer_too_large", 413, "what is read is too long for one answer";
    UriTooLong = "uri_too_long", 414, "the target of the request is too long";
    WrongShard = "wrong_shard", 421, "a replica was asked for a key that its group does not own; `epoch` beside it";
    IdempotencyKeyReused = "idempotency_key_reused", 422, "the idempotency key was used for another write";
    UpgradeRequired = "upgrade_required", 426, "the path is for other processes of the cluster, which speak another protocol";
    HeadersTooLarge = "headers_too_large", 431, "the request's target and headers are too long together, or its headers too many";
    Unavailable = "unavailable", 503, "nothing can be done now; the request was not taken";
    NoLeader = "no_leader", 503, "the group has no leader now; the request was not taken";
    Overloaded = "overloaded", 503, "a queue is full; the request was not taken";
    OutcomeUnknown = "outcome_unknown", 504, "the write was sent; it may or may not take effect";
    AnswerNotKept = "answer_not_kept", 504, "a transaction or batch that was sent again took effect before, and its answer was too long to be kept";
    OutOfMemoryBudget = "out_of_memory_budget", 507, "the leader's `--max-memory` has no room for the item; reads and deletes go on";
    DiskFull = "disk_full", 507, "the leader's disk is nearly full; reads and deletes go on";
}

impl Code {
    /// Whether it is what a group's state makes of a request: see [`Decline`](crate::types::error::Decline).
    pub const fn is_of_a_state(self) -> bool {
        matches!(
            self,
            Self::VersionMismatch
                | Self::IdempotencyKeyReused
                | Self::KeyNotFound
                | Self::NotAnInteger
                | Self::AnswerNotKept
                | Self::AnswerTooLarge
        )
    }

    /// The code of this text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let lines = Self::ALL
            .iter()
            .map(|code| format!("- `{}` ({}): {}", code.as_str(), code.status(), code.when()));
        let lines: Vec<_> = lines.collect();
        let codes = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .description(Some(format!("What programs match on.\n\n{}", lines.join("\n"))));
        codes.build().into()
    }
}

impl ToSchema for Code {}
