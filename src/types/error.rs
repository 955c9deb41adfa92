//! Why a request failed, in the words of the HTTP API, and what that says about a write.
//!
//! An error answers two questions that must never be confused: what the user should do (the
//! sentence, the status), and whether the write may have taken effect ([`Error::outcome`]). Only
//! [`Error::OutcomeUnknown`] leaves that open; every other error promises that the write has not
//! been and never will be applied. Errors travel between processes as they are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::types::code::Code;
use crate::types::item::Version;
use crate::types::key::KeyError;
use crate::types::kv::GroupIndex;
use crate::types::limits::KEY_BYTES_MAX;
use crate::types::topology::{Epoch, Member};
use crate::types::txn::OpError;
use crate::types::value::ValueError;

/// Whether a failed write may have taken effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteOutcome {
    /// It has not and never will.
    NotApplied,
    /// It may, now or later.
    Unknown,
}

/// What there is no room in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Space {
    /// The memory that the leader of the group may fill.
    #[error("out of memory budget: --max-memory is {max} bytes; delete keys, or raise it")]
    Memory {
        /// Its budget, in bytes.
        max: u64,
    },
    /// The leader's disk.
    #[error(
        "the leader's disk is nearly full: less than --min-free-disk is left; delete files, or add space"
    )]
    Disk,
}

/// What a group's state makes of a request that it does not carry out. It holds for every attempt to send
/// that request under its name, since the state has it as the request's one answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Decline {
    /// `412`: the condition of the write did not hold.
    #[error("version mismatch")]
    VersionMismatch {
        /// The key's version, if it has a value.
        version: Option<Version>,
    },
    /// `422`: the idempotency key has named another write.
    #[error("the idempotency key was used for another write; take a new one for each write")]
    IdempotencyKeyReused,
    /// `404`: the write was of a value, and there is none.
    #[error("the key has no value")]
    KeyNotFound,
    /// `409`: what is to be counted is no integer, or would be none.
    #[error("the value is not a JSON integer of 64 bits, or would not be one any more")]
    NotAnInteger,
    /// `504`: the transaction took effect before, and its answer was not kept.
    #[error("the transaction took effect before, and its answer was too long to be kept")]
    AnswerNotKept,
    /// `413`: what a transaction reads is too long for one answer.
    #[error("the answer would be too large: read less at a time")]
    AnswerTooLarge,
}

impl Decline {
    /// Its code, and so its status.
    pub fn code(self) -> Code {
        match self {
            Self::VersionMismatch { .. } => Code::VersionMismatch,
            Self::IdempotencyKeyReused => Code::IdempotencyKeyReused,
            Self::KeyNotFound => Code::KeyNotFound,
            Self::NotAnInteger => Code::NotAnInteger,
            Self::AnswerNotKept => Code::AnswerNotKept,
            Self::AnswerTooLarge => Code::AnswerTooLarge,
        }
    }

    /// What it says about a write.
    pub fn outcome(self) -> WriteOutcome {
        match self {
            Self::AnswerNotKept => WriteOutcome::Unknown,
            Self::VersionMismatch { .. }
            | Self::IdempotencyKeyReused
            | Self::KeyNotFound
            | Self::NotAnInteger
            | Self::AnswerTooLarge => WriteOutcome::NotApplied,
        }
    }
}

impl From<OpError> for Decline {
    fn from(error: OpError) -> Self {
        match error {
            OpError::NoValue => Self::KeyNotFound,
            OpError::NotAnInteger => Self::NotAnInteger,
            OpError::TooLong => Self::AnswerTooLarge,
        }
    }
}

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    /// `400`: no key, or an empty one.
    #[error("missing key")]
    MissingKey,
    /// `400`: the body is not JSON although its type says so.
    #[error("Invalid JSON: {0}")]
    InvalidJson(String),
    /// `400`: a key or text value is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    InvalidUtf8(String),
    /// `400`: a query parameter or header with a value or name that is not known.
    #[error("invalid parameter {name}: {reason}")]
    InvalidParameter {
        /// The parameter.
        name: String,
        /// What is wrong with it, and what is accepted.
        reason: String,
    },
    /// `400`: the request can't be read at all.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// `404`: no such path.
    #[error("not found")]
    UnknownPath,
    /// `405`: the path has no such method.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// `413`: the key is too long.
    #[error("key too large: {bytes} bytes, at most {KEY_BYTES_MAX} are accepted")]
    KeyTooLarge {
        /// Its length.
        bytes: u64,
    },
    /// `413`: the value is too long.
    #[error("value too large: at most {max} bytes are accepted")]
    ValueTooLarge {
        /// The bound in force.
        max: u64,
    },
    /// `421`: the group does not own the key.
    #[error("wrong shard")]
    WrongShard {
        /// The epoch of the group's claim.
        epoch: Epoch,
    },
    /// `503`: this replica is not the leader; between processes only, a client sees it as
    /// [`Error::Unavailable`] when nobody found one in time.
    #[error("not the leader")]
    NotLeader {
        /// Who is, as far as this replica knows.
        leader: Option<Member>,
    },
    /// `503`: nothing can be done now, for the reason given; the request was not taken.
    #[error("{reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// `503`: a queue is full; the request was not taken.
    #[error("overloaded: {queue} is full; try again later")]
    Overloaded {
        /// Which queue.
        queue: String,
    },
    /// `504`: the write was sent, and its fate is not known.
    #[error("the outcome of the write is unknown: {reason}")]
    OutcomeUnknown {
        /// What was lost.
        reason: String,
    },
    /// `507`: there is no room for the write; reads and deletes go on.
    #[error("{0}")]
    NoRoom(Space),
    /// The group's state was asked, and that is what it made of the request.
    #[error("{why}")]
    Declined {
        /// What is in the way.
        why: Decline,
        /// The state that was asked: every entry up to and with this one was applied.
        at: GroupIndex,
    },
    /// `400`: the keys of a transaction belong to several groups.
    #[error(
        "the keys of a transaction must belong to one group, and these belong to {groups}; a part in braces, as in {{user:1}}:cart, keeps keys together"
    )]
    CrossShard {
        /// Which.
        groups: String,
    },
    /// `503`: the session is not open in the group; between processes only, for a coordinator opens
    /// another.
    #[error("the session is not open")]
    NoSession,
    /// `410`: what a watch asks for is not kept any more.
    #[error(
        "what changed since then is not kept any more: read anew, and watch from the position of that; the oldest is {oldest}"
    )]
    Compacted {
        /// The first position of each group that a watch can begin behind, as in `X-Sage-Index`.
        oldest: String,
    },
}

