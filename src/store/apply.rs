//! Turns entries into state: the one place where the replicated state changes.
//!
//! Promises: the same entries give the same state and the same outcomes on every replica, today
//! and after a restart. So it looks at nothing but its arguments: no clock (the leader stamped the
//! command), no randomness, no order of a hash map. It never fails: what a client got wrong is an
//! [`Outcome`] that says so and leaves the state as it was, but for `applied`.
//!
//! Refuses: an entry that does not follow the last one applied. A hole can't come from outside,
//! only from a bug of ours, and a replica that went on would differ from the others for ever.
//!
//! A key's version rises with each of its writes, deletes included, and a key that is written
//! again after a delete goes on above the version of that delete. No tombstone remembers it:
//! [`State::version_floor`] is the greatest version of any delete, and a key without an item
//! starts above it (`docs/decisions/004-state-machine.md`).
//!
//! A value can be for a while. Its end is decided by [`State::clock`], the time as the log tells it, so on every
//! replica at the same entry; what is over counts as gone at once, and is removed by and by
//! (`docs/decisions/014-expiry.md`).
//!
//! A write that may be sent again has a name, and takes effect once under it: [`Answers`] remembers
//! what it came to (`docs/decisions/013-exactly-once.md`).
//!
//! [`Answers`]: crate::store::answers::Answers

use std::sync::Arc;

use crate::planted::{self, Bug};
use crate::store::answers::{keys, sessions};
use crate::store::state::{State, WrongShard};
use crate::types::clock::{Clock, SystemClock, TimestampMs};
use crate::types::command::{Action, Command, Condition, KeyWrite, Outcome, Refusal, Write};
use crate::types::ids::{ClusterId, GroupId};
use crate::types::item::{Expiry, Item, Version};
use crate::types::key::Key;
use crate::types::limits::{EXPIRIES_MAX, SPAN_DELETES_MAX};
use crate::types::log::{Entry, Payload, StoredMembership};
use crate::types::once::{Answer, IdempotencyKey, Once, Settled, WriteId};
use crate::types::scan::Span;
use crate::types::topology::Claim;
use crate::types::value::Value;
use crate::types::watch::{Change, Event};

/// Applies the entry that follows the last one applied.
///
/// A delete of a key that has no value answers with the version floor: the greatest version that
/// the key can have had, and the one that the next write of it will exceed.
///
/// # Panics
/// If there is a hole between the last applied entry and this one.
pub fn apply(state: &mut State, entry: &Entry) -> Outcome {
    let next = state.next_index();
    assert!(entry.id.index == next, "hole in log: expected entry {next}, got {}", entry.id);
    state.applied = Some(entry.id);
    match &entry.payload {
        Payload::Blank => Outcome::Done,
        Payload::Membership(membership) => {
            let membership = membership.clone();
            state.membership = Arc::new(StoredMembership { id: Some(entry.id), membership });
            Outcome::Done
        }
        Payload::Command(command) => {
            if planted::bug(Bug::ApplyTwice) && planted::one_of(100) {
                run(state, command);
            }
            run(state, command)
        }
    }
}

fn run(state: &mut State, command: &Command) -> Outcome {
    if tells_time(&command.action) {
        state.clock = state.clock.max(command.ts);
    }
    match &command.action {
        Action::Found { group, name } => found(state, *group, name),
        Action::Put { key, value } => put(state, key, value, command.ts),
        Action::Delete { key } => delete(state, key, command.ts),
        Action::Claim(claim) => done_or_refused(take_claim(state, claim)),
        Action::Confirm { cluster } => done_or_refused(confirm(state, *cluster)),
        Action::Release { cluster } => done_or_refused(release(state, *cluster)),
        Action::Conditional { key, condition, write } => {
            conditional(state, key, (condition, write), command.ts)
        }
        Action::OpenSession { session } => {
            state.answers.sessions.open(*session, state.clock);
            Outcome::Done
        }
        Action::Once { once: Once::Session(id), write } => {
            of_session(state, *id, command.ts, |state| key_write(state, write, command.ts))
        }
        Action::Once { once: Once::Key(key), write } => {
            with_key(state, (key, keys::hash_of(write)), command.ts, |state| {
                key_write(state, write, command.ts)
            })
        }
        Action::Write(write) => key_write(state, write, command.ts),
        Action::Expire => {
            expire(state);
            Outcome::Done
        }
        Action::Txn { once: None, txn } => txn::txn(state, txn, command.ts),
        Action::Txn { once: Some(Once::Session(id)), txn } => {
            of_session(state, *id, command.ts, |state| txn::txn(state, txn, command.ts))
        }
        Action::Txn { once: Some(Once::Key(key)), txn } => {
            with_key(state, (key, keys::hash_of(txn)), command.ts, |state| {
                txn::txn(state, txn, command.ts)
            })
        }
        Action::DeleteSpan { span, limit, once: None } => {
            delete_span(state, span, *limit, command.ts)
        }
        Action::DeleteSpan { span, limit, once: Some(id) } => {
            of_session(state, *id, command.ts, |state| delete_span(state, span, *limit, command.ts))
        }
    }
}

