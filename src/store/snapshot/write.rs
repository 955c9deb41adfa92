//! Writes a state as a snapshot file, in one pass and with one block in memory.

use std::io::{self, Write};
use std::sync::Arc;

use crate::store::disk::{FileStream, OpenFile};
use crate::store::rests::Rests;
use crate::store::snapshot::codec::Codec;
use crate::store::snapshot::format::{
    BlockHead, Checksum, Footer, Header, push_record, push_remembered, record_len, remembered_len,
};
use crate::store::state::State;
use crate::types::codec;
use crate::types::limits::{SNAPSHOT_BLOCK_BYTES, SNAPSHOT_LONG_RESTS, SNAPSHOT_SYNC_BYTES};

/// Writes all of `state` to `out`. The caller syncs.
pub(super) fn write_state(state: &State, codec: Codec, out: impl Write) -> io::Result<()> {
    let mut out = Sections { out, checksum: Checksum::default() };
    out.section(&[&Header::of(state).encode(codec)])?;
    let mut footer = Footer { keys: state.keys(), bytes: state.bytes, blocks: 0 };
    let (mut raw, mut packed) = (Vec::with_capacity(SNAPSHOT_BLOCK_BYTES), Vec::new());
    // A block is closed before it grows too long; only a record that is too long by itself makes a
    // longer one.
    let mut make_room = |raw: &mut Vec<u8>, out: &mut Sections<_>, len| {
        if !raw.is_empty() && raw.len() + len > SNAPSHOT_BLOCK_BYTES {
            out.block(codec, raw, &mut packed)?;
            footer.blocks += 1;
            raw.clear();
        }
        io::Result::Ok(())
    };
    for (key, item) in &state.map {
        make_room(&mut raw, &mut out, record_len(key, item))?;
        push_record(&mut raw, key, item);
    }
    for thing in state.answers.remembered() {
        let encoded = codec::encode(&thing);
        make_room(&mut raw, &mut out, remembered_len(&encoded))?;
        push_remembered(&mut raw, &encoded);
    }
    if !raw.is_empty() {
        out.block(codec, &raw, &mut packed)?;
        footer.blocks += 1;
    }
    out.section(&[&footer.encode()])
}

struct Sections<W> {
    out: W,
    checksum: Checksum,
}

impl<W: Write> Sections<W> {
    fn section(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            self.checksum.add(part);
            self.out.write_all(part)?;
        }
        self.out.write_all(&self.checksum.to_bytes())
    }

    fn block(&mut self, codec: Codec, raw: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
        codec.pack(raw, packed);
        self.section(&[&BlockHead::of(raw, packed).to_bytes(), packed])
    }
}

/// A file that is synced from time to time while it is written, so that the disk never has a whole
/// snapshot to write at once while the log waits.
#[derive(Debug)]
pub(super) struct Paced {
    file: FileStream,
    unsynced: u64,
    rests: Rests,
}

impl Paced {
    /// One that is written as fast as it can be.
    pub(super) fn new(file: OpenFile) -> Self {
        Self { file: FileStream::new(file), unsynced: 0, rests: Rests::none() }
    }

    /// One whose writer rests between pieces.
    pub(super) fn with_rests(file: OpenFile) -> Self {
        Self { rests: Rests::always(SNAPSHOT_LONG_RESTS), ..Self::new(file) }
    }

    /// The file, with everything in it on disk.
    pub(super) fn finish(self) -> io::Result<OpenFile> {
        self.file.file().sync()?;
        Ok(Arc::clone(self.file.file()))
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.unsynced >= SNAPSHOT_SYNC_BYTES {
            self.file.file().sync()?;
            self.unsynced = 0;
        }
        self.rests.rest();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
