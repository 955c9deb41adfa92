//! A replica as other processes see it: who is let in, and who answers what.
//!
//! A connection that says who it comes from speaks Raft, so it must name this node and its group.
//! One that does not (a coordinator, or a replica whose group is forming) may ask, write and read
//! like a client, but never vote or append.

use std::io;
use std::sync::Arc;

use crate::raft::freshness::Mark;
use crate::raft::replica::{Replica, lock};
use crate::raft::replication;
use crate::raft::wire;
use crate::rpc::{FrameReceiver, FrameSender, Service};
use crate::types::command::{Action, Outcome};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::{GroupId, NodeId};
use crate::types::limits::REQUEST_TIMEOUT_MAX;
use crate::types::peer::{Append, Hello, Lane, Reply, Request, TransferLeader, VoteRequest};

impl Service for Replica {
    fn welcome(&self, hello: &Hello) -> Result<(), String> {
        let me = self.member().node;
        if let Some(to) = hello.to
            && to != me
        {
            return Err(format!("this is node {me}, not {to}; its disk was replaced"));
        }
        match (hello.group, self.group()) {
            (Some(theirs), Some(mine)) if theirs == mine => Ok(()),
            (Some(theirs), Some(mine)) => {
                Err(format!("node {me} belongs to group {mine}, not {theirs}; check --replicas"))
            }
            (Some(theirs), None) => Err(format!("node {me} has no group yet, not {theirs}")),
            (None, _) if hello.from.is_some() || hello.lane != Lane::Calls => {
                Err("a peer must name its group".into())
            }
            (None, _) => Ok(()),
        }
    }

    /// All but requests for keys are boxed: their futures are large, and each call would carry room for the
    /// largest.
    async fn call(&self, from: Option<NodeId>, request: Request) -> Reply {
        let deadline = |timeout_ms: u32| {
            let timeout = std::time::Duration::from_millis(u64::from(timeout_ms));
            Deadline::after(timeout.min(REQUEST_TIMEOUT_MAX))
        };
        match request {
            Request::Identify => Reply::Identity(Box::new(self.identity())),
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Adopt { group } => Reply::Accepted(self.be_adopted(group)),
            Request::Join(joiner) => Reply::Accepted(self.take_in(joiner)),
            Request::Kv { request, timeout_ms } => {
                let deadline = deadline(timeout_ms);
                Reply::Kv(self.once_led(deadline, || self.call(request.clone(), deadline)).await)
            }
            Request::Scan { scan, timeout_ms } => {
                let deadline = deadline(timeout_ms);
                Reply::Scanned(
                    Box::pin(self.once_led(deadline, || self.scan(&scan, deadline))).await,
                )
            }
            Request::Watch { ask, timeout_ms } => {
                let deadline = deadline(timeout_ms);
                Reply::Watched(
                    Box::pin(self.once_led(deadline, || self.watch(&ask, deadline))).await,
                )
            }
            Request::Propose { action, timeout_ms } => {
                Reply::Proposed(Box::pin(self.be_proposed(action, deadline(timeout_ms))).await)
            }
            Request::ReadIndex { timeout_ms } => {
                Reply::ReadIndex(self.read_index(deadline(timeout_ms)).await)
            }
            Request::Vote(_)
            | Request::PreVote(_)
            | Request::Append(_)
            | Request::TransferLeader(_)
            | Request::Compare(_)
                if from.is_none() =>
            {
                Reply::NotReady("only a peer may send this".into())
            }
            Request::Compare(theirs) => {
                Reply::Compared(self.be_compared(from.unwrap_or_default(), &theirs))
            }
            Request::Vote(request) if self.bound() && !self.is_heirs(&request) => {
                Reply::NotReady("it may be bound by the lease of a leader".into())
            }
            Request::PreVote(_) if self.bound() => {
                Reply::NotReady("it may be bound by the lease of a leader".into())
            }
            Request::Vote(mut request) => {
                // An heir's vote that comes late must not go around the lease of a later leader.
                request.leadership_transfer &= !self.lease().protects(request.vote.term);
                let vote = Box::pin(self.raft().vote(wire::raft_vote_request(&request))).await;
                answer(vote.map(|vote| Reply::Vote(wire::vote_reply(&vote))))
            }
            Request::PreVote(_) if self.is_leader_back() => {
                Reply::NotReady("it follows a leader".into())
            }
            Request::PreVote(request) => {
                self.asked_to_elect();
                let vote = Box::pin(self.raft().pre_vote(wire::raft_vote_request(&request))).await;
                answer(vote.map(|vote| Reply::Vote(wire::vote_reply(&vote))))
            }
            Request::Append(append) => answer(Box::pin(self.append(append)).await),
            Request::TransferLeader(transfer) => Box::pin(self.be_handed_over(&transfer)).await,
        }
    }

