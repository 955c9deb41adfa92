//! Reads sealed segments again, so that damage to what nobody reads is found while there are other
//! copies (latent sector errors: Bairavasundaram et al., SIGMETRICS '07).

use std::io;
use std::sync::Arc;

use crate::store::wal::record::{SegmentHeader, batch_at};
use crate::store::wal::segment::{START, Segment};
use crate::store::wal::shared::{Held, Shared};
use crate::types::ids::Index;

/// A segment that was read again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scrubbed {
    /// Its number.
    pub number: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong with it, if anything is.
    pub damaged: Option<String>,
    /// Once the log is purged up to this entry, it does without the segment.
    pub last: Index,
}

/// See [`crate::store::wal::Wal::scrub`].
pub(super) fn next(shared: &Shared, after: u64) -> io::Result<Option<Scrubbed>> {
    let (Held { segment, end }, last) = {
        let inner = shared.lock();
        inner.check()?;
        let mut segments = inner.segments.range(after + 1..);
        // The last one is still written.
        let (Some((number, held)), Some(_)) = (segments.next(), segments.next()) else {
            return Ok(None);
        };
        let last = inner.index.first_beyond(*number).saturating_sub(1);
        // It may be there for its marks alone: any later purge writes them anew.
        let purged = inner.view.purged().map_or(0, |purged| purged.index + 1);
        (held.clone(), last.max(purged))
    };
    let damaged = match segment.read_again(end) {
        Ok(bytes) => first_damage(&segment, &bytes, end)
            .map(|offset| format!("the batch at byte {offset} can't be read")),
        Err(error) => Some(error.to_string()),
    };
    Ok(Some(Scrubbed { number: segment.number, bytes: end, damaged, last }))
}

/// Where what was written up to `end` can't be read any more.
fn first_damage(segment: &Arc<Segment>, bytes: &[u8], end: u64) -> Option<u64> {
    let expected = |header: &SegmentHeader| {
        header.number == segment.number && header.identity == segment.identity
    };
    if !SegmentHeader::decode(bytes).is_ok_and(|header| expected(&header)) {
        return Some(0);
    }
    let mut offset = START;
    while offset < end {
        let at = usize::try_from(offset).ok()?;
        let Some(batch) = batch_at(bytes, at, segment.identity) else { return Some(offset) };
        offset = batch.end as u64;
    }
    None
}
