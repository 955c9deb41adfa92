//! Fuzzes what reads a snapshot file.
//!
//! Judges, beside what every decoder must keep to: a file with a flipped bit is refused; a state
//! that was read can be asked and written, with each codec, and comes back the same.

use crate::store::rests::Rests;
use crate::store::snapshot::codec::Codec;
use crate::store::snapshot::format::{
    BLOCK_HEAD_BYTES, BlockHead, CHECKSUM_BYTES, Checksum, FOOTER_BYTES, Footer, Header,
    PREFIX_BYTES, Prefix, Record, next_record,
};
use crate::store::snapshot::{read, write};
use crate::store::state::{State, size_of};
use crate::types::fuzz::{self, Watch, bent, watched};
use crate::types::ids::{GroupId, SessionId};
use crate::types::item::{Expiry, Item};
use crate::types::key::Key;
use crate::types::once::{Answer, IdempotencyKey, Settled, WriteId};
use crate::types::value::Value;

/// Beside what a header takes: LZ4 may make 255 bytes of one, and a record of 24 bytes takes ten
/// times as much in the map.
const PER_BYTE: usize = 1024;
/// No block of more than this is unpacked to be made right, in bytes.
const MENDED_BYTES_MAX: usize = 64 * 1024;

/// A whole file.
///
/// # Panics
/// If a promise of its decoder is broken.
pub fn snapshot(bytes: &[u8], watch: Watch<'_>) -> bool {
    let mut any = file(bytes, watch);
    any |= file(&with_sums(bytes), watch);
    if let Some(counted) = with_counts(bytes) {
        any |= file(&counted, watch);
    }
    any
}

fn file(bytes: &[u8], watch: Watch<'_>) -> bool {
    let len = bytes.len() as u64;
    let allowed = fuzz::allowed(bytes.len()) + PER_BYTE * bytes.len();
    let head = watched(watch, allowed, || read::read_header(bytes, len));
    let state = match watched(watch, allowed, || read::read_state(bytes, len, Rests::none())) {
        Ok(state) => state,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "an error says what is wrong");
            return false;
        }
    };
    let head = head.expect("a whole file has a header");
    assert_eq!(Header::of(&state), head, "the header tells of the state");
    let other = bent(bytes).expect("a file has bytes");
    assert!(read::read_state(&other[..], len, Rests::none()).is_err(), "a bit was flipped");
    ask(&state);
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let mut written = Vec::new();
        write::write_state(&state, codec, &mut written).expect("a vector takes everything");
        let len = written.len() as u64;
        let again = read::read_state(&written[..], len, Rests::none()).expect("a file of ours");
        assert_eq!(again, state, "a state comes back");
        assert_eq!(again.hash(), state.hash(), "and looks the same");
    }
    true
}

/// Asks what a replica asks of a state that it has read.
fn ask(state: &State) {
    let next = state.next_index();
    assert!(state.applied.is_none_or(|last| last.index < next), "the log goes on behind it");
    assert!(state.memory() >= state.bytes, "keys take memory");
    for (key, item) in &state.map {
        if let Ok(found) = state.read(key) {
            assert_eq!(found, Some(item), "a key is found");
        }
    }
    if let Some(claim) = &state.claim {
        assert!(state.keys_foreign_to(claim) <= state.keys(), "no more than all");
    }
}

/// The sections of a file as its lengths tell, without their checksums; what follows the last
/// whole one is dropped.
fn sections(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut sections = Vec::new();
    while let Some(len) = section_len(bytes, sections.is_empty()) {
        let (section, rest) = bytes.split_at(len);
        let Some(rest) = rest.get(CHECKSUM_BYTES..) else { break };
        sections.push(section);
        bytes = rest;
    }
    sections
}

fn section_len(bytes: &[u8], first: bool) -> Option<usize> {
    let len = |at: usize| {
        let field = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        usize::try_from(field).ok()
    };
    let len = match (first, len(0)?) {
        (true, _) => PREFIX_BYTES + len(12)?,
        (false, 0) => BLOCK_HEAD_BYTES + FOOTER_BYTES,
        (false, _) => BLOCK_HEAD_BYTES + len(4)?,
    };
    (len <= bytes.len()).then_some(len)
}

/// The file with right checksums; what stands behind them is reached.
fn with_sums(bytes: &[u8]) -> Vec<u8> {
    joined(sections(bytes))
}

