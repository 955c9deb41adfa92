//! What a client may ask of a key-value store, and what it is told: the vocabulary of the trait
//! `api::Kv`, whichever process answers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::bounded::bounded;
use crate::types::clock::TimestampMs;
use crate::types::command::KeyWrite;
use crate::types::ids::Index;
use crate::types::item::{Item, Version};
use crate::types::key::Key;
use crate::types::limits::MIN_INDEXES_MAX;
use crate::types::once::Once;
use crate::types::txn::{Txn, TxnReply};

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Consistency {
    /// Sees every write that was answered before the read began, through any fault
    /// (`ReadIndex`, Raft thesis §6.4).
    #[default]
    Linearizable,
    /// As above as long as clocks drift little: the leader trusts its lease and asks nobody.
    Lease,
    /// Whatever the asked replica has.
    Stale,
}

impl Consistency {
    /// What it is called in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Lease => "lease",
            Self::Stale => "stale",
        }
    }
}

/// One request about one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KvRequest {
    /// Writes or removes a value.
    Write {
        /// Where, what, and under which condition.
        write: KeyWrite,
        /// The name under which it takes effect once, if it has one: then it may be sent again.
        once: Option<Once>,
    },
    /// Several operations at once, on keys of one group.
    Txn {
        /// Which; they name a key at least.
        txn: Txn,
        /// The name under which it takes effect once, if it has one: then it may be sent again.
        once: Option<Once>,
    },
    /// Reads a value.
    Get {
        /// Where.
        key: Key,
        /// How fresh.
        consistency: Consistency,
        /// Positions that the state must have reached, at most one of each group; those of other groups
        /// than the key's mean nothing.
        #[serde(deserialize_with = "bounded::<_, _, MIN_INDEXES_MAX>")]
        at_least: Vec<GroupIndex>,
    },
}

impl KvRequest {
    /// A read of what there is.
    pub fn get(key: Key, consistency: Consistency) -> Self {
        Self::Get { key, consistency, at_least: Vec::new() }
    }

    /// The key it is about, or one of them; a transaction may have none.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Write { write, .. } => Some(&write.key),
            Self::Get { key, .. } => Some(key),
            Self::Txn { txn, .. } => txn.keys().next(),
        }
    }

    /// Whether it changes anything, so that its fate can be unknown.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Write { .. } => true,
            Self::Txn { txn, .. } => !txn.only_reads(),
            Self::Get { .. } => false,
        }
    }

    /// Whether it can be sent again without doing anything twice.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Write { once, .. } => once.is_some(),
            Self::Txn { txn, once } => once.is_some() || txn.only_reads(),
            Self::Get { .. } => true,
        }
    }
}

impl From<KeyWrite> for KvRequest {
    /// A write that must not be sent again.
    fn from(write: KeyWrite) -> Self {
        Self::Write { write, once: None }
    }
}

/// The answer to one request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KvReply {
    /// To a put or delete.
    Written(Written),
    /// To a get.
    Read(Read),
    /// To a transaction or batch.
    Txn(TxnReply),
}

/// A position in one group's log, as clients see it: `X-Sage-Index: <group>:<index>`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupIndex {
    /// The group's name.
    pub group: Arc<str>,
    /// The index.
    pub index: Index,
}

impl fmt::Display for GroupIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.group, self.index)
    }
}

/// The text is no position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected <group>:<index>, as in x-sage-index")]
pub struct GroupIndexError;

impl FromStr for GroupIndex {
    type Err = GroupIndexError;

    fn from_str(text: &str) -> Result<Self, GroupIndexError> {
        // A group's name may have a colon too.
        let (group, index) = text.rsplit_once(':').ok_or(GroupIndexError)?;
        let digits = index.bytes().all(|byte| byte.is_ascii_digit());
        let index = index.parse().ok().filter(|_| digits && !group.is_empty());
        Ok(Self { group: group.into(), index: index.ok_or(GroupIndexError)? })
    }
}

/// A write took effect and is durable as promised.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// Its entry.
    pub at: GroupIndex,
    /// The leader's stamp.
    pub ts: TimestampMs,
    /// The key's version as of this write.
    pub version: Version,
    /// Whether the key had a value before.
    pub existed: bool,
    /// When the value that it wrote or touched is over, if it is not for ever.
    pub expires: Option<TimestampMs>,
    /// What a counter has come to.
    pub value: Option<i64>,
    /// Voters known to have it on disk when the answer was made.
    pub acks: u32,
    /// Voters that had to: `max(majority, --quorum)`.
    pub quorum: u32,
}

/// A read's result.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Read {
    /// The state that was read: every entry up to and with this one was applied.
    pub at: GroupIndex,
    /// What the key holds, if anything.
    pub item: Option<Item>,
    /// For stale reads: how old the state may be, in milliseconds; `None` when the replica has not
    /// heard from a leader since it started.
    pub lag_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_group_and_an_index() {
        for (text, group, index) in [("g:1", "g", 1), ("a:b:0", "a:b", 0)] {
            let position: GroupIndex = text.parse().expect(text);
            assert_eq!((&*position.group, position.index), (group, index));
            assert_eq!(position.to_string(), text);
        }
        for bad in ["", "g", "g:", ":1", "g:-1", "g:+1", "g:1 ", "g:99999999999999999999"] {
            assert_eq!(bad.parse::<GroupIndex>(), Err(GroupIndexError), "{bad:?}");
        }
    }
}
