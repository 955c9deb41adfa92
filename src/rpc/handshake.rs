//! How a connection begins: one [`Hello`], one [`Welcome`].
//!
//! The side that opened it says which version it speaks, who it is, whom and which group it means
//! to reach and what for; the other side agrees, or refuses with a sentence for people and closes.
//! A stranger can make us hold no more than one small frame, for no longer than the caller's
//! time limit. The version comes first in a hello, so that a peer of any other version gets a
//! sentence it can show instead of silence.

use std::io;

use crate::rpc::connection::{FrameReader, FrameWriter};
use crate::rpc::frame::{Frame, Kind};
use crate::types::codec;
use crate::types::limits::HANDSHAKE_BYTES_MAX;
use crate::types::peer::{Hello, PROTOCOL_VERSION, Welcome};

/// Introduces us; the other side's answer, or what happened instead.
pub(super) async fn introduce(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    hello: &Hello,
) -> Result<Welcome, String> {
    writer.push(Kind::Hello, 0, codec::encode(hello).into());
    writer.flush().await.map_err(|error| error.to_string())?;
    match reader.next().await {
        Ok(Some(frame)) => welcome_in(&frame),
        Ok(None) => Err("the connection was closed without a welcome".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Hears who is there and answers; the error says why the connection is not to be served.
pub(super) async fn receive(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    welcome: impl FnOnce(&Hello) -> Welcome,
) -> io::Result<Result<Hello, String>> {
    let frame = reader.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let hello = hello_in(&frame).and_then(|hello| welcome(&hello).map(|()| hello));
    let answer: Welcome = match &hello {
        Ok(_) => Ok(()),
        Err(refusal) => Err(shortened(refusal)),
    };
    writer.push(Kind::Welcome, 0, codec::encode(&answer).into());
    writer.flush().await?;
    if hello.is_err() {
        writer.close().await?;
    }
    Ok(hello)
}

pub(super) fn hello_in(frame: &Frame) -> Result<Hello, String> {
    if frame.kind != Kind::Hello {
        return Err(format!("a connection begins with a hello, not with a {:?} frame", frame.kind));
    }
    let malformed = |error| format!("the hello is {error}");
    let version: u16 = codec::decode_first(&frame.payload).map_err(malformed)?;
    if version != PROTOCOL_VERSION {
        return Err(format!(
            "this process speaks version {PROTOCOL_VERSION} of the protocol, not {version}; \
             run the same version of sage on both sides"
        ));
    }
    codec::decode(&frame.payload, HANDSHAKE_BYTES_MAX).map_err(malformed)
}

pub(super) fn welcome_in(frame: &Frame) -> Result<Welcome, String> {
    if frame.kind != Kind::Welcome {
        return Err(format!("a hello is answered by a welcome, not by a {:?} frame", frame.kind));
    }
    codec::decode(&frame.payload, HANDSHAKE_BYTES_MAX)
        .map_err(|error| format!("the welcome is {error}"))
}

/// A refusal that fits into its frame.
pub(super) fn shortened(refusal: &str) -> String {
    refusal.chars().take(HANDSHAKE_BYTES_MAX / 8).collect()
}
