//! Gives a body to the answers that the HTTP library makes on its own.
//!
//! What can't be read as a request reaches no handler: hyper answers it with a bare `400`, `414` or `431` and
//! closes. [`Worded`] stands between hyper and the socket and has [`Turn`] tell it whose bytes come: while no
//! request is with the router and no answer of its is on the way, they are hyper's own, and get the JSON
//! body that every error has. So does what was meant as a `HEAD`: nobody has read its method, and the connection ends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{Buf, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::types::code::Code;
use crate::types::error::WriteOutcome;
use crate::types::http::{CONTENT_JSON, ErrorBody};

/// What hyper says of the length of its own answers.
const BARE: &str = "content-length: 0\r\n";

/// Nobody's: what is written now is hyper's own. So is anything below [`SENDING`]: for so many looks.
const NOBODY: u8 = 0;
/// Hyper has all of the router's answer, but not yet sent it.
const SENDING: u8 = 254;
/// The router has a request, or its answer is not over.
const ROUTER: u8 = 255;

/// Whose turn it is to write to a connection. Its clones, one with the router and one with the socket, are of one task.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<AtomicU8>);

impl Turn {
    /// The router has got a request.
    pub(super) fn of_router(&self) {
        self.0.store(ROUTER, Ordering::Relaxed);
    }

    /// The router has answered; its turn ends with the body. It never does where the connection leaves HTTP.
    pub(super) fn answered(&self, response: Response) -> Response<Answered> {
        let leaves = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let turn = (!leaves).then(|| self.clone());
        response.map(|body| Answered { body, turn })
    }

    fn sent(&self) {
        if self.0.load(Ordering::Relaxed) == SENDING {
            self.0.store(NOBODY, Ordering::Relaxed);
        }
    }

    fn is_nobodys(&self) -> bool {
        self.0.load(Ordering::Relaxed) < SENDING
    }

    /// Looks whether there is no request and no answer, and says how many looks have found that since the last request.
    pub(super) fn idle_looks(&self) -> u8 {
        if !self.is_nobodys() {
            return 0;
        }
        let looks = self.0.load(Ordering::Relaxed) + 1;
        self.0.store(looks.min(SENDING - 1), Ordering::Relaxed);
        looks
    }
}

/// The body of one of the router's answers; hyper drops it when it has all of it.
#[derive(Debug)]
pub(super) struct Answered {
    body: Body,
    turn: Option<Turn>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        if let Some(turn) = &self.turn {
            turn.0.store(SENDING, Ordering::Relaxed);
        }
    }
}

/// A socket on which no error goes out without a body.
#[derive(Debug)]
pub(super) struct Worded<S> {
    socket: S,
    turn: Turn,
    /// What goes out in place of what hyper has written, as far as it is left.
    instead: Bytes,
}

impl<S: AsyncWrite + Unpin> Worded<S> {
    pub(super) fn new(socket: S, turn: Turn) -> Self {
        Self { socket, turn, instead: Bytes::new() }
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.instead.has_remaining() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes hyper's own answer, if it is one.
    fn takes(&mut self, written: &[u8]) -> bool {
        let Some(answer) = self.turn.is_nobodys().then(|| worded(written)).flatten() else {
            return false;
        };
        self.instead = answer.into();
        true
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Worded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Worded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if self.takes(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        // Hyper's own answer is all head: it stands in one of them.
        if let Some(first) = bufs.iter().find(|buf| !buf.is_empty())
            && self.takes(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        // Hyper flushes when it has nothing left to write.
        self.turn.sent();
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// One of hyper's own answers with a body; `None` for anything else.
fn worded(bare: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(bare).ok().filter(|head| head.ends_with("\r\n\r\n"))?;
    let (code, error) = match head.split(' ').nth(1)? {
        "400" => (Code::BadRequest, "bad request: this is not HTTP/1.1"),
        "414" => (Code::UriTooLong, Code::UriTooLong.when()),
        "431" => (Code::HeadersTooLarge, Code::HeadersTooLarge.when()),
        _ => return None,
    };
    let body = ErrorBody {
        error: error.into(),
        code: code.as_str().into(),
        // Whatever it was meant to be.
        outcome: Some(WriteOutcome::NotApplied),
        epoch: None,
        version: None,
        oldest: None,
    };
    let body = serde_json::to_vec(&body).expect("our own bodies have a JSON form");
    let length = format!(
        "content-type: {CONTENT_JSON}\r\ncache-control: no-store\r\ncontent-length: {}\r\n",
        body.len()
    );
    let (before, after) = head.split_once(BARE)?;
    Some([before.as_bytes(), length.as_bytes(), after.as_bytes(), &body].concat())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const REFUSAL: &[u8] =
        b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";

    /// What comes out of a refusal as it stands in hyper's buffer.
    async fn written(turn: &Turn) -> String {
        let mut socket = Worded::new(Vec::new(), turn.clone());
        socket.write_all(REFUSAL).await.expect("written");
        socket.flush().await.expect("flushed");
        String::from_utf8(socket.socket).expect("text")
    }

    /// A value may look like a refusal, and its answer may go out in any pieces.
    #[tokio::test]
    async fn what_the_router_answers_is_left_as_it_is() {
        let turn = Turn::default();
        turn.of_router();
        assert_eq!(written(&turn).await.as_bytes(), REFUSAL);
        let answer = turn.answered(Response::new(Body::empty()));
        assert_eq!(written(&turn).await.as_bytes(), REFUSAL);
        drop(answer);
        // Its last piece.
        assert_eq!(written(&turn).await.as_bytes(), REFUSAL);
        assert!(written(&turn).await.contains("uri_too_long"), "the turn is over");

        let mut left = Response::new(Body::empty());
        *left.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        turn.of_router();
        drop(turn.answered(left));
        for _ in 0..2 {
            assert_eq!(written(&turn).await.as_bytes(), REFUSAL);
        }
    }

    #[test]
    fn looks_count_while_nobody_has_the_turn() {
        let turn = Turn::default();
        assert_eq!([(); 3].map(|()| turn.idle_looks()), [1, 2, 3]);
        assert!(turn.is_nobodys());
        turn.of_router();
        assert_eq!(turn.idle_looks(), 0);
        drop(turn.answered(Response::new(Body::empty())));
        assert_eq!(turn.idle_looks(), 0, "it is on its way");
        turn.sent();
        assert_eq!([(); 2].map(|()| turn.idle_looks()), [1, 2]);
        for _ in 0..300 {
            turn.idle_looks();
        }
        assert!(turn.is_nobodys());
    }

    #[tokio::test]
    async fn what_nobody_answers_gets_a_body() {
        let written = written(&Turn::default()).await;
        let (head, body) = written.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 414 URI Too Long\r\nconnection: close\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\ndate: now", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["code"], "uri_too_long");
    }

    /// A socket that takes little at a time, and not at once.
    #[tokio::test]
    async fn a_body_goes_out_in_pieces() {
        let (near, mut far) = tokio::io::duplex(7);
        let mut socket = Worded::new(near, Turn::default());
        let write = async {
            socket.write_all(REFUSAL).await.expect("written");
            socket.shutdown().await.expect("shut down");
        };
        let mut read = Vec::new();
        let ((), got) =
            tokio::join!(write, tokio::io::AsyncReadExt::read_to_end(&mut far, &mut read));
        got.expect("read");
        assert!(read.ends_with(b"\"outcome\":\"not_applied\"}"), "{read:?}");
    }
}
