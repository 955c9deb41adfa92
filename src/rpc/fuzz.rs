//! Fuzzes what reads a connection: frames, and the two messages that open it.
//!
//! Judges, beside what every decoder must keep to: a frame with a flipped bit is not one; frames
//! are the same however the network cuts them; and a refusal always fits into its frame.

use bytes::BytesMut;

use crate::rpc::frame::{self, Frame, FrameError, HEADER_BYTES, Kind};
use crate::rpc::handshake::{hello_in, shortened, welcome_in};
use crate::types::codec;
use crate::types::fuzz::{self, Watch, bent, watched};
use crate::types::limits::HANDSHAKE_BYTES_MAX;
use crate::types::peer::{Hello, PROTOCOL_VERSION, Welcome};

/// Beside the bytes themselves, what a decoded frame holds, in bytes.
const FRAME_OVERHEAD: usize = 256;

/// The bytes of a connection, from its beginning.
///
/// # Panics
/// If a promise of the frames' decoder is broken.
pub fn frame(bytes: &[u8], watch: Watch<'_>) -> bool {
    let any = frames(bytes, watch);
    frames(&with_sums(bytes), watch) || any
}

fn frames(bytes: &[u8], watch: Watch<'_>) -> bool {
    let mut buffer = BytesMut::from(bytes);
    let mut whole = Vec::new();
    let end = loop {
        // A frame is a piece of the buffer: nothing is copied, and nothing reserved.
        match watched(watch, FRAME_OVERHEAD, || frame::decode(&mut buffer)) {
            Ok(Some(frame)) => whole.push(frame),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let mut at = 0;
    for frame in &whole {
        let wire = wire(frame);
        assert_eq!(bytes.get(at..at + wire.len()), Some(&wire[..]), "a frame has one form");
        at += wire.len();
        let other = bent(&wire).expect("a frame has bytes");
        let decoded = frame::decode(&mut BytesMut::from(&other[..]));
        assert!(!matches!(decoded, Ok(Some(_))), "a bit was flipped: {decoded:?}");
    }
    assert_eq!(in_pieces(bytes), (whole.clone(), end), "however they were cut");
    !whole.is_empty()
}

/// What a reader takes that gets the bytes in pieces.
fn in_pieces(bytes: &[u8]) -> (Vec<Frame>, Option<FrameError>) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(1 + bytes.len() % 23) {
        buffer.extend_from_slice(piece);
        loop {
            match frame::decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn wire(frame: &Frame) -> Vec<u8> {
    let header = frame::header(frame.kind, frame.id, &frame.payload);
    [&header[..], &frame.payload].concat()
}

/// The same bytes with right checksums, as long as lengths tell where frames are.
fn with_sums(bytes: &[u8]) -> Vec<u8> {
    let mut mended = bytes.to_vec();
    let mut rest = &mut mended[..];
    while let Some((header, behind)) = rest.split_first_chunk_mut::<HEADER_BYTES>() {
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some((payload, behind)) = behind.split_at_mut_checked(len) else { break };
        let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..13]), payload);
        header[13..].copy_from_slice(&sum.to_le_bytes());
        rest = behind;
    }
    mended
}

/// The payload of the frame that opens a connection or of the one that answers; the first byte says
/// what it is.
///
/// # Panics
/// If a promise of the two is broken.
pub fn handshake(bytes: &[u8], watch: Watch<'_>) -> bool {
    let Some((kind, payload)) = bytes.split_first() else { return false };
    let kind = if kind % 2 == 0 { Kind::Hello } else { Kind::Welcome };
    let frame = Frame { kind, id: 0, payload: payload.to_vec().into() };
    // Both come from strangers: beside a sentence, they take no more than they are.
    let allowed = 1024 + 2 * payload.len();
    let hello = watched(watch, allowed, || hello_in(&frame));
    let welcome = watched(watch, allowed, || welcome_in(&frame));
    if let Ok(hello) = &hello {
        assert_eq!((hello.version, kind), (PROTOCOL_VERSION, Kind::Hello), "it is one");
        let encoded = codec::encode(hello);
        assert_eq!(codec::decode::<Hello>(&encoded, HANDSHAKE_BYTES_MAX).as_ref(), Ok(hello));
    }
    if let Ok(welcome) = &welcome {
        assert_eq!(kind, Kind::Welcome, "it is one");
        let encoded = codec::encode(welcome);
        assert_eq!(codec::decode::<Welcome>(&encoded, HANDSHAKE_BYTES_MAX).as_ref(), Ok(welcome));
        if let Err(refusal) = welcome {
            let answer = codec::encode(&Welcome::Err(shortened(&refusal.repeat(3))));
            assert!(answer.len() <= HANDSHAKE_BYTES_MAX, "a refusal fits");
        }
    }
    hello.is_ok() || welcome.is_ok()
}

/// Where a search for frames begins.
pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    let frame = |kind, id, payload: &[u8]| {
        let payload = payload.to_vec().into();
        wire(&Frame { kind, id, payload })
    };
    let hello = codec::encode(&fuzz::hello());
    let welcome = codec::encode(&Welcome::Ok(()));
    let opened = frame(Kind::Hello, 0, &hello);
    let calls = [
        frame(Kind::Call, 1, b"a call"),
        frame(Kind::KeepAlive, 0, b""),
        frame(Kind::Call, 2, b"another"),
    ];
    let answers = [
        frame(Kind::Welcome, 0, &welcome),
        frame(Kind::Answer, 2, b"its answer"),
        frame(Kind::GoAway, 3, b""),
    ];
    let stream =
        [frame(Kind::Data, 0, &[7; 40]), frame(Kind::Data, 1, b""), frame(Kind::End, 2, b"")];
    vec![
        opened.clone(),
        [opened.clone(), calls.concat()].concat(),
        answers.concat(),
        [opened, stream.concat()].concat(),
    ]
}

/// Where a search for handshakes begins.
pub(crate) fn handshake_seeds() -> Vec<Vec<u8>> {
    let with = |kind: u8, payload: Vec<u8>| [vec![kind], payload].concat();
    let stranger = Hello { from: None, to: None, group: None, ..fuzz::hello() };
    vec![
        with(0, codec::encode(&fuzz::hello())),
        with(0, codec::encode(&stranger)),
        with(1, codec::encode(&Welcome::Ok(()))),
        with(1, codec::encode(&Welcome::Err("this node is n0000000000000001 — ключ".into()))),
    ]
}
