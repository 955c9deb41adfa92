//! Runs every decoder over noise, over valid inputs that were bent, and over the corpora; their
//! memory is measured by an allocator that counts what a thread holds.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

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
