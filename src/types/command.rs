//! What goes through a group's log, and what comes of it.
//!
//! A [`Command`] is made by the leader, which stamps it with its clock; `store::apply` turns it
//! into an [`Outcome`] that is the same on every replica. A client's mistake is an outcome, never
//! an error: an entry that is committed is applied by everybody.
//!
//! The encoding of these enums is part of the WAL format: variants are only ever added at the end.

use serde::{Deserialize, Serialize};

use crate::types::bounded::bounded;
use crate::types::clock::TimestampMs;
use crate::types::ids::{ClusterId, GroupId, Index, SessionId};
use crate::types::item::Version;
use crate::types::key::Key;
use crate::types::limits::CONDITION_VERSIONS_MAX;
use crate::types::once::{Answer, Once, Settled, WriteId};
use crate::types::scan::Span;
use crate::types::topology::{Claim, Epoch};
use crate::types::txn::{OpError, Txn, TxnOutcome};
use crate::types::value::Value;

/// One entry's worth of work for the state machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Command {
    /// The leader's clock when it took the command.
    pub ts: TimestampMs,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Gives the group its identity and name; the first command of every group.
    Found {
        /// Drawn by the replica that forms the group.
        group: GroupId,
        /// The group's name.
        name: String,
    },
    /// Writes a value.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Value,
    },
    /// Removes a key; it need not exist.
    Delete {
        /// Which.
        key: Key,
    },
    /// Makes the group part of a ring, or moves it to a newer topology of the same ring.
    Claim(Box<Claim>),
    /// Makes a claim final: it can't be released any more.
    Confirm {
        /// The ring whose claim it is.
        cluster: ClusterId,
    },
    /// Takes a claim back that was never confirmed.
    Release {
        /// The ring whose claim it is.
        cluster: ClusterId,
    },
    /// Writes a key if a condition holds just then.
    Conditional {
        /// Which key.
        key: Key,
        /// What must hold of it.
        condition: Condition,
        /// What happens then.
        write: Write,
    },
    /// Opens a session, under which writes take effect once.
    OpenSession {
        /// Drawn by whoever will use it.
        session: SessionId,
    },
    /// Writes a key, unless that was done before under the same name: then its answer is given again.
    Once {
        /// The name.
        once: Once,
        /// The write.
        write: KeyWrite,
    },
    /// Removes the first keys of a span.
    DeleteSpan {
        /// Which keys.
        span: Span,
        /// At most so many of them, and no more than
        /// [`SPAN_DELETES_MAX`](crate::types::limits::SPAN_DELETES_MAX).
        limit: u32,
        /// The name under which it takes effect once, if it has one.
        once: Option<WriteId>,
    },
    /// Writes a key; of writes without a name those that are neither `Put`, `Delete` nor `Conditional`.
    Write(KeyWrite),
    /// Moves the group's time on, and removes what is over by then, so much at a time.
    Expire,
    /// Several operations at once.
    Txn {
        /// The name under which it takes effect once, if it has one.
        once: Option<Once>,
        /// What.
        txn: Txn,
    },
}

/// A write of one key, as it is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyWrite {
    /// Which key.
    pub key: Key,
    /// What must hold of it, if anything; else nothing happens.
    pub condition: Option<Condition>,
    /// What happens.
    pub write: Write,
}

impl KeyWrite {
    /// Puts a value there, whatever there is.
    pub fn put(key: Key, value: Value) -> Self {
        Self { key, condition: None, write: Write::Put { value } }
    }

    /// Removes the key, whether it is there or not.
    pub fn delete(key: Key) -> Self {
        Self { key, condition: None, write: Write::Delete }
    }
}

/// What must hold of a key for a write of it to happen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Condition {
    /// It has no value.
    Absent,
    /// It has a value, of whatever version.
    Present,
    /// It has a value of one of these versions.
    Version(#[serde(deserialize_with = "bounded::<_, _, CONDITION_VERSIONS_MAX>")] Vec<Version>),
}

impl Condition {
    /// Whether it holds for a key with a value of this version, or without one.
    pub fn holds(&self, version: Option<Version>) -> bool {
        match self {
            Self::Absent => version.is_none(),
            Self::Present => version.is_some(),
            Self::Version(accepted) => version.is_some_and(|version| accepted.contains(&version)),
        }
    }
}

