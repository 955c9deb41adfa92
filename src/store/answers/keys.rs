//! Idempotency keys of clients: what each write with one came to, for ten minutes at least.
//!
//! Time is that of the commands, so a leader whose clock is far ahead makes all keys look old. Hence the
//! newest [`IDEMPOTENCY_KEYS_SPARED`] stay whatever the time is, and only what is older than both is
//! forgotten, a few at a time by the writes that follow.

use imbl::{OrdMap, OrdSet};
use serde::Serialize;
use twox_hash::XxHash3_64;

use crate::store::digest::Sum;
use crate::types::clock::TimestampMs;
use crate::types::codec;
use crate::types::limits::{
    IDEMPOTENCY_KEPT, IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_KEYS_PURGED, IDEMPOTENCY_KEYS_SPARED,
    KEY_ANSWER_BYTES_MAX, TXN_ANSWERS_BYTES_MAX,
};
use crate::types::once::{Answer, IdempotencyKey};

use super::Remembered;

/// The hash by which a write is known again: XXH3 of its encoding. It is part of the replicated state
/// and of snapshots, so it never changes, whatever else is hashed anew.
pub(in crate::store) fn hash_of(write: &impl Serialize) -> u64 {
    XxHash3_64::oneshot(&codec::encode(write))
}

/// The keys that a group remembers.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in crate::store) struct Keys {
    kept: OrdMap<IdempotencyKey, Kept>,
    by_age: OrdSet<(TimestampMs, IdempotencyKey)>,
    /// What the answers count for beyond a fixed size, in bytes.
    bytes: u64,
    hash: Sum,
}

#[derive(Clone, PartialEq, Debug)]
struct Kept {
    since: TimestampMs,
    /// The hash of the write.
    write: u64,
    answer: Answer,
}

/// How a write stands to what is remembered of its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) enum Standing {
    /// It was not applied before.
    New,
    /// It was.
    Again(Answer),
    /// The key names another write.
    Reused,
    /// No further key can be remembered.
    Full,
}

impl Keys {
    /// How the write with the hash `write` stands.
    pub(in crate::store) fn look(&self, key: &IdempotencyKey, write: u64) -> Standing {
        match self.kept.get(key) {
            Some(kept) if kept.write == write => Standing::Again(kept.answer.clone()),
            Some(_) => Standing::Reused,
            None if self.kept.len() >= IDEMPOTENCY_KEYS_MAX => Standing::Full,
            None => Standing::New,
        }
    }

    /// Forgets some of what is old at the time `now`.
    pub(in crate::store) fn purge(&mut self, now: TimestampMs) {
        for _ in 0..IDEMPOTENCY_KEYS_PURGED {
            if self.kept.len() <= IDEMPOTENCY_KEYS_SPARED {
                return;
            }
            let Some((since, key)) = self.by_age.get_min().cloned() else { return };
            if !is_over(since, now) {
                return;
            }
            self.remove(&key);
        }
    }

    /// Remembers what a new write came to.
    pub(in crate::store) fn keep(
        &mut self,
        key: &IdempotencyKey,
        write: u64,
        answer: Answer,
        now: TimestampMs,
    ) {
        self.remove(key);
        self.insert(key.clone(), Kept { since: now, write, answer });
    }

    /// What the next answer may count for beyond a fixed size, in bytes.
    pub(in crate::store) fn room(&self) -> u64 {
        KEY_ANSWER_BYTES_MAX.min(TXN_ANSWERS_BYTES_MAX.saturating_sub(self.bytes))
    }

    /// What all answers count for beyond a fixed size, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of them.
    pub(super) fn remembered(&self) -> impl Iterator<Item = Remembered> + '_ {
        self.kept.iter().map(|(key, kept)| of(key, kept))
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.kept.len() as u64
    }

    /// The hash of all of them.
    pub(super) fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// Takes one back.
    pub(super) fn restore(
        &mut self,
        key: IdempotencyKey,
        since: TimestampMs,
        write: u64,
        answer: Answer,
    ) -> Result<(), &'static str> {
        if self.kept.len() >= IDEMPOTENCY_KEYS_MAX {
            return Err("too many idempotency keys");
        }
        if self.kept.contains_key(&key) {
            return Err("an idempotency key comes twice");
        }
        self.insert(key, Kept { since, write, answer });
        Ok(())
    }

    fn insert(&mut self, key: IdempotencyKey, kept: Kept) {
        self.hash.add(&of(&key, &kept));
        self.bytes += kept.answer.result.bytes();
        self.by_age.insert((kept.since, key.clone()));
        self.kept.insert(key, kept);
    }

    fn remove(&mut self, key: &IdempotencyKey) {
        let Some(kept) = self.kept.remove(key) else { return };
        self.hash.remove(&of(key, &kept));
        self.bytes -= kept.answer.result.bytes();
        self.by_age.remove(&(kept.since, key.clone()));
    }
}

fn is_over(since: TimestampMs, now: TimestampMs) -> bool {
    let kept_ms = u64::try_from(IDEMPOTENCY_KEPT.as_millis()).unwrap_or(u64::MAX);
    since.saturating_add(kept_ms) < now
}

fn of(key: &IdempotencyKey, kept: &Kept) -> Remembered {
    let Kept { since, write, answer } = kept.clone();
    Remembered::Key { key: key.clone(), since, write, answer }
}
