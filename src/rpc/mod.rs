//! One framed connection between our own processes: replicas of a group talk Raft over it, and
//! coordinators and followers hand requests to leaders.
//!
//! A connection begins as HTTP on the replica's one port and is upgraded ([`dial`]); both sides
//! then exchange a hello and a welcome ([`handshake`]) and speak in frames ([`frame`],
//! [`connection`]). What it carries is its *lane*, and each lane has a connection of its own, so
//! that a snapshot never delays a heartbeat:
//!
//! - **Calls.** [`Caller::call`] gives a request its id and queues it ([`pending`]); one task
//!   writes all that is queued at once and hands answers back in any order ([`calls`]). The
//!   connection opens when it is first needed and again when it is lost ([`caller`]).
//! - **Append** and **Snapshot.** [`Dialer::open`] gives a stream of messages each way
//!   ([`stream`]).
//!
//! [`serve()`] is the other end of all three, in front of a [`Service`].
//!
//! It promises that an error says truly whether a call was sent: [`CallError::NotSent`] and
//! [`CallError::Overloaded`] mean that it never was, [`CallError::Lost`] and [`CallError::Late`] that it may have been.
//! Everything is bounded (`types::limits`) and ends by its deadline; a peer that falls silent is
//! noticed. It refuses frames over their bound, kinds and versions it doesn't know, and wrong
//! checksums; no bytes from the other side make it panic. It knows nothing of Raft, of keys or of
//! HTTP routes, never sends a call twice, and leaves the server's half of the upgrade to the
//! HTTP server ([`is_upgrade`]).

mod caller;
mod calls;
mod connection;
mod dial;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod handshake;
mod pending;
mod serve;
mod stream;

#[cfg(test)]
mod tests;

use std::future::Future;

pub use self::caller::Caller;
pub use self::connection::Io;
pub(crate) use self::connection::gather;
pub use self::dial::{Connect, Connecting, Dialer, is_upgrade};
pub use self::serve::serve;
#[cfg(test)]
pub(crate) use self::stream::pair;
pub use self::stream::{FrameReceiver, FrameSender};

use crate::types::ids::{GroupId, NodeId};
use crate::types::peer::{Hello, Reply, Request};

/// Whom a connection is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// The process's URL, `http://host:port`.
    pub url: String,
    /// The node it must be; `None` for whoever answers there.
    pub node: Option<NodeId>,
    /// The group it must be a member of; `None` for any.
    pub group: Option<GroupId>,
}

/// Why a call has no answer, and whether it may have been carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// No connection could be made, the other side refused or did not take the call, or it was
    /// still waiting to be sent when its time was up: it never was and never will be carried out.
    #[error("{0}")]
    NotSent(String),
    /// Too many calls under way or bytes queued: the call was never sent.
    #[error("too many calls under way to {0}")]
    Overloaded(String),
    /// The call was sent, or may have been, and the connection broke before its answer came: its fate
    /// is unknown.
    #[error("{0}")]
    Lost(String),
    /// The call was sent and its answer did not come in time, over a connection that stands: its fate
    /// is unknown.
    #[error("{0}")]
    Late(String),
}

/// What answers on the other end.
pub trait Service: Send + Sync + 'static {
    /// Whether this connection is welcome; the refusal is a sentence that the other side shows.
    fn welcome(&self, hello: &Hello) -> Result<(), String>;

    /// Answers one call. Calls of one connection run concurrently. The future is dropped when the
    /// connection ends; a panic ends the connection.
    fn call(&self, from: Option<NodeId>, request: Request) -> impl Future<Output = Reply> + Send;

    /// Serves one stream to its end. When the process stops, the receiver gives an error; the
    /// future is dropped if it still has not ended after
    /// [`DRAIN_TIMEOUT`](crate::types::limits::DRAIN_TIMEOUT).
    fn stream(
        &self,
        hello: Hello,
        sender: FrameSender,
        receiver: FrameReceiver,
    ) -> impl Future<Output = ()> + Send;
}