impl Error {
    /// Nothing can be done now, for this reason.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    /// The fate of a write is not known, for this reason.
    pub fn outcome_unknown(reason: impl Into<String>) -> Self {
        Self::OutcomeUnknown { reason: reason.into() }
    }

    /// This error, when so many keys were deleted before it came: nothing more is known.
    #[must_use]
    pub fn after_deleting(self, keys: u64) -> Self {
        let reason = match self {
            Self::OutcomeUnknown { reason } => reason,
            error => error.to_string(),
        };
        Self::OutcomeUnknown { reason: format!("{keys} keys were deleted, and then: {reason}") }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.kind().status()
    }

    /// The code that programs match on.
    pub fn code(&self) -> &'static str {
        self.kind().as_str()
    }

    /// Which code it has, and so which status.
    fn kind(&self) -> Code {
        match self {
            Self::MissingKey => Code::MissingKey,
            Self::InvalidJson(_) => Code::InvalidJson,
            Self::InvalidUtf8(_) => Code::InvalidUtf8,
            Self::InvalidParameter { .. } => Code::InvalidParameter,
            Self::BadRequest(_) => Code::BadRequest,
            Self::UnknownPath => Code::NotFound,
            Self::Declined { why, .. } => why.code(),
            Self::CrossShard { .. } => Code::CrossShard,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::KeyTooLarge { .. } => Code::KeyTooLarge,
            Self::ValueTooLarge { .. } => Code::ValueTooLarge,
            Self::WrongShard { .. } => Code::WrongShard,
            Self::NotLeader { .. } => Code::NoLeader,
            Self::Unavailable { .. } | Self::NoSession => Code::Unavailable,
            Self::Overloaded { .. } => Code::Overloaded,
            Self::OutcomeUnknown { .. } => Code::OutcomeUnknown,
            Self::Compacted { .. } => Code::Compacted,
            Self::NoRoom(Space::Memory { .. }) => Code::OutOfMemoryBudget,
            Self::NoRoom(Space::Disk) => Code::DiskFull,
        }
    }

    /// Whether this is what the state machine made of a write with a name: then it holds for every
    /// attempt to send it. Any other error speaks of one attempt only, and if another's fate is unknown
    /// so is the write's.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Declined { .. })
    }

    /// The state that it tells of, if it does.
    pub fn position(&self) -> Option<&GroupIndex> {
        match self {
            Self::Declined { at, .. } => Some(at),
            _ => None,
        }
    }

    /// What the error says about a write.
    pub fn outcome(&self) -> WriteOutcome {
        match self {
            Self::OutcomeUnknown { .. } => WriteOutcome::Unknown,
            Self::Declined { why, .. } => why.outcome(),
            Self::MissingKey
            | Self::InvalidJson(_)
            | Self::InvalidUtf8(_)
            | Self::InvalidParameter { .. }
            | Self::BadRequest(_)
            | Self::UnknownPath
            | Self::MethodNotAllowed
            | Self::KeyTooLarge { .. }
            | Self::ValueTooLarge { .. }
            | Self::WrongShard { .. }
            | Self::NotLeader { .. }
            | Self::Unavailable { .. }
            | Self::Overloaded { .. }
            | Self::CrossShard { .. }
            | Self::NoSession
            | Self::Compacted { .. }
            | Self::NoRoom(_) => WriteOutcome::NotApplied,
        }
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Empty => Self::MissingKey,
            KeyError::TooLarge(bytes) => Self::KeyTooLarge { bytes: bytes as u64 },
            KeyError::NotUtf8 => Self::InvalidUtf8("key".into()),
        }
    }
}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        match error {
            ValueError::NotJson(reason) => Self::InvalidJson(reason),
            ValueError::NotUtf8 => Self::InvalidUtf8("value".into()),
        }
    }
}
