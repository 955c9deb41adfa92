//! The one binary encoding: postcard, bounded.
//!
//! Decoding refuses input that is too long, too short or has bytes left over, and lists with more
//! elements than their bound (`bounded`), so that what it takes of memory is justified by the input:
//! see [`DECODED_BYTES_PER_BYTE`](crate::types::limits::DECODED_BYTES_PER_BYTE). It never panics.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes are not one whole value of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the caller allows.
    #[error("{len} bytes, at most {max} are accepted")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes accepted.
        max: usize,
    },
    /// Not a value of that type.
    #[error("malformed: {0}")]
    Malformed(postcard::Error),
    /// One of our types has refused a part of it.
    #[error(
        "malformed: a part of it is of no known kind, or beyond its bound, such as a list with too many elements"
    )]
    Refused,
    /// A value, and then more.
    #[error("{0} bytes left over")]
    LeftOver(usize),
}

/// Room for most of what is encoded: a buffer that grows is copied each time.
const ENCODED_BYTES: usize = 256;

/// Encodes a value of ours.
///
/// # Panics
/// If the type can't be encoded at all (a map of unknown length, say): a bug of ours.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(ENCODED_BYTES);
    encode_into(value, &mut encoded);
    encoded
}

/// Appends the encoding of a value of ours to `buffer`.
///
/// # Panics
/// As [`encode`].
pub fn encode_into<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) {
    let taken = std::mem::take(buffer);
    *buffer = postcard::to_extend(value, taken).expect("our own types have an encoding");
}

/// Decodes exactly one value from at most `max` bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::LeftOver(rest.len())) }
}

/// Decodes the value that `bytes` begin with, whatever follows: to read the version of a message
/// whose later fields may be unknown.
pub fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    Ok(postcard::take_from_bytes(bytes).map(|(value, _)| value)?)
}

impl From<postcard::Error> for DecodeError {
    fn from(error: postcard::Error) -> Self {
        match error {
            postcard::Error::SerdeDeCustom => Self::Refused, // It keeps no sentence.
            other => Self::Malformed(other),
        }
    }
}
