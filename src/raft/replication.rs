//! A leader's entries to one follower as a stream: many messages under way, answered in order.
//!
//! [`pipeline`] is the leader's end, [`follow`] the follower's. The stream ends at the first
//! answer that is not a success, when either side closes it, or when an answer is owed for too
//! long; openraft then starts another from what it knows to be there.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::errors::{NetworkError, RPCError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::raft::as_of::AsOf;
use crate::raft::catch_up::CatchUp;
use crate::raft::config::{LogIdOf, Raft, TypeConfig};
use crate::raft::freshness::{Freshness, Mark};
use crate::raft::lease::{Asked, Lease};
use crate::raft::lull::Lull;
use crate::raft::network::{frame, message};
use crate::raft::wire;
use crate::rpc::{FrameReceiver, FrameSender};
use crate::types::ids::{NodeId, Vote};
use crate::types::limits::{APPEND_BYTES_PER_SECOND_MIN, APPEND_ENTRIES_MAX};
use crate::types::peer::{Append, AppendReply};

/// The most append messages that a leader has under way to one follower.
const APPENDS_IN_FLIGHT_MAX: usize = 64;

/// What an answer is about: the entry before the message's first, and its last.
struct Sent {
    prev: Option<LogIdOf>,
    last: Option<LogIdOf>,
    asked: Asked,
    /// How long it may take.
    patience: Duration,
}

/// What a leader tells one follower beside what Raft says, and learns from its answers.
#[derive(Clone)]
pub(in crate::raft) struct Aside {
    pub(in crate::raft) as_of: Arc<AsOf>,
    pub(in crate::raft) lease: Arc<Lease>,
    pub(in crate::raft) follower: NodeId,
}

impl Aside {
    /// The message as it is sent now.
    pub(in crate::raft) fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> (Append, Asked) {
        let asked = Lease::ask(wire::vote(&request.vote));
        let leadership = (request.vote.leader_id.term, request.vote.leader_id.node_id);
        let committed = request.leader_commit.as_ref().map(|id| id.index);
        let as_of = self.as_of.get(leadership, committed);
        let entries = request.entries.len();
        assert!(entries <= APPEND_ENTRIES_MAX, "{entries} entries: no follower would take them");
        (wire::append(request, as_of, self.lease.wanted_ms()), asked)
    }

    /// Takes note of its answer.
    pub(in crate::raft) fn answered(&self, asked: Asked, reply: &AppendReply) {
        match reply {
            AppendReply::Success { lease: true } | AppendReply::Partial { lease: true, .. } => {
                self.lease.granted(asked, self.follower);
            }
            AppendReply::Success { lease: false }
            | AppendReply::Partial { lease: false, .. }
            | AppendReply::Conflict
            | AppendReply::HigherVote(_) => {}
        }
    }
}

/// What a follower keeps of a message while Raft works on it.
struct Heard {
    mark: Mark,
    vote: Vote,
    lease: bool,
}

type AppendResult = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// A leader's end of a stream.
struct Pipeline<S> {
    requests: S,
    sender: FrameSender,
    receiver: FrameReceiver,
    aside: Aside,
    lull: Lull,
    catch_up: CatchUp,
    stall: Duration,
    /// What is not answered yet, oldest first.
    sent: VecDeque<Sent>,
    /// Since when the oldest of it waits.
    owed_since: Instant,
    /// Whether there are more requests.
    more: bool,
}

/// Sends each request as it comes and yields the answers, in order.
///
/// openraft counts an answer for every request taken from `requests` whose last entry it covers.
/// Several can have the same last entry: one with entries, then empty ones that tell what is
/// committed. The answer to the first must not be taken for one to those that were sent later: a
/// leader that was paused finds such answers when it wakes, and would confirm a read by them after
/// it was replaced. So an answer is kept back until the last of those was answered too, and
/// requests are only taken while openraft waits for an answer: between the two looks at what was
/// sent, nothing is.
pub(in crate::raft) fn pipeline(
    requests: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    (sender, receiver): (FrameSender, FrameReceiver),
    aside: Aside,
    lull: Lull,
    stall: Duration,
) -> impl Stream<Item = AppendResult> + Send {
    let (catch_up, sent, owed_since, more) =
        (CatchUp::new(), VecDeque::new(), Instant::now(), true);
    let pipeline = Pipeline {
        requests,
        sender,
        receiver,
        aside,
        lull,
        catch_up,
        stall,
        sent,
        owed_since,
        more,
    };
    stream::unfold(Some(pipeline), move |pipeline| async move {
        let mut pipeline = pipeline?;
        match pipeline.next().await {
            Ok(Some(Ok(upto))) => Some((Ok(Ok(upto)), Some(pipeline))),
            Ok(Some(Err(refusal))) => Some((Ok(Err(refusal)), None)),
            Ok(None) => match pipeline.sender.finish().await {
                Ok(()) => None,
                Err(error) => Some((Err(network(&error)), None)),
            },
            Err(error) => Some((Err(network(&error)), None)),
        }
    })
}