/// Whether the command's stamp counts for [`State::clock`].
fn tells_time(action: &Action) -> bool {
    match action {
        Action::OpenSession { .. }
        | Action::Once { .. }
        | Action::Expire
        | Action::Write(_)
        | Action::Txn { .. } => true,
        Action::DeleteSpan { once, .. } => once.is_some(),
        Action::Conditional { write, .. } => match write {
            Write::PutFor { .. } | Write::Touch { .. } => true,
            Write::Put { .. } | Write::Delete | Write::Add { .. } => false,
        },
        Action::Found { .. }
        | Action::Put { .. }
        | Action::Delete { .. }
        | Action::Claim(_)
        | Action::Confirm { .. }
        | Action::Release { .. } => false,
    }
}

/// Applies a write of a session, unless it was applied before or comes too late.
fn of_session(
    state: &mut State,
    id: WriteId,
    ts: TimestampMs,
    write: impl FnOnce(&mut State) -> Outcome,
) -> Outcome {
    match state.answers.sessions.look(id) {
        sessions::Standing::NotOpen => return Outcome::NoSession,
        sessions::Standing::Again(answer) => return Outcome::Again(answer),
        sessions::Standing::Superseded => return Outcome::Superseded,
        sessions::Standing::New => {}
    }
    let outcome = write(state);
    let room = state.answers.sessions.room();
    if let Some(answer) = answer(state, &outcome, ts, room) {
        state.answers.sessions.keep(id, answer, state.clock);
    }
    outcome
}

/// Applies a write with an idempotency key and this hash, unless the key is known.
fn with_key(
    state: &mut State,
    (key, hash): (&IdempotencyKey, u64),
    ts: TimestampMs,
    write: impl FnOnce(&mut State) -> Outcome,
) -> Outcome {
    state.answers.keys.purge(state.clock);
    match state.answers.keys.look(key, hash) {
        keys::Standing::Again(answer) => return Outcome::Again(answer),
        keys::Standing::Reused => return Outcome::KeyReused,
        keys::Standing::Full => return Outcome::KeysFull,
        keys::Standing::New => {}
    }
    let outcome = write(state);
    let room = state.answers.keys.room();
    if let Some(answer) = answer(state, &outcome, ts, room) {
        state.answers.keys.keep(key, hash, answer, state.clock);
    }
    outcome
}

/// What is to be remembered of the write that is being applied. Nothing of one that belongs to
/// another group: sent again, it may belong here. An answer of more than `room` bytes is not kept.
fn answer(state: &State, outcome: &Outcome, ts: TimestampMs, room: u64) -> Option<Answer> {
    let result = match outcome.clone() {
        Outcome::Written { version, existed } => Settled::Written { version, existed },
        Outcome::Mismatch { version } => Settled::Mismatch { version },
        Outcome::Deleted { index, keys, more } => Settled::Deleted { index, keys, more },
        Outcome::Lasting { version, existed, expires } => {
            Settled::Lasting { version, existed, expires }
        }
        Outcome::NoValue => Settled::NoValue,
        Outcome::Counted { value, version, existed, expires } => {
            Settled::Counted { value, version, existed, expires }
        }
        Outcome::NotAnInteger => Settled::NotAnInteger,
        Outcome::Aborted(error) => Settled::Aborted(error),
        Outcome::Txn(outcome) => Settled::Txn(Arc::new(outcome)),
        Outcome::Done
        | Outcome::WrongShard { .. }
        | Outcome::Refused(_)
        | Outcome::Again(_)
        | Outcome::NoSession
        | Outcome::Superseded
        | Outcome::KeyReused
        | Outcome::KeysFull
        | Outcome::AnswerNotKept => return None,
    };
    let index = state.applied.map_or(0, |id| id.index);
    // What decides is a count of the state, not how it is encoded just now.
    let result = if result.bytes() > room { Settled::AnswerNotKept } else { result };
    Some(Answer { index, ts, result })
}

fn key_write(state: &mut State, write: &KeyWrite, ts: TimestampMs) -> Outcome {
    let KeyWrite { key, condition, write } = write;
    match (condition, write) {
        (Some(condition), write) => conditional(state, key, (condition, write), ts),
        (None, write) => unconditional(state, key, write, ts),
    }
}

