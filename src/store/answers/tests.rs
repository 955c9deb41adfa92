//! What is remembered stays within its bounds.

use super::*;
use crate::store::answers::sessions::Standing;
use crate::types::command::{Condition, KeyWrite, Write};
use crate::types::key::Key;
use crate::types::limits::{
    IDEMPOTENCY_KEPT, IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_KEYS_SPARED, SESSION_IDLE_MAX,
    SESSION_SLOTS_MAX, SESSIONS_MAX,
};
use crate::types::once::Settled;
use crate::types::value::Value;

fn answer(index: u64) -> Answer {
    Answer { index, ts: 1, result: Settled::Written { version: index, existed: false } }
}

fn write(session: u64, slot: u32, seq: u64) -> WriteId {
    WriteId { session: SessionId(session), slot, seq }
}

fn restored(answers: &Answers) -> Answers {
    let mut again = Answers::default();
    for thing in answers.remembered() {
        again.restore(thing).expect("it was remembered");
    }
    again
}

#[test]
fn the_session_that_was_not_used_for_longest_makes_room() {
    let mut answers = Answers::default();
    let max = SESSIONS_MAX as u64;
    for session in 0..max {
        answers.sessions.open(SessionId(session), 0);
        answers.sessions.keep(write(session, 0, 1), answer(session), 0);
    }
    // All were opened at the same time, and all but number 3 were used since.
    for session in (0..max).filter(|session| *session != 3) {
        answers.sessions.keep(write(session, 0, 2), answer(session), 120_000);
    }
    answers.sessions.open(SessionId(max), 120_000);
    assert_eq!(answers.sessions.look(write(3, 0, 1)), Standing::NotOpen);
    assert_eq!(answers.sessions.look(write(4, 0, 2)), Standing::Again(answer(4)));
    assert_eq!(answers.count(), 2 * max - 1);
    assert_eq!(restored(&answers), answers);
}

#[test]
fn an_idle_session_ends_when_another_is_opened() {
    let idle_ms = u64::try_from(SESSION_IDLE_MAX.as_millis()).expect("it is short");
    let mut answers = Answers::default();
    answers.sessions.open(SessionId(1), 0);
    answers.sessions.open(SessionId(2), idle_ms);
    assert_eq!(answers.sessions.look(write(1, 0, 1)), Standing::New);
    answers.sessions.open(SessionId(3), idle_ms + 60_000);
    assert_eq!(answers.sessions.look(write(1, 0, 1)), Standing::NotOpen);
    assert_eq!(answers.sessions.look(write(2, 0, 1)), Standing::New);
}

#[test]
fn a_slot_beyond_the_last_is_not_open() {
    let mut answers = Answers::default();
    answers.sessions.open(SessionId(1), 0);
    assert_eq!(answers.sessions.look(write(1, SESSION_SLOTS_MAX - 1, 1)), Standing::New);
    assert_eq!(answers.sessions.look(write(1, SESSION_SLOTS_MAX, 1)), Standing::NotOpen);
}

#[test]
fn no_more_keys_are_remembered_than_may_be_and_the_old_ones_go() {
    let mut answers = Answers::default();
    let key = |number: usize| IdempotencyKey::new(&format!("k{number}")).expect("a key");
    for number in 0..IDEMPOTENCY_KEYS_MAX {
        let since = u64::try_from(number).expect("it is small");
        answers.keys.keep(&key(number), 7, answer(1), since);
    }
    let new = key(IDEMPOTENCY_KEYS_MAX);
    let kept_ms = u64::try_from(IDEMPOTENCY_KEPT.as_millis()).expect("it is short");
    answers.keys.purge(kept_ms);
    assert_eq!(answers.keys.look(&new, 7), keys::Standing::Full);
    assert_eq!(answers.keys.look(&key(0), 7), keys::Standing::Again(answer(1)));
    assert_eq!(answers.keys.look(&key(0), 8), keys::Standing::Reused);
    assert_eq!(restored(&answers), answers);
    // Later the oldest go, a few at a time.
    answers.keys.purge(kept_ms + 1);
    assert_eq!(answers.keys.look(&key(0), 8), keys::Standing::New);
    assert_eq!(answers.keys.look(&key(1), 8), keys::Standing::Reused);
    assert_eq!(answers.keys.look(&new, 7), keys::Standing::New);
    answers.keys.keep(&new, 7, answer(2), kept_ms + 1);
    assert_eq!(restored(&answers), answers);
}

/// One clock that is years ahead makes all keys look old.
#[test]
fn the_newest_keys_are_remembered_whatever_the_time_is() {
    let mut answers = Answers::default();
    let key = |number: usize| IdempotencyKey::new(&format!("k{number}")).expect("a key");
    for number in 0..IDEMPOTENCY_KEYS_SPARED + 20 {
        answers.keys.keep(&key(number), 7, answer(1), number as u64);
    }
    for _ in 0..20 {
        answers.keys.purge(u64::MAX);
    }
    assert_eq!(answers.keys.look(&key(19), 7), keys::Standing::New);
    assert_eq!(answers.keys.look(&key(20), 7), keys::Standing::Again(answer(1)));
    assert_eq!(answers.count(), IDEMPOTENCY_KEYS_SPARED as u64);
}

/// If this fails, retries of writes that were made before would be taken for other writes.
#[test]
fn a_write_is_known_again_for_ever() {
    let key = Key::new("order:7").expect("a key");
    let write = KeyWrite {
        key,
        condition: Some(Condition::Version(vec![1, 300])),
        write: Write::Put { value: Value::text("paid") },
    };
    assert_eq!(keys::hash_of(&write), 6_179_675_010_151_598_805);
}

#[test]
fn what_can_t_have_been_remembered_is_refused() {
    let session = Remembered::Session { session: SessionId(1), used_min: 0 };
    let slot =
        |session, slot| Remembered::Slot { write: write(session, slot, 1), answer: answer(1) };
    let key = || IdempotencyKey::new("k").expect("a key");
    let kept = Remembered::Key { key: key(), since: 0, write: 7, answer: answer(1) };
    let mut answers = Answers::default();
    for good in [session.clone(), slot(1, 0), kept.clone()] {
        answers.restore(good).expect("it may be");
    }
    for bad in [session, slot(1, 0), slot(2, 0), slot(1, SESSION_SLOTS_MAX), kept] {
        assert!(answers.restore(bad.clone()).is_err(), "{bad:?}");
    }
}
