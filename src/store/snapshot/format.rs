//! The bytes of a snapshot file: what they mean, and which are refused. Does no I/O.
//!
//! A file is sections, each closed by a checksum: the head, blocks of records, the footer. The
//! checksum is one CRC-32C that runs on from section to section over everything but the checksums
//! themselves. So each section is checked as it is read; a section that is missing, doubled or
//! moved is found by the next; and the footer's checksum is that of the whole file.
//!
//! Promises: no length is believed before it has been compared with a bound, and no section's
//! content is looked at before its checksum. Drawn byte by byte in `docs/formats.md`.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::answers::Remembered;
use crate::store::snapshot::codec::Codec;
use crate::store::state::State;
use crate::types::clock::TimestampMs;
use crate::types::codec;
use crate::types::ids::{GroupId, LogId};
use crate::types::item::{Item, Version};
use crate::types::key::Key;
use crate::types::limits::{
    REMEMBERED_BYTES_MAX, SNAPSHOT_BLOCK_BYTES_MAX, SNAPSHOT_HEADER_BYTES_MAX, VERSION_MAX,
};
use crate::types::log::StoredMembership;
use crate::types::topology::Claim;
use crate::types::value::{Value, ValueKind};

const MAGIC: [u8; 8] = *b"SAGESNAP";
const FORMAT: u16 = 3;
/// The last format that knew of items only.
const FORMAT_ITEMS_ONLY: u16 = 1;
/// Set in the kind of a record whose item is not for ever: when it is over stands before its key.
const KIND_EXPIRES: u8 = 0x80;
/// The kind of a record that holds no item, and has no key.
const KIND_REMEMBERED: u8 = 3;
const FOOTER_MARK: [u8; 8] = *b"\0\0\0\0END\n";

/// Bytes before the header.
pub(super) const PREFIX_BYTES: usize = 16;
/// Bytes of a block before its packed records, and of the mark that stands there in the footer.
pub(super) const BLOCK_HEAD_BYTES: usize = 8;
/// Bytes of the footer after its mark.
pub(super) const FOOTER_BYTES: usize = 24;
/// Bytes of the checksum after each section.
pub(super) const CHECKSUM_BYTES: usize = 4;
/// Bytes of a record beside its key and value.
const RECORD_HEAD_BYTES: usize = 23;
/// Bytes more of one that says when its item is over.
const EXPIRES_BYTES: usize = 8;
/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("it does not begin like a snapshot")]
    Magic,
    #[error("{what} of {len} bytes, at most {max} are possible")]
    TooLong { what: &'static str, len: u64, max: u64 },
    #[error("{0} does not match its checksum")]
    Checksum(&'static str),
    #[error("{0}")]
    Malformed(String),
    #[error("the file goes on after its footer")]
    GoesOn,
    /// Whole, but written by a version of the program that knows more.
    #[error("format {0} is newer than this version of sage reads (up to {FORMAT})")]
    NewerFormat(u16),
    /// Whole, but packed in a way that this version can't unpack.
    #[error("codec {0} is not supported by this version of sage")]
    UnknownCodec(u8),
}

impl FormatError {
    /// Whether the file may be whole and only this program is too old for it.
    pub(super) fn is_unsupported(&self) -> bool {
        match self {
            Self::NewerFormat(_) | Self::UnknownCodec(_) => true,
            Self::Magic
            | Self::TooLong { .. }
            | Self::Checksum(_)
            | Self::Malformed(_)
            | Self::GoesOn => false,
        }
    }
}

/// Refuses a length beyond its bound.
pub(super) fn bounded(what: &'static str, len: u64, max: u64) -> Result<u64, FormatError> {
    if len <= max { Ok(len) } else { Err(FormatError::TooLong { what, len, max }) }
}

/// The checksum that runs through the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checksum(u32);

impl Checksum {
    /// Goes on over `bytes`.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// As it is written.
    pub(super) fn to_bytes(self) -> [u8; CHECKSUM_BYTES] {
        self.0.to_le_bytes()
    }
}

/// Everything in a state but the map, and what the map must come to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) last: Option<LogId>,
    pub(super) membership: Arc<StoredMembership>,
    pub(super) group: Option<(GroupId, Arc<str>)>,
    pub(super) claim: Option<Arc<Claim>>,
    pub(super) confirmed: bool,
    pub(super) version_floor: Version,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) clock: TimestampMs,
    pub(super) remembered: u64,
}

/// The header of [`FORMAT_ITEMS_ONLY`].
#[derive(Deserialize)]
struct HeaderOfItems {
    last: Option<LogId>,
    membership: Arc<StoredMembership>,
    group: Option<(GroupId, Arc<str>)>,
    claim: Option<Arc<Claim>>,
    confirmed: bool,
    version_floor: Version,
    keys: u64,
    bytes: u64,
}

impl From<HeaderOfItems> for Header {
    fn from(header: HeaderOfItems) -> Self {
        let HeaderOfItems { last, membership, group, claim, confirmed, version_floor, .. } = header;
        let HeaderOfItems { keys, bytes, .. } = header;
        let (clock, remembered) = (0, 0);
        Self {
            last,
            membership,
            group,
            claim,
            confirmed,
            version_floor,
            keys,
            bytes,
            clock,
            remembered,
        }
    }
}