impl<S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Pipeline<S> {
    /// The next answer that openraft may count; `None` when everything is answered and there are
    /// no more requests.
    async fn next(&mut self) -> io::Result<Option<StreamAppendResult<TypeConfig>>> {
        loop {
            if self.sent.is_empty() && !self.more {
                return Ok(None);
            }
            let room = self.more
                && self.sent.len() < APPENDS_IN_FLIGHT_MAX
                && self.catch_up.may_send(self.sent.len());
            let patience = self.sent.front().map_or(self.stall, |oldest| oldest.patience);
            let overdue = self.owed_since + patience;
            let owed = !self.sent.is_empty();
            let request = async {
                self.catch_up.rest().await;
                self.lull.over(owed).await;
                self.requests.next().await
            };
            tokio::select! {
                // An answer that is there is worth more than another request under way.
                biased;
                frame = self.receiver.next(), if !self.sent.is_empty() => {
                    let Some(frame) = frame? else {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    };
                    let answer = self.answer(&message::<AppendReply>(&frame)?)?;
                    if answer.is_some() {
                        return Ok(answer);
                    }
                }
                request = request, if room => match request {
                    Some(request) => self.send(request).await?,
                    None => self.more = false,
                },
                () = sleep_until(overdue), if !self.sent.is_empty() => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    async fn send(&mut self, request: AppendEntriesRequest<TypeConfig>) -> io::Result<()> {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        if let Some(last) = request.entries.last() {
            let (entries, upto) = (request.entries.len(), last.log_id.index);
            self.lull.sent(upto);
            self.catch_up.sent(entries, upto, request.leader_commit.map_or(0, |id| id.index));
        }
        let (append, asked) = self.aside.append(request);
        if self.sent.is_empty() {
            self.owed_since = Instant::now();
        }
        let frame = frame(&append);
        let patience = patience(self.stall, frame.len());
        self.sent.push_back(Sent { prev, last, asked, patience });
        tokio::time::timeout(patience, self.sender.send(frame)).await?
    }

    /// The answer to the oldest request, if it may be counted.
    fn answer(
        &mut self,
        reply: &AppendReply,
    ) -> io::Result<Option<StreamAppendResult<TypeConfig>>> {
        let about = self.sent.pop_front().expect("an answer is read only when one is owed");
        let now = Instant::now();
        if about.last != about.prev {
            self.lull.answered();
            self.catch_up.answered(now - self.owed_since);
        }
        self.owed_since = now;
        self.aside.answered(about.asked, reply);
        let reply = wire::raft_append_reply(reply);
        if reply == AppendEntriesResponse::Conflict && about.prev.is_none() {
            return Err(io::Error::other("the follower has a conflict at the start of its log"));
        }
        let answer = reply.into_stream_result(about.prev, about.last);
        let kept_back = answer.is_ok() && covers_later(&about, &self.sent);
        Ok(if kept_back { None } else { Some(answer) })
    }
}

/// How long a message of so many bytes may take: the same one is sent again when it is given up, so a
/// time that is too short for a large value on a slow link would be too short for ever.
fn patience(stall: Duration, bytes: usize) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    stall + Duration::from_secs(1) * bytes / APPEND_BYTES_PER_SECOND_MIN
}

/// Whether openraft would take the answer to this request for one to a later one too.
fn covers_later(answered: &Sent, later: &VecDeque<Sent>) -> bool {
    later.front().is_some_and(|next| next.last == answered.last)
}

/// Serves a leader's stream: hands its messages to Raft and sends the answers, in order.
pub(in crate::raft) async fn follow(
    raft: Raft,
    freshness: Arc<Freshness>,
    lease: Arc<Lease>,
    mut sender: FrameSender,
    receiver: FrameReceiver,
) -> io::Result<()> {
    let (queue, mut heard) = mpsc::channel::<Heard>(APPENDS_IN_FLIGHT_MAX * 2);
    let start = (receiver, queue, Arc::clone(&lease));
    let requests = stream::unfold(start, |(mut receiver, queue, lease)| async move {
        // A broken stream ends like a closed one: what came before is still answered.
        let frame = receiver.next().await.ok().flatten()?;
        let append = message::<Append>(&frame);
        let append =
            append.inspect_err(|error| tracing::warn!(%error, "a leader's message")).ok()?;
        let (mark, vote) = (Mark::of(&append), append.vote);
        let granted = lease.grant(&vote, append.lease_ms);
        queue.send(Heard { mark, vote, lease: granted }).await.ok()?;
        let request = wire::raft_append(append).ok()?;
        Some((request, (receiver, queue, lease)))
    });
    let mut answers = std::pin::pin!(raft.stream_append(requests));
    while let Some(answer) = answers.next().await {
        let Some(heard) = heard.recv().await else { break };
        let reply = match answer.map_err(io::Error::other)? {
            Ok(upto) => {
                freshness.accepted(heard.mark);
                lease.heard(&heard.vote, heard.mark.received);
                let upto = upto.as_ref().map(wire::log_id);
                AppendReply::Partial { upto, lease: heard.lease }
            }
            Err(refusal) => wire::append_reply(&AppendEntriesResponse::from(Err(refusal)), false),
        };
        sender.send(frame(&reply)).await?;
    }
    sender.finish().await
}

fn network(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

#[cfg(test)]
mod tests {
    use openraft::async_runtime::watch::{WatchReceiver, WatchSender};
    use openraft::entry::RaftEntry;
    use openraft::type_config::TypeConfigExt;
    use tokio::time::sleep;

    use super::*;
    use crate::raft::config::{EntryOf, Timing};
    use crate::raft::log_store::Appended;
    use crate::raft::lull::COMMIT_DELAY;
    use crate::rpc::pair;
    use crate::types::clock::SystemClock;
    use crate::types::ids::{Index, LogId};

    const VOTE: Vote = Vote { term: 1, node: NodeId(1), committed: true };

    fn id(index: Index) -> LogIdOf {
        wire::raft_log_id(&LogId { term: 1, leader: NodeId(1), index })
    }

    fn aside() -> Aside {
        Aside {
            as_of: Arc::new(AsOf::new(Arc::new(SystemClock))),
            lease: Arc::new(Lease::new(Timing::default())),
            follower: NodeId(2),
        }
    }

    /// Requests as openraft makes them when it is asked: with the entries that there are, or for a commit position that
    /// none has carried. Every entry is committed as soon as it is sent.
    fn requests(
        appended: Appended,
    ) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static {
        let request = async |(mut appended, sent, told): (Appended, Index, Index)| {
            while *appended.borrow_watched() <= Some(told) {
                appended.changed().await.ok()?;
            }
            let last = appended.borrow_watched().unwrap_or(0);
            let request = AppendEntriesRequest {
                vote: wire::raft_vote(&VOTE),
                prev_log_id: Some(id(sent)),
                entries: (sent + 1..=last).map(|index| EntryOf::new_blank(id(index))).collect(),
                leader_commit: Some(id(sent)),
            };
            Some((request, (appended, last, sent)))
        };
        Box::pin(stream::unfold((appended, 0, 0), request))
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_hears_of_entries_at_once_and_of_commits_with_them_or_soon() {
        let (log, appended) = TypeConfig::watch_channel(Some(1));
        let [ours, (mut sender, mut receiver)] = pair();
        let (lull, stall) = (Lull::new(appended.clone()), Duration::from_secs(10));
        let answers = pipeline(requests(appended), ours, aside(), lull, stall);
        tokio::spawn(answers.for_each(async |_| ()));
        // How many entries the next message has, and when it came.
        let mut next = async || {
            let frame = receiver.next().await.expect("a frame").expect("no end");
            let append = message::<Append>(&frame).expect("an append");
            (append.entries.len(), Instant::now())
        };
        let mut answer = async || {
            let reply = AppendReply::Success { lease: false };
            sender.send(frame(&reply)).await.expect("an open stream");
            Instant::now()
        };
        let append = |last| {
            log.send(Some(last)).expect("it is heard");
            Instant::now()
        };
        let is_soon_after = |then: Instant, now: Instant| {
            now - then >= COMMIT_DELAY && now - then < 2 * COMMIT_DELAY
        };
        let start = Instant::now();
        assert_eq!((next().await, next().await), ((1, start), (0, start)), "one, and its commit");
        answer().await;
        answer().await;
        let mut answered = start;
        for last in 2..10 {
            let appended = append(last);
            assert_eq!(next().await, (1, appended), "the next come soon, and tell of the commit");
            answered = answer().await;
        }
        let (entries, came) = next().await;
        assert!(entries == 0 && is_soon_after(answered, came), "no more come");
        answer().await;
        for last in 10..13 {
            // Soon after the empty message, but not after the entries.
            let appended = append(last);
            assert_eq!((next().await, next().await), ((1, appended), (0, appended)), "by itself");
            answer().await;
            sleep(COMMIT_DELAY * 3 / 2).await;
            answer().await;
            // Until that has arrived.
            sleep(COMMIT_DELAY / 2).await;
        }
        append(13);
        assert_eq!((next().await.0, next().await.0), (1, 0));
        answer().await;
        answer().await;
        let appended = append(14);
        assert_eq!(next().await, (1, appended));
        assert!(tokio::time::timeout(stall / 2, next()).await.is_err(), "it is not answered");
        answered = answer().await;
        let (entries, came) = next().await;
        assert!(entries == 0 && is_soon_after(answered, came));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_far_behind_gets_one_message_at_a_time_with_rests() {
        const ENTRIES: Index = 10;
        // A hundred thousand entries are there; one comes with each message.
        let requests = (0..8).map(|message| {
            let before = message * ENTRIES;
            AppendEntriesRequest {
                vote: wire::raft_vote(&VOTE),
                prev_log_id: Some(id(before)),
                entries: (before + 1..=before + ENTRIES)
                    .map(|index| EntryOf::new_blank(id(index)))
                    .collect(),
                leader_commit: Some(id(100_000 + message)),
            }
        });
        let (_log, appended) = TypeConfig::watch_channel(Some(200_000));
        let [ours, (mut sender, mut receiver)] = pair();
        let (lull, stall) = (Lull::new(appended), Duration::from_secs(10));
        let answers = pipeline(stream::iter(requests), ours, aside(), lull, stall);
        tokio::spawn(answers.for_each(async |_| ()));
        let took = Duration::from_millis(5);
        let mut answer = async || {
            let reply = AppendReply::Success { lease: false };
            sender.send(frame(&reply)).await.expect("an open stream");
        };
        receiver.next().await.expect("a frame").expect("the first");
        receiver.next().await.expect("a frame").expect("nothing is known yet of what comes");
        answer().await;
        for _ in 2..8 {
            let asked = Instant::now();
            let early = tokio::time::timeout(took, receiver.next()).await;
            assert!(early.is_err(), "none before the answer");
            answer().await;
            receiver.next().await.expect("a frame").expect("the next");
            assert!(asked.elapsed() >= 4 * took, "{:?}: no rest", asked.elapsed());
        }
    }

    fn sent(last: Option<u64>) -> Sent {
        let last = last.map(id);
        Sent { prev: None, last, asked: Lease::ask(VOTE), patience: Duration::ZERO }
    }

    #[test]
    fn a_large_message_may_take_longer() {
        let stall = Duration::from_secs(2);
        assert_eq!(patience(stall, 0), stall);
        assert_eq!(patience(stall, 8 << 20), stall + Duration::from_secs(64));
        assert!(patience(stall, usize::MAX) < Duration::from_secs(36_000), "and never for ever");
    }

    /// A leader that was paused may find an answer of before when it has just sent an empty request
    /// after the same entry: it must not confirm a read by it.
    #[test]
    fn an_answer_to_one_request_is_not_counted_for_a_later_one() {
        let later = |lasts: &[u64]| lasts.iter().map(|last| sent(Some(*last))).collect();
        assert!(covers_later(&sent(Some(7)), &later(&[7])));
        assert!(covers_later(&sent(Some(7)), &later(&[7, 9])));
        assert!(covers_later(&sent(None), &VecDeque::from([sent(None)])));
        assert!(!covers_later(&sent(Some(7)), &later(&[])));
        assert!(!covers_later(&sent(Some(7)), &later(&[8, 9])));
    }
}
