//! Sessions of coordinators: for each slot the newest write and its answer.
//!
//! A session is opened by a command and ends when it was idle for long or must make room: a write
//! of a session that is not open is refused, so forgetting one can't make a write take effect twice.
//! A write with a greater number than its slot's is new. The same number was applied before, and
//! its answer is given again. A smaller one comes too late: it must not take effect any more, for
//! whoever sent it may have been told that its outcome is unknown, and has gone on.

use imbl::OrdMap;

use crate::store::digest::{Sum, hash_of};
use crate::types::clock::TimestampMs;
use crate::types::ids::SessionId;
use crate::types::limits::{
    SESSION_ANSWER_BYTES_MAX, SESSION_IDLE_MAX, SESSION_SLOTS_MAX, SESSIONS_MAX,
    TXN_ANSWERS_BYTES_MAX,
};
use crate::types::once::{Answer, WriteId};

use super::Remembered;

const MINUTE_MS: u64 = 60_000;

/// The open sessions of a group.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in crate::store) struct Sessions {
    open: OrdMap<SessionId, Session>,
    /// The answers of all of them.
    answers: u64,
    /// What they count for beyond a fixed size, in bytes.
    bytes: u64,
    hash: Sum,
}

#[derive(Clone, PartialEq, Debug, Default)]
struct Session {
    /// In whole minutes, so that it seldom changes.
    used_min: u64,
    slots: OrdMap<u32, Slot>,
}

/// The newest write of a slot.
#[derive(Clone, PartialEq, Debug)]
struct Slot {
    seq: u64,
    answer: Answer,
    /// Their hash, which is taken out of the sum when the next one comes.
    hash: u64,
}

/// How a write stands to what its session remembers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) enum Standing {
    /// There is no such session or slot.
    NotOpen,
    /// It was not applied before.
    New,
    /// It was.
    Again(Answer),
    /// Its slot has a later one.
    Superseded,
}

impl Sessions {
    /// Opens a session, unless it is open. Ends those that are idle, and the one that was not used for
    /// longest if there are too many. Takes O(n).
    pub(in crate::store) fn open(&mut self, id: SessionId, now: TimestampMs) {
        let idle_max_min = SESSION_IDLE_MAX.as_secs() / 60;
        let now_min = now / MINUTE_MS;
        let is_idle = |session: &Session| session.used_min.saturating_add(idle_max_min) < now_min;
        let idle: Vec<_> =
            self.open.iter().filter(|(_, session)| is_idle(session)).map(|(id, _)| *id).collect();
        for id in idle {
            self.end(id);
        }
        if self.open.contains_key(&id) {
            return;
        }
        if self.open.len() >= SESSIONS_MAX {
            let oldest = self.open.iter().min_by_key(|(id, session)| (session.used_min, **id));
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.end(oldest);
            }
        }
        self.insert(id, now_min);
    }

    /// How a write stands.
    pub(in crate::store) fn look(&self, write: WriteId) -> Standing {
        let Some(session) = self.open.get(&write.session) else { return Standing::NotOpen };
        if write.slot >= SESSION_SLOTS_MAX {
            return Standing::NotOpen;
        }
        match session.slots.get(&write.slot) {
            Some(slot) if slot.seq == write.seq => Standing::Again(slot.answer.clone()),
            Some(slot) if slot.seq > write.seq => Standing::Superseded,
            Some(_) | None => Standing::New,
        }
    }

    /// Remembers what a new write came to, in place of the one before in its slot.
    pub(in crate::store) fn keep(&mut self, write: WriteId, answer: Answer, now: TimestampMs) {
        let Some(session) = self.open.get_mut(&write.session) else { return };
        let now_min = now / MINUTE_MS;
        if session.used_min < now_min {
            self.hash.remove(&of_session(write.session, session.used_min));
            self.hash.add(&of_session(write.session, now_min));
            session.used_min = now_min;
        }
        let slot = Slot::new(write, answer);
        self.hash.add_hash(slot.hash);
        self.bytes += slot.answer.result.bytes();
        match session.slots.insert(write.slot, slot) {
            Some(old) => {
                self.hash.remove_hash(old.hash);
                self.bytes -= old.answer.result.bytes();
            }
            None => self.answers += 1,
        }
    }

    /// What the next answer may count for beyond a fixed size, in bytes.
    pub(in crate::store) fn room(&self) -> u64 {
        SESSION_ANSWER_BYTES_MAX.min(TXN_ANSWERS_BYTES_MAX.saturating_sub(self.bytes))
    }

    /// What all answers count for beyond a fixed size, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All sessions, each before its answers.
    pub(super) fn remembered(&self) -> impl Iterator<Item = Remembered> + '_ {
        self.open.iter().flat_map(|(id, session)| {
            let (id, used_min) = (*id, session.used_min);
            let slots = session.slots.iter().map(move |(number, slot)| {
                let write = WriteId { session: id, slot: *number, seq: slot.seq };
                Remembered::Slot { write, answer: slot.answer.clone() }
            });
            std::iter::once(Remembered::Session { session: id, used_min }).chain(slots)
        })
    }

    /// How many sessions and answers there are.
    pub(super) fn count(&self) -> u64 {
        self.open.len() as u64 + self.answers
    }

    /// The hash of all of them.
    pub(super) fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// Takes back a session.
    pub(super) fn restore(&mut self, id: SessionId, used_min: u64) -> Result<(), &'static str> {
        if self.open.len() >= SESSIONS_MAX {
            return Err("too many sessions");
        }
        if self.open.contains_key(&id) {
            return Err("a session comes twice");
        }
        self.insert(id, used_min);
        Ok(())
    }

    /// Takes back an answer.
    pub(super) fn restore_slot(
        &mut self,
        write: WriteId,
        answer: Answer,
    ) -> Result<(), &'static str> {
        if self.look(write) != Standing::New {
            return Err("an answer without a session, or two in one slot");
        }
        let session = self.open.get_mut(&write.session).ok_or("an answer without a session")?;
        let slot = Slot::new(write, answer);
        self.hash.add_hash(slot.hash);
        self.bytes += slot.answer.result.bytes();
        if session.slots.insert(write.slot, slot).is_some() {
            return Err("two answers in one slot");
        }
        self.answers += 1;
        Ok(())
    }

    fn insert(&mut self, id: SessionId, used_min: u64) {
        self.hash.add(&of_session(id, used_min));
        self.open.insert(id, Session { used_min, slots: OrdMap::new() });
    }

    fn end(&mut self, id: SessionId) {
        let Some(session) = self.open.remove(&id) else { return };
        self.hash.remove(&of_session(id, session.used_min));
        self.answers -= session.slots.len() as u64;
        for (_, slot) in session.slots {
            self.hash.remove_hash(slot.hash);
            self.bytes -= slot.answer.result.bytes();
        }
    }
}

fn of_session(id: SessionId, used_min: u64) -> impl serde::Serialize {
    Remembered::Session { session: id, used_min }
}

impl Slot {
    fn new(write: WriteId, answer: Answer) -> Self {
        let hash = hash_of(&Remembered::Slot { write, answer: answer.clone() });
        Self { seq: write.seq, answer, hash }
    }
}
