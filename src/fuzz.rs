//! Every decoder that reads bytes from a disk or a socket, as a function that takes any bytes.
//!
//! Each panics unless: the decoder neither panics nor holds more memory than the length of its
//! input justifies; what it decodes comes back the same when it is encoded and decoded again; and
//! what has a wrong checksum is refused. As no search finds its way through a checksum, inputs are
//! tried as they are and once more with their checksums, and then also their counts and numbers,
//! made right.
//!
//! `cargo fuzz` runs them from `fuzz/`, with the cargo feature `fuzzing`, which is never on by
//! default; `cargo test` runs them over arbitrary bytes, over valid inputs that were bent, and over
//! the corpora in `fuzz/corpus/`. How to is told in `docs/testing.md`.

#[cfg(test)]
mod tests;

pub use crate::rpc::fuzz::{frame, handshake};
pub use crate::store::snapshot::fuzz::snapshot;
pub use crate::store::wal::fuzz::{mark, wal};
pub use crate::types::fuzz::{Decoder, Watch, command, cursor, peer};

use crate::rpc::fuzz::{frame_seeds, handshake_seeds};
use crate::store::snapshot::fuzz::snapshot_seeds;
use crate::store::wal::fuzz::{mark_seeds, wal_seeds};
use crate::types::fuzz::{command_seeds, cursor_seeds, peer_seeds};

/// All of them.
pub const DECODERS: &[Decoder] = &[
    Decoder { name: "wal", run: wal, seeds: wal_seeds },
    Decoder { name: "mark", run: mark, seeds: mark_seeds },
    Decoder { name: "snapshot", run: snapshot, seeds: snapshot_seeds },
    Decoder { name: "frame", run: frame, seeds: frame_seeds },
    Decoder { name: "handshake", run: handshake, seeds: handshake_seeds },
    Decoder { name: "peer", run: peer, seeds: peer_seeds },
    Decoder { name: "command", run: command, seeds: command_seeds },
    Decoder { name: "cursor", run: cursor, seeds: cursor_seeds },
];
