//! The ends of connections, as the code under test holds them: what it reads from, writes to, and
//! dials with.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::rpc::{Connect, Connecting, Io};
use crate::sim::net::conn::Piece;
use crate::sim::net::{Dial, Net, Place, place_of};

/// The most bytes under way in one direction of a connection.
const WINDOW_BYTES: usize = 256 * 1024;

/// One end of a connection.
pub(in crate::sim::net) struct End {
    pub(in crate::sim::net) net: Net,
    pub(in crate::sim::net) conn: u64,
    pub(in crate::sim::net) side: usize,
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.net.lock();
        let Some(conn) = inner.conns.get_mut(&self.conn) else { return Poll::Ready(Err(broken())) };
        let way = &mut conn.ways[1 - self.side];
        let bytes = buf.remaining().min(way.arrived.len());
        if bytes > 0 {
            let taken: Vec<u8> = way.arrived.drain(..bytes).collect();
            buf.put_slice(&taken);
            way.held -= bytes;
            if let Some(writer) = way.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if way.ended {
            return Poll::Ready(Ok(()));
        }
        if way.broken {
            return Poll::Ready(Err(broken()));
        }
        way.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.net.lock();
        let Some(conn) = inner.conns.get_mut(&self.conn) else { return Poll::Ready(Err(broken())) };
        let way = &mut conn.ways[self.side];
        if way.broken || way.closed {
            return Poll::Ready(Err(broken()));
        }
        let room = WINDOW_BYTES.saturating_sub(way.held);
        if room == 0 {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.len().min(room);
        way.held += taken;
        inner.send(self.conn, self.side, Piece::Bytes(bytes[..taken].to_vec()));
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.net.lock();
        let open = inner.conns.get(&self.conn).is_some_and(|conn| !conn.ways[self.side].closed);
        if open {
            inner.send(self.conn, self.side, Piece::End);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut inner = self.net.lock();
        let Some(conn) = inner.conns.get(&self.conn) else { return };
        if conn.ways[self.side].closed {
            return; // Its process has ended before.
        }
        let unread = !conn.ways[1 - self.side].arrived.is_empty();
        inner.send(self.conn, self.side, if unread { Piece::Reset } else { Piece::End });
        if let Some(conn) = inner.conns.get_mut(&self.conn) {
            conn.ways[self.side].closed = true;
        }
    }
}

/// Connects from one place.
#[derive(Clone)]
pub(in crate::sim) struct From {
    pub(in crate::sim) net: Net,
    pub(in crate::sim) place: Place,
}

impl fmt::Debug for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("From").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Connect for From {
    fn connect<'a>(&'a self, url: &'a str) -> Connecting<'a> {
        Box::pin(async move {
            let to = place_of(url).ok_or_else(|| format!("there is no {url}"))?;
            let end = self.net.dial(self.place, to).await;
            let end = end.map_err(|error| format!("cannot connect to {url}: {error}"))?;
            Ok(Box::new(end) as Box<dyn Io>)
        })
    }
}

impl Net {
    /// Opens a connection.
    async fn dial(&self, from: Place, to: Place) -> Result<End, String> {
        let conn = {
            let mut inner = self.lock();
            let due = inner.now + inner.delay(from, to);
            let conn = inner.next;
            inner.next += 1;
            inner.dials.push(Dial { conn, from, to, due, answer: None, waker: None });
            conn
        };
        let mut dialing = Dialing { net: self, conn, done: false };
        let accepted = std::future::poll_fn(|cx| {
            let mut inner = self.lock();
            let now = inner.now;
            let Some(at) = inner.dials.iter().position(|dial| dial.conn == conn) else {
                return Poll::Pending; // Its process has ended.
            };
            match inner.dials[at].answer {
                Some(answer) if inner.dials[at].due <= now => Poll::Ready(answer),
                Some(_) | None => {
                    inner.dials[at].waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        dialing.done = true;
        drop(dialing);
        if accepted {
            Ok(End { net: self.clone(), conn, side: 0 })
        } else {
            Err("Connection refused".into())
        }
    }
}

/// Takes a request for a connection back when nobody waits for it any more.
struct Dialing<'a> {
    net: &'a Net,
    conn: u64,
    done: bool,
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        let mut inner = self.net.lock();
        inner.dials.retain(|dial| dial.conn != self.conn);
        if !self.done && inner.conns.contains_key(&self.conn) {
            inner.send(self.conn, 0, Piece::Reset);
            if let Some(conn) = inner.conns.get_mut(&self.conn) {
                conn.ways[0].closed = true;
            }
        }
    }
}
