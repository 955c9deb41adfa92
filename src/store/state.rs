//! The state machine's state: an ordered map and what the group knows of itself.
//!
//! Data and questions about it. It is changed in one place only, `store::apply`, and replaced as a
//! whole when a snapshot is read. A clone takes O(1) and shares everything, so whoever holds one
//! has a frozen view: a snapshot or a long scan makes no write wait.
//!
//! Items come and go through [`State::insert`] and [`State::remove`], which keep what is counted
//! of them. Every read of a key asks [`State::read`], which checks that the key is the group's own; nothing
//! else may be used to answer a client.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::planted::{self, Bug};
use crate::store::answers::Answers;
use crate::store::digest::{self, ItemsHash};
use crate::store::rests::Rests;
use crate::types::clock::TimestampMs;
use crate::types::hash::Token;
use crate::types::ids::{GroupId, Index, LogId, StateHash};
use crate::types::item::{Item, Version};
use crate::types::key::Key;
use crate::types::log::StoredMembership;
use crate::types::scan::Span;
use crate::types::topology::{Claim, Epoch};
use crate::types::value::Value;
use crate::types::watch::Event;

/// What an item counts for in memory beside the bytes of its key and value: its place in the map,
/// and what the allocator adds. Measured: 168 to 251 bytes ("Memory" in `docs/operations.md`).
pub const ITEM_OVERHEAD_BYTES: u64 = 256;

/// What an item that is not for ever counts for in memory beyond that: its place in the order of expiry.
pub const EXPIRY_OVERHEAD_BYTES: u64 = 128;

/// How many items are freed between two looks at whether to rest.
const FREED_TOGETHER: usize = 64;

/// Everything that entries change. A clone takes O(1) and shares.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct State {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The membership in force.
    pub membership: Arc<StoredMembership>,
    /// The group's identity and name, once founded.
    pub group: Option<(GroupId, Arc<str>)>,
    /// The ring the group is part of.
    pub claim: Option<Arc<Claim>>,
    /// Whether that claim is final.
    pub confirmed: bool,
    /// A key without an item starts at the version after this one: the greatest version of any
    /// deleted key, so that versions rise through deletes without a tombstone for each.
    pub version_floor: Version,
    /// The time as far as the log tells it: the greatest stamp of any write with a name or a time to live,
    /// any counter, transaction, opening of a session and [`Action::Expire`], so that it never goes back, whoever leads. Of
    /// these only: no snapshot of the first format stands for any, so that it is the same on every replica.
    ///
    /// [`Action::Expire`]: crate::types::command::Action::Expire
    pub clock: TimestampMs,
    /// What is remembered of writes that may be sent again.
    pub answers: Answers,
    /// The keys and what they hold; some of it may be over ([`Item::is_over`]) and not be removed yet.
    pub map: OrdMap<Key, Item>,
    /// The keys of items that are not for ever, by when they are over.
    pub by_expiry: OrdSet<(TimestampMs, Key)>,
    /// Bytes of keys and values in the map.
    pub bytes: u64,
    /// The sum of the items' hashes.
    pub items_hash: ItemsHash,
    /// What entries have changed since somebody took it, for watchers, in order; `None` where nobody
    /// takes it. Says nothing that the entries don't, and is in no snapshot.
    pub changes: Option<Vec<Event>>,
}

/// The group does not own the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the group does not own the key at epoch {epoch}")]
pub struct WrongShard {
    /// The epoch of the group's claim.
    pub epoch: Epoch,
}

impl State {
    /// Notes a change of a key for whoever takes [`State::changes`].
    pub(in crate::store) fn tell(&mut self, event: impl FnOnce() -> Event) {
        let lost = planted::bug(Bug::LostEvent) && planted::one_of(100);
        if let Some(changes) = &mut self.changes
            && !lost
        {
            changes.push(event());
        }
    }

    /// Puts an item into the map and keeps count; what was there before comes back.
    pub(in crate::store) fn insert(&mut self, key: &Key, item: Item) -> Option<Item> {
        self.bytes += size_of(key, &item);
        self.items_hash.add(key, &item);
        if let Some(expires) = item.expires.at() {
            self.by_expiry.insert((expires, key.clone()));
        }
        let old = self.map.insert(key.clone(), item)?;
        if let Some(expires) = old.expires.at()
            && self.map.get(key).is_some_and(|new| new.expires != old.expires)
        {
            self.by_expiry.remove(&(expires, key.clone()));
        }
        self.forget(key, &old);
        Some(old)
    }

    /// Takes a key's item out of the map and keeps count.
    pub(in crate::store) fn remove(&mut self, key: &Key) -> Option<Item> {
        let old = self.map.remove(key)?;
        if let Some(expires) = old.expires.at() {
            self.by_expiry.remove(&(expires, key.clone()));
        }
        self.forget(key, &old);
        Some(old)
    }

    fn forget(&mut self, key: &Key, old: &Item) {
        self.bytes -= size_of(key, old);
        self.items_hash.remove(key, old);
    }

    /// What `key` holds, unless it belongs to another group.
    pub fn read(&self, key: &Key) -> Result<Option<&Item>, WrongShard> {
        self.check_owned(key)?;
        Ok(self.map.get(key).filter(|item| !item.is_over(self.clock)))
    }

    /// When the first item that is not for ever is over, and its key.
    pub fn first_over(&self) -> Option<&(TimestampMs, Key)> {
        self.by_expiry.get_min()
    }

