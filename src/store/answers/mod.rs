//! What a group remembers of writes that may be sent again, so that each takes effect once.
//!
//! Part of the replicated state: it changes only in `store::apply`, is the same on every replica,
//! and is in every snapshot. Bounded by named numbers: [`sessions`] keeps one answer for each write
//! that a coordinator had under way at a time, [`keys`] one for each idempotency key of the last ten
//! minutes. A clone takes O(1) and shares.

pub(in crate::store) mod keys;
pub(in crate::store) mod sessions;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::store::answers::keys::Keys;
use crate::store::answers::sessions::Sessions;
use crate::types::clock::TimestampMs;
use crate::types::command::Outcome;
use crate::types::ids::SessionId;
use crate::types::limits::REMEMBERED_OVERHEAD_BYTES;
use crate::types::once::{Answer, IdempotencyKey, Once, WriteId};

/// Everything that is remembered.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answers {
    /// Writes of coordinators.
    pub(in crate::store) sessions: Sessions,
    /// Writes of clients.
    pub(in crate::store) keys: Keys,
}

/// One thing that is remembered, as it stands in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Remembered {
    /// A session is open; comes before its answers.
    Session {
        /// Which.
        session: SessionId,
        /// When it was last used, in whole minutes since the epoch.
        used_min: u64,
    },
    /// The answer in a slot of a session.
    Slot {
        /// The write that has it.
        write: WriteId,
        /// The answer.
        answer: Answer,
    },
    /// The answer to a write with an idempotency key.
    Key {
        /// The key.
        key: IdempotencyKey,
        /// When it came.
        since: TimestampMs,
        /// The hash of the write.
        write: u64,
        /// The answer.
        answer: Answer,
    },
}

impl Answers {
    /// What a write with this name came to, if it was applied: `write` is what the name should stand for.
    pub fn recall(&self, once: &Once, write: &impl Serialize) -> Option<Outcome> {
        match once {
            Once::Session(write) => match self.sessions.look(*write) {
                sessions::Standing::Again(answer) => Some(Outcome::Again(answer)),
                sessions::Standing::NotOpen
                | sessions::Standing::New
                | sessions::Standing::Superseded => None,
            },
            Once::Key(key) => match self.keys.look(key, keys::hash_of(write)) {
                keys::Standing::Again(answer) => Some(Outcome::Again(answer)),
                keys::Standing::Reused => Some(Outcome::KeyReused),
                keys::Standing::New | keys::Standing::Full => None,
            },
        }
    }

    /// What all of it counts for in memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.count() * REMEMBERED_OVERHEAD_BYTES + self.sessions.bytes() + self.keys.bytes()
    }

    /// All of it, in an order in which [`Answers::restore`] takes it.
    pub(in crate::store) fn remembered(&self) -> impl Iterator<Item = Remembered> + '_ {
        self.sessions.remembered().chain(self.keys.remembered())
    }

    /// How many things that is.
    pub(in crate::store) fn count(&self) -> u64 {
        self.sessions.count() + self.keys.count()
    }

    /// Takes back what was remembered; refuses what can't have been.
    pub(in crate::store) fn restore(&mut self, thing: Remembered) -> Result<(), &'static str> {
        match thing {
            Remembered::Session { session, used_min } => self.sessions.restore(session, used_min),
            Remembered::Slot { write, answer } => self.sessions.restore_slot(write, answer),
            Remembered::Key { key, since, write, answer } => {
                self.keys.restore(key, since, write, answer)
            }
        }
    }

    /// The hash of all of it.
    pub(in crate::store) fn hash(&self) -> (u64, u64) {
        (self.sessions.hash(), self.keys.hash())
    }
}
