//! One connection as frames: reads them one by one, writes as many as are there at once.
//!
//! Reading is cancel-safe, and its buffer grows with the bytes that arrive, never by a length that
//! was only announced. Writing gathers frames and hands all of them to the socket together; a
//! write that moves nothing for [`STALL_TIMEOUT`] fails. Knows nothing of what the frames mean.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::rpc::frame::{self, Frame, Kind};
use crate::types::limits::{KEEP_ALIVE_INTERVAL, SILENCE_MAX, STALL_TIMEOUT};

/// Anything we can be connected by.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// What one read asks the socket for at least, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Payloads from this length on are written from where they are instead of copied, in bytes.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// How often a queue is left to grow before it is emptied, at most.
const GATHER_MAX: usize = 4;

/// Splits a connection into its two directions.
pub(super) fn split(io: impl Io) -> (FrameReader, FrameWriter) {
    let (read, write) = tokio::io::split(io);
    let reader = FrameReader { io: Box::new(read), buffer: BytesMut::new() };
    let writer = FrameWriter {
        io: Box::new(write),
        gathered: BytesMut::new(),
        pieces: Pieces::default(),
        bytes: 0,
    };
    (reader, writer)
}

/// The direction that frames come from.
pub(super) struct FrameReader {
    io: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
}

impl FrameReader {
    /// The next frame; `None` when the other side closed between two frames. Cancel-safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    let text = "the connection ended in the middle of a frame";
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
                };
            }
        }
    }

    /// The next frame if all of it has arrived.
    pub(super) fn buffered(&mut self) -> io::Result<Option<Frame>> {
        frame::decode(&mut self.buffer)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Waits for more bytes; 0 when none will come. Cancel-safe.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.io.read_buf(&mut self.buffer).await
    }

    /// The memory that is held for what has arrived, in bytes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Reads and forgets everything until the other side closes. Closing a socket with unread
    /// bytes would make the kernel reset the connection, and answers on their way could be lost.
    pub(super) async fn discard(&mut self) {
        loop {
            self.buffer.clear();
            if !matches!(self.fill().await, Ok(1..)) {
                return;
            }
        }
    }
}

impl fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

/// The direction that frames go to.
pub(super) struct FrameWriter {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    gathered: BytesMut,
    pieces: Pieces,
    bytes: usize,
}

impl FrameWriter {
    /// Adds a frame to the next write.
    pub(super) fn push(&mut self, kind: Kind, id: u64, payload: Bytes) {
        let header = frame::header(kind, id, &payload);
        self.bytes += header.len() + payload.len();
        self.gathered.extend_from_slice(&header);
        if payload.len() < COPY_BYTES_MAX {
            self.gathered.extend_from_slice(&payload);
        } else {
            self.pieces.0.push_back(self.gathered.split().freeze());
            self.pieces.0.push_back(payload);
        }
    }

    /// The length of the next write, in bytes.
    pub(super) fn pushed_bytes(&self) -> usize {
        self.bytes
    }

    /// Writes all that was added; fails when nothing moves for [`STALL_TIMEOUT`]. If it is
    /// cancelled the connection is of no more use.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.gathered.is_empty() {
            self.pieces.0.push_back(self.gathered.split().freeze());
        }
        while self.pieces.has_remaining() {
            if progress(self.io.write_buf(&mut self.pieces)).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.bytes = 0;
        progress(self.io.flush()).await
    }

    /// Tells the other side that nothing more comes.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        progress(self.io.shutdown()).await
    }
}

impl fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWriter").field("pushed", &self.bytes).finish_non_exhaustive()
    }
}

/// Lets every task that can run put what it has beside the rest of a queue, whose length is `queued`, for as long as more
/// comes.
///
/// Who empties a queue is woken by the first that is put in, and runs before whoever is about to put in the next: each
/// frame would go out in a write of its own, and writes to sockets are most of what a small request costs. There is no timer
/// in it: with nothing else to do it goes on at once.
///
/// Whatever else wakes the task meanwhile ends a yield before the others have run. So it should have little else to wait for.
pub(crate) async fn gather(queued: impl Fn() -> usize) {
    let mut before = queued();
    for _ in 0..GATHER_MAX {
        tokio::task::yield_now().await;
        let now = queued();
        if now == before {
            break;
        }
        before = now;
    }
}

