//! Serves one accepted connection from its handshake to its end.
//!
//! A lane of calls runs its calls concurrently and answers each as soon as it is done. Beyond
//! [`CALLS_IN_FLIGHT_MAX`] of them, or [`CALL_BYTES_IN_FLIGHT_MAX`], it reads no more, so that the
//! other side is held back; answers are encoded only when the socket takes them. Input that breaks
//! a rule, a call that panics, silence, and the other side's end all end the connection, and with
//! it the calls under way; none of them touches another connection. When the process stops it
//! says which calls it will not take, finishes those under way within [`DRAIN_TIMEOUT`], and
//! closes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error};

use crate::rpc::Service;
use crate::rpc::connection::{self, FrameReader, FrameWriter, Pulse, gather, ticks};
use crate::rpc::frame::{Frame, Kind, PAYLOAD_BYTES_MAX};
use crate::rpc::{handshake, stream};
use crate::types::codec;
use crate::types::ids::NodeId;
use crate::types::limits::{
    CALL_BYTES_IN_FLIGHT_MAX, CALLS_IN_FLIGHT_MAX, CONNECT_TIMEOUT, DRAIN_TIMEOUT, LINGER_MAX,
    SILENCE_MAX, WRITE_BATCH_BYTES,
};
use crate::types::peer::{Hello, Lane, Reply};

/// Serves one accepted connection until it ends, breaks a rule, or `shutdown` is cancelled.
pub async fn serve<S: Service>(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: Arc<S>,
    shutdown: CancellationToken,
) {
    let (mut reader, mut writer) = connection::split(io);
    let shaking = handshake::receive(&mut reader, &mut writer, |hello| service.welcome(hello));
    let shaken = tokio::select! {
        biased;
        shaken = timeout(CONNECT_TIMEOUT, shaking) => shaken,
        () = shutdown.cancelled() => return,
    };
    let hello = match shaken {
        Ok(Ok(Ok(hello))) => hello,
        Ok(Ok(Err(refusal))) => return debug!(refusal, "connection refused"),
        Ok(Err(error)) => return debug!(%error, "connection broke in its handshake"),
        Err(_late) => return debug!("connection gave no hello in time"),
    };
    let (from, lane) = (hello.from, hello.lane);
    let ended = match lane {
        Lane::Calls => serve_calls(from, (reader, writer), service, &shutdown).await,
        Lane::Append | Lane::Snapshot => {
            serve_stream(hello, (reader, writer), service, &shutdown).await;
            Ok(())
        }
    };
    match ended {
        Ok(()) => debug!(?from, ?lane, "connection ended"),
        Err(reason) => debug!(?from, ?lane, %reason, "connection ended"),
    }
}

async fn serve_stream<S: Service>(
    hello: Hello,
    (reader, writer): (FrameReader, FrameWriter),
    service: Arc<S>,
    shutdown: &CancellationToken,
) {
    let (sender, receiver, writing) = stream::start(reader, writer, Some(shutdown.clone()));
    let overdue = async {
        shutdown.cancelled().await;
        sleep(DRAIN_TIMEOUT).await;
    };
    let serving = async {
        tokio::select! {
            biased;
            () = service.stream(hello, sender, receiver) => {}
            () = overdue => debug!("stream given up: it did not end while the process stopped"),
        }
    };
    tokio::join!(serving, writing);
}

/// What the writer of a lane of calls is given.
enum Outgoing {
    Answer(u64, Reply),
    GoAway(u64),
}

async fn serve_calls<S: Service>(
    from: Option<NodeId>,
    (mut reader, writer): (FrameReader, FrameWriter),
    service: Arc<S>,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let (answers, outgoing) = mpsc::channel(CALLS_IN_FLIGHT_MAX);
    let pulse = Pulse::default();
    let calls = Calls { from, service, answers, running: JoinSet::new(), bytes: 0, next_id: 0 };
    // In a task of its own, since each call that ends wakes this one: see `connection::gather`.
    let writing = AbortOnDropHandle::new(tokio::spawn(write(writer, outgoing)));
    let written = async { writing.await.map_err(io::Error::other)? };
    let serving = async { tokio::try_join!(take(&mut reader, calls, &pulse, shutdown), written) };
    tokio::select! {
        biased;
        served = serving => served.map(|_| ())?,
        () = pulse.stops() => {
            return Err(io::Error::other(format!("silent for {SILENCE_MAX:?}")));
        }
    }
    // Whether the other side closed or the time was up, there is no more to do.
    timeout(LINGER_MAX, reader.discard()).await.ok();
    Ok(())
}