    async fn stream(&self, hello: Hello, sender: FrameSender, receiver: FrameReceiver) {
        let raft = self.raft().clone();
        let ended: io::Result<()> = match hello.lane {
            Lane::Append => {
                let freshness = Arc::clone(self.freshness());
                let lease = Arc::clone(self.lease());
                let ended = replication::follow(raft, freshness, lease, sender, receiver).await;
                self.stream_ended(hello.from);
                ended
            }
            Lane::Snapshot => self.receiving().receive(raft, sender, receiver).await,
            Lane::Calls => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, lane = ?hello.lane, "a peer's stream ended");
        }
    }
}

impl Replica {
    /// Takes what coordinators may propose through the log.
    async fn be_proposed(&self, action: Action, deadline: Deadline) -> Result<Outcome, Error> {
        match action {
            Action::Claim(_)
            | Action::Confirm { .. }
            | Action::Release { .. }
            | Action::OpenSession { .. } => {
                let applied = self.propose(action, None, deadline).await;
                applied.map(|applied| applied.outcome)
            }
            Action::DeleteSpan { .. } => self.delete_span(action, deadline).await,
            Action::Found { .. }
            | Action::Put { .. }
            | Action::Delete { .. }
            | Action::Conditional { .. }
            | Action::Once { .. }
            | Action::Write(_)
            | Action::Txn { .. }
            | Action::Expire => {
                Err(Error::BadRequest("neither a change of the ring nor a session".into()))
            }
        }
    }

    async fn be_handed_over(&self, transfer: &TransferLeader) -> Reply {
        let answered = self.raft().handle_transfer_leader(wire::raft_transfer(transfer)).await;
        answer(
            answered.map(|answer| Reply::TransferLeader(answer.map_err(|error| error.to_string()))),
        )
    }

    async fn append(&self, append: Append) -> io::Result<Reply> {
        let (mark, vote) = (Mark::of(&append), append.vote);
        let lease = self.lease().grant(&vote, append.lease_ms);
        let request = wire::raft_append(append)?;
        let response = self.raft().append_entries(request).await.map_err(io::Error::other)?;
        if response.is_success() {
            self.freshness().accepted(mark);
            self.lease().heard(&vote, mark.received);
        }
        Ok(Reply::Append(wire::append_reply(&response, lease)))
    }

    /// Whether a leader hands over to whom this vote is for, and has given its lease up: not one of an
    /// earlier term than the last that was heard of here.
    fn is_heirs(&self, request: &VoteRequest) -> bool {
        let newest = self.wal().vote().map_or(0, |vote| vote.term);
        request.leadership_transfer && request.vote.term > newest
    }

    fn be_adopted(&self, group: GroupId) -> Result<(), String> {
        if self.group() == Some(group) {
            return Ok(());
        }
        // The lock keeps two groups from adopting at the same moment.
        let _progress = lock(self.formation());
        if !self.fresh() {
            return Err("this replica already has a group".into());
        }
        self.adopt(group).map_err(|error| error.to_string())
    }
}

fn answer<E: std::fmt::Display>(reply: Result<Reply, E>) -> Reply {
    reply.unwrap_or_else(|error| Reply::NotReady(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::config::Timing;
    use crate::raft::replica::tests::{alone, open};
    use crate::types::ids::{LogId, Vote};

    /// Each request to a leader takes this much room at least.
    const CALL_BYTES: usize = 2304;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_takes_little_room() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let replica = open(alone(dir.path())).await;
        let call = Service::call(&replica, None, Request::Identify);
        assert!(size_of_val(&call) <= CALL_BYTES, "{} bytes", size_of_val(&call));
        drop(call);
        replica.shutdown().await;
    }

    /// The leader that it acknowledged may answer lease reads until the lease is over.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_restarted_replica_elects_nobody_while_its_former_lease_may_run() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let replica = open(alone(dir.path())).await;
        replica.form().await.expect("it forms");
        replica.shutdown().await;
        drop(replica);

        let replica = open(alone(dir.path())).await;
        let node = NodeId(1);
        let request = VoteRequest {
            vote: Vote { term: 99, node, committed: false },
            last: Some(LogId { term: 98, leader: node, index: 1000 }),
            leadership_transfer: false,
        };
        let answer = Service::call(&replica, Some(node), Request::Vote(request.clone())).await;
        assert!(matches!(answer, Reply::NotReady(_)), "{answer:?}");
        tokio::time::sleep(Timing::default().election_timeout_max).await;
        // It answers again; whether it grants is for Raft to say.
        let answer = Service::call(&replica, Some(node), Request::Vote(request)).await;
        assert!(matches!(answer, Reply::Vote(_)), "{answer:?}");
        replica.shutdown().await;
    }
}