fn unconditional(state: &mut State, key: &Key, write: &Write, ts: TimestampMs) -> Outcome {
    match write {
        Write::Put { value } => put(state, key, value, ts),
        Write::Delete => delete(state, key, ts),
        Write::PutFor { value, ttl_ms } => put_for(state, key, (value, *ttl_ms), ts),
        Write::Touch { ttl_ms } => touch(state, key, *ttl_ms),
        Write::Add { by } => add(state, key, *by, ts),
    }
}

fn done_or_refused(result: Result<(), Refusal>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(refusal) => Outcome::Refused(refusal),
    }
}

/// The first one counts; the same again changes nothing, not even the name.
fn found(state: &mut State, group: GroupId, name: &str) -> Outcome {
    match state.group {
        None => state.group = Some((group, Arc::from(name))),
        Some((ours, _)) if ours == group => {}
        Some((ours, _)) => return Outcome::Refused(Refusal::Founded { group: ours }),
    }
    Outcome::Done
}

fn put(state: &mut State, key: &Key, value: &Value, ts: TimestampMs) -> Outcome {
    put_until(state, key, (value, None), ts)
}

fn put_for(
    state: &mut State,
    key: &Key,
    (value, ttl_ms): (&Value, u64),
    ts: TimestampMs,
) -> Outcome {
    let expires = Expiry::after(state.clock, ttl_ms).at();
    match put_until(state, key, (value, expires), ts) {
        Outcome::Written { version, existed } => Outcome::Lasting { version, existed, expires },
        other => other,
    }
}

/// The value and its version stay: who watches a lock sees that it is the same one.
fn touch(state: &mut State, key: &Key, ttl_ms: Option<u64>) -> Outcome {
    if let Err(WrongShard { epoch }) = state.check_owned(key) {
        return Outcome::WrongShard { epoch };
    }
    remove_if_over(state, key);
    let Some(mut item) = state.map.get(key).cloned() else { return Outcome::NoValue };
    let expires = ttl_ms.map_or(Expiry::NEVER, |ttl_ms| Expiry::after(state.clock, ttl_ms));
    item.expires = expires;
    let version = item.version;
    state.insert(key, item);
    Outcome::Lasting { version, existed: true, expires: expires.at() }
}

/// A JSON integer, or nothing, which counts as 0.
fn add(state: &mut State, key: &Key, by: i64, ts: TimestampMs) -> Outcome {
    if let Err(WrongShard { epoch }) = state.check_owned(key) {
        return Outcome::WrongShard { epoch };
    }
    remove_if_over(state, key);
    let old = state.map.get(key);
    let expires = old.and_then(|old| old.expires.at());
    let held = old.map_or(Some(0), |old| old.value.as_integer());
    let Some(value) = held.and_then(|held| held.checked_add(by)) else {
        return Outcome::NotAnInteger;
    };
    match put_until(state, key, (&Value::integer(value), expires), ts) {
        Outcome::Written { version, existed } => {
            Outcome::Counted { value, version, existed, expires }
        }
        other => other,
    }
}

/// Removes what is over, the oldest first, so much at a time: what is left counts as gone all the same.
fn expire(state: &mut State) {
    for _ in 0..EXPIRIES_MAX {
        match state.first_over().cloned() {
            Some((expires, key)) if expires <= state.clock => remove_over(state, &key),
            Some(_) | None => return,
        };
    }
}

/// Before anything is made of a key: a value that is over is none.
fn remove_if_over(state: &mut State, key: &Key) {
    if state.map.get(key).is_some_and(|item| item.is_over(state.clock)) {
        remove_over(state, key);
    }
}

fn remove_over(state: &mut State, key: &Key) -> Option<Version> {
    let ts = state.clock;
    remove(state, key, (Change::Expire, ts))
}

fn put_until(
    state: &mut State,
    key: &Key,
    (value, expires): (&Value, Option<TimestampMs>),
    ts: TimestampMs,
) -> Outcome {
    if let Err(WrongShard { epoch }) = state.check_owned(key) {
        return Outcome::WrongShard { epoch };
    }
    // One search through the map, which is most of what a put costs.
    let held = state.map.get(key).map(|old| (old.version, old.is_over(state.clock)));
    let (existed, before) = match held {
        Some((version, false)) => (true, version),
        Some((_, true)) => {
            remove_over(state, key);
            (false, state.version_floor)
        }
        None => (false, state.version_floor),
    };
    let version = before + 1;
    let ts = if planted::bug(Bug::OwnClock) { SystemClock.now_ms() } else { ts };
    let mut value = value.clone();
    if planted::bug(Bug::FlipBit) && planted::one_of(100) {
        value.data = planted::flip(&value.data).into();
    }
    state.tell(|| {
        let change = Change::Put { value: value.clone(), expires };
        Event { key: key.clone(), change, ts, version }
    });
    state.insert(key, Item { value, ts, version, expires: expires.into() });
    Outcome::Written { version, existed }
}

