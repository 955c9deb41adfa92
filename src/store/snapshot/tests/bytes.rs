//! Bent bytes: whatever happens to a file, it is read as what was written or not at all.

use super::*;
use crate::store::rests::Rests;
use crate::store::snapshot::format::{BlockHead, Checksum, Footer, Header, push_record};
use crate::types::item::{Expiry, Item};
use crate::types::limits::{COUNTER_MAX, SNAPSHOT_BLOCK_BYTES, VERSION_MAX};

const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

proptest! {
    #[test]
    fn a_state_comes_back_as_it_was_written(state in states()) {
        for codec in CODECS {
            let read = decoded(&encoded(&state, codec)).unwrap();
            prop_assert_eq!(&read, &state);
            prop_assert_eq!(read.hash(), state.hash());
        }
    }

    #[test]
    fn bytes_that_are_no_snapshot_are_refused(mut noise in prop::collection::vec(any::<u8>(), 0..500)) {
        prop_assert!(decoded(&noise).is_err());
        noise.splice(..0, encoded(&State::default(), Codec::Lz4)[..12].to_vec());
        prop_assert!(decoded(&noise).is_err());
    }
}

/// A small state with something in every field.
fn small() -> State {
    let script = ["found 7 name", "members 1,2,3", "put a one", "delete a", "claim 1 2 all"];
    let mut state = crate::store::apply::script::state_after(&script);
    put(&mut state, "key", b"{\"json\":1}".to_vec());
    put(&mut state, "other", vec![7; 100]);
    state
}

#[test]
fn every_single_flipped_bit_is_detected() {
    for codec in CODECS {
        let file = encoded(&small(), codec);
        assert_eq!(decoded(&file).unwrap(), small());
        for (at, bit) in (0..file.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bent = file.clone();
            bent[at] ^= 1 << bit;
            assert!(decoded(&bent).is_err(), "bit {bit} of byte {at} with {codec:?}");
        }
    }
}

#[test]
fn every_single_replaced_byte_is_detected() {
    let file = encoded(&small(), Codec::Lz4);
    for at in 0..file.len() {
        for other in [0, 1, 0x7f, 0xff, !file[at]] {
            let mut bent = file.clone();
            bent[at] = other;
            assert!(bent == file || decoded(&bent).is_err(), "byte {at} became {other}");
        }
    }
}

#[test]
fn truncation_at_every_length_is_detected() {
    for codec in CODECS {
        let file = encoded(&small(), codec);
        for len in 0..file.len() {
            assert!(decoded(&file[..len]).is_err(), "{len} of {} bytes", file.len());
            // The file system may know a length whose bytes never came.
            let read = read::read_state(&file[..len], file.len() as u64, Rests::none());
            assert!(read.is_err(), "{len} bytes");
        }
    }
}

#[test]
fn bytes_after_the_footer_are_detected() {
    let mut file = encoded(&small(), Codec::Lz4);
    file.push(0);
    assert_eq!(refusal(&file), FormatError::GoesOn);
}

/// The sections of a file: where each begins, the end of the last included.
fn sections(file: &[u8]) -> Vec<usize> {
    let len = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let mut starts = vec![0, 16 + len(12) + 4];
    while let Some(&at) = starts.last().filter(|&&at| at < file.len()) {
        starts.push(at + if len(at) == 0 { 8 + 24 + 4 } else { 8 + len(at + 4) + 4 });
    }
    starts
}

#[test]
fn blocks_can_not_be_missing_doubled_or_moved() {
    let state = state_at(4, 12, SNAPSHOT_BLOCK_BYTES / 3);
    let file = encoded(&state, Codec::Lz4);
    assert_eq!(decoded(&file).unwrap(), state);
    let starts = sections(&file);
    let parts: Vec<_> = starts.windows(2).map(|ends| &file[ends[0]..ends[1]]).collect();
    assert!(parts.len() > 5, "a head, several blocks and a footer");
    for at in 1..parts.len() - 1 {
        let mut missing = parts.clone();
        missing.remove(at);
        assert!(decoded(&missing.concat()).is_err(), "without block {at}");
        let mut doubled = parts.clone();
        doubled.insert(at, parts[at]);
        assert!(decoded(&doubled.concat()).is_err(), "with block {at} twice");
        let mut moved = parts.clone();
        moved.swap(at, at % (parts.len() - 2) + 1);
        assert!(decoded(&moved.concat()).is_err(), "with block {at} moved");
    }
}

