//! A key: 1 to 4096 bytes of UTF-8, ordered by its bytes.

use std::borrow::Borrow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::limits::KEY_BYTES_MAX;

/// A checked key. Cloning counts a reference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// Why some bytes are no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Keys have at least one byte.
    #[error("missing key")]
    Empty,
    /// Keys have a bound.
    #[error("key too large: {0} bytes, at most {KEY_BYTES_MAX} are accepted")]
    TooLarge(usize),
    /// Keys are text.
    #[error("key is not valid UTF-8")]
    NotUtf8,
}

impl Key {
    /// Checks `bytes` and makes them a key.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        if bytes.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLarge(bytes.len()));
        }
        if std::str::from_utf8(&bytes).is_err() {
            return Err(KeyError::NotUtf8);
        }
        Ok(Self(bytes))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's text.
    ///
    /// # Panics
    /// Never: it was checked when the key was made.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked in new")
    }

    /// The part of the key that is hashed: what stands between the first `{` and the next `}`
    /// after it, if that is not empty, else the whole key. So `{user1}:cart` and `{user1}:name`
    /// share a group.
    pub fn hash_part(&self) -> &[u8] {
        let open = self.0.iter().position(|&byte| byte == b'{');
        let tag = open.and_then(|open| {
            let rest = &self.0[open + 1..];
            rest.iter().position(|&byte| byte == b'}').map(|close| &rest[..close])
        });
        tag.filter(|tag| !tag.is_empty()).unwrap_or(&self.0)
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Text for people, bytes in our own encoding.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(self.as_str());
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Bytes::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_whole_tag_is_hashed() {
        let part = |text: &'static str| Key::new(text).expect("key").hash_part().to_vec();
        assert_eq!(part("{user1}:cart"), b"user1");
        assert_eq!(part("cart:{user1}:{x}"), b"user1");
        assert_eq!(part("{}:cart"), b"{}:cart");
        assert_eq!(part("{user1"), b"{user1");
        assert_eq!(part("user1}"), b"user1}");
        assert_eq!(part("plain"), b"plain");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::new(vec![b'a'; 4097]), Err(KeyError::TooLarge(4097)));
        assert_eq!(Key::new(vec![0xff]), Err(KeyError::NotUtf8));
        let forged = crate::types::codec::encode(&Bytes::from_static(&[0xff]));
        assert!(crate::types::codec::decode::<Key>(&forged, 100).is_err());
    }
}