/// Takes calls in and sees to their end; ends in good order only when the process stops.
async fn take<S: Service>(
    reader: &mut FrameReader,
    mut calls: Calls<S>,
    pulse: &Pulse,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let stopping = shutdown.cancelled();
    tokio::pin!(stopping);
    loop {
        while calls.has_room()
            && let Some(frame) = reader.buffered()?
        {
            calls.take(frame)?;
        }
        let has_room = calls.has_room();
        pulse.hold(!has_room);
        tokio::select! {
            biased;
            () = &mut stopping => break,
            Some(ended) = calls.running.join_next() => {
                calls.ended(ended)?;
                while let Some(ended) = calls.running.try_join_next() {
                    calls.ended(ended)?;
                }
            }
            read = reader.fill(), if has_room => match read? {
                0 => return Err(io::Error::other("closed by the other side")),
                _ => pulse.heard(),
            },
        }
    }
    pulse.hold(true);
    let text = "the calls under way did not end in time";
    timeout(DRAIN_TIMEOUT, calls.drain()).await.unwrap_or_else(|_| Err(io::Error::other(text)))
}

/// Hands answers to the socket, as many as are there at once, until no more can come.
async fn write(mut writer: FrameWriter, mut outgoing: mpsc::Receiver<Outgoing>) -> io::Result<()> {
    let mut ticks = ticks();
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => writer.push(Kind::KeepAlive, 0, Bytes::new()),
            next = outgoing.recv() => match next {
                Some(next) => push(&mut writer, next)?,
                None => return writer.close().await,
            },
        }
        // Whoever else has an answer for this write puts it in first: see `connection::gather`. Each call that runs has a
        // sender, and who takes calls has one more.
        if outgoing.sender_strong_count() > 1 {
            gather(|| outgoing.len()).await;
        }
        while writer.pushed_bytes() < WRITE_BATCH_BYTES
            && let Ok(next) = outgoing.try_recv()
        {
            push(&mut writer, next)?;
        }
        writer.flush().await?;
    }
}

fn push(writer: &mut FrameWriter, outgoing: Outgoing) -> io::Result<()> {
    match outgoing {
        Outgoing::Answer(id, reply) => {
            let reply = Bytes::from(codec::encode(&reply));
            if reply.len() > PAYLOAD_BYTES_MAX {
                let len = reply.len();
                error!(len, max = PAYLOAD_BYTES_MAX, "an answer is too long for a frame");
                return Err(io::Error::other("an answer is too long for a frame"));
            }
            writer.push(Kind::Answer, id, reply);
        }
        Outgoing::GoAway(first) => writer.push(Kind::GoAway, first, Bytes::new()),
    }
    Ok(())
}

/// The calls of one connection that are under way.
struct Calls<S> {
    from: Option<NodeId>,
    service: Arc<S>,
    answers: mpsc::Sender<Outgoing>,
    running: JoinSet<io::Result<usize>>,
    /// The length of the requests in `running`.
    bytes: usize,
    /// The smallest id that the next call may have.
    next_id: u64,
}

impl<S: Service> Calls<S> {
    fn has_room(&self) -> bool {
        self.running.len() < CALLS_IN_FLIGHT_MAX && self.bytes < CALL_BYTES_IN_FLIGHT_MAX
    }

    /// Begins a call.
    fn take(&mut self, frame: Frame) -> io::Result<()> {
        let Frame { kind, id, payload } = frame;
        match kind {
            Kind::Call if id >= self.next_id => {}
            Kind::KeepAlive => return Ok(()),
            Kind::Call
            | Kind::Hello
            | Kind::Welcome
            | Kind::Answer
            | Kind::GoAway
            | Kind::Data
            | Kind::End => {
                return Err(malformed(format!("unexpected {kind:?} frame with id {id}")));
            }
        }
        self.next_id = id.checked_add(1).ok_or_else(|| malformed("no id is left".into()))?;
        self.bytes += payload.len();
        let (from, service) = (self.from, Arc::clone(&self.service));
        let answers = self.answers.clone();
        // On its way into a task it is moved several times, which costs more than a box.
        self.running.spawn(Box::pin(async move {
            let bytes = payload.len();
            let request = codec::decode(&payload, PAYLOAD_BYTES_MAX)
                .map_err(|error| malformed(format!("the call is {error}")))?;
            drop(payload);
            let reply = service.call(from, request).await;
            // Without a writer the connection is over, and nobody waits for the answer.
            answers.send(Outgoing::Answer(id, reply)).await.ok();
            Ok(bytes)
        }));
        Ok(())
    }

    /// A call has ended; so does the connection if it was malformed or has panicked.
    fn ended(&mut self, ended: Result<io::Result<usize>, JoinError>) -> io::Result<()> {
        match ended {
            Ok(bytes) => {
                self.bytes -= bytes?;
                Ok(())
            }
            // The process ends.
            Err(failure) if failure.is_cancelled() => Err(io::Error::other("a call was cancelled")),
            Err(failure) => {
                error!(%failure, "a call panicked; its connection ends");
                Err(io::Error::other("a call panicked"))
            }
        }
    }

    /// Says goodbye and waits for the calls under way.
    async fn drain(mut self) -> io::Result<()> {
        self.answers.send(Outgoing::GoAway(self.next_id)).await.ok();
        while let Some(ended) = self.running.join_next().await {
            self.ended(ended)?;
        }
        Ok(())
    }
}

fn malformed(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
