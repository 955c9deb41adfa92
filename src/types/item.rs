//! What the map holds under a key.

use std::fmt;

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
    pub expires: Expiry,
}

impl Item {
    /// Whether it counts as gone at the time `now`.
    pub fn is_over(&self, now: TimestampMs) -> bool {
        self.expires.at().is_some_and(|expires| expires <= now)
    }
}

/// When an item is over, if it is not for ever: an `Option` in 8 bytes instead of 16, which a leaf of the map has 16 of. Serialized as
/// that `Option`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<TimestampMs>", into = "Option<TimestampMs>")]
pub struct Expiry(TimestampMs);

impl Expiry {
    /// The item is for ever.
    pub const NEVER: Self = Self(TimestampMs::MAX);

    /// So many milliseconds after `now`, or the last time there is.
    pub fn after(now: TimestampMs, ttl_ms: u64) -> Self {
        Self(now.saturating_add(ttl_ms).min(TimestampMs::MAX - 1))
    }

    /// The time, if it is not for ever.
    pub fn at(self) -> Option<TimestampMs> {
        (self != Self::NEVER).then_some(self.0)
    }
}

/// The last time that a number tells is as good as never.
impl From<Option<TimestampMs>> for Expiry {
    fn from(at: Option<TimestampMs>) -> Self {
        at.map_or(Self::NEVER, Self)
    }
}

impl From<Expiry> for Option<TimestampMs> {
    fn from(expiry: Expiry) -> Self {
        expiry.at()
    }
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::codec;

    #[test]
    fn an_expiry_is_written_as_the_option_it_stands_for() {
        for at in [None, Some(0), Some(1_755_248_123_456), Some(TimestampMs::MAX - 1)] {
            let expiry = Expiry::from(at);
            assert_eq!((expiry.at(), format!("{expiry:?}")), (at, format!("{at:?}")));
            let encoded = codec::encode(&expiry);
            assert_eq!(encoded, codec::encode(&at));
            assert_eq!(codec::decode::<Expiry>(&encoded, 16), Ok(expiry));
        }
        assert_eq!(Expiry::from(Some(TimestampMs::MAX)), Expiry::NEVER);
        assert_eq!(Expiry::after(7, 5).at(), Some(12));
        assert_eq!(Expiry::after(7, u64::MAX).at(), Some(TimestampMs::MAX - 1));
    }

    /// 16 of them, their keys and a head of 32 bytes fit into an allocator's 1,536.
    #[test]
    fn an_item_is_small() {
        assert_eq!((size_of::<Item>(), size_of::<crate::types::key::Key>()), (64, 24));
    }
}