fn joined<T: AsRef<[u8]>>(sections: impl IntoIterator<Item = T>) -> Vec<u8> {
    let (mut file, mut checksum) = (Vec::new(), Checksum::default());
    for section in sections {
        checksum.add(section.as_ref());
        file.extend_from_slice(section.as_ref());
        file.extend_from_slice(&checksum.to_bytes());
    }
    file
}

/// The file with right checksums and counts, those that stand in its header included; `None` if it
/// has no header that can be read.
fn with_counts(bytes: &[u8]) -> Option<Vec<u8>> {
    let sections = sections(bytes);
    let (head, rest) = sections.split_first()?;
    let prefix = Prefix::parse(head).ok()?;
    let (mut header, codec) = Header::decode(prefix, &head[PREFIX_BYTES..]).ok()?;
    let (mut footer, mut blocks, mut remembered) = (Footer::default(), Vec::new(), 0);
    for section in rest {
        let (_, packed) = section.split_first_chunk::<BLOCK_HEAD_BYTES>()?;
        let Some(raw) = unpacked(codec, packed) else { continue };
        let mut left = &raw[..];
        while let Ok(Some(record)) = next_record(&mut left) {
            match record {
                Record::Item(key, item) => {
                    footer.keys += 1;
                    footer.bytes += size_of(&key, &item);
                }
                Record::Remembered(_) => remembered += 1,
            }
        }
        footer.blocks += 1;
        blocks.push([&BlockHead::of(&raw, packed).to_bytes()[..], packed].concat());
    }
    (header.keys, header.bytes, header.remembered) = (footer.keys, footer.bytes, remembered);
    blocks.insert(0, header.encode(codec));
    blocks.push(footer.encode().to_vec());
    Some(joined(blocks))
}

fn unpacked(codec: Codec, packed: &[u8]) -> Option<Vec<u8>> {
    let raw = match codec {
        Codec::None => packed.to_vec(),
        Codec::Lz4 => lz4_flex::block::decompress(packed, MENDED_BYTES_MAX).ok()?,
        Codec::Zstd => zstd::bulk::decompress(packed, MENDED_BYTES_MAX).ok()?,
    };
    (!raw.is_empty()).then_some(raw)
}

/// Where a search begins.
pub(crate) fn snapshot_seeds() -> Vec<Vec<u8>> {
    let mut full = State {
        applied: Some(fuzz::id(9)),
        membership: fuzz::membership().into(),
        group: Some((GroupId(7), "eu-1".into())),
        claim: Some(fuzz::claim().into()),
        confirmed: true,
        version_floor: 4,
        ..State::default()
    };
    let mut plain = State { applied: Some(fuzz::id(300)), ..State::default() };
    let answer = Answer { index: 3, ts: 5, result: Settled::Mismatch { version: Some(300) } };
    let write = WriteId { session: SessionId(9), slot: 3, seq: 300 };
    full.clock = 1_755_248_123_456;
    full.answers.sessions.open(write.session, full.clock);
    full.answers.sessions.keep(write, answer.clone(), full.clock);
    let key = IdempotencyKey::new("8e03978e").expect("a key");
    full.answers.keys.keep(&key, 7, answer, full.clock);
    for (key, value) in [("a", "1"), ("b", "{\"x\":1}"), ("key", &"text ".repeat(20))] {
        let key = Key::new(key).expect("a key");
        let item = Item {
            value: Value::text(value),
            ts: 1_755_248_123_456,
            version: 3,
            expires: Expiry::NEVER,
        };
        full.insert(&key, item.clone());
        plain.insert(&key, item);
    }
    let file = |state: &State, codec| {
        let mut bytes = Vec::new();
        write::write_state(state, codec, &mut bytes).expect("a vector takes everything");
        bytes
    };
    let empty = State::default();
    vec![
        file(&empty, Codec::Lz4),
        file(&plain, Codec::None),
        file(&plain, Codec::Lz4),
        file(&full, Codec::None),
        file(&full, Codec::Lz4),
        file(&full, Codec::Zstd),
    ]
}

/// A file of so many keys without values, packed.
#[cfg(test)]
pub(crate) fn snapshot_of(keys: u32) -> Vec<u8> {
    let mut state = State::default();
    for number in 0..keys {
        let key = Key::new(format!("{number:06}")).expect("a key");
        state.insert(
            &key,
            Item { value: Value::text(""), ts: 0, version: 0, expires: Expiry::NEVER },
        );
    }
    let mut bytes = Vec::new();
    write::write_state(&state, Codec::Lz4, &mut bytes).expect("a vector takes everything");
    bytes
}