impl Header {
    pub(super) fn of(state: &State) -> Self {
        Self {
            last: state.applied,
            membership: Arc::clone(&state.membership),
            group: state.group.clone(),
            claim: state.claim.clone(),
            confirmed: state.confirmed,
            version_floor: state.version_floor,
            keys: state.keys(),
            bytes: state.bytes,
            clock: state.clock,
            remembered: state.answers.count(),
        }
    }

    /// A state as the header tells, with an empty map.
    pub(super) fn to_state(&self) -> State {
        State {
            applied: self.last,
            membership: Arc::clone(&self.membership),
            group: self.group.clone(),
            claim: self.claim.clone(),
            confirmed: self.confirmed,
            version_floor: self.version_floor,
            clock: self.clock,
            ..State::default()
        }
    }

    /// The first section: the prefix and the header.
    ///
    /// # Panics
    /// If the header is larger than one that can be read: nothing so large comes through the log.
    pub(super) fn encode(&self, codec: Codec) -> Vec<u8> {
        let header = codec::encode(self);
        assert!(header.len() <= SNAPSHOT_HEADER_BYTES_MAX, "header of {} bytes", header.len());
        let len = u32::try_from(header.len()).expect("the bound is far below");
        let mut section = Vec::with_capacity(PREFIX_BYTES + header.len());
        section.extend_from_slice(&MAGIC);
        section.extend_from_slice(&FORMAT.to_le_bytes());
        section.extend_from_slice(&[codec as u8, 0]);
        section.extend_from_slice(&len.to_le_bytes());
        section.extend_from_slice(&header);
        section
    }

    /// Reads the header of a section whose checksum is right.
    pub(super) fn decode(prefix: Prefix, header: &[u8]) -> Result<(Self, Codec), FormatError> {
        if prefix.format > FORMAT {
            return Err(FormatError::NewerFormat(prefix.format));
        }
        let codec = Codec::from_byte(prefix.codec)?;
        let malformed = |error| FormatError::Malformed(format!("header: {error}"));
        let header: Self = if prefix.format <= FORMAT_ITEMS_ONLY {
            let header: Result<HeaderOfItems, _> = codec::decode(header, SNAPSHOT_HEADER_BYTES_MAX);
            header.map_err(malformed)?.into()
        } else {
            codec::decode(header, SNAPSHOT_HEADER_BYTES_MAX).map_err(malformed)?
        };
        bounded("version floor", header.version_floor, VERSION_MAX)?;
        Ok((header, codec))
    }
}

/// The first bytes of a file. Every version of the format begins with these, a header and a
/// checksum of both, so that a newer file is told from a damaged one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix {
    format: u16,
    codec: u8,
    /// The length of the header, within its bound.
    pub(super) header_len: u32,
}

impl Prefix {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, FormatError> {
        if take(&mut bytes)? != MAGIC {
            return Err(FormatError::Magic);
        }
        let format = u16::from_le_bytes(take(&mut bytes)?);
        let [codec, _] = take(&mut bytes)?;
        let header_len = u32::from_le_bytes(take(&mut bytes)?);
        bounded("a header", u64::from(header_len), SNAPSHOT_HEADER_BYTES_MAX as u64)?;
        Ok(Self { format, codec, header_len })
    }
}

/// What stands before a block's packed records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockHead {
    /// Bytes of the records, within their bound.
    pub(super) raw: u32,
    /// Bytes of the packed records.
    pub(super) packed: u32,
}

impl BlockHead {
    /// # Panics
    /// If the block is larger than one that can be read: nothing so large comes through the log.
    pub(super) fn of(raw: &[u8], packed: &[u8]) -> Self {
        assert!(raw.len() <= SNAPSHOT_BLOCK_BYTES_MAX, "block of {} bytes", raw.len());
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("the bound is far below");
        Self { raw: len(raw), packed: len(packed) }
    }

    pub(super) fn to_bytes(self) -> [u8; BLOCK_HEAD_BYTES] {
        let mut bytes = [0; BLOCK_HEAD_BYTES];
        bytes[..4].copy_from_slice(&self.raw.to_le_bytes());
        bytes[4..].copy_from_slice(&self.packed.to_le_bytes());
        bytes
    }

    /// `None` where the footer begins.
    pub(super) fn parse(bytes: [u8; BLOCK_HEAD_BYTES]) -> Result<Option<Self>, FormatError> {
        if bytes == FOOTER_MARK {
            return Ok(None);
        }
        let mut rest = &bytes[..];
        let raw = u32::from_le_bytes(take(&mut rest)?);
        let packed = u32::from_le_bytes(take(&mut rest)?);
        bounded("a block", u64::from(raw), SNAPSHOT_BLOCK_BYTES_MAX as u64)?;
        if raw == 0 {
            return Err(FormatError::Malformed("a block without records".into()));
        }
        Ok(Some(Self { raw, packed }))
    }
}

/// What the file came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Footer {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) blocks: u64,
}