fn delete(state: &mut State, key: &Key, ts: TimestampMs) -> Outcome {
    if let Err(WrongShard { epoch }) = state.check_owned(key) {
        return Outcome::WrongShard { epoch };
    }
    remove_if_over(state, key);
    match remove(state, key, (Change::Delete, ts)) {
        Some(version) => Outcome::Written { version, existed: true },
        None => Outcome::Written { version: state.version_floor, existed: false },
    }
}

/// Takes the value of a key away, which is a write of that key: its version, if there was a value.
fn remove(state: &mut State, key: &Key, (change, ts): (Change, TimestampMs)) -> Option<Version> {
    let version = state.remove(key)?.version + 1;
    state.tell(|| Event { key: key.clone(), change, ts, version });
    if !planted::bug(Bug::ForgetFloor) {
        state.version_floor = state.version_floor.max(version);
    }
    Some(version)
}

/// The span may reach over keys of other groups; those that are here are the group's own.
fn delete_span(state: &mut State, span: &Span, limit: u32, ts: TimestampMs) -> Outcome {
    let limit = (limit as usize).min(SPAN_DELETES_MAX);
    let mut items = state.range(span);
    // What is over goes on the way, and does not count.
    let doomed: Vec<(Key, bool)> = items
        .by_ref()
        .take(limit)
        .map(|(key, item)| (key.clone(), item.is_over(state.clock)))
        .collect();
    let more = items.next().is_some();
    drop(items);
    for (key, over) in &doomed {
        if *over {
            remove_over(state, key)
        } else {
            remove(state, key, (Change::Delete, ts))
        };
    }
    let keys = doomed.iter().filter(|(_, over)| !over).count();
    let index = state.applied.map_or(0, |id| id.index);
    Outcome::Deleted { index, keys: u32::try_from(keys).unwrap_or(u32::MAX), more }
}

/// A key that is not the group's own has no version here that could be compared.
fn conditional(
    state: &mut State,
    key: &Key,
    (condition, write): (&Condition, &Write),
    ts: TimestampMs,
) -> Outcome {
    if let Err(WrongShard { epoch }) = state.check_owned(key) {
        return Outcome::WrongShard { epoch };
    }
    remove_if_over(state, key);
    let version = state.map.get(key).map(|item| item.version);
    if !condition.holds(version) {
        return Outcome::Mismatch { version };
    }
    unconditional(state, key, write, ts)
}

/// A newer topology of the same ring replaces the claim and leaves it as final as it was.
fn take_claim(state: &mut State, claim: &Claim) -> Result<(), Refusal> {
    if let Some(ours) = &state.claim {
        let (cluster, epoch) = (ours.topology.cluster, ours.topology.epoch);
        if cluster != claim.topology.cluster {
            return Err(Refusal::OtherCluster { cluster, epoch });
        }
        if **ours == *claim {
            return Ok(());
        }
        // Two topologies of one epoch can't both be right: the first stays.
        if claim.topology.epoch <= epoch {
            return Err(Refusal::OldEpoch { epoch });
        }
    }
    let keys = state.keys_foreign_to(claim);
    if keys > 0 {
        return Err(Refusal::ForeignKeys { keys });
    }
    state.claim = Some(Arc::new(claim.clone()));
    Ok(())
}

fn confirm(state: &mut State, cluster: ClusterId) -> Result<(), Refusal> {
    if !is_claimed_by(state, cluster) {
        return Err(Refusal::NotClaimed);
    }
    state.confirmed = true;
    Ok(())
}

fn release(state: &mut State, cluster: ClusterId) -> Result<(), Refusal> {
    if !is_claimed_by(state, cluster) {
        return Err(Refusal::NotClaimed);
    }
    if state.confirmed {
        return Err(Refusal::Confirmed);
    }
    state.claim = None;
    Ok(())
}

fn is_claimed_by(state: &State, cluster: ClusterId) -> bool {
    state.claim.as_ref().is_some_and(|claim| claim.topology.cluster == cluster)
}

pub mod txn;

#[cfg(test)]
pub(in crate::store) mod script;
#[cfg(test)]
pub(in crate::store) mod tests;
