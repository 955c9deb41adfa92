//! openraft's network over `rpc`: converts, sends once, converts back.
//!
//! openraft asks for a client of its own for replication, for heartbeats and for snapshots to each
//! peer, and each opens its own connection, so that none delays another: entries go as one
//! pipelined stream ([`Lane::Append`]), snapshots as one file each ([`Lane::Snapshot`]), heartbeats
//! and votes as calls. Each connection names the node it means and the group, so that a process
//! that took over an address is never taken for the peer.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftTypeConfig};

use crate::raft::as_of::AsOf;
use crate::raft::catch_up::Sends;
use crate::raft::config::{Raft, TypeConfig, VoteOf};
use crate::raft::lease::Lease;
use crate::raft::log_store::Appended;
use crate::raft::lull::Lull;
use crate::raft::replication::{self, Aside};
use crate::raft::snapshot_stream;
use crate::raft::state_machine::SnapshotData;
use crate::raft::wire;
use crate::rpc::{CallError, Caller, Dialer, Target};
use crate::types::deadline::Deadline;
use crate::types::ids::{GroupId, NodeId};
use crate::types::peer::{AppendReply, Lane, Reply, Request};

type SnapshotOf = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;
type ServerMetrics =
    openraft::alias::WatchReceiverOf<TypeConfig, openraft::metrics::RaftServerMetrics<TypeConfig>>;
type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// Where the members are by the newest configuration. openraft keeps the client of a member whose
/// URL has changed, so each client looks here before it speaks.
#[derive(Clone, Default)]
pub(in crate::raft) struct Addresses(Arc<OnceLock<ServerMetrics>>);

impl Addresses {
    /// Says whose configuration it is, once Raft runs.
    pub(in crate::raft) fn watch(&self, raft: &Raft) {
        self.0.get_or_init(|| raft.server_metrics());
    }

    fn moved(&self, target: &Target) -> Option<String> {
        let metrics = self.0.get()?.borrow_watched();
        let node = metrics.membership_config.get_node(&target.node?)?;
        (node.addr != target.url).then(|| node.addr.clone())
    }
}

/// What all clients of one replica share.
#[derive(Clone)]
pub(in crate::raft) struct Network {
    /// Says who we are.
    pub(in crate::raft) dialer: Dialer,
    /// The group, known once the replica is adopted or has formed one.
    pub(in crate::raft) group: Arc<dyn Fn() -> Option<GroupId> + Send + Sync>,
    /// Where the members are.
    pub(in crate::raft) addresses: Addresses,
    /// Stamps what is sent.
    pub(in crate::raft) as_of: Arc<AsOf>,
    /// Counts the leases that are granted.
    pub(in crate::raft) lease: Arc<Lease>,
    /// Says when there are new entries to be sent.
    pub(in crate::raft) appended: Appended,
    /// Says to whom snapshots were sent lately.
    pub(in crate::raft) sends: Sends,
    /// How long an append or a piece of a snapshot may go unanswered before the stream is
    /// given up.
    pub(in crate::raft) stall: Duration,
}

impl Network {
    fn client(&self, target: NodeId, node: &BasicNode, pipelined: bool) -> Client {
        let aside = Aside {
            as_of: Arc::clone(&self.as_of),
            lease: Arc::clone(&self.lease),
            follower: target,
        };
        let target = Target { url: node.addr.clone(), node: Some(target), group: (self.group)() };
        let caller = Caller::new(self.dialer.clone(), target.clone());
        Client { shared: self.clone(), target, caller, aside, pipelined }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Client {
        self.client(target, node, true)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &BasicNode) -> Client {
        self.client(target, node, false)
    }
}

/// Speaks to one peer.
pub(in crate::raft) struct Client {
    shared: Network,
    target: Target,
    caller: Caller,
    aside: Aside,
    pipelined: bool,
}

impl Client {
    /// The peer where it is now.
    fn target(&mut self) -> &Target {
        if let Some(url) = self.shared.addresses.moved(&self.target) {
            self.target.url = url;
            self.caller = Caller::new(self.shared.dialer.clone(), self.target.clone());
        }
        &self.target
    }

