//! Runs every decoder over noise, over valid inputs that were bent, and over the corpora; their
//! memory is measured by an allocator that counts what a thread holds.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::store::snapshot::fuzz::snapshot_of;
use crate::store::wal::fuzz::wal_of;
use crate::types::codec;
use crate::types::command::{Action, Command, Condition, Write};
use crate::types::fuzz::allowed_message;
use crate::types::hash::{HashRange, Token};
use crate::types::ids::{ClusterId, GroupId, LogId, NodeId, StateHash, Vote};
use crate::types::key::Key;
use crate::types::kv::GroupIndex;
use crate::types::limits::{
    APPEND_ENTRIES_MAX, CHECKPOINTS_MAX, CONDITION_VERSIONS_MAX, FRAME_BYTES_MAX, GROUPS_MAX,
    MEMBERS_MAX, NODES_MAX, RANGES_MAX, SCAN_PART_KEYS_MAX, VOTER_SETS_MAX,
};
use crate::types::log::{Entry, Membership, Payload, StoredMembership};
use crate::types::peer::{Append, Checkpoint, Checkpoints, Reply, Request};
use crate::types::scan::{Found, Listed, Part};
use crate::types::topology::{Claim, Group, Topology};

/// Fails if `work` ever holds more than `allowed` bytes.
fn counting(allowed: usize, work: &mut dyn FnMut()) {
    let mut ended = Ok(());
    let memory = allocation_counter::measure(|| ended = catch_unwind(AssertUnwindSafe(work)));
    ended.unwrap_or_else(|panic| resume_unwind(panic));
    let held = memory.bytes_max;
    assert!(held <= allowed as u64, "{held} bytes of memory, {allowed} are justified");
}

/// Where the inputs of a decoder are committed.
fn corpus(decoder: &Decoder) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(decoder.name)
}

/// What the corpus holds.
fn committed(decoder: &Decoder) -> BTreeSet<Vec<u8>> {
    let entries = fs::read_dir(corpus(decoder)).expect("there is a corpus");
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// A way to bend bytes.
#[derive(Clone, Debug)]
enum Bend {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index, Index),
    Insert(Index, Vec<u8>),
    /// A piece of another valid input takes the place of what was there.
    Splice(Index, Index, Index, Index),
}

fn bends() -> impl Strategy<Value = Vec<Bend>> {
    let at = any::<Index>;
    let edge = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff)];
    let bend = prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Bend::Flip(at, bit)),
        (at(), edge).prop_map(|(at, byte)| Bend::Set(at, byte)),
        (at(), at()).prop_map(|(from, until)| Bend::Cut(from, until)),
        (at(), vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Bend::Insert(at, bytes)),
        (at(), at(), at(), at()).prop_map(|(a, b, c, d)| Bend::Splice(a, b, c, d)),
    ];
    vec(bend, 0..5)
}

fn piece(len: usize, from: Index, until: Index) -> std::ops::Range<usize> {
    let (from, until) = (from.index(len + 1), until.index(len + 1));
    from.min(until)..from.max(until)
}

