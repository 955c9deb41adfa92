//! Questions about a whole span of keys: which there are, and how many.
//!
//! A [`Scan`] goes to every group; each answers with one [`Part`], which is one state of that group.
//! A page is given no further than every group has told of ([`Part`]s that have more end it), so
//! that nothing is skipped, and goes on behind its last key. That key is all that a [`Cursor`] holds:
//! no process remembers anything of a scan.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::types::bounded::bounded;
use crate::types::clock::TimestampMs;
use crate::types::codec;
use crate::types::item::{Item, Version};
use crate::types::key::Key;
use crate::types::kv::{Consistency, GroupIndex};
use crate::types::limits::{CURSOR_BYTES_MAX, SCAN_PART_KEYS_MAX};
use crate::types::topology::Epoch;
use crate::types::value::Value;

/// What an item of a page counts for beside its key and value, in bytes: its JSON around them.
pub const LISTED_OVERHEAD_BYTES: usize = 72;

/// The keys from one on, up to and without another, by their bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Span {
    /// The first key that may be in it; need not be one.
    pub from: Bytes,
    /// The first that is not any more; `None` for all the rest.
    pub to: Option<Bytes>,
}

impl Span {
    /// All keys that start with `prefix`.
    pub fn of_prefix(prefix: &[u8]) -> Self {
        // The first text behind all that start so: without its last bytes that can't rise, and the
        // next one raised.
        let rises = prefix.iter().rposition(|byte| *byte < u8::MAX);
        let to = rises.map(|at| {
            let mut to = prefix[..=at].to_vec();
            to[at] += 1;
            Bytes::from(to)
        });
        Self { from: Bytes::copy_from_slice(prefix), to }
    }

    /// One key.
    pub fn of_key(key: &Key) -> Self {
        let from = Bytes::copy_from_slice(key.as_bytes());
        // No text lies between a key and the key with a zero byte behind it.
        Self { to: Some([key.as_bytes(), &[0]].concat().into()), from }
    }

    /// The keys from `start` on, up to and without `end`; either may be empty, and bounds nothing then.
    pub fn new(start: &str, end: &str) -> Self {
        let to = (!end.is_empty()).then(|| Bytes::copy_from_slice(end.as_bytes()));
        Self { from: Bytes::copy_from_slice(start.as_bytes()), to }
    }

    /// The keys that are in both.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        let to = match (self.to, other.to) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        Self { from: self.from.max(other.from), to }
    }

    /// What is left of it behind `key`, in the direction of the scan.
    #[must_use]
    pub fn behind(self, key: &Key, reverse: bool) -> Self {
        let rest = if reverse {
            Self { from: Bytes::new(), to: Some(Bytes::copy_from_slice(key.as_bytes())) }
        } else {
            // No text lies between a key and the key with a zero byte behind it.
            Self { from: [key.as_bytes(), &[0]].concat().into(), to: None }
        };
        self.within(rest)
    }

    /// What all its keys begin with up to the end of a hash tag, if they do: then they belong to one group, that
    /// of this key.
    pub fn tag(&self) -> Option<Key> {
        let open = self.from.iter().position(|byte| *byte == b'{')?;
        let close = open + self.from[open..].iter().position(|byte| *byte == b'}')?;
        let begins = Self::of_prefix(&self.from[..=close]);
        let all_begin_so = self.clone().within(begins) == *self;
        let key = Key::new(&self.from[..=close]).ok();
        key.filter(|key| all_begin_so && key.hash_part().len() == close - open - 1)
    }

    /// Whether `key` is in it.
    pub fn holds(&self, key: &Key) -> bool {
        *self.from <= *key.as_bytes() && self.to.as_ref().is_none_or(|to| key.as_bytes() < to)
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    /// Whether every key is in it.
    pub fn is_everything(&self) -> bool {
        self.from.is_empty() && self.to.is_none()
    }
}

/// What is asked about a span of keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scan {
    /// Which keys.
    pub span: Span,
    /// What of them.
    pub want: Want,
    /// How fresh.
    pub consistency: Consistency,
}