#[test]
fn the_footer_of_another_snapshot_is_detected() {
    let (one, two) = (encoded(&state_at(1, 3, 10), Codec::None), encoded(&small(), Codec::None));
    let footer = |file: &[u8]| file[file.len() - 36..].to_vec();
    let mut mixed = one[..one.len() - 36].to_vec();
    mixed.extend(footer(&two));
    assert!(decoded(&mixed).is_err());
}

/// Builds files section by section, with right checksums over wrong content.
struct Forge {
    file: Vec<u8>,
    checksum: Checksum,
}

impl Forge {
    fn new(head: &[u8]) -> Self {
        let mut forge = Self { file: vec![], checksum: Checksum::default() };
        forge.section(head);
        forge
    }

    fn of(state: &State) -> Self {
        Self::new(&Header::of(state).encode(Codec::Lz4))
    }

    fn section(&mut self, bytes: &[u8]) {
        self.checksum.add(bytes);
        self.file.extend_from_slice(bytes);
        self.file.extend_from_slice(&self.checksum.to_bytes());
    }

    fn block(&mut self, records: &[u8]) {
        let mut packed = vec![];
        Codec::Lz4.pack(records, &mut packed);
        self.section(&[&BlockHead::of(records, &packed).to_bytes(), &packed[..]].concat());
    }

    fn finish(mut self, footer: Footer) -> Vec<u8> {
        self.section(&footer.encode());
        self.file
    }
}

fn record(key: &str, version: u64) -> Vec<u8> {
    let item = Item { value: Value::text("v"), ts: 1, version, expires: Expiry::NEVER };
    let mut raw = vec![];
    push_record(&mut raw, &Key::new(key).unwrap(), &item);
    raw
}

/// A file of one block of these records, whose counts say that there are two keys.
fn forged(records: &[Vec<u8>]) -> Vec<u8> {
    let mut state = State::default();
    put(&mut state, "a", vec![1]);
    put(&mut state, "b", vec![1]);
    let mut forge = Forge::of(&state);
    forge.block(&records.concat());
    forge.finish(Footer { keys: 2, bytes: 4, blocks: 1 })
}

#[test]
fn records_that_can_not_be_are_refused() {
    let malformed = |records: &[Vec<u8>], text: &str| {
        let refusal = refusal(&forged(records)).to_string();
        assert!(refusal.contains(text), "{refusal}");
    };
    assert_eq!(decoded(&forged(&[record("a", 1), record("b", 1)])).unwrap().keys(), 2);
    malformed(&[record("b", 1), record("a", 1)], "out of order");
    malformed(&[record("a", 1), record("a", 1)], "out of order");
    malformed(&[record("a", 1)], "it holds Footer { keys: 1");
    malformed(&[record("a", 1), record("b", VERSION_MAX + 1)], "version of");
    let with = |at: usize, byte| {
        let mut bent = record("b", 1);
        bent[at] = byte;
        bent
    };
    malformed(&[record("a", 1), with(2, 3)], "kind 3");
    malformed(&[record("a", 1), with(0, 0)], "missing key");
    malformed(&[record("a", 1), with(0, 9)], "ends before");
    malformed(&[record("a", 1), with(3, 2)], "ends before");
    malformed(&[record("a", 1), with(6, 0xff)], "ends before");
    malformed(&[record("a", 1), with(23, 0xff)], "not valid UTF-8");
    malformed(&[record("a", 1), record("b", 1)[..5].to_vec()], "ends before");
}

#[test]
fn counts_that_do_not_match_are_refused() {
    let state = small();
    let header = Header::of(&state);
    let right = Footer { keys: state.keys(), bytes: state.bytes, blocks: 1 };
    let file = |header: &Header, footer| {
        let mut forge = Forge::new(&header.encode(Codec::Lz4));
        let mut records = vec![];
        state.map.iter().for_each(|(key, item)| push_record(&mut records, key, item));
        forge.block(&records);
        forge.finish(footer)
    };
    assert_eq!(decoded(&file(&header, right)).unwrap(), state);
    for wrong in [
        file(&header, Footer { keys: right.keys + 1, ..right }),
        file(&header, Footer { bytes: right.bytes - 1, ..right }),
        file(&header, Footer { blocks: 0, ..right }),
        file(&Header { keys: right.keys + 1, ..header.clone() }, right),
        file(&Header { bytes: right.bytes - 1, ..header.clone() }, right),
    ] {
        assert!(matches!(refusal(&wrong), FormatError::Malformed(_)));
    }
}

