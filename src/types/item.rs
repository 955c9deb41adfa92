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
}
