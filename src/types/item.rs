//! What the map holds under a key.

use serde::{Deserialize, Serialize};

use crate::types::clock::TimestampMs;
use crate::types::value::Value;

/// A per-key counter: rises with every write of that key, deletes included, and stays below 2^53
/// so that JSON numbers hold it.
pub type Version = u64;

/// A value, when it was written, and how often the key has been.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The value.
    pub value: Value,
    /// The leader's stamp of the write, the same on every replica for ever.
    pub ts: TimestampMs,
    /// The key's version as of that write.
    pub version: Version,
    /// From when on it counts as gone, by the group's time ([`State::clock`]), if it is not for ever.
    ///
    /// [`State::clock`]: crate::store::state::State::clock
    pub expires: Option<TimestampMs>,
}

impl Item {
    /// Whether it counts as gone at the time `now`.
    pub fn is_over(&self, now: TimestampMs) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}
