//! What the benchmarks work on: keys, values and entries as clients' puts make them, the state of a group of three,
//! and a directory on a real disk.
//!
//! All but the directory follows from numbers alone, so that every run works on the same.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use sagedb::coordinator::ring::Ring;
use sagedb::store::apply::apply;
use sagedb::store::state::State;
use sagedb::types::command::{Action, Command};
use sagedb::types::hash::Token;
use sagedb::types::ids::{ClusterId, GroupId, Index, LogId, NodeId};
use sagedb::types::key::Key;
use sagedb::types::limits::VNODES_DEFAULT;
use sagedb::types::log::{Entry, Membership, Payload, StoredMembership};
use sagedb::types::topology::{Claim, Group, Topology};
use sagedb::types::value::{Value, ValueKind};
use tempfile::TempDir;

/// The length of a value, in bytes, where nothing else is said.
const VALUE_BYTES: usize = 100;
/// The leader's clock, in milliseconds.
const TS: u64 = 1_755_248_123_456;
/// The file system in memory, as `statfs` calls it.
const TMPFS: u64 = 0x0102_1994;

/// The key with this number, of 15 bytes.
pub(crate) fn key(number: u64) -> Key {
    Key::new(format!("user:{number:010}")).expect("it is short")
}

/// A value in memory of its own, as each request brings one.
pub(crate) fn value(_number: u64) -> Value {
    Value::text("v".repeat(VALUE_BYTES))
}

/// A small document, as applications store them; about 150 bytes.
pub(crate) fn document(number: u64) -> Value {
    let (age, visits) = (18 + number % 60, number * 7919 % 100_000);
    let text = format!(
        r#"{{"id":{number},"name":"user-{number}","email":"user-{number}@example.com","age":{age},"visits":{visits},"tags":["new","europe"],"active":{}}}"#,
        number.is_multiple_of(3)
    );
    Value::new(ValueKind::Json, text.into()).expect("it is JSON")
}

/// The entry at `index`.
pub(crate) fn entry(index: Index, action: Action) -> Entry {
    let id = LogId { term: 3, leader: NodeId(1), index };
    Entry { id, payload: Payload::Command(Command { ts: TS, action }) }
}

/// Entries that each put a value, from index `first` on.
pub(crate) fn puts(first: Index, count: u64) -> Vec<Entry> {
    let put = |index| Action::Put { key: key(index), value: value(index) };
    (first..first + count).map(|index| entry(index, put(index))).collect()
}

/// The names of so many groups.
pub(crate) fn names(groups: usize) -> Vec<String> {
    (1..=groups).map(|group| format!("shard-{group}")).collect()
}

/// What the first of three groups owns.
fn claim() -> Claim {
    let names = names(3);
    let owned = Ring::new(&names, VNODES_DEFAULT).ranges_of(0);
    let group = |(id, name)| Group { id: GroupId(id), name, urls: Vec::new() };
    let groups = (1..).zip(names).map(group).collect();
    let topology = Topology { cluster: ClusterId(1), epoch: 1, vnodes: VNODES_DEFAULT, groups };
    Claim { topology, owned }
}

/// The state of the first of three groups with three replicas, and the numbers of its `count` keys, in no order: they
/// came in that order, so that the map has grown as it does.
pub(crate) fn state(count: usize, value: fn(u64) -> Value) -> (State, Vec<u64>) {
    let claim = claim();
    let owned = (0..).filter(|number| claim.owns(Token::of_key(&key(*number))));
    let mut numbers: Vec<u64> = owned.take(count).collect();
    numbers.shuffle(&mut SmallRng::seed_from_u64(1));
    let nodes = [1, 2, 3].map(NodeId);
    let urls = nodes.map(|node| (node, format!("http://10.0.0.{}:4101", node.0))).into();
    let membership = Membership { voters: vec![nodes.into()], urls };
    let mut state = State {
        membership: StoredMembership { id: None, membership }.into(),
        claim: Some(Arc::new(claim)),
        confirmed: true,
        ..State::default()
    };
    for number in &numbers {
        let put = Action::Put { key: key(*number), value: value(*number) };
        let entry = entry(state.next_index(), put);
        apply(&mut state, &entry);
    }
    (state, numbers)
}

/// A new directory on a disk, which goes when it is dropped.
pub(crate) fn directory() -> TempDir {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(target).expect("the target directory can be written");
    let found = rustix::fs::statfs(target).expect("the target directory is there");
    let shown = target.display();
    assert!(u64::try_from(found.f_type) != Ok(TMPFS), "{shown} is in memory: a sync is free there");
    tempfile::Builder::new().prefix("micro-").tempdir_in(target).expect("a new directory")
}
