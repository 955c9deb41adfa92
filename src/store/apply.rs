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

use std::sync::Arc;

use crate::planted::{self, Bug};
use crate::store::state::{State, WrongShard};
use crate::types::clock::{Clock, SystemClock, TimestampMs};
use crate::types::command::{Action, Command, Condition, Outcome, Refusal, Write};
use crate::types::ids::{ClusterId, GroupId};
use crate::types::item::Item;
use crate::types::key::Key;
use crate::types::log::{Entry, Payload, StoredMembership};
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
