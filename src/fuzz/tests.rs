//! Runs every decoder over noise, over valid inputs that were bent, and over the corpora; their
//! memory is measured by an allocator that counts what a thread holds.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
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
use crate::types::ids::{LogId, NodeId, Vote};
use crate::types::key::Key;
use crate::types::log::{Entry, Membership, Payload, StoredMembership};
use crate::types::peer::Append;

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

/// Inputs of about 60 KB that grow the most in memory, by their decoder.
fn dense() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let with = |selector: u8, encoded: Vec<u8>| [vec![selector], encoded].concat();
    let id = LogId { term: 0, leader: NodeId(0), index: 0 };
    let blank = Entry { id, payload: Payload::Blank };
    let vote = Vote { term: 0, node: NodeId(0), committed: false };
    let append = Append {
        vote,
        prev: None,
        entries: vec![blank; 15_000],
        committed: None,
        as_of: None,
        lease_ms: None,
    };
    let members = |voters, urls| {
        codec::encode(&StoredMembership { id: None, membership: Membership { voters, urls } })
    };
    let alone = vec![BTreeSet::from([NodeId(0)]); 30_000];
    let urls = (0..20_000).map(|node| (NodeId(node), String::new())).collect();
    let versions = Condition::Version(vec![0; 60_000]);
    let key = Key::new("k").unwrap();
    let action = Action::Conditional { key, condition: versions, write: Write::Delete };
    vec![
        ("peer", "empty entries", with(2, codec::encode(&append))),
        ("command", "sets of one node", with(4, members(alone, BTreeMap::new()))),
        ("command", "empty sets", with(4, members(vec![BTreeSet::new(); 60_000], BTreeMap::new()))),
        ("command", "members without URL", with(4, members(vec![], urls))),
        ("command", "versions", with(0, codec::encode(&Command { ts: 0, action }))),
        ("wal", "empty entries", wal_of(5500)),
        ("snapshot", "keys without values", snapshot_of(12_000)),
        (
            "peer",
            "a length beyond the end",
            with(2, vec![0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        (
            "peer",
            "a length up to the end",
            with(2, [vec![0, 0, 0, 0, 60], vec![0xff; 60]].concat()),
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