    async fn call(&mut self, request: Request, option: &RPCOption) -> RpcResult<Reply> {
        self.target();
        let deadline = Deadline::after(option.hard_ttl());
        match self.caller.call(&request, deadline).await {
            Ok(Reply::NotReady(reason)) => Err(unreachable(reason)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(rpc_error(&error)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        let first = rpc.prev_log_id.is_none();
        let (append, asked) = self.aside.append(rpc);
        match self.call(Request::Append(append), &option).await? {
            // openraft has no room for this answer, and no correct peer gives it.
            Reply::Append(AppendReply::Conflict) if first => {
                Err(unexpected("conflict at the start"))
            }
            Reply::Append(reply) => {
                self.aside.answered(asked, &reply);
                Ok(wire::raft_append_reply(&reply))
            }
            other => Err(unexpected(&other)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if !self.pipelined {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let deadline = Deadline::after(option.hard_ttl().max(self.shared.stall));
            let dialer = self.shared.dialer.clone();
            let opened = dialer.open(self.target(), Lane::Append, deadline).await;
            let (sender, receiver) = opened.map_err(|error| rpc_error(&error))?;
            let (aside, stall) = (self.aside.clone(), self.shared.stall);
            let lull = Lull::new(self.shared.appended.clone());
            let replies = replication::pipeline(input, (sender, receiver), aside, lull, stall);
            let replies: BoxStream<'s, _> = Box::pin(replies);
            Ok(replies)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        match self.call(Request::Vote(wire::vote_request(&rpc)), &option).await? {
            Reply::Vote(reply) => Ok(wire::raft_vote_reply(&reply)),
            other => Err(unexpected(&other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        match self.call(Request::PreVote(wire::vote_request(&rpc)), &option).await? {
            Reply::Vote(reply) => Ok(wire::raft_vote_reply(&reply)),
            other => Err(unexpected(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let deadline = Deadline::after(option.hard_ttl());
        let connect = deadline.at_most(self.shared.stall);
        let dialer = self.shared.dialer.clone();
        let opened = dialer.open(self.target(), Lane::Snapshot, connect).await;
        let (sender, receiver) = opened.map_err(|error| streaming(&error))?;
        let SnapshotData::Local(file, open) = snapshot.snapshot else {
            return Err(streaming(&io::Error::other("only a snapshot of our own can be sent")));
        };
        let send = snapshot_stream::send(
            wire::vote(&vote),
            (&file, open),
            (sender, receiver),
            self.shared.sends.begin(self.aside.follower, self.shared.appended.clone()),
            self.shared.stall,
        );
        tokio::select! {
            biased;
            reply = send => match reply {
                Ok(vote) => Ok(SnapshotResponse::new(wire::raft_vote(&vote))),
                Err(error) => Err(streaming(&error)),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
            () = tokio::time::sleep_until(deadline.instant().into()) => {
                Err(streaming(&io::Error::from(io::ErrorKind::TimedOut)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        match self.call(Request::TransferLeader(wire::transfer(&rpc)), &option).await? {
            Reply::TransferLeader(Ok(())) => Ok(Ok(())),
            Reply::TransferLeader(Err(reason)) => Err(unreachable(reason)),
            other => Err(unexpected(&other)),
        }
    }
}

/// A peer that was never reached is left alone for a while; one whose answer was lost is asked
/// again soon.
fn rpc_error<C: RaftTypeConfig>(error: &CallError) -> RPCError<C> {
    match error {
        CallError::NotSent(_) | CallError::Overloaded(_) => {
            RPCError::Unreachable(Unreachable::new(error))
        }
        CallError::Lost(_) | CallError::Late(_) => RPCError::Network(NetworkError::new(error)),
    }
}

fn unreachable(reason: String) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(reason))
}

fn unexpected(reply: impl std::fmt::Debug) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(format!("unexpected answer: {reply:?}")))
}

fn streaming(error: &(impl std::error::Error + 'static)) -> StreamingError<TypeConfig> {
    StreamingError::Unreachable(Unreachable::new(error))
}

/// One message as a frame.
pub(in crate::raft) fn frame<T: serde::Serialize>(message: &T) -> Bytes {
    Bytes::from(crate::types::codec::encode(message))
}

/// A frame as one message; a malformed one is the peer's fault.
pub(in crate::raft) fn message<T: serde::de::DeserializeOwned>(frame: &[u8]) -> io::Result<T> {
    crate::types::codec::decode(frame, crate::types::limits::FRAME_BYTES_MAX)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
