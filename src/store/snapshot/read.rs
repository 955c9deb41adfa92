//! Reads a snapshot file into a fresh state, in one pass and with one block in memory.
//!
//! Promises: a state comes back only when every byte of the file has been checked, the footer's
//! included. Refuses lengths that the rest of the file can't justify before it reserves memory
//! for them.

use std::collections::VecDeque;
use std::io::{self, Read};

use crate::store::answers::Remembered;
use crate::store::rests::Rests;
use crate::store::snapshot::codec::Codec;
use crate::store::snapshot::format::{
    BLOCK_HEAD_BYTES, BlockHead, CHECKSUM_BYTES, Checksum, FOOTER_BYTES, Footer, FormatError,
    Header, PREFIX_BYTES, Prefix, Record, bounded, next_record,
};
use crate::store::state::{State, size_of};
use crate::types::item::Item;
use crate::types::key::Key;

/// How many items wait for their turn while a file is read. The map splits a full leaf in the middle, so
/// that rising keys leave each half full; so every second key comes later than its neighbours,
/// when the leaf they are in is split off, and fills it.
const HELD_BACK: usize = 32;

/// How many records are read between two looks at whether to rest.
const RECORDS: u64 = 64;

/// Why a file can't be read as a snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Format(FormatError::Malformed("the file ends before it is whole".into()));
        }
        Self::Io(error)
    }
}

/// Reads the header of a file of `len` bytes; the rest of it remains unchecked.
pub(super) fn read_header(file: impl Read, len: u64) -> Result<Header, ReadError> {
    let (header, _) = Sections::new(file, len).head()?;
    Ok(header)
}

/// Reads a whole file of `len` bytes.
pub(super) fn read_state(file: impl Read, len: u64, mut rests: Rests) -> Result<State, ReadError> {
    let mut state = State::default();
    let mut refused = Ok(());
    let mut odd = VecDeque::with_capacity(HELD_BACK);
    let mut is_odd = false;
    let mut records = 0_u64;
    visit(file, len, |part| match part {
        Part::Header(header, _) => state = header.to_state(),
        Part::Record(key, item) => {
            is_odd = !is_odd;
            records += 1;
            if records.is_multiple_of(RECORDS) {
                rests.rest();
            }
            let next = if is_odd {
                odd.push_back((key, item));
                if odd.len() > HELD_BACK { odd.pop_front() } else { None }
            } else {
                Some((key, item))
            };
            if let Some((key, item)) = next {
                state.insert(&key, item);
            }
        }
        Part::Remembered(thing) => {
            let restored = state.answers.restore(thing);
            refused = refused.and(restored);
        }
    })?;
    refused.map_err(|reason| FormatError::Malformed(reason.into()))?;
    for (key, item) in odd {
        state.insert(&key, item);
    }
    Ok(state)
}

/// What stands in a snapshot.
pub(super) enum Part<'a> {
    /// Comes first, once.
    Header(&'a Header, Codec),
    /// A key and what it holds; keys rise.
    Record(Key, Item),
    /// Something remembered of a write; comes after the keys.
    Remembered(Remembered),
}

/// Shows a whole file of `len` bytes, part by part. What was seen is worth nothing unless it ends
/// well, for only the footer tells whether something is missing.
pub(super) fn visit(
    file: impl Read,
    len: u64,
    mut see: impl FnMut(Part<'_>),
) -> Result<(), ReadError> {
    let mut file = Sections::new(file, len);
    let (header, codec) = file.head()?;
    see(Part::Header(&header, codec));
    let mut read = Footer::default();
    let mut last: Option<Key> = None;
    let mut remembered = 0;
    while let Some(head) = file.block_head()? {
        file.block(head, codec)?;
        let mut raw = &file.raw[..];
        while let Some(record) = next_record(&mut raw)? {
            let (key, item) = match record {
                Record::Item(key, item) if remembered == 0 => (key, item),
                Record::Item(key, _) => {
                    let reason = format!("key {key:?} comes after what is remembered");
                    return Err(FormatError::Malformed(reason).into());
                }
                Record::Remembered(thing) => {
                    remembered += 1;
                    see(Part::Remembered(thing));
                    continue;
                }
            };
            if last.as_ref().is_some_and(|last| *last >= key) {
                let reason = format!("key {key:?} is out of order");
                return Err(FormatError::Malformed(reason).into());
            }
            read.keys += 1;
            read.bytes += size_of(&key, &item);
            last = Some(key.clone());
            see(Part::Record(key, item));
        }
        read.blocks += 1;
    }
    let footer = file.footer()?;
    let announced = Footer { keys: header.keys, bytes: header.bytes, blocks: read.blocks };
    if remembered != header.remembered {
        let reason =
            format!("it remembers {remembered} writes, its header says {}", header.remembered);
        return Err(FormatError::Malformed(reason).into());
    }
    if read == footer && read == announced {
        return Ok(());
    }
    let reason = format!("it holds {read:?}, its footer says {footer:?}, its header {announced:?}");
    Err(FormatError::Malformed(reason).into())
}

/// Reads section by section and keeps count of what is left.
struct Sections<R> {
    file: R,
    left: u64,
    checksum: Checksum,
    packed: Vec<u8>,
    raw: Vec<u8>,
}

impl<R: Read> Sections<R> {
    fn new(file: R, len: u64) -> Self {
        let (packed, raw) = (Vec::new(), Vec::new());
        Self { file, left: len, checksum: Checksum::default(), packed, raw }
    }

    fn head(&mut self) -> Result<(Header, Codec), ReadError> {
        let prefix = Prefix::parse(&self.array::<PREFIX_BYTES>()?)?;
        self.fill_packed("a header", prefix.header_len)?;
        self.check("the header")?;
        Ok(Header::decode(prefix, &self.packed)?)
    }

    fn block_head(&mut self) -> Result<Option<BlockHead>, ReadError> {
        Ok(BlockHead::parse(self.array::<BLOCK_HEAD_BYTES>()?)?)
    }

    /// Leaves the block's records in `raw`.
    fn block(&mut self, head: BlockHead, codec: Codec) -> Result<(), ReadError> {
        self.fill_packed("a packed block", head.packed)?;
        self.check("a block")?;
        Ok(codec.unpack(head, &self.packed, &mut self.raw)?)
    }

    fn footer(&mut self) -> Result<Footer, ReadError> {
        let bytes = self.array::<FOOTER_BYTES>()?;
        self.check("the footer")?;
        if self.left > 0 {
            return Err(FormatError::GoesOn.into());
        }
        Ok(Footer::parse(&bytes)?)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        self.take_from_left("a section", N as u64)?;
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.checksum.add(&bytes);
        Ok(bytes)
    }

    fn fill_packed(&mut self, what: &'static str, len: u32) -> Result<(), ReadError> {
        self.take_from_left(what, u64::from(len))?;
        self.packed.resize(len as usize, 0);
        self.file.read_exact(&mut self.packed)?;
        self.checksum.add(&self.packed);
        Ok(())
    }

    /// Compares the running checksum with the one that stands here.
    fn check(&mut self, what: &'static str) -> Result<(), ReadError> {
        self.take_from_left("a checksum", CHECKSUM_BYTES as u64)?;
        let mut written = [0; CHECKSUM_BYTES];
        self.file.read_exact(&mut written)?;
        if written == self.checksum.to_bytes() {
            return Ok(());
        }
        Err(FormatError::Checksum(what).into())
    }

    fn take_from_left(&mut self, what: &'static str, len: u64) -> Result<(), FormatError> {
        self.left -= bounded(what, len, self.left)?;
        Ok(())
    }
}