/// What is asked of the keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Want {
    /// How many there are.
    Count,
    /// The first of them, in order.
    Page {
        /// At most so many.
        limit: u32,
        /// Of at most so many bytes; a larger one may come alone.
        bytes: u32,
        /// From the last one down.
        reverse: bool,
        /// Without their values.
        keys_only: bool,
    },
}

/// One key of a page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// The key.
    pub key: Key,
    /// What it holds, if that was asked for.
    pub value: Option<Value>,
    /// The leader's stamp of the write.
    pub ts: TimestampMs,
    /// The key's version as of that write.
    pub version: Version,
    /// When it is over, if it is not for ever.
    pub expires: Option<TimestampMs>,
}

impl Listed {
    /// A key and what it holds.
    pub fn of(key: &Key, item: &Item, keys_only: bool) -> Self {
        let value = (!keys_only).then(|| item.value.clone());
        let Item { ts, version, expires, .. } = *item;
        Self { key: key.clone(), value, ts, version, expires: expires.at() }
    }

    /// What it counts for in a page, in bytes.
    pub fn bytes(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |value| value.data.len());
        self.key.as_bytes().len() + value + LISTED_OVERHEAD_BYTES
    }
}

/// What there is in a span.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Found {
    /// So many keys.
    Count(u64),
    /// These, in the order asked for.
    Page {
        /// The first of them.
        #[serde(deserialize_with = "bounded::<_, _, SCAN_PART_KEYS_MAX>")]
        items: Vec<Listed>,
        /// Whether more may follow; then there is at least one.
        more: bool,
    },
}

impl Found {
    /// The first of `items` that a page may have.
    pub fn page(items: impl Iterator<Item = Listed>, limit: usize, bytes: usize) -> Self {
        let (mut page, mut left) = (Vec::new(), bytes);
        for item in items {
            let fits = page.is_empty() || item.bytes() <= left;
            if page.len() == limit || !fits {
                return Self::Page { items: page, more: true };
            }
            left = left.saturating_sub(item.bytes());
            page.push(item);
        }
        Self::Page { items: page, more: false }
    }
}

/// One group's answer: one state of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// That state.
    pub at: GroupIndex,
    /// The epoch of the group's claim in it.
    pub epoch: Epoch,
    /// For stale reads: how old it may be, in milliseconds, if that is known.
    pub lag_ms: Option<u64>,
    /// What it has.
    pub found: Found,
}

/// The answer of all groups together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// The state of each group that was read.
    pub at: Vec<GroupIndex>,
    /// For stale reads: how old the oldest of them may be, if that is known.
    pub lag_ms: Option<u64>,
    /// What they have.
    pub found: Found,
}

impl From<Part> for Scanned {
    fn from(part: Part) -> Self {
        Self { at: vec![part.at], lag_ms: part.lag_ms, found: part.found }
    }
}

/// What came of removing all keys of a span.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deleted {
    /// The last entry of each group that removed some of them, or found none.
    pub at: Vec<GroupIndex>,
    /// How many there were.
    pub keys: u64,
}

/// The version of what a cursor holds.
const CURSOR_VERSION: u8 = 1;

/// Where a page ended, and the query that it belongs to: opaque to clients.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cursor {
    version: u8,
    query: u64,
    last: Key,
}

impl Cursor {
    /// Behind `last`, in the query with this hash.
    pub fn new(query: u64, last: Key) -> Self {
        Self { version: CURSOR_VERSION, query, last }
    }

    /// The last key that was seen, if `text` is a cursor of this query.
    pub fn parse(text: &[u8], query: u64) -> Option<Key> {
        if text.len() > CURSOR_BYTES_MAX {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let cursor: Self = codec::decode(&bytes, CURSOR_BYTES_MAX).ok()?;
        let ours = cursor.version == CURSOR_VERSION && cursor.query == query;
        ours.then_some(cursor.last)
    }

    /// As it is given to a client: URL-safe.
    pub fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(codec::encode(self))
    }
}

