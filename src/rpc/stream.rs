//! A connection that is one stream of messages each way: a leader's entries, a snapshot.
//!
//! Messages arrive whole, in order, each once. A stream ends in one of two ways that are never
//! confused: its sender says that it is complete ([`FrameSender::finish`], then
//! [`FrameReceiver::next`] gives `None`), or it breaks (then `next` gives an error), be it by the
//! network, by a bug or because the sender was dropped. The sender's buffer is bounded in messages
//! and bytes; behind it is nothing but the socket, and the receiver reads only when asked, so a
//! slow receiver slows the sender. A write that moves nothing for [`STALL_TIMEOUT`] breaks the
//! stream; how long to wait for a message is for the receiver's owner to decide.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

#[cfg(test)]
use crate::rpc::connection::split;
use crate::rpc::connection::{FrameReader, FrameWriter, gather};
use crate::rpc::frame::{Kind, PAYLOAD_BYTES_MAX};
use crate::types::limits::{
    LINGER_MAX, STALL_TIMEOUT, STREAM_QUEUE_BYTES_MAX, STREAM_QUEUE_FRAMES_MAX, WRITE_BATCH_BYTES,
};

/// The two halves of a stream, and the work of writing it, which somebody has to run. `stopping`
/// breaks the receiving half.
pub(super) fn start(
    reader: FrameReader,
    writer: FrameWriter,
    stopping: Option<CancellationToken>,
) -> (FrameSender, FrameReceiver, impl Future<Output = ()> + Send) {
    let (queue, queued) = mpsc::channel(STREAM_QUEUE_FRAMES_MAX);
    let room = Arc::new(Semaphore::new(STREAM_QUEUE_BYTES_MAX));
    let broken = Arc::new(OnceLock::new());
    let dropped = CancellationToken::new();
    let (release, released) = oneshot::channel();
    let writing = write(
        Outgoing { writer, queued, room: Arc::clone(&room), broken: Arc::clone(&broken) },
        dropped.clone(),
        released,
    );
    let sender = FrameSender { queue, room, broken, _dropped: dropped.drop_guard() };
    let receiver = FrameReceiver {
        reader: Some(reader),
        release: Some(release),
        received: 0,
        state: State::Open,
        stopping: stopping.unwrap_or_default(),
    };
    (sender, receiver, writing)
}

/// Both ends of a stream within this process.
#[cfg(test)]
pub(crate) fn pair() -> [(FrameSender, FrameReceiver); 2] {
    let (one, other) = tokio::io::duplex(WRITE_BATCH_BYTES);
    [one, other].map(|io| {
        let (reader, writer) = split(io);
        let (sender, receiver, writing) = start(reader, writer, None);
        tokio::spawn(writing);
        (sender, receiver)
    })
}

/// Why a stream broke; an [`io::Error`] that can be given more than once.
#[derive(Clone, Debug)]
struct Broken {
    kind: io::ErrorKind,
    text: String,
}

impl From<&io::Error> for Broken {
    fn from(error: &io::Error) -> Self {
        Self { kind: error.kind(), text: error.to_string() }
    }
}

impl From<&Broken> for io::Error {
    fn from(broken: &Broken) -> Self {
        Self::new(broken.kind, broken.text.clone())
    }
}

enum Item {
    Frame(Bytes, OwnedSemaphorePermit),
    End(oneshot::Sender<()>),
}

/// The sending half of a stream: messages, in order.
///
/// Dropping it without [`finish`](Self::finish) breaks the stream: what was sent still goes out
/// if the other side takes it soon, then the receiver gets an error.
pub struct FrameSender {
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    broken: Arc<OnceLock<Broken>>,
    _dropped: DropGuard,
}