fn bend(bytes: &mut Vec<u8>, how: Bend, seeds: &[Vec<u8>]) {
    let len = bytes.len();
    match how {
        Bend::Flip(..) | Bend::Set(..) if len == 0 => {}
        Bend::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
        Bend::Set(at, byte) => bytes[at.index(len)] = byte,
        Bend::Cut(from, until) => drop(bytes.drain(piece(len, from, until))),
        Bend::Insert(at, new) => drop(bytes.splice(at.index(len + 1)..at.index(len + 1), new)),
        Bend::Splice(which, at, from, until) => {
            let other = which.get(seeds);
            let new = &other[piece(other.len(), from, until)];
            let at = at.index(len + 1);
            let end = (at + new.len()).min(len);
            drop(bytes.splice(at..end, new.iter().copied()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300)) {
        for decoder in DECODERS {
            (decoder.run)(&bytes, &counting);
        }
    }

    #[test]
    fn valid_inputs_that_were_bent_are_survived(which in any::<Index>(), how in bends()) {
        for decoder in DECODERS {
            let seeds = (decoder.seeds)();
            let mut bytes = which.get(&seeds).clone();
            for how in how.clone() {
                bend(&mut bytes, how, &seeds);
            }
            (decoder.run)(&bytes, &counting);
        }
    }
}

#[test]
fn every_corpus_is_survived() {
    for decoder in DECODERS {
        for bytes in committed(decoder) {
            (decoder.run)(&bytes, &counting);
        }
    }
}

#[test]
fn every_corpus_has_what_a_search_begins_with() {
    for decoder in DECODERS {
        let (name, committed) = (decoder.name, committed(decoder));
        for (number, seed) in (decoder.seeds)().iter().enumerate() {
            assert!((decoder.run)(seed, &counting), "{name}: seed {number} is not decoded");
            assert!(
                committed.contains(seed),
                "{name}: seed {number} is missing: write_the_corpora"
            );
        }
    }
}

/// A test that never looks behind a checksum proves little.
#[test]
fn bent_inputs_are_decoded_often_enough() {
    for decoder in DECODERS {
        let seeds = (decoder.seeds)();
        let bent = seeds.iter().flat_map(|seed| {
            (0..seed.len()).map(|at| {
                let mut bent = seed.clone();
                bent[at] ^= 1;
                (decoder.run)(&bent, &counting)
            })
        });
        let (decoded, all) = bent.fold((0, 0), |(yes, all), one| (yes + usize::from(one), all + 1));
        assert!(decoded * 5 > all, "{}: {decoded} of {all}", decoder.name);
    }
}

const NOWHERE: LogId = LogId { term: 0, leader: NodeId(0), index: 0 };

fn append(payloads: Vec<Payload>) -> Append {
    let entries = payloads.into_iter().map(|payload| Entry { id: NOWHERE, payload }).collect();
    let vote = Vote { term: 0, node: NodeId(0), committed: false };
    Append { vote, prev: None, entries, committed: None, as_of: None, lease_ms: None }
}

/// So many sets of so many voters, and so many members without a URL.
fn membership(sets: usize, voters: usize, members: usize) -> Membership {
    let nodes = |count: usize| (0..count as u64).map(NodeId);
    Membership {
        voters: vec![nodes(voters).collect(); sets],
        urls: nodes(members).map(|node| (node, String::new())).collect(),
    }
}

/// So many groups with so many URLs, all empty, and so many ranges.
fn claim(groups: usize, urls: usize, ranges: usize) -> Payload {
    let group = Group { id: GroupId(0), name: String::new(), urls: vec![String::new(); urls] };
    let groups = vec![group; groups];
    let topology = Topology { cluster: ClusterId(0), epoch: 0, vnodes: 0, groups };
    let owned = vec![HashRange { after: Token(0), upto: Token(0) }; ranges];
    command(Action::Claim(Box::new(Claim { topology, owned })))
}

fn versions(count: usize) -> Payload {
    let (key, condition) = (Key::new("k").unwrap(), Condition::Version(vec![0; count]));
    command(Action::Conditional { key, condition, write: Write::Delete })
}

fn command(action: Action) -> Payload {
    Payload::Command(Command { ts: 0, action })
}

fn checkpoints(count: usize) -> Request {
    let taken = vec![Checkpoint { id: NOWHERE, hash: StateHash(0) }; count];
    Request::Compare(Checkpoints { digest: 0, taken })
}

/// The smallest keys without values that one group may give at a time, and so many more.
fn part(more: usize) -> Reply {
    let listed =
        Listed { key: Key::new("k").unwrap(), value: None, ts: 0, version: 0, expires: None };
    let items = vec![listed; SCAN_PART_KEYS_MAX + more];
    let at = GroupIndex { group: "g".into(), index: 0 };
    let found = Found::Page { items, more: true };
    Reply::Scanned(Ok(Part { at, epoch: 0, lag_ms: None, found }))
}

fn with(selector: u8, encoded: &[u8]) -> Vec<u8> {
    [&[selector], encoded].concat()
}

/// Inputs that grow the most in memory, by their decoder: as many elements as are accepted.
fn dense() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let of = |payload: Payload| with(2, &codec::encode(&append(vec![payload; APPEND_ENTRIES_MAX])));
    let members = |membership| Payload::Membership(membership);
    let full = membership(VOTER_SETS_MAX, NODES_MAX, NODES_MAX);
    let stored = StoredMembership { id: None, membership: full.clone() };
    vec![
        ("peer", "blank entries", of(Payload::Blank)),
        ("peer", "sets of one node", of(members(membership(VOTER_SETS_MAX, 1, 0)))),
        ("peer", "members", of(members(membership(0, 0, 1)))),
        ("peer", "voters and members", of(members(membership(VOTER_SETS_MAX, 1, 1)))),
        ("peer", "full memberships", of(members(full))),
        ("peer", "claims of many groups", of(claim(GROUPS_MAX, 0, 0))),
        ("peer", "full claims", of(claim(GROUPS_MAX, MEMBERS_MAX, RANGES_MAX))),
        ("peer", "versions", of(versions(CONDITION_VERSIONS_MAX))),
        ("peer", "checkpoints", with(0, &codec::encode(&checkpoints(CHECKPOINTS_MAX)))),
        ("peer", "a part of small keys", with(1, &codec::encode(&part(0)))),
        ("command", "a full membership", with(4, &codec::encode(&stored))),
        ("wal", "empty entries", wal_of(5500)),
        ("snapshot", "keys without values", snapshot_of(12_000)),
        ("peer", "a length beyond the end", with(2, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        (
            "peer",
            "a length up to the end",
            with(2, &[vec![0, 0, 0, 0, 60], vec![0xff; 60]].concat()),
        ),
    ]
}

/// Prints how much; run it with `--nocapture`.
#[test]
fn dense_inputs_take_no_more_memory_than_is_justified() {
    for (name, what, bytes) in dense() {
        let decoder = DECODERS.iter().find(|decoder| decoder.name == name).unwrap();
        let most = Cell::new(0);
        let watch = |allowed: usize, work: &mut dyn FnMut()| {
            let held = allocation_counter::measure(work).bytes_max;
            most.set(most.get().max(held));
            assert!(held <= allowed as u64, "{what}: {held} bytes, {allowed} are justified");
        };
        (decoder.run)(&bytes, &watch);
        println!("{name}: {what}: {} bytes of input, {} of memory", bytes.len(), most.get());
    }
}

/// A legitimate message is never refused: the same bounds hold for whoever sends.
#[test]
fn as_many_elements_as_are_accepted_are_decoded_and_one_more_is_refused() {
    fn taken<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> bool {
        let decoded = codec::decode::<T>(&codec::encode(value), FRAME_BYTES_MAX);
        let refused = matches!(decoded, Err(codec::DecodeError::Refused));
        assert_ne!(decoded.is_ok(), refused, "{:?}", decoded.err());
        decoded.is_ok()
    }
    for (more, is_taken) in [(0, true), (1, false)] {
        let entries = vec![Payload::Blank; APPEND_ENTRIES_MAX + more];
        assert_eq!(taken(&append(entries)), is_taken);
        assert_eq!(taken(&checkpoints(CHECKPOINTS_MAX + more)), is_taken);
        assert_eq!(taken(&part(more)), is_taken);
        for payload in [
            Payload::Membership(membership(VOTER_SETS_MAX + more, 1, 1)),
            Payload::Membership(membership(1, NODES_MAX + more, 1)),
            Payload::Membership(membership(1, 1, NODES_MAX + more)),
            claim(GROUPS_MAX + more, 1, 1),
            claim(1, MEMBERS_MAX + more, 1),
            claim(1, 1, RANGES_MAX + more),
            versions(CONDITION_VERSIONS_MAX + more),
        ] {
            assert_eq!(taken(&Entry { id: NOWHERE, payload: payload.clone() }), is_taken);
            assert_eq!(taken(&append(vec![payload])), is_taken);
        }
    }
}

/// The largest frame, full of entries of four bytes, that says how many there are or lies about it.
#[test]
fn a_forged_frame_of_tiny_entries_is_refused_before_it_takes_memory() {
    let room = FRAME_BYTES_MAX - 16;
    for announced in [room / 4, room + 1, usize::MAX] {
        let mut forged = vec![0; 4]; // A vote, and no entry before these.
        codec::encode_into(&announced, &mut forged);
        forged.resize(forged.len() + room, 0);
        let mut decoded = Ok(append(Vec::new()));
        let decode = || decoded = codec::decode::<Append>(&forged, FRAME_BYTES_MAX);
        let held = allocation_counter::measure(decode).bytes_max;
        let why = decoded.expect_err("it is refused").to_string();
        assert!(why.contains("too many elements"), "{why}");
        let most = 3 * APPEND_ENTRIES_MAX * size_of::<Entry>();
        assert!(held <= most as u64, "{held} bytes for {announced} entries");
    }
}

proptest! {
    /// However many elements of whatever kind, within their bounds or not.
    #[test]
    fn no_message_of_many_small_elements_takes_more_memory_than_is_justified(
        counts in vec(prop_oneof![Just(0_usize), 1..40_usize, 0..2000_usize], 3),
        entries in 1..600_usize,
        kind in 0..4,
    ) {
        let payload = match kind {
            0 => Payload::Membership(membership(counts[0] % 40, counts[1] % 40, counts[2])),
            1 => claim(counts[0], counts[1] % 40, counts[2]),
            2 => versions(counts[0]),
            _ => Payload::Blank,
        };
        let few = entries.min(1 + (1 << 20) / codec::encode(&payload).len());
        let bytes = codec::encode(&append(vec![payload; few]));
        let decode = || drop(codec::decode::<Append>(&bytes, FRAME_BYTES_MAX));
        let held = allocation_counter::measure(decode).bytes_max;
        let allowed = allowed_message(bytes.len());
        prop_assert!(held <= allowed as u64, "{} bytes took {held}, not {allowed}", bytes.len());
    }
}

#[test]
#[ignore = "writes to the tree: run it when a format or a message has changed"]
fn write_the_corpora() {
    for decoder in DECODERS {
        let dir = corpus(decoder);
        fs::create_dir_all(&dir).unwrap();
        for (number, seed) in (decoder.seeds)().iter().enumerate() {
            fs::write(dir.join(format!("seed-{number:02}")), seed).unwrap();
        }
    }
}
