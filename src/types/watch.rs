//! What watchers are told: changes of keys, by their places in a group's log.
//!
//! A [`Place`] is the next thing to be told, so "everything up to here is known" and "go on here" are
//! one number. A [`Resume`] has one for each group that is watched and goes to clients as text
//! that they give back as it is.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::types::bounded::bounded;
use crate::types::clock::TimestampMs;
use crate::types::codec;
use crate::types::ids::{GroupId, Index};
use crate::types::item::Version;
use crate::types::key::Key;
use crate::types::kv::GroupIndex;
use crate::types::limits::{GROUPS_MAX, RESUME_BYTES_MAX, WATCH_TOLD_EVENTS_MAX};
use crate::types::scan::{Span, query_hash};
use crate::types::topology::Epoch;
use crate::types::value::Value;

/// What an event counts for in memory beside its key and value, in bytes.
pub const EVENT_OVERHEAD_BYTES: usize = 192;

/// A place in the changes of one group: of entry `index`, the change with this number, from 0.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Place {
    /// The entry.
    pub index: Index,
    /// The change within it: a transaction has several.
    pub part: u32,
}

impl Place {
    /// Behind every entry that there will ever be.
    pub const END: Self = Self { index: Index::MAX, part: u32::MAX };

    /// Behind everything of entry `index`.
    pub fn behind(index: Index) -> Self {
        Self { index: index.saturating_add(1), part: 0 }
    }

    /// Behind this one change.
    #[must_use]
    pub fn next(self) -> Self {
        Self { part: self.part.saturating_add(1), ..self }
    }
}

/// What happened to a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// It has this value.
    Put {
        /// The value.
        value: Value,
        /// When it is over, if it is not for ever.
        expires: Option<TimestampMs>,
    },
    /// Its value was removed.
    Delete,
    /// Its value was over, and was removed.
    Expire,
}

impl Change {
    /// What it is called in `event:`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Delete => "delete",
            Self::Expire => "expire",
        }
    }
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// The key.
    pub key: Key,
    /// What happened to it.
    pub change: Change,
    /// The leader's stamp of the entry.
    pub ts: TimestampMs,
    /// The key's version as of this change.
    pub version: Version,
}

impl Event {
    /// What it counts for in memory, in bytes.
    pub fn bytes(&self) -> usize {
        let value = match &self.change {
            Change::Put { value, .. } => value.data.len(),
            Change::Delete | Change::Expire => 0,
        };
        self.key.as_bytes().len() + value + EVENT_OVERHEAD_BYTES
    }
}

/// What a group is asked for its watchers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Changes of these keys.
    pub span: Span,
    /// From here on.
    pub from: Place,
    /// How long to wait for one, in milliseconds.
    pub wait_ms: u32,
    /// The most bytes of changes in the answer; a larger change comes alone.
    pub bytes: u32,
    /// Whether any replica may tell what it has, and nobody confirms that there is no more.
    pub anyone: bool,
}

/// Its answer: there are no other changes of the span from the place that was asked for up to `next`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// The changes, in order.
    #[serde(deserialize_with = "bounded::<_, _, WATCH_TOLD_EVENTS_MAX>")]
    pub events: Vec<(Place, Event)>,
    /// Where to go on. When there are no events, a quorum has followed the leader since the question was
    /// asked, and nothing else had been acknowledged by then.
    pub next: Place,
}

/// A client's wish to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// Of which keys.
    pub filter: Filter,
    /// From where on; from now on without it.
    pub since: Option<Since>,
}

/// Which keys are watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filter {
    /// One.
    Key(Key),
    /// All that start with this.
    Prefix(String),
}

impl Filter {
    /// The keys as a span.
    pub fn span(&self) -> Span {
        match self {
            Self::Key(key) => Span::of_key(key),
            Self::Prefix(prefix) => Span::of_prefix(prefix.as_bytes()),
        }
    }

    /// Whether `key` is one of them.
    pub fn matches(&self, key: &Key) -> bool {
        match self {
            Self::Key(one) => one == key,
            Self::Prefix(prefix) => key.as_bytes().starts_with(prefix.as_bytes()),
        }
    }
}

/// From where on a client wishes to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Since {
    /// Where a watch was that it had before.
    Resume(Resume),
    /// Behind these states of the groups, as `X-Sage-Index` names them.
    Indexes(Vec<GroupIndex>),
}

/// The version of what a [`Resume`] holds.
const RESUME_VERSION: u8 = 1;

/// Where a watch is in each of its groups.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume {
    version: u8,
    /// Which groups they are, in which ring: see [`scope`].
    pub scope: u64,
    /// The place in each, in the ring's order.
    #[serde(deserialize_with = "bounded::<_, _, GROUPS_MAX>")]
    pub places: Vec<Place>,
}

impl Resume {
    /// At these places of the groups of a scope.
    pub fn new(scope: u64, places: Vec<Place>) -> Self {
        Self { version: RESUME_VERSION, scope, places }
    }

    /// What `text` says, if it is one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > RESUME_BYTES_MAX {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let resume: Self = codec::decode(&bytes, RESUME_BYTES_MAX).ok()?;
        (resume.version == RESUME_VERSION).then_some(resume)
    }

    /// As it is given to a client: URL-safe.
    pub fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(codec::encode(self))
    }
}

/// What tells these groups, at this epoch of their ring, from others.
pub fn scope(epoch: Epoch, groups: &[GroupId]) -> u64 {
    query_hash(&(epoch, groups))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_place_to_resume_from_or_none(
            text in vec(any::<u8>(), 0..100), raw in vec(any::<u8>(), 0..60),
        ) {
            for text in [text, BASE64_URL_SAFE_NO_PAD.encode(&raw).into_bytes()] {
                if let Some(resume) = Resume::parse(&text) {
                    prop_assert_eq!(Resume::parse(resume.text().as_bytes()), Some(resume));
                }
            }
        }

        #[test]
        fn places_are_ordered_by_entry_and_then_by_change(index in 0..9_u64, part in 0..9_u32) {
            let place = Place { index, part };
            prop_assert!(place < place.next() && place.next() < Place::behind(index));
            prop_assert!(Place::behind(index) < Place::END);
        }
    }

    #[test]
    fn a_place_to_resume_from_has_a_bound() {
        let longest = Resume::new(u64::MAX, vec![Place::END; GROUPS_MAX]);
        let text = longest.text();
        assert!(text.len() <= RESUME_BYTES_MAX, "{} bytes", text.len());
        assert_eq!(Resume::parse(text.as_bytes()), Some(longest));
        let three = Resume::new(1 << 60, vec![Place { index: 1_000_000, part: 0 }; 3]);
        assert!(three.text().len() < 48, "{}", three.text());
    }

    #[test]
    fn a_filter_is_its_span() {
        let key = |text: &str| Key::new(text).expect("a key");
        for filter in
            [Filter::Key(key("ab")), Filter::Prefix("ab".into()), Filter::Prefix(String::new())]
        {
            let span = filter.span();
            for text in ["a", "ab", "ab\0", "abc", "ac", "b"] {
                assert_eq!(span.holds(&key(text)), filter.matches(&key(text)), "{filter:?} {text}");
            }
        }
    }
}
