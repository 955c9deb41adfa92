//! The side of a lane of calls that asks.
//!
//! One task drives the connection: it writes whatever calls are queued together, hands answers to
//! those who wait for them in whatever order they come, and shows signs of life. It ends when the
//! connection does or when its [`Calls`] is dropped, and no call outlives it without its fate.
//! What is known of a call that has no answer is decided in [`pending`](super::pending).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::rpc::CallError;
use crate::rpc::connection::{FrameReader, FrameWriter, Pulse, gather, ticks};
use crate::rpc::frame::{Kind, PAYLOAD_BYTES_MAX};
use crate::rpc::pending::{Closed, Pending};
use crate::types::codec;
use crate::types::deadline::Deadline;
use crate::types::limits::{KEEP_ALIVE_INTERVAL, SILENCE_MAX};
use crate::types::peer::Reply;

/// An open lane of calls. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Calls {
    pending: Arc<Pending>,
    queued: Arc<Notify>,
    _driver: AbortOnDropHandle<()>,
}

impl Calls {
    /// Begins to drive a connection to the process at `url` that has been welcomed.
    pub(super) fn start(reader: FrameReader, writer: FrameWriter, url: String) -> Self {
        let pending = Arc::new(Pending::new(url));
        let queued = Arc::new(Notify::new());
        let driver = drive(reader, writer, End(Arc::clone(&pending)), Arc::clone(&queued));
        Self { pending, queued, _driver: AbortOnDropHandle::new(tokio::spawn(driver)) }
    }

    /// Sends an encoded request and waits for its answer until `deadline`.
    pub(super) async fn call(
        &self,
        request: Bytes,
        deadline: Deadline,
    ) -> Result<Reply, CallError> {
        let (id, mut fate) = self.pending.queue(request)?;
        let mut slot = Slot { pending: &self.pending, id, decided: false };
        self.queued.notify_one();
        let reply = match timeout_at(deadline.instant().into(), &mut fate).await {
            Ok(decided) => {
                slot.decided = true;
                decided
            }
            Err(_late) => match slot.pending.withdraw(id) {
                Some(error) => return Err(error),
                None => fate.await,
            },
        };
        let reply = reply.expect("a call in the table has its fate sent or is withdrawn")?;
        codec::decode(&reply, PAYLOAD_BYTES_MAX).map_err(|error| {
            let text = format!("malformed answer: {error}");
            self.pending.close(&text);
            CallError::Lost(text)
        })
    }

    /// Why no more calls go over this connection, once that is so.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.pending.closed()
    }
}

/// Frees a call when its future is dropped.
struct Slot<'a> {
    pending: &'a Pending,
    id: u64,
    /// Whether its fate is decided: then it is free.
    decided: bool,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if !self.decided {
            self.pending.withdraw(self.id);
        }
    }
}

/// Gives every call its fate when the driver ends, however it ends.
struct End(Arc<Pending>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close("this side has closed it");
    }
}

async fn drive(mut reader: FrameReader, mut writer: FrameWriter, end: End, queued: Arc<Notify>) {
    let pulse = Pulse::default();
    let ended = tokio::select! {
        biased;
        ended = read(&mut reader, &end.0, &pulse) => ended,
        ended = write(&mut writer, &end.0, &queued) => ended,
        () = pulse.stops() => Err(io::Error::other(format!("silent for {SILENCE_MAX:?}"))),
    };
    match ended {
        Ok(()) => end.0.close("closed by the other side"),
        Err(error) => end.0.close(&error.to_string()),
    }
}

/// Ends when the other side closes, or has said goodbye and all its answers are here.
async fn read(reader: &mut FrameReader, pending: &Pending, pulse: &Pulse) -> io::Result<()> {
    loop {
        while let Some(frame) = reader.buffered()? {
            match frame.kind {
                Kind::Answer => pending.answer(frame.id, frame.payload),
                Kind::KeepAlive => {}
                Kind::GoAway => pending.go_away(frame.id, "the process is stopping"),
                Kind::Hello | Kind::Welcome | Kind::Call | Kind::Data | Kind::End => {
                    let text = format!("unexpected {:?} frame", frame.kind);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
        if pending.is_over() || reader.fill().await? == 0 {
            return Ok(());
        }
        pulse.heard();
    }
}

async fn write(writer: &mut FrameWriter, pending: &Pending, queued: &Notify) -> io::Result<()> {
    let Err(error) = write_queued(writer, pending, queued).await;
    // Answers that have arrived before the other side went are still to be read.
    pending.go_away(u64::MAX, &error.to_string());
    sleep(KEEP_ALIVE_INTERVAL).await;
    Err(error)
}

async fn write_queued(
    writer: &mut FrameWriter,
    pending: &Pending,
    queued: &Notify,
) -> io::Result<Infallible> {
    let mut ticks = ticks();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => writer.push(Kind::KeepAlive, 0, Bytes::new()),
            () = queued.notified() => {}
        }
        // With no other call under way nobody is about to bring one.
        if !pending.has_one_at_most() {
            gather(|| pending.queued()).await;
        }
        loop {
            pending.take(&mut batch);
            for (id, request) in batch.drain(..) {
                writer.push(Kind::Call, id, request);
            }
            if writer.pushed_bytes() == 0 {
                break;
            }
            writer.flush().await?;
        }
    }
}
