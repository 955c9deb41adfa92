//! Points and pieces of the hash space.
//!
//! A key's point is the first 8 bytes, big-endian, of the SHA-256 of its hashed part; token `i`
//! of group `g` is that of the text `g#i`. Both follow from names alone, so that every
//! coordinator computes the same ring.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::types::key::Key;

/// A point of the ring.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Token(pub u64);

impl Token {
    /// Where `key` lies.
    pub fn of_key(key: &Key) -> Self {
        Self::of(key.hash_part())
    }

    /// The point of vnode `vnode` of the group called `name`.
    pub fn of_vnode(name: &str, vnode: u32) -> Self {
        Self::of(format!("{name}#{vnode}").as_bytes())
    }

    fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first))
    }
}

/// A piece of the ring: from after `after` up to and with `upto`, wrapping over the end.
/// `after == upto` is the whole ring.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct HashRange {
    /// The last point before the range.
    pub after: Token,
    /// The last point of the range.
    pub upto: Token,
}

impl HashRange {
    /// Whether `token` lies in the range.
    pub fn contains(self, token: Token) -> bool {
        if self.after < self.upto {
            self.after < token && token <= self.upto
        } else {
            token > self.after || token <= self.upto
        }
    }

    /// How many points it has; the whole ring has 2^64.
    pub fn width(self) -> u128 {
        let width = self.upto.0.wrapping_sub(self.after.0);
        if width == 0 { 1 << 64 } else { u128::from(width) }
    }
}

/// The SHA-256 of some bytes in base64, as a `Content-Security-Policy` names what it allows.
pub fn sha256_base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_wraps_over_the_end() {
        let range = |after, upto| HashRange { after: Token(after), upto: Token(upto) };
        assert!(range(10, 20).contains(Token(20)) && !range(10, 20).contains(Token(10)));
        assert!(range(20, 10).contains(Token(u64::MAX)) && range(20, 10).contains(Token(0)));
        assert!(!range(20, 10).contains(Token(15)));
        assert!(range(7, 7).contains(Token(7)) && range(7, 7).contains(Token(8)));
        assert_eq!(range(20, 10).width() + range(10, 20).width(), 1 << 64);
    }

    #[test]
    fn the_hash_never_changes() {
        let key = Key::new("a").expect("key");
        // SHA-256("a") = ca978112ca1bbdca…
        assert_eq!(Token::of_key(&key), Token(0xca97_8112_ca1b_bdca));
        assert_eq!(Token::of_vnode("a", 0), Token::of_key(&Key::new("a#0").expect("key")));
    }
}
