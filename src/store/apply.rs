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
use crate::types::item::Item;
use crate::types::key::Key;
use crate::types::limits::SPAN_DELETES_MAX;
use crate::types::log::{Entry, Payload, StoredMembership};
use crate::types::once::{Answer, IdempotencyKey, Once, Settled, WriteId};
use crate::types::scan::Span;
use crate::types::topology::Claim;
use crate::types::value::Value;

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
            state.membership = StoredMembership { id: Some(entry.id), membership };
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
    match &command.action {
        Action::Found { group, name } => found(state, *group, name),
        Action::Put { key, value } => put(state, key, value, command.ts),
        Action::Delete { key } => delete(state, key),
        Action::Claim(claim) => done_or_refused(take_claim(state, claim)),
        Action::Confirm { cluster } => done_or_refused(confirm(state, *cluster)),
        Action::Release { cluster } => done_or_refused(release(state, *cluster)),
        Action::Conditional { key, condition, write } => {
            conditional(state, key, (condition, write), command.ts)
        }
        Action::OpenSession { session } => {
            state.clock = state.clock.max(command.ts);
            state.answers.sessions.open(*session, state.clock);
            Outcome::Done
        }
        Action::Once { once, write } => {
            state.clock = state.clock.max(command.ts);
            match once {
                Once::Session(id) => {
                    of_session(state, *id, command.ts, |state| key_write(state, write, command.ts))
                }
                Once::Key(key) => write_with_key(state, key, write, command.ts),
            }
        }
        Action::DeleteSpan { span, limit, once: None } => delete_span(state, span, *limit),
        Action::DeleteSpan { span, limit, once: Some(id) } => {
            state.clock = state.clock.max(command.ts);
            of_session(state, *id, command.ts, |state| delete_span(state, span, *limit))
        }
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
    if let Some(answer) = answer(state, &outcome, ts) {
        state.answers.sessions.keep(id, answer, state.clock);
    }
    outcome
}

/// Applies a write with an idempotency key, unless the key is known.
fn write_with_key(
    state: &mut State,
    key: &IdempotencyKey,
    write: &KeyWrite,
    ts: TimestampMs,
) -> Outcome {
    state.answers.keys.purge(state.clock);
    let hash = keys::hash_of(write);
    match state.answers.keys.look(key, hash) {
        keys::Standing::Again(answer) => return Outcome::Again(answer),
        keys::Standing::Reused => return Outcome::KeyReused,
        keys::Standing::Full => return Outcome::KeysFull,
        keys::Standing::New => {}
    }
    let outcome = key_write(state, write, ts);
    if let Some(answer) = answer(state, &outcome, ts) {
        state.answers.keys.keep(key, hash, answer, state.clock);
    }
    outcome
}

/// What is to be remembered of the write that is being applied. Nothing of one that belongs to
/// another group: sent again, it may belong here.
fn answer(state: &State, outcome: &Outcome, ts: TimestampMs) -> Option<Answer> {
    let result = match *outcome {
        Outcome::Written { version, existed } => Settled::Written { version, existed },
        Outcome::Mismatch { version } => Settled::Mismatch { version },
        Outcome::Deleted { index: _, keys, more } => Settled::Deleted { keys, more },
        Outcome::Done
        | Outcome::WrongShard { .. }
        | Outcome::Refused(_)
        | Outcome::Again(_)
        | Outcome::NoSession
        | Outcome::Superseded
        | Outcome::KeyReused
        | Outcome::KeysFull => return None,
    };
    let index = state.applied.map_or(0, |id| id.index);
    Some(Answer { index, ts, result })
}

fn key_write(state: &mut State, write: &KeyWrite, ts: TimestampMs) -> Outcome {
    let KeyWrite { key, condition, write } = write;
    match (condition, write) {
        (Some(condition), write) => conditional(state, key, (condition, write), ts),
        (None, Write::Put { value }) => put(state, key, value, ts),
        (None, Write::Delete) => delete(state, key),
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
    if let Err(WrongShard { epoch }) = state.check_owned(key) {
        return Outcome::WrongShard { epoch };
    }
    let old = state.map.get(key);
    let existed = old.is_some();
    let version = old.map_or(state.version_floor, |old| old.version) + 1;
    let ts = if planted::bug(Bug::OwnClock) { SystemClock.now_ms() } else { ts };
    let mut value = value.clone();
    if planted::bug(Bug::FlipBit) && planted::one_of(100) {
        value.data = planted::flip(&value.data).into();
    }
    state.insert(key, Item { value, ts, version });
    Outcome::Written { version, existed }
}

fn delete(state: &mut State, key: &Key) -> Outcome {
    if let Err(WrongShard { epoch }) = state.check_owned(key) {
        return Outcome::WrongShard { epoch };
    }
    let Some(old) = state.remove(key) else {
        return Outcome::Written { version: state.version_floor, existed: false };
    };
    let version = old.version + 1;
    if !planted::bug(Bug::ForgetFloor) {
        state.version_floor = state.version_floor.max(version);
    }
    Outcome::Written { version, existed: true }
}

/// The span may reach over keys of other groups; those that are here are the group's own.
fn delete_span(state: &mut State, span: &Span, limit: u32) -> Outcome {
    let limit = (limit as usize).min(SPAN_DELETES_MAX);
    let mut keys = state.span(span).map(|(key, _)| key.clone());
    let doomed: Vec<Key> = keys.by_ref().take(limit).collect();
    let more = keys.next().is_some();
    drop(keys);
    for key in &doomed {
        delete(state, key);
    }
    let index = state.applied.map_or(0, |id| id.index);
    Outcome::Deleted { index, keys: u32::try_from(doomed.len()).unwrap_or(u32::MAX), more }
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
    let version = state.map.get(key).map(|item| item.version);
    if !condition.holds(version) {
        return Outcome::Mismatch { version };
    }
    match write {
        Write::Put { value } => put(state, key, value, ts),
        Write::Delete => delete(state, key),
    }
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

#[cfg(test)]
pub(in crate::store) mod script;
#[cfg(test)]
pub(in crate::store) mod tests;
