//! What a snapshot promises, with states from random histories and files that are bent in every
//! way.

mod bytes;
mod closing;
mod files;

use proptest::prelude::*;

use super::*;
use crate::store::apply::apply;
use crate::store::apply::tests::history;
use crate::types::ids::NodeId;
use crate::types::item::{Expiry, Item};
use crate::types::key::Key;
use crate::types::log::{Entry, Payload};
use crate::types::value::Value;

fn log_id(term: Term, index: Index) -> LogId {
    LogId { term, leader: NodeId(9), index }
}

/// A state to which entries were applied, so that it is one that can be.
fn states() -> impl Strategy<Value = State> {
    history().prop_map(|history| {
        let mut state = State::default();
        for entry in &history {
            apply(&mut state, entry);
        }
        state
    })
}

fn put(state: &mut State, key: &str, value: Vec<u8>) {
    let (key, value) = (Key::new(key).unwrap(), Value::bytes(value));
    let item = Item { value, ts: 1_755_248_123_456, version: 3, expires: Expiry::NEVER };
    assert!(state.insert(&key, item).is_none());
}

/// A state as of entry `index`, with so many keys of so many bytes each.
fn state_at(index: Index, keys: usize, value_bytes: usize) -> State {
    let mut state = State::default();
    for index in 0..=index {
        apply(&mut state, &Entry { id: log_id(1, index), payload: Payload::Blank });
    }
    // Bytes that LZ4 can't shorten, so that sizes are known.
    let mut noise = 1_u64;
    for key in 0..keys {
        let value = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.to_be_bytes()[0]
        });
        put(&mut state, &format!("key{key:06}"), value.take(value_bytes).collect());
    }
    state
}

fn encoded(state: &State, codec: Codec) -> Vec<u8> {
    let mut out = Vec::new();
    write::write_state(state, codec, &mut out).unwrap();
    out
}

fn decoded(file: &[u8]) -> Result<State, ReadError> {
    read::read_state(file, file.len() as u64, Rests::none())
}

fn refusal(file: &[u8]) -> FormatError {
    match decoded(file) {
        Err(ReadError::Format(error)) => error,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
