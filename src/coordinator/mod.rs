//! The stateless router: hashes a key to its group, finds the group's leader, sends again only what
//! was certainly not applied.
//!
//! A coordinator holds nothing that can't be lost: the ring is replicated in the groups, whose own
//! `apply` refuses what they don't own. It finds the ring, or claims it as the first
//! (`claiming` decides, `keeper` does), keeps a picture of who leads which group (`groups`), and
//! follows for each request what the answers mean (`routing`). It never sees Raft or a disk.

mod claiming;
mod cluster;
mod groups;
mod inner;
mod keeper;
mod peers;
mod ring;
mod routing;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::api::{CoordinatorFace, Kv};
use crate::coordinator::inner::Inner;
use crate::coordinator::peers::RpcPeers;
use crate::rpc::Dialer;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::http::{ClusterBody, ReadyBody, RouteBody};
use crate::types::key::Key;
use crate::types::kv::{KvReply, KvRequest};

/// How a coordinator is started.
#[derive(Clone, Debug)]
pub struct CoordinatorOptions {
    /// URLs of members of the groups, in any order.
    pub shards: Vec<String>,
    /// Tokens of each group, if this coordinator is the one that claims the ring.
    pub vnodes: u32,
}

/// A running coordinator.
pub struct Coordinator(Arc<Inner<RpcPeers>>);

impl Coordinator {
    /// Starts to look for the ring; answers requests from the moment it has found it. Ends when
    /// `stopping` is cancelled.
    pub fn start(options: CoordinatorOptions, dialer: Dialer, stopping: CancellationToken) -> Self {
        let inner = Arc::new(Inner::new(options, RpcPeers::new(dialer)));
        let keeper = Arc::clone(&inner);
        tokio::spawn(async move {
            tokio::select! {
                () = keeper.keep() => {}
                () = stopping.cancelled() => {}
            }
        });
        Self(inner)
    }

    /// Waits until the ring and its groups were looked at once more.
    pub async fn refreshed(&self) {
        self.0.refresh().await;
    }
}

impl Kv for Coordinator {
    async fn call(&self, request: KvRequest, deadline: Deadline) -> Result<KvReply, Error> {
        self.0.answer(request, deadline).await
    }
}

impl CoordinatorFace for Coordinator {
    fn route(&self, key: &Key) -> Result<RouteBody, Error> {
        self.0.route(key)
    }

    async fn cluster(&self, deadline: Deadline) -> Result<ClusterBody, Error> {
        self.0.cluster(deadline).await
    }

    fn ready(&self) -> ReadyBody {
        self.0.ready()
    }
}