/// A change of one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Write {
    /// It gets a value.
    Put {
        /// Which.
        value: Value,
    },
    /// Its value is removed.
    Delete,
    /// It gets a value for a while.
    PutFor {
        /// Which.
        value: Value,
        /// How long, in milliseconds.
        ttl_ms: u64,
    },
    /// The value that it has stays for another while, from now on, or for ever. Its version stays too.
    Touch {
        /// How long, in milliseconds.
        ttl_ms: Option<u64>,
    },
    /// The integer that it has, or 0 if it has no value, becomes greater by so much. When it ends stays.
    Add {
        /// By how much.
        by: i64,
    },
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; there is nothing to tell. Also what Raft's own entries come to.
    Done,
    /// A key was written or deleted.
    Written {
        /// The key's version as of this write.
        version: Version,
        /// Whether the key had a value before.
        existed: bool,
    },
    /// The group does not own the key; nothing changed.
    WrongShard {
        /// The epoch of the group's claim.
        epoch: Epoch,
    },
    /// An action about the group's place in a ring was refused; nothing changed.
    Refused(Refusal),
    /// The condition of a write did not hold; nothing changed.
    Mismatch {
        /// The key's version, if it has a value.
        version: Option<Version>,
    },
    /// The same write was applied before; this is what it came to. Nothing changed.
    Again(Answer),
    /// The session is not open, or not any more; nothing changed.
    NoSession,
    /// The slot has a later write: whoever sent this one does not wait for it any more. Nothing
    /// changed, now, and nobody can tell what it came to before.
    Superseded,
    /// The idempotency key names another write; nothing changed.
    KeyReused,
    /// The group remembers as many idempotency keys as it may; nothing changed.
    KeysFull,
    /// Keys of a span were removed.
    Deleted {
        /// The entry that did it.
        index: Index,
        /// How many.
        keys: u32,
        /// Whether the span has others still.
        more: bool,
    },
    /// A key has a value for a while, or for ever after it was touched.
    Lasting {
        /// The key's version.
        version: Version,
        /// Whether the key had a value before.
        existed: bool,
        /// When the value will be over.
        expires: Option<TimestampMs>,
    },
    /// The key has no value that could be touched; nothing changed.
    NoValue,
    /// An integer has become greater or less.
    Counted {
        /// What it is now.
        value: i64,
        /// The key's version as of this write.
        version: Version,
        /// Whether the key had a value before.
        existed: bool,
        /// When the value will be over.
        expires: Option<TimestampMs>,
    },
    /// The value is no integer, or would be none of 64 bits; nothing changed.
    NotAnInteger,
    /// A transaction or batch was carried out.
    Txn(TxnOutcome),
    /// A transaction could not be carried out; nothing changed.
    Aborted(OpError),
    /// It was carried out, and its answer was too long to be kept.
    AnswerNotKept,
}

impl From<Settled> for Outcome {
    /// As it was the first time.
    fn from(settled: Settled) -> Self {
        match settled {
            Settled::Written { version, existed } => Self::Written { version, existed },
            Settled::Mismatch { version } => Self::Mismatch { version },
            Settled::Deleted { index, keys, more } => Self::Deleted { index, keys, more },
            Settled::Lasting { version, existed, expires } => {
                Self::Lasting { version, existed, expires }
            }
            Settled::NoValue => Self::NoValue,
            Settled::Counted { value, version, existed, expires } => {
                Self::Counted { value, version, existed, expires }
            }
            Settled::NotAnInteger => Self::NotAnInteger,
            Settled::Txn(outcome) => Self::Txn(TxnOutcome::clone(&outcome)),
            Settled::Aborted(error) => Self::Aborted(error),
            Settled::AnswerNotKept => Self::AnswerNotKept,
        }
    }
}

/// Why a group refuses a change of its place in a ring.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It is part of another ring.
    #[error("the group already belongs to cluster {cluster} (epoch {epoch})")]
    OtherCluster {
        /// That ring.
        cluster: ClusterId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The group already follows a newer topology.
    #[error("the group is already at epoch {epoch}")]
    OldEpoch {
        /// The epoch it is at.
        epoch: Epoch,
    },
    /// It holds keys that would not be its own.
    #[error(
        "the group holds {keys} keys that the ring gives to other groups; move or delete them first"
    )]
    ForeignKeys {
        /// How many.
        keys: u64,
    },
    /// There is no such claim to confirm or release.
    #[error("the group has no claim of that cluster")]
    NotClaimed,
    /// The claim is final.
    #[error("the claim is confirmed and can't be released")]
    Confirmed,
    /// The group has another identity already.
    #[error("the group already is {group}")]
    Founded {
        /// That identity.
        group: GroupId,
    },
}

impl Command {
    /// The identity and name that it gives a group, if it is the one that does.
    pub fn founds(&self) -> Option<(GroupId, &str)> {
        match &self.action {
            Action::Found { group, name } => Some((*group, name)),
            Action::Put { .. }
            | Action::Delete { .. }
            | Action::Claim(_)
            | Action::Confirm { .. }
            | Action::Release { .. }
            | Action::Conditional { .. }
            | Action::OpenSession { .. }
            | Action::Once { .. }
            | Action::DeleteSpan { .. }
            | Action::Write(_)
            | Action::Expire
            | Action::Txn { .. } => None,
        }
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match &self.action {
            Action::Found { .. } => "found",
            Action::Put { .. } => "put",
            Action::Delete { .. } => "delete",
            Action::Claim(_) => "claim",
            Action::Confirm { .. } => "confirm",
            Action::Release { .. } => "release",
            Action::Conditional { .. } => "conditional",
            Action::OpenSession { .. } => "open-session",
            Action::Once { .. } => "once",
            Action::DeleteSpan { .. } => "delete-span",
            Action::Write(_) => "write",
            Action::Expire => "expire",
            Action::Txn { .. } => "txn",
        };
        write!(f, "{name}@{}", self.ts)
    }
}