/// What tells a query from others, whichever process is asked.
pub fn query_hash(query: &impl Serialize) -> u64 {
    let digest = Sha256::digest(codec::encode(query));
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::types::hash::Token;

    fn key(text: &str) -> Key {
        Key::new(text).expect("a key")
    }

    fn holds(span: &Span, key: &[u8]) -> bool {
        span.from <= key && span.to.as_ref().is_none_or(|to| key < to)
    }

    proptest! {
        #[test]
        fn a_prefix_is_a_span(prefix in vec(prop_oneof![Just(0), Just(0xfe), Just(0xff)], 0..4),
                              key in vec(prop_oneof![Just(0), Just(0xfe), Just(0xff)], 0..6)) {
            prop_assert_eq!(holds(&Span::of_prefix(&prefix), &key), key.starts_with(&prefix));
        }

        /// Whatever span it is of: all of its keys hash as the tag does.
        #[test]
        fn keys_with_a_tag_are_of_one_group(
            from in "[a{}]{0,5}", to in "[a{}]{0,5}", key in "[a{}]{1,6}", of_prefix: bool, reverse: bool,
        ) {
            let mut span = if of_prefix { Span::of_prefix(from.as_bytes()) } else { Span::new(&from, &to) };
            if let Ok(last) = Key::new(to) {
                span = span.behind(&last, reverse);
            }
            let key = Key::new(key).expect("a key");
            if let Some(tag) = span.tag() && span.holds(&key) {
                prop_assert_eq!(Token::of_key(&tag), Token::of_key(&key), "{:?} {}", span, key);
            }
        }

        #[test]
        fn what_lies_behind_a_key_is_what_comes_after_it(
            last in "[ab\u{0}]{1,3}", other in "[ab\u{0}]{1,4}", reverse: bool,
        ) {
            let behind = Span::default().behind(&key(&last), reverse);
            let after = if reverse { other < last } else { other > last };
            prop_assert_eq!(holds(&behind, other.as_bytes()), after);
        }

        #[test]
        fn any_bytes_are_a_cursor_or_none(text in vec(any::<u8>(), 0..100), raw in vec(any::<u8>(), 0..60)) {
            for text in [text, BASE64_URL_SAFE_NO_PAD.encode(&raw).into_bytes()] {
                if let Some(last) = Cursor::parse(&text, 7) {
                    let ours = Cursor::new(7, last.clone()).text();
                    prop_assert!(ours.len() <= text.len());
                    prop_assert_eq!(Cursor::parse(ours.as_bytes(), 7), Some(last));
                }
            }
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_query_and_has_a_bound() {
        let longest = key(&"k".repeat(4096));
        let text = Cursor::new(u64::MAX, longest.clone()).text();
        assert!(text.len() <= CURSOR_BYTES_MAX, "{} bytes", text.len());
        assert_eq!(Cursor::parse(text.as_bytes(), u64::MAX), Some(longest));
        assert_eq!(Cursor::parse(text.as_bytes(), 7), None);
        assert_eq!(Cursor::parse(&text.as_bytes()[1..], u64::MAX), None);
        assert_eq!(Cursor::parse(&[b'A'; CURSOR_BYTES_MAX + 1], u64::MAX), None);
        let other = Cursor { version: 2, query: 7, last: key("a") };
        assert_eq!(Cursor::parse(other.text().as_bytes(), 7), None);
    }

    #[test]
    fn a_page_is_bounded_in_keys_and_bytes_and_never_empty_while_there_is_more() {
        let item = |bytes: usize| Listed {
            key: key("k"),
            value: Some(Value::bytes(vec![0; bytes])),
            ts: 0,
            version: 1,
            expires: None,
        };
        let page = |sizes: &[usize], limit, bytes| match Found::page(
            sizes.iter().map(|size| item(*size)),
            limit,
            bytes,
        ) {
            Found::Page { items, more } => (items.len(), more),
            Found::Count(_) => panic!("a page was asked for"),
        };
        assert_eq!(page(&[1, 1, 1], 2, 1000), (2, true));
        assert_eq!(page(&[1, 1], 2, 1000), (2, false));
        assert_eq!(page(&[], 2, 1000), (0, false));
        assert_eq!(page(&[900, 900], 9, 1000), (1, true));
        assert_eq!(page(&[9000, 1], 9, 1000), (1, true), "a large one comes alone");
    }
}
