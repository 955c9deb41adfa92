//! How the blocks of a snapshot are packed.
//!
//! A block unpacks to at most [`RATIO_MAX`] times its length, whoever packed it, so that a small file can't fill
//! the memory of whoever reads it.

use crate::store::snapshot::format::{BlockHead, FormatError, bounded};

/// LZ4 can't make more than this many bytes out of one. Zstd could make 32,768; what it packs
/// better than this is filled up.
const RATIO_MAX: usize = 255;
/// How hard zstd tries: the fastest of its regular levels.
const ZSTD_LEVEL: i32 = 1;
/// Begins a frame of zstd that is skipped; its length follows (RFC 8878, section 3.1.2).
const ZSTD_SKIPPED: [u8; 4] = 0x184d_2a50_u32.to_le_bytes();

/// How the blocks of a snapshot are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// LZ4 blocks without a length in front.
    #[default]
    Lz4 = 1,
    /// A zstd frame (RFC 8878) each: smaller.
    Zstd = 2,
}

impl Codec {
    pub(super) fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            2 => Ok(Self::Zstd),
            _ => Err(FormatError::UnknownCodec(byte)),
        }
    }

    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Packs a block's records into `packed`, replacing what it holds.
    pub(super) fn pack(self, raw: &[u8], packed: &mut Vec<u8>) {
        packed.clear();
        match self {
            Self::None => packed.extend_from_slice(raw),
            Self::Lz4 => {
                packed.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
                let len = lz4_flex::block::compress_into(raw, packed);
                packed.truncate(len.expect("there is room for the longest output"));
            }
            Self::Zstd => {
                packed.resize(zstd::zstd_safe::compress_bound(raw.len()), 0);
                let len = zstd::bulk::compress_to_buffer(raw, packed, ZSTD_LEVEL);
                packed.truncate(len.expect("there is room for the longest output"));
                fill_up(packed, raw.len().div_ceil(RATIO_MAX));
            }
        }
    }

    /// Unpacks a block of `head` into `raw`, replacing what it holds.
    pub(super) fn unpack(
        self,
        head: BlockHead,
        packed: &[u8],
        raw: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let raw_len = head.raw as usize;
        let max = packed.len().saturating_mul(RATIO_MAX) as u64;
        bounded("a block", u64::from(head.raw), max)?;
        raw.clear();
        if self != Self::None {
            raw.resize(raw_len, 0);
        }
        let malformed = |error| FormatError::Malformed(format!("a block: {error}"));
        let len = match self {
            Self::None => {
                raw.extend_from_slice(packed);
                packed.len()
            }
            Self::Lz4 => lz4_flex::block::decompress_into(packed, raw)
                .map_err(|error| malformed(error.to_string()))?,
            Self::Zstd => zstd::bulk::decompress_to_buffer(packed, raw)
                .map_err(|error| malformed(error.to_string()))?,
        };
        if len == raw_len {
            return Ok(());
        }
        Err(FormatError::Malformed(format!("a block of {raw_len} bytes unpacks to {len}")))
    }
}

/// Appends a frame that is skipped, if fewer bytes than `least` are there.
fn fill_up(packed: &mut Vec<u8>, least: usize) {
    if packed.len() < least {
        let skipped = least.saturating_sub(packed.len() + 2 * ZSTD_SKIPPED.len());
        let len = u32::try_from(skipped).expect("a block is no longer");
        packed.extend_from_slice(&ZSTD_SKIPPED);
        packed.extend_from_slice(&len.to_le_bytes());
        packed.resize(packed.len() + skipped, 0);
    }
}
