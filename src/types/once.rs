//! What makes a write that is sent again take effect once: the names under which a group knows it
//! again, and the answer that it keeps under that name.
//!
//! A coordinator holds a *session* with each group (Raft thesis §6.3). Its writes are numbered in
//! *slots*, as in NFS 4.1 (RFC 8881 §2.10.6): a slot has one write under way at a time, and each next
//! one has a greater number. So a group keeps one answer a slot, and a greater number says that the
//! answer before was heard, or that nobody waits for it any more.
//!
//! A client that wants the same of its own retries, over any coordinator, sends an
//! *idempotency key*.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::types::clock::TimestampMs;
use crate::types::ids::{Index, SessionId};
use crate::types::item::Version;
use crate::types::limits::{IDEMPOTENCY_KEY_BYTES_MAX, RESULT_OVERHEAD_BYTES};
use crate::types::txn::{OpError, OpResult, TxnOutcome};

/// Names one write of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WriteId {
    /// The session, open in the group.
    pub session: SessionId,
    /// Its slot, below [`SESSION_SLOTS_MAX`](crate::types::limits::SESSION_SLOTS_MAX).
    pub slot: u32,
    /// Rises from write to write of the slot.
    pub seq: u64,
}

/// What a client calls a write, so that it can send it again: 1 to 64 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct IdempotencyKey(Arc<str>);

/// The text is no idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters")]
pub struct IdempotencyKeyError;

impl IdempotencyKey {
    /// The key that `text` is.
    pub fn new(text: &str) -> Result<Self, IdempotencyKeyError> {
        let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(IdempotencyKeyError)
        }
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for IdempotencyKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// The name under which a write takes effect once, however often it is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Once {
    /// A coordinator's, for its own retries.
    Session(WriteId),
    /// A client's.
    Key(IdempotencyKey),
}

/// What a write came to the first time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Its entry.
    pub index: Index,
    /// The leader's stamp of it.
    pub ts: TimestampMs,
    /// What it came to.
    pub result: Settled,
}

/// What a write came to: all that is remembered of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Settled {
    /// A key was written or deleted.
    Written {
        /// The key's version as of this write.
        version: Version,
        /// Whether the key had a value before.
        existed: bool,
    },
    /// The condition did not hold; nothing changed.
    Mismatch {
        /// The key's version, if it had a value.
        version: Option<Version>,
    },
    /// Keys of a span were removed.
    Deleted {
        /// The entry that did it.
        index: Index,
        /// How many.
        keys: u32,
        /// Whether the span had others still.
        more: bool,
    },
    /// A key had a value for a while from then on, or for ever after it was touched.
    Lasting {
        /// The key's version.
        version: Version,
        /// Whether the key had a value before.
        existed: bool,
        /// When the value would be over.
        expires: Option<TimestampMs>,
    },
    /// The key had no value that could be touched; nothing changed.
    NoValue,
    /// An integer became greater or less.
    Counted {
        /// What it was then.
        value: i64,
        /// The key's version as of this write.
        version: Version,
        /// Whether the key had a value before.
        existed: bool,
        /// When the value would be over.
        expires: Option<TimestampMs>,
    },
    /// The value was no integer, or would have been none of 64 bits; nothing changed.
    NotAnInteger,
    /// A transaction or batch was carried out.
    Txn(Arc<TxnOutcome>),
    /// A transaction could not be carried out; nothing changed.
    Aborted(OpError),
    /// A transaction or batch was carried out, and its answer was too long to be kept.
    AnswerNotKept,
}

impl Settled {
    /// What it counts for in memory beyond a fixed size, in bytes: that of the results and values of a
    /// transaction or batch.
    pub fn bytes(&self) -> u64 {
        let Self::Txn(outcome) = self else { return 0 };
        let values = outcome.results.iter().map(|result| match result {
            OpResult::Read(Some(item)) => item.value.data.len() as u64,
            OpResult::Read(None) | OpResult::Written { .. } | OpResult::Failed(_) => 0,
        });
        values.map(|value| RESULT_OVERHEAD_BYTES + value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::codec;

    #[test]
    fn an_idempotency_key_is_short_visible_text() {
        for good in ["a", "8e03978e-40d5-43dd-bc93-6894a57f9324", &"x".repeat(64)] {
            let key = IdempotencyKey::new(good).expect(good);
            let bytes = codec::encode(&key);
            assert_eq!(codec::decode::<IdempotencyKey>(&bytes, 100).expect(good), key);
        }
        for bad in ["", "two words", "umlaut-ä", "line\n", &"x".repeat(65)] {
            assert_eq!(IdempotencyKey::new(bad), Err(IdempotencyKeyError), "{bad:?}");
            let bytes = codec::encode(&bad);
            assert!(codec::decode::<IdempotencyKey>(&bytes, 100).is_err(), "{bad:?}");
        }
    }
}