async fn progress<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STALL_TIMEOUT, step).await.unwrap_or_else(|_| {
        let text = format!("the other side took nothing for {STALL_TIMEOUT:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// Memory that goes out in one vectored write.
#[derive(Default)]
struct Pieces(VecDeque<Bytes>);

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        !self.0.is_empty()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |piece| &piece[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        for (slice, piece) in slices.iter_mut().zip(&self.0) {
            *slice = IoSlice::new(piece);
        }
        slices.len().min(self.0.len())
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.0.front_mut() {
            let taken = count.min(first.len());
            first.advance(taken);
            count -= taken;
            if !first.is_empty() {
                return;
            }
            self.0.pop_front();
        }
        assert!(count == 0, "wrote {count} bytes more than there were");
    }
}

/// Notices when the other side of a lane of calls is gone without a word: its process is stopped,
/// its host has died, the network drops everything. Each side sends a sign of life every
/// [`KEEP_ALIVE_INTERVAL`], whatever else it does, so any silence means the same.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    heard: AtomicBool,
    held: AtomicBool,
}

impl Pulse {
    /// Something was read.
    pub(super) fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Silence says nothing while we don't read.
    pub(super) fn hold(&self, held: bool) {
        self.heard();
        self.held.store(held, Ordering::Relaxed);
    }

    /// Ends when nothing was heard for [`SILENCE_MAX`].
    pub(super) async fn stops(&self) {
        let beats = SILENCE_MAX.as_millis().div_ceil(KEEP_ALIVE_INTERVAL.as_millis());
        let mut ticks = ticks();
        let mut missed = 0;
        while missed < beats {
            ticks.tick().await;
            let heard = self.heard.swap(false, Ordering::Relaxed);
            missed = if heard || self.held.load(Ordering::Relaxed) { 0 } else { missed + 1 };
        }
    }
}

/// Ticks once every [`KEEP_ALIVE_INTERVAL`], first after one; a process that was paused gets one
/// tick for the whole pause, so that it does not take its own silence for that of others.
pub(super) fn ticks() -> tokio::time::Interval {
    let mut ticks =
        tokio::time::interval_at(Instant::now() + KEEP_ALIVE_INTERVAL, KEEP_ALIVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// How many of `brought` items, each by a task of its own, are there when the first has woken the taker and it has
    /// gathered.
    async fn gathered(brought: usize, steps: usize) -> usize {
        let (put, mut queue) = mpsc::channel(64);
        for _ in 0..brought {
            let put = put.clone();
            tokio::spawn(async move {
                for _ in 0..steps {
                    tokio::task::yield_now().await;
                }
                put.send(()).await.expect("the queue is there");
            });
        }
        queue.recv().await.expect("a first one");
        gather(|| queue.len()).await;
        1 + std::iter::from_fn(|| queue.try_recv().ok()).count()
    }

    #[tokio::test]
    async fn whoever_can_run_has_his_part_in_what_is_taken() {
        assert_eq!(gathered(1, 0).await, 1, "alone it goes on");
        assert_eq!(gathered(20, 0).await, 20);
        assert_eq!(gathered(20, 3).await, 20);
    }

    #[tokio::test]
    async fn a_queue_that_never_ends_is_taken_all_the_same() {
        let (put, mut queue) = mpsc::channel(64);
        let endless = tokio::spawn(async move {
            while put.send(()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
        queue.recv().await.expect("a first one");
        gather(|| queue.len()).await;
        assert!(queue.len() <= GATHER_MAX + 1, "{} were let in meanwhile", queue.len());
        drop(queue);
        endless.await.expect("it ends with the queue");
    }
}
