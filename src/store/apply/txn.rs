//! Transactions and batches: several operations in one entry.
//!
//! Nothing comes between them. A transaction is tried on a copy of the state, which costs next to nothing,
//! and the copy takes the state's place only if every operation could be carried out. Of a batch each
//! operation stands for itself.

use crate::planted::{self, Bug};
use crate::store::apply::{remove_if_over, unconditional};
use crate::store::state::{State, WrongShard};
use crate::types::clock::TimestampMs;
use crate::types::command::{Outcome, Write};
use crate::types::ids::Index;
use crate::types::item::Item;
use crate::types::key::Key;
use crate::types::limits::TXN_READ_BYTES_MAX;
use crate::types::txn::{Compare, Holds, Op, OpError, OpResult, Txn, TxnOutcome};

/// Carries it out, if all its keys are the group's own.
pub(super) fn txn(state: &mut State, txn: &Txn, ts: TimestampMs) -> Outcome {
    for key in txn.keys() {
        if let Err(WrongShard { epoch }) = state.check_owned(key) {
            return Outcome::WrongShard { epoch };
        }
    }
    match txn {
        Txn::Batch { ops } => {
            let mut room = TXN_READ_BYTES_MAX;
            let results = ops.iter().map(|op| operation(state, op, &mut room, ts));
            let results = results.map(|result| result.unwrap_or_else(OpResult::Failed)).collect();
            Outcome::Txn(TxnOutcome { succeeded: true, results })
        }
        Txn::Atomic { compare, then, otherwise } => {
            let mut room = TXN_READ_BYTES_MAX;
            let held = compare.iter().map(|compare| holds(state, compare, &mut room));
            let succeeded = match held.collect::<Result<Vec<_>, _>>() {
                Ok(held) => held.into_iter().all(|held| held),
                Err(error) => return Outcome::Aborted(error),
            };
            let mut draft = state.clone();
            let ops = if succeeded { then } else { otherwise };
            let results = ops.iter().map(|op| operation(&mut draft, op, &mut room, ts)).collect();
            match results {
                Ok(results) => {
                    let torn = planted::bug(Bug::TornTxn) && planted::tears(index(state));
                    *state = if torn { all_but_last(state.clone(), ops, ts) } else { draft };
                    Outcome::Txn(TxnOutcome { succeeded, results })
                }
                Err(error) => Outcome::Aborted(error),
            }
        }
    }
}

/// For [`Bug::TornTxn`]: the state without the last of the operations.
fn all_but_last(mut state: State, ops: &[Op], ts: TimestampMs) -> State {
    let mut room = TXN_READ_BYTES_MAX;
    for op in ops.split_last().map_or(ops, |(_, others)| others) {
        let done = operation(&mut state, op, &mut room, ts);
        assert!(done.is_ok(), "it was carried out before: {done:?}");
    }
    state
}

/// The entry that is being applied.
fn index(state: &State) -> Index {
    state.applied.map_or(0, |id| id.index)
}

/// What a transaction or batch that only reads comes to, in a state that stays as it is; `None` if it
/// writes.
pub fn read(state: &State, txn: &Txn) -> Option<Outcome> {
    // Nothing is written to the copy.
    txn.only_reads().then(|| self::txn(&mut state.clone(), txn, 0))
}

fn holds(
    state: &State,
    Compare { key, holds }: &Compare,
    room: &mut usize,
) -> Result<bool, OpError> {
    let item = state.map.get(key).filter(|item| !item.is_over(state.clock));
    match (holds, item) {
        (Holds::Value(_), Some(item)) => take(room, item)?,
        (Holds::Value(_) | Holds::Version(_) | Holds::Exists(_), _) => {}
    }
    Ok(holds.of(item))
}

/// What is looked at, and what is hashed anew, is work that one entry must not have too much of.
fn take(room: &mut usize, item: &Item) -> Result<(), OpError> {
    *room = room.checked_sub(item.value.data.len()).ok_or(OpError::TooLong)?;
    Ok(())
}

fn operation(
    state: &mut State,
    op: &Op,
    room: &mut usize,
    ts: TimestampMs,
) -> Result<OpResult, OpError> {
    match op {
        Op::Get { key } => get(state, key, room),
        Op::Write { key, write } => {
            if let (Write::Touch { .. }, Some(item)) = (write, state.map.get(key)) {
                take(room, item)?;
            }
            written(&unconditional(state, key, write, ts))
        }
    }
}

/// What a write of one key comes to without a condition, in the group that owns the key.
fn written(outcome: &Outcome) -> Result<OpResult, OpError> {
    match *outcome {
        Outcome::Written { version, existed } => {
            Ok(OpResult::Written { version, existed, expires: None, value: None })
        }
        Outcome::Lasting { version, existed, expires } => {
            Ok(OpResult::Written { version, existed, expires, value: None })
        }
        Outcome::Counted { value, version, existed, expires } => {
            Ok(OpResult::Written { version, existed, expires, value: Some(value) })
        }
        Outcome::NotAnInteger => Err(OpError::NotAnInteger),
        _ => Err(OpError::NoValue),
    }
}

fn get(state: &mut State, key: &Key, room: &mut usize) -> Result<OpResult, OpError> {
    remove_if_over(state, key);
    let item = state.map.get(key).cloned();
    if let Some(item) = &item {
        take(room, item)?;
    }
    Ok(OpResult::Read(item))
}