    /// The items of a span that are not over, in the order of their keys. All are the group's own: `store::apply` lets no
    /// other key in, and takes no claim that leaves one to another group.
    pub fn span<'a>(
        &'a self,
        span: &'a Span,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Item)> + Send {
        self.range(span).filter(|(_, item)| !item.is_over(self.clock))
    }

    /// The items of a span, in the order of their keys, those included that are over and not removed yet.
    pub fn range<'a>(
        &'a self,
        span: &'a Span,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Item)> + Send {
        // An end before the beginning is nothing, not an error.
        let from = Bound::Included(&span.from[..]);
        let to = span.to.as_ref().map(|to| Bound::Excluded((&to[..]).max(&span.from[..])));
        self.map.range::<_, [u8]>((from, to.unwrap_or(Bound::Unbounded)))
    }

    /// Whether `key` is one of the group's own; a group that nobody has claimed owns every key.
    pub fn check_owned(&self, key: &Key) -> Result<(), WrongShard> {
        match &self.claim {
            Some(_) if planted::bug(Bug::IgnoreOwnership) => Ok(()),
            Some(claim) if !claim.owns(Token::of_key(key)) => {
                Err(WrongShard { epoch: claim.topology.epoch })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The epoch of the group's claim; 0 while nobody has claimed it.
    pub fn epoch(&self) -> Epoch {
        self.claim.as_ref().map_or(0, |claim| claim.topology.epoch)
    }

    /// How many keys the map holds, those included whose items are over and not removed yet.
    pub fn keys(&self) -> u64 {
        self.map.len() as u64
    }

    /// How many keys have a value. Takes O(n) of those whose items are over and not removed yet.
    pub fn keys_with_value(&self) -> u64 {
        let over = self.by_expiry.iter().take_while(|(expires, _)| *expires <= self.clock);
        self.keys() - over.count() as u64
    }

    /// What the map and the answers that are kept count for in memory, in bytes.
    pub fn memory(&self) -> u64 {
        let expiring = self.by_expiry.len() as u64 * EXPIRY_OVERHEAD_BYTES;
        self.bytes + self.keys() * ITEM_OVERHEAD_BYTES + expiring + self.answers.memory()
    }

    /// The index of the entry to apply next.
    pub fn next_index(&self) -> Index {
        self.applied.map_or(0, |last| last.index + 1)
    }

    /// What this state comes to; another replica's, as of the same entry, must come to the same.
    pub fn hash(&self) -> StateHash {
        digest::of_state(self)
    }

    /// Frees its items, a little at a time, with these rests in between. Of what somebody else has, too, a copy is made and freed, a leaf of the map
    /// at a time.
    pub fn free(self, mut rests: Rests) {
        let freed = self.map.into_iter().map(drop).chain(self.by_expiry.into_iter().map(drop));
        for (count, ()) in freed.enumerate() {
            if count.is_multiple_of(FREED_TOGETHER) {
                rests.rest();
            }
        }
    }

    /// How many keys of the map `claim` leaves to other groups. Takes O(n): it hashes every key.
    pub fn keys_foreign_to(&self, claim: &Claim) -> u64 {
        self.map.keys().filter(|key| !claim.owns(Token::of_key(key))).count() as u64
    }
}

/// The bytes that a key and its item count for in [`State::bytes`].
pub fn size_of(key: &Key, item: &Item) -> u64 {
    bytes_of(key, &item.value)
}

/// The bytes that a key with this value, for ever or not, counts for in [`State::memory`].
pub fn memory_of(key: &Key, value: &Value, expires: bool) -> u64 {
    let expiry = if expires { EXPIRY_OVERHEAD_BYTES } else { 0 };
    bytes_of(key, value) + ITEM_OVERHEAD_BYTES + expiry
}

fn bytes_of(key: &Key, value: &Value) -> u64 {
    (key.as_bytes().len() + value.data.len()) as u64
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;
    use crate::types::item::Expiry;

    #[test]
    fn what_is_freed_is_nobody_elses() {
        let mut state = State::default();
        for number in 0..3 * FREED_TOGETHER {
            let expires = Some(number as u64).filter(|number| number % 2 == 0).into();
            let item = Item { value: Value::text("v"), ts: 0, version: 1, expires };
            state.insert(&Key::new(format!("{number}")).expect("a key"), item);
        }
        let frozen = state.clone();
        let mut expected = State::default();
        for (key, item) in &state.map {
            expected.insert(key, item.clone());
        }
        state.free(Rests::none());
        assert_eq!(frozen, expected);
    }

    proptest! {
        #[test]
        fn a_span_has_the_keys_between_its_ends_from_either_side(
            keys in btree_set("[a-c]{1,4}", 0..80),
            start in "[a-c]{0,3}",
            end in "[a-c]{0,3}",
        ) {
            let mut state = State::default();
            for key in &keys {
                let item = Item { value: Value::text("v"), ts: 0, version: 1, expires: Expiry::NEVER };
                state.insert(&Key::new(key.clone()).expect("a key"), item);
            }
            let span = Span::new(&start, &end);
            let inside = |key: &&String| **key >= start && (end.is_empty() || **key < end);
            let mut expected: Vec<&String> = keys.iter().filter(inside).collect();
            let found: Vec<String> = state.span(&span).map(|(key, _)| key.to_string()).collect();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert!(found.is_empty() || !span.is_empty());
            expected.reverse();
            let found: Vec<String> = state.span(&span).rev().map(|(key, _)| key.to_string()).collect();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        }
    }
}
