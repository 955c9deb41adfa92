//! Decides, from bytes alone, where a frame ends and whether it is whole.
//!
//! A frame is a header of 17 bytes and a payload; all numbers are little-endian:
//!
//! ```text
//! 0        4      5                 13        17
//! | length | kind | id              | crc-32c | payload …
//! ```
//!
//! The checksum covers the 13 bytes before it and the payload. An announced length over the bound
//! of its kind is refused before anything is reserved for it, an unknown kind and a wrong checksum
//! are refused too, and a refusal is final: what follows in the stream can't be trusted. Any bytes
//! at all are either a frame, the beginning of one, or an error; none of them panics. Does no I/O.

use bytes::{Buf, Bytes, BytesMut};

use crate::types::limits::{FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX};

/// The length of a header, in bytes.
pub(super) const HEADER_BYTES: usize = 17;
/// The longest payload of any kind, in bytes.
pub(super) const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;

/// What a frame is. The numbers are the wire format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The first frame of the side that opened the connection.
    Hello = 1,
    /// The answer to it.
    Welcome = 2,
    /// A request; its id is greater than that of the request before it.
    Call = 3,
    /// The reply to the request with this id.
    Answer = 4,
    /// Nothing but a sign of life on a lane of calls.
    KeepAlive = 5,
    /// The server has not taken and will not take the request with this id or any after it.
    GoAway = 6,
    /// One message of a stream; its id counts them from 0.
    Data = 7,
    /// The orderly end of a stream; its id is the number of messages before it.
    End = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Hello,
            Self::Welcome,
            Self::Call,
            Self::Answer,
            Self::KeepAlive,
            Self::GoAway,
            Self::Data,
            Self::End,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }

    /// The longest payload of this kind, in bytes.
    pub(super) fn payload_max(self) -> usize {
        match self {
            Self::Hello | Self::Welcome => HANDSHAKE_BYTES_MAX,
            Self::Call | Self::Answer | Self::Data => PAYLOAD_BYTES_MAX,
            Self::KeepAlive | Self::GoAway | Self::End => 0,
        }
    }
}

/// One frame, taken off the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// What it is.
    pub(super) kind: Kind,
    /// Which call or message it belongs to.
    pub(super) id: u64,
    /// What it carries.
    pub(super) payload: Bytes,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// No kind has this number.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// Longer than its kind may be.
    #[error("{kind:?} frame of {len} bytes, at most {max} are accepted")]
    TooLong {
        /// What it says it is.
        kind: Kind,
        /// How long it says it is.
        len: usize,
        /// How long it may be.
        max: usize,
    },
    /// The checksum does not fit.
    #[error("frame with a wrong checksum")]
    Checksum,
}

/// The header of a frame with this payload.
///
/// # Panics
/// If the payload is longer than its kind may be: whoever queues a frame checks that.
pub(super) fn header(kind: Kind, id: u64, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let max = kind.payload_max();
    assert!(payload.len() <= max, "{kind:?} frame of {} bytes, at most {max}", payload.len());
    let length = u32::try_from(payload.len()).expect("frames are bounded below 4 GiB");
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = kind as u8;
    header[5..13].copy_from_slice(&id.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..13]), payload);
    header[13..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Takes the first frame off `buffer`; `None` while it is not all there.
pub(super) fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some((fields, _)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let mut header = &fields[..];
    let length = header.get_u32_le();
    let kind = header.get_u8();
    let kind = Kind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?;
    let id = header.get_u64_le();
    let crc = header.get_u32_le();
    let checked = crc32c::crc32c(&fields[..13]);
    let (len, max) = (usize::try_from(length).unwrap_or(usize::MAX), kind.payload_max());
    if len > max {
        return Err(FrameError::TooLong { kind, len, max });
    }
    if buffer.len() < HEADER_BYTES + len {
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let payload = buffer.split_to(len).freeze();
    if crc32c::crc32c_append(checked, &payload) == crc {
        Ok(Some(Frame { kind, id, payload }))
    } else {
        Err(FrameError::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(kind: Kind, id: u64, payload: &[u8]) -> Vec<u8> {
        [&header(kind, id, payload)[..], payload].concat()
    }

    #[test]
    fn the_format_never_changes() {
        let golden = [
            [4, 0, 0, 0].as_slice(),
            &[3],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[0x8c, 0x42, 0x15, 0xde], // CRC-32C, computed by other means
            b"sage",
        ];
        assert_eq!(wire(Kind::Call, 0x0102, b"sage"), golden.concat());
    }

    #[test]
    fn a_length_over_the_bound_is_refused_from_the_header_alone() {
        for (kind, max) in [
            (Kind::Call, PAYLOAD_BYTES_MAX),
            (Kind::Hello, HANDSHAKE_BYTES_MAX),
            (Kind::KeepAlive, 0),
        ] {
            let mut bytes = header(kind, 1, b"");
            bytes[..4].copy_from_slice(&u32::try_from(max + 1).unwrap().to_le_bytes());
            let refused = FrameError::TooLong { kind, len: max + 1, max };
            assert_eq!(decode(&mut BytesMut::from(&bytes[..])), Err(refused));
        }
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        for kind in [0, 9, 255] {
            let mut bytes = header(Kind::Call, 1, b"");
            bytes[4] = kind;
            assert_eq!(decode(&mut (&bytes[..]).into()), Err(FrameError::UnknownKind(kind)));
        }
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        (1..=8_u8).prop_map(|byte| Kind::from_byte(byte).unwrap())
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let payload = proptest::collection::vec(any::<u8>(), 0..200);
        (any_kind(), any::<u64>(), payload).prop_map(|(kind, id, mut payload)| {
            payload.truncate(kind.payload_max());
            Frame { kind, id, payload: payload.into() }
        })
    }

    proptest! {
        #[test]
        fn frames_survive_being_split_anywhere(
            frames in proptest::collection::vec(any_frame(), 0..8),
            cuts in proptest::collection::vec(1..50_usize, 1..20),
        ) {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|f| wire(f.kind, f.id, &f.payload)).collect();
            let mut rest = &bytes[..];
            let mut cuts = cuts.iter().cycle();
            let mut buffer = BytesMut::new();
            let mut decoded = Vec::new();
            while !rest.is_empty() {
                let cut = rest.len().min(*cuts.next().unwrap());
                buffer.extend_from_slice(&rest[..cut]);
                rest = &rest[cut..];
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    decoded.push(frame);
                }
            }
            prop_assert_eq!(decoded, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }

        #[test]
        fn a_flipped_bit_is_never_taken_for_a_frame(
            frame in any_frame(),
            at in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = wire(frame.kind, frame.id, &frame.payload);
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode(&mut BytesMut::from(&bytes[..]));
            prop_assert!(!matches!(decoded, Ok(Some(_))), "{decoded:?}");
        }
    }
}
