//! A leader whose process has ended is replaced at once, not after an election timeout.
//!
//! When a process ends, its host closes its connections and refuses new ones. A follower whose
//! stream from the leader ends ([`Departure::suspect`]) dials the leader anew, twice. An answer of
//! a leader settles it: nothing happens. Silence too: the host may be gone or cut off, and the
//! election timeouts are there for that. But a connection that is refused, or an answer by which
//! the process does not lead, means that nobody is left to wait for. Then the follower gives up the
//! openraft lease that it keeps for the leader, and asks the others whether they would elect it
//! (pre-vote, Raft thesis §9.6), again and again for a while. Those that have noticed the same
//! agree; one that has not looks for itself, and refuses while the leader answers it. So a single
//! broken link deposes nobody, and two survivors that stand at once don't split: the greater
//! node id wins the term.
//!
//! None of this decides anything about safety. Whoever owes a lease (`raft::lease`) waits until it
//! is over, and one that was just restarted until it can't owe any.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::raft::config::{TypeConfig, VoteOf};
use crate::raft::replica::Replica;
use crate::raft::wire;
use crate::rpc::{CallError, Caller, Dialer, Target};
use crate::types::deadline::Deadline;
use crate::types::host;
use crate::types::ids::NodeId;
use crate::types::limits::{PROBE_PAUSE, PROBE_TIMEOUT, STAND_PAUSE_JITTER, STAND_PAUSE_MIN};
use crate::types::peer::{Reply, Request};

/// What wakes the watch over a replica's leader.
#[derive(Debug)]
pub(in crate::raft) struct Departure {
    suspected: Notify,
    dialer: Dialer,
}

impl Departure {
    pub(in crate::raft) fn new(dialer: Dialer) -> Self {
        Self { suspected: Notify::new(), dialer }
    }

    /// Has the leader looked for.
    fn suspect(&self) {
        self.suspected.notify_one();
    }
}

/// A leader that this replica follows.
struct Led {
    vote: VoteOf,
    url: String,
}

impl Led {
    fn node(&self) -> NodeId {
        self.vote.leader_id.node_id
    }
}

/// What has become of a leader that was seen gone.
enum Since {
    /// Nobody has stood yet.
    Nothing,
    /// Somebody stands.
    Candidate,
    /// There is another leader.
    Replaced,
}

/// Watches over the leader for as long as the replica runs.
pub(in crate::raft) async fn watch(replica: Replica) {
    loop {
        replica.departure().suspected.notified().await;
        let Some(led) = replica.led() else { continue };
        if replica.is_gone(&led).await {
            tracing::info!(leader = %led.node(), "the leader's process has ended");
            replica.replace(&led).await;
        }
    }
}

impl Replica {
    /// The stream of a peer has ended.
    pub(in crate::raft) fn stream_ended(&self, from: Option<NodeId>) {
        if self.led().is_some_and(|led| Some(led.node()) == from) {
            self.departure().suspect();
        }
    }

    /// Another has asked whether it would be elected: it may have seen what was missed here.
    pub(in crate::raft) fn asked_to_elect(&self) {
        if self.led().is_some_and(|led| !self.lease().has_departed(&wire::vote(&led.vote))) {
            self.departure().suspect();
        }
    }

    /// Whether this replica follows a leader that it saw gone and has heard again since: then it
    /// keeps to that one, though openraft has no lease for it any more.
    pub(in crate::raft) fn is_leader_back(&self) -> bool {
        self.led().is_some_and(|led| self.lease().is_back(&wire::vote(&led.vote)))
    }

    fn led(&self) -> Option<Led> {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let vote = metrics.vote;
        let node = vote.leader_id.node_id;
        if !vote.committed || node == self.member().node {
            return None;
        }
        let url = metrics.membership_config.get_node(&node)?.addr.clone();
        Some(Led { vote, url })
    }

    /// Whether the process that led does so no more, as far as dialing it shows, twice: whatever
    /// broke the stream may have broken the first attempt, too.
    async fn is_gone(&self, led: &Led) -> bool {
        if !self.seems_gone(led).await {
            return false;
        }
        tokio::time::sleep(PROBE_PAUSE).await;
        self.seems_gone(led).await
    }

    async fn seems_gone(&self, led: &Led) -> bool {
        let target = Target { url: led.url.clone(), node: Some(led.node()), group: self.group() };
        let caller = Caller::new(self.departure().dialer.clone(), target);
        // The deadline is later, so that what ends before the timeout is no timeout of another.
        let call = caller.call(&Request::Status, Deadline::after(PROBE_TIMEOUT * 2));
        match tokio::time::timeout(PROBE_TIMEOUT, call).await {
            Ok(Ok(Reply::Status(status))) => status.leader != Some(led.node()),
            Ok(Err(CallError::NotSent(_) | CallError::Lost(_))) => true,
            Ok(Ok(_) | Err(CallError::Overloaded(_) | CallError::Late(_))) | Err(_) => false,
        }
    }

    /// Stands in the place of a leader that is gone until there is another, for a while.
    async fn replace(&self, led: &Led) {
        let timing = self.options().timing;
        let vote = wire::vote(&led.vote);
        let start = Instant::now();
        let until = start + timing.election_timeout_max * 2;
        let mut metrics = self.raft().server_metrics();
        let mut released = false;
        while Instant::now() < until {
            metrics.borrow_and_update();
            let pause = match self.since(led) {
                Since::Replaced => {
                    return tracing::info!(took = ?start.elapsed(), "it is replaced");
                }
                Since::Candidate => timing.election_timeout_min / 2,
                Since::Nothing if !released => {
                    let release = || self.lease().release(&vote).err();
                    match self.bound_until().or_else(release) {
                        Some(until) => {
                            tokio::time::sleep_until(until).await;
                            if !self.is_gone(led).await {
                                return;
                            }
                        }
                        None => released = true,
                    }
                    continue;
                }
                Since::Nothing => {
                    if self.lease().is_back(&vote) && !self.is_gone(led).await {
                        return;
                    }
                    if self.stand(led).await.is_err() {
                        return;
                    }
                    STAND_PAUSE_MIN + STAND_PAUSE_JITTER.mul_f64(host::jitter())
                }
            };
            let changed = tokio::time::timeout(pause, metrics.changed()).await;
            match (changed, self.since(led)) {
                (Ok(Err(_)), _) => return,
                // The candidate has not made it: the next may.
                (Err(_), Since::Candidate) => {
                    if self.raft().trigger().elect(true).await.is_err() {
                        return;
                    }
                }
                (Ok(Ok(())) | Err(_), Since::Nothing | Since::Candidate | Since::Replaced) => {}
            }
        }
    }

    /// Gives up openraft's lease for the leader and asks for a vote.
    async fn stand(&self, led: &Led) -> Result<(), openraft::errors::Fatal<TypeConfig>> {
        // openraft elects whom this names, and it is not us: only the lease goes.
        let release = TransferLeaderRequest::new(led.vote, led.node(), None);
        // It can't be refused, since only the heir could.
        drop(self.raft().handle_transfer_leader(release).await?);
        self.raft().trigger().elect(true).await
    }

    fn since(&self, led: &Led) -> Since {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        // This is the vote on disk; one that is being written shows in that nobody is followed.
        let same = metrics.vote == led.vote;
        if same && metrics.current_leader == Some(led.node()) {
            Since::Nothing
        } else if !same && metrics.vote.committed {
            Since::Replaced
        } else {
            Since::Candidate
        }
    }
}
