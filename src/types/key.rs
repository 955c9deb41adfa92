//! A key: 1 to 4096 bytes of UTF-8, ordered by its bytes.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use crate::types::limits::KEY_BYTES_MAX;

/// A checked key. One of up to 23 bytes stands in the value itself, so that a search through a map of
/// keys follows no pointers; a longer one is shared by its clones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(SmolStr);

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
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        if bytes.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLarge(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| KeyError::NotUtf8)?;
        Ok(Self(SmolStr::new(text)))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part of the key that is hashed: what stands between the first `{` and the next `}`
    /// after it, if that is not empty, else the whole key. So `{user1}:cart` and `{user1}:name`
    /// share a group.
    pub fn hash_part(&self) -> &[u8] {
        let key = self.as_bytes();
        let open = key.iter().position(|&byte| byte == b'{');
        let tag = open.and_then(|open| {
            let rest = &key[open + 1..];
            rest.iter().position(|&byte| byte == b'}').map(|close| &rest[..close])
        });
        tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
    }
}

/// As its bytes, which it can be looked up by.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
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
        serializer.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a key: 1 to {KEY_BYTES_MAX} bytes of UTF-8")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Key, E> {
                Key::new(bytes).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                self.visit_bytes(text.as_bytes())
            }
        }

        deserializer.deserialize_bytes(KeyVisitor)
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

    /// Of lengths on both sides of what stands in the value itself.
    #[test]
    fn every_length_comes_back_from_both_encodings() {
        for len in [1, 22, 23, 24, 25, KEY_BYTES_MAX] {
            let key = Key::new("k".repeat(len)).expect("key");
            let json = serde_json::to_string(&key).expect("text");
            assert_eq!(serde_json::from_str::<Key>(&json).expect("key"), key);
            let bytes = crate::types::codec::encode(&key);
            assert_eq!(crate::types::codec::decode::<Key>(&bytes, 5000).expect("key"), key);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::new(vec![b'a'; 4097]), Err(KeyError::TooLarge(4097)));
        assert_eq!(Key::new(vec![0xff]), Err(KeyError::NotUtf8));
        let forged = crate::types::codec::encode(&bytes::Bytes::from_static(&[0xff]));
        assert!(crate::types::codec::decode::<Key>(&forged, 100).is_err());
    }
}