impl Footer {
    /// The last section.
    pub(super) fn encode(self) -> [u8; BLOCK_HEAD_BYTES + FOOTER_BYTES] {
        let mut section = [0; BLOCK_HEAD_BYTES + FOOTER_BYTES];
        section[..8].copy_from_slice(&FOOTER_MARK);
        section[8..16].copy_from_slice(&self.keys.to_le_bytes());
        section[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        section[24..].copy_from_slice(&self.blocks.to_le_bytes());
        section
    }

    /// Reads what follows the mark.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, FormatError> {
        let keys = u64::from_le_bytes(take(&mut bytes)?);
        let size = u64::from_le_bytes(take(&mut bytes)?);
        let blocks = u64::from_le_bytes(take(&mut bytes)?);
        Ok(Self { keys, bytes: size, blocks })
    }
}

/// The length of a record.
pub(super) fn record_len(key: &Key, item: &Item) -> usize {
    let expires = item.expires.at().map_or(0, |_| EXPIRES_BYTES);
    RECORD_HEAD_BYTES + expires + key.as_bytes().len() + item.value.data.len()
}

/// Appends a record to a block.
pub(super) fn push_record(raw: &mut Vec<u8>, key: &Key, item: &Item) {
    let kind = match item.value.kind {
        ValueKind::Text => 0,
        ValueKind::Json => 1,
        ValueKind::Bytes => 2,
    };
    let kind = kind | item.expires.at().map_or(0, |_| KIND_EXPIRES);
    let key_len = u16::try_from(key.as_bytes().len()).expect("a key is at most 4 KiB");
    let value_len = u32::try_from(item.value.data.len()).expect("a value comes in one frame");
    raw.extend_from_slice(&key_len.to_le_bytes());
    raw.push(kind);
    raw.extend_from_slice(&value_len.to_le_bytes());
    raw.extend_from_slice(&item.ts.to_le_bytes());
    raw.extend_from_slice(&item.version.to_le_bytes());
    if let Some(expires) = item.expires.at() {
        raw.extend_from_slice(&expires.to_le_bytes());
    }
    raw.extend_from_slice(key.as_bytes());
    raw.extend_from_slice(&item.value.data);
}

/// The length of a record that holds no item.
pub(super) fn remembered_len(encoded: &[u8]) -> usize {
    RECORD_HEAD_BYTES + encoded.len()
}

/// Appends a record that holds no item but `encoded`, something remembered.
pub(super) fn push_remembered(raw: &mut Vec<u8>, encoded: &[u8]) {
    let len = u32::try_from(encoded.len()).expect("it is small");
    raw.extend_from_slice(&0_u16.to_le_bytes());
    raw.push(KIND_REMEMBERED);
    raw.extend_from_slice(&len.to_le_bytes());
    raw.extend_from_slice(&[0; 16]);
    raw.extend_from_slice(encoded);
}

/// What a record holds.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Record {
    Item(Key, Item),
    Remembered(Remembered),
}

/// Takes the next record off a block; `None` at its end.
pub(super) fn next_record(raw: &mut &[u8]) -> Result<Option<Record>, FormatError> {
    if raw.is_empty() {
        return Ok(None);
    }
    let key_len = u16::from_le_bytes(take(raw)?);
    let [kind] = take(raw)?;
    let value_len = u32::from_le_bytes(take(raw)?);
    let ts = u64::from_le_bytes(take(raw)?);
    let version = u64::from_le_bytes(take(raw)?);
    bounded("version", version, VERSION_MAX)?;
    let value_kind = match kind & !KIND_EXPIRES {
        0 => ValueKind::Text,
        1 => ValueKind::Json,
        2 => ValueKind::Bytes,
        KIND_REMEMBERED if (kind, key_len, ts, version) == (KIND_REMEMBERED, 0, 0, 0) => {
            let encoded = take_slice(raw, value_len as usize)?;
            let thing = codec::decode(encoded, REMEMBERED_BYTES_MAX)
                .map_err(|error| FormatError::Malformed(format!("a record: {error}")))?;
            return Ok(Some(Record::Remembered(thing)));
        }
        _ => return Err(FormatError::Malformed(format!("a record of kind {kind}"))),
    };
    let expires = match kind & KIND_EXPIRES {
        0 => None,
        _ => Some(u64::from_le_bytes(take(raw)?)),
    };
    let key = take_slice(raw, usize::from(key_len))?;
    let key = Key::new(key).map_err(|error| FormatError::Malformed(error.to_string()))?;
    // A copy: a slice would keep its whole block alive for as long as the value lives.
    let data = Bytes::copy_from_slice(take_slice(raw, value_len as usize)?);
    let value = Value { kind: value_kind, data };
    Ok(Some(Record::Item(key, Item { value, ts, version, expires: expires.into() })))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], FormatError> {
    let (taken, rest) = bytes.split_first_chunk().ok_or_else(ends_early)?;
    *bytes = rest;
    Ok(*taken)
}

fn take_slice<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], FormatError> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or_else(ends_early)?;
    *bytes = rest;
    Ok(taken)
}

fn ends_early() -> FormatError {
    FormatError::Malformed("a record ends before it is whole".into())
}