impl FrameSender {
    /// Queues a message; returns when it is in the buffer, waits while the buffer is full. What is
    /// queued goes out in one write. If it is cancelled the message was not queued.
    ///
    /// # Errors
    /// The stream is broken, or the message is longer than a frame may be.
    pub async fn send(&mut self, frame: Bytes) -> io::Result<()> {
        if frame.len() > PAYLOAD_BYTES_MAX {
            let text = format!("message of {} bytes, at most {PAYLOAD_BYTES_MAX} go", frame.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let bytes = u32::try_from(frame.len().min(STREAM_QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let room = room.map_err(|_closed| self.why())?;
        self.queue.send(Item::Frame(frame, room)).await.map_err(|_closed| self.why())
    }

    /// Ends the stream in good order; returns when everything has been handed to the socket.
    ///
    /// # Errors
    /// The stream is broken.
    pub async fn finish(self) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.queue.send(Item::End(done)).await.map_err(|_closed| self.why())?;
        written.await.map_err(|_dropped| self.why())
    }

    fn why(&self) -> io::Error {
        self.broken.get().map_or_else(|| io::ErrorKind::BrokenPipe.into(), io::Error::from)
    }
}

impl fmt::Debug for FrameSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSender").field("broken", &self.broken.get()).finish_non_exhaustive()
    }
}

struct Outgoing {
    writer: FrameWriter,
    queued: mpsc::Receiver<Item>,
    room: Arc<Semaphore>,
    broken: Arc<OnceLock<Broken>>,
}

/// Writes the stream to its end.
async fn write(
    mut outgoing: Outgoing,
    dropped: CancellationToken,
    released: oneshot::Receiver<FrameReader>,
) {
    let overdue = async {
        dropped.cancelled().await;
        sleep(STALL_TIMEOUT).await;
    };
    let ended = tokio::select! {
        biased;
        ended = outgoing.write() => ended,
        () = overdue => Ok(false),
    };
    match ended {
        Ok(true) => {
            let linger = async {
                if let Ok(mut reader) = released.await {
                    reader.discard().await;
                }
            };
            // Whether the other side closed or the time was up, there is no more to do.
            timeout(LINGER_MAX, linger).await.ok();
        }
        Ok(false) => {}
        Err(error) => {
            outgoing.broken.get_or_init(|| Broken::from(&error));
            outgoing.room.close();
        }
    }
}

impl Outgoing {
    /// Writes until the sender ends the stream (true) or is dropped (false).
    async fn write(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        let mut rooms = Vec::new();
        while let Some(first) = self.queued.recv().await {
            gather(|| self.queued.len()).await;
            let mut next = Some(first);
            let mut end = None;
            while let Some(item) = next.take() {
                match item {
                    Item::Frame(frame, room) => {
                        self.writer.push(Kind::Data, sent, frame);
                        sent += 1;
                        rooms.push(room);
                    }
                    Item::End(done) => {
                        self.writer.push(Kind::End, sent, Bytes::new());
                        end = Some(done);
                    }
                }
                if end.is_none() && self.writer.pushed_bytes() < WRITE_BATCH_BYTES {
                    next = self.queued.try_recv().ok();
                }
            }
            self.writer.flush().await?;
            rooms.clear();
            if let Some(done) = end {
                // The socket stays open: some proxies would take a half-closed connection for a
                // closed one, and the other direction may have more to say.
                // Nobody listens if `finish` was cancelled; the stream has ended all the same.
                done.send(()).ok();
                return Ok(true);
            }
        }
        self.writer.close().await?;
        Ok(false)
    }
}

#[derive(Debug)]
enum State {
    Open,
    Ended,
    Broken(Broken),
}

/// The receiving half of a stream.
pub struct FrameReceiver {
    reader: Option<FrameReader>,
    release: Option<oneshot::Sender<FrameReader>>,
    received: u64,
    state: State,
    stopping: CancellationToken,
}

impl FrameReceiver {
    /// The next message; `None` when the other side has ended the stream. Cancel-safe.
    ///
    /// # Errors
    /// The stream broke, or this process is stopping; from then on every call says so.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match &self.state {
            State::Open => {}
            State::Ended => return Ok(None),
            State::Broken(broken) => return Err(broken.into()),
        }
        let next = self.receive().await;
        match &next {
            Ok(Some(_)) => self.received += 1,
            Ok(None) => self.state = State::Ended,
            Err(error) => self.state = State::Broken(error.into()),
        }
        next
    }

    async fn receive(&mut self) -> io::Result<Option<Bytes>> {
        let broken = |kind, text: &str| Err(io::Error::new(kind, text));
        let reader = self.reader.as_mut().expect("the reader is given back only on drop");
        if self.stopping.is_cancelled() {
            return broken(io::ErrorKind::ConnectionAborted, "this process is stopping");
        }
        let frame = tokio::select! {
            biased;
            frame = reader.next() => frame?,
            () = self.stopping.cancelled() => {
                return broken(io::ErrorKind::ConnectionAborted, "this process is stopping");
            }
        };
        let Some(frame) = frame else {
            let text = "the other side closed the stream without ending it";
            return broken(io::ErrorKind::UnexpectedEof, text);
        };
        match frame.kind {
            Kind::Data if frame.id == self.received => Ok(Some(frame.payload)),
            Kind::End if frame.id == self.received => Ok(None),
            Kind::Data | Kind::End => {
                broken(io::ErrorKind::InvalidData, "a message of the stream is missing")
            }
            Kind::Hello
            | Kind::Welcome
            | Kind::Call
            | Kind::Answer
            | Kind::KeepAlive
            | Kind::GoAway => broken(io::ErrorKind::InvalidData, "unexpected frame in a stream"),
        }
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        if let State::Open = self.state
            && let (Some(reader), Some(release)) = (self.reader.take(), self.release.take())
        {
            // More may arrive. Nobody takes the reader when the writing has ended already: then
            // it is simply dropped.
            release.send(reader).ok();
        }
    }
}

impl fmt::Debug for FrameReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReceiver")
            .field("received", &self.received)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
