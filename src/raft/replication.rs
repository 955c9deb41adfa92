//! A leader's entries to one follower as a stream: many messages under way, answered in order.
//!
//! [`pipeline`] is the leader's end, [`follow`] the follower's. The stream ends at the first
//! answer that is not a success, when either side closes it, or when an answer is owed for too
//! long; openraft then starts another from what it knows to be there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::errors::{NetworkError, RPCError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::raft::config::{LogIdOf, Raft, TypeConfig};
use crate::raft::freshness::{AsOf, Freshness, Mark};
use crate::raft::network::{frame, message};
use crate::raft::wire;
use crate::rpc::{FrameReceiver, FrameSender};
use crate::types::peer::{Append, AppendReply};

/// The most append messages that a leader has under way to one follower.
const APPENDS_IN_FLIGHT_MAX: usize = 64;

/// What an answer is about: the entry before the message's first, and its last.
struct Sent {
    prev: Option<LogIdOf>,
    last: Option<LogIdOf>,
}

type AppendResult = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Sends each request as it comes and yields the answers, in order.
pub(in crate::raft) fn pipeline(
    requests: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    sender: FrameSender,
    receiver: FrameReceiver,
    as_of: Arc<AsOf>,
    stall: Duration,
) -> impl Stream<Item = AppendResult> + Send {
    let (queue, sent) = mpsc::channel(APPENDS_IN_FLIGHT_MAX);
    let pump = AbortOnDropHandle::new(tokio::spawn(pump(requests, sender, queue, as_of)));
    let start = Some((sent, receiver, pump));
    stream::unfold(start, move |state| async move {
        let (mut sent, mut receiver, pump) = state?;
        let Some(about) = sent.recv().await else {
            // The requests have ended, or could not be sent.
            return match pump.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some((Err(network(&error)), None)),
                Err(error) => Some((Err(network(&error)), None)),
            };
        };
        match answer(&mut receiver, about, stall).await {
            Ok(Ok(upto)) => Some((Ok(Ok(upto)), Some((sent, receiver, pump)))),
            Ok(Err(refusal)) => Some((Ok(Err(refusal)), None)),
            Err(error) => Some((Err(network(&error)), None)),
        }
    })
}

async fn pump(
    mut requests: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
    mut sender: FrameSender,
    queue: mpsc::Sender<Sent>,
    as_of: Arc<AsOf>,
) -> io::Result<()> {
    while let Some(request) = requests.next().await {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        if queue.send(Sent { prev, last }).await.is_err() {
            return Ok(());
        }
        sender.send(frame(&wire::append(request, as_of.get()))).await?;
    }
    sender.finish().await
}

async fn answer(
    receiver: &mut FrameReceiver,
    about: Sent,
    stall: Duration,
) -> io::Result<StreamAppendResult<TypeConfig>> {
    let frame = tokio::time::timeout(stall, receiver.next()).await??;
    let Some(frame) = frame else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    let reply = wire::raft_append_reply(&message::<AppendReply>(&frame)?);
    if reply == AppendEntriesResponse::Conflict && about.prev.is_none() {
        return Err(io::Error::other("the follower has a conflict at the start of its log"));
    }
    Ok(reply.into_stream_result(about.prev, about.last))
}

/// Serves a leader's stream: hands its messages to Raft and sends the answers, in order.
pub(in crate::raft) async fn follow(
    raft: Raft,
    freshness: Arc<Freshness>,
    mut sender: FrameSender,
    receiver: FrameReceiver,
) -> io::Result<()> {
    let (marks, mut heard) = mpsc::channel::<Mark>(APPENDS_IN_FLIGHT_MAX * 2);
    let requests = stream::unfold((receiver, marks), |(mut receiver, marks)| async move {
        // A broken stream ends like a closed one: what came before is still answered.
        let frame = receiver.next().await.ok().flatten()?;
        let append = message::<Append>(&frame).ok()?;
        marks.send(Mark::of(&append)).await.ok()?;
        let request = wire::raft_append(append).ok()?;
        Some((request, (receiver, marks)))
    });
    let mut answers = std::pin::pin!(raft.stream_append(requests));
    while let Some(answer) = answers.next().await {
        let mark = heard.recv().await;
        let reply = match answer.map_err(io::Error::other)? {
            Ok(upto) => {
                if let Some(mark) = mark {
                    freshness.accepted(mark);
                }
                AppendReply::Partial(upto.as_ref().map(wire::log_id))
            }
            Err(refusal) => wire::append_reply(&AppendEntriesResponse::from(Err(refusal))),
        };
        sender.send(frame(&reply)).await?;
    }
    sender.finish().await
}

fn network(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}