#[test]
fn oversized_lengths_are_refused_before_memory_is_reserved() {
    let too_long = |file: &[u8], what: &str| match refusal(file) {
        FormatError::TooLong { what: named, .. } => assert_eq!(named, what),
        other => panic!("{other}"),
    };
    // A header of 4 GiB; one within the bound, but longer than the file.
    let mut head = Header::of(&State::default()).encode(Codec::Lz4);
    for len in [u32::MAX, 1 << 20] {
        head[12..16].copy_from_slice(&len.to_le_bytes());
        too_long(&Forge::new(&head).file, "a header");
    }
    let with_block = |raw: u32, packed: u32, bytes: &[u8]| {
        let mut forge = Forge::of(&State::default());
        forge.section(&[&BlockHead { raw, packed }.to_bytes(), bytes].concat());
        forge.finish(Footer::default())
    };
    too_long(&with_block(u32::MAX, 4, b"abcd"), "a block");
    too_long(&with_block(1 << 26, u32::MAX, b"abcd"), "a packed block");
    // Four bytes can't hold 64 MiB, whatever the checksum says.
    too_long(&with_block(1 << 26, 4, b"abcd"), "a block");
    assert!(refusal(&with_block(0, 4, b"abcd")).to_string().contains("without records"));
    // Lengths inside the header, which postcard reads.
    let mut head = Header::of(&State::default()).encode(Codec::Lz4);
    head.splice(16.., [0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    head[12] = 7;
    assert!(refusal(&Forge::new(&head).file).to_string().starts_with("header: "));
}

#[test]
fn an_index_that_no_log_reaches_is_refused() {
    let file = |index| {
        let state = State { applied: Some(log_id(1, index)), ..State::default() };
        encoded(&state, Codec::None)
    };
    assert_eq!(decoded(&file(COUNTER_MAX)).unwrap().next_index(), COUNTER_MAX + 1);
    for index in [COUNTER_MAX + 1, u64::MAX] {
        let refused = refusal(&file(index));
        assert!(
            matches!(&refused, FormatError::Malformed(why) if why.starts_with("header")),
            "{refused}"
        );
    }
}

#[test]
fn a_block_that_unpacks_to_another_length_is_refused() {
    let records = record("a", 1);
    let mut packed = vec![];
    Codec::Lz4.pack(&records, &mut packed);
    for raw in [records.len() - 1, records.len() + 1] {
        let head = BlockHead::of(&vec![0; raw], &packed);
        let mut forge = Forge::of(&State::default());
        forge.section(&[&head.to_bytes(), &packed[..]].concat());
        let file = forge.finish(Footer::default());
        assert!(matches!(refusal(&file), FormatError::Malformed(_)));
    }
}

#[test]
fn what_a_newer_program_wrote_is_not_called_damaged() {
    let forged = |at: usize, byte| {
        let mut head = Header::of(&State::default()).encode(Codec::Lz4);
        head[at] = byte;
        refusal(&Forge::new(&head).finish(Footer::default()))
    };
    let codec = forged(10, 3);
    assert!(codec.is_unsupported() && codec.to_string().contains("codec 3"), "{codec}");
    let newer = forged(8, 4);
    assert!(newer.is_unsupported() && newer.to_string().contains("format 4"), "{newer}");
    assert!(!forged(0, b'x').is_unsupported());
    // Without its checksum the same byte is damage.
    let mut bent = encoded(&State::default(), Codec::Lz4);
    bent[10] = 3;
    assert_eq!(refusal(&bent), FormatError::Checksum("the header"));
}

#[test]
fn a_value_of_many_blocks_size_comes_back() {
    let mut state = state_at(3, 10, 1000);
    put(&mut state, "large", vec![5; 3 * SNAPSHOT_BLOCK_BYTES]);
    put(&mut state, "zzz", vec![]);
    for codec in CODECS {
        assert_eq!(decoded(&encoded(&state, codec)).unwrap(), state);
    }
}
