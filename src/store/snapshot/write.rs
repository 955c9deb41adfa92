//! Writes a state as a snapshot file, in one pass and with one block in memory.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::disk::{FileStream, OpenFile};
use crate::store::snapshot::codec::Codec;
use crate::store::snapshot::format::{
    BlockHead, Checksum, Footer, Header, push_record, push_remembered, record_len, remembered_len,
};
use crate::store::state::State;
use crate::types::codec;
use crate::types::host;
use crate::types::limits::{
    SNAPSHOT_BLOCK_BYTES, SNAPSHOT_REST, SNAPSHOT_REST_MAX, SNAPSHOT_RESTING_MAX,
    SNAPSHOT_SYNC_BYTES,
};

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
    rests: Option<Rests>,
}

impl Paced {
    /// One that is written as fast as it can be.
    pub(super) fn new(file: OpenFile) -> Self {
        Self { file: FileStream::new(file), unsynced: 0, rests: None }
    }

    /// One whose writer rests between pieces.
    pub(super) fn with_rests(file: OpenFile) -> Self {
        // What is simulated has no other thread to let go first.
        let rests = (!host::is_simulated()).then(Rests::begin);
        Self { rests, ..Self::new(file) }
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
        if let Some(rests) = &mut self.rests {
            rests.rest();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// When a writer works and when it rests.
#[derive(Debug)]
struct Rests {
    working_since: Instant,
    /// From then on there are no more.
    until: Instant,
}

impl Rests {
    fn begin() -> Self {
        let now = host::now();
        Self { working_since: now, until: now + SNAPSHOT_RESTING_MAX }
    }

    /// Rests, if there was work.
    fn rest(&mut self) {
        let now = host::now();
        let left = self.until.saturating_duration_since(now);
        let Some(rest) = rest(now.saturating_duration_since(self.working_since), left) else {
            return;
        };
        #[expect(clippy::disallowed_methods, reason = "there is no condition to wait for")]
        std::thread::sleep(rest);
        self.working_since = host::now();
    }
}

/// What is worth a rest of its own.
const WORK_MIN: Duration = Duration::from_millis(1);

/// How long to rest after so much work, with so much of the time for rests left.
fn rest(worked: Duration, left: Duration) -> Option<Duration> {
    if worked < WORK_MIN {
        return None;
    }
    let rest = worked.saturating_mul(SNAPSHOT_REST).min(SNAPSHOT_REST_MAX).min(left);
    (!rest.is_zero()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_a_snapshot_rests_longer_than_he_works_but_not_for_ever() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(1) / 2, SNAPSHOT_RESTING_MAX), None, "not yet");
        assert_eq!(rest(ms(2), SNAPSHOT_RESTING_MAX), Some(ms(2) * SNAPSHOT_REST));
        assert_eq!(rest(ms(900), SNAPSHOT_RESTING_MAX), Some(SNAPSHOT_REST_MAX));
        assert_eq!(rest(ms(2), ms(3)), Some(ms(3)));
        assert_eq!(rest(ms(2), ms(0)), None, "a large snapshot is not to take for ever");
    }
}
