//! What runs in a simulated process: a `sage shard` or a `sage coordinator`, less HTTP.
//!
//! Both are put together as `server` does it, and stop in its order. A coordinator answers clients
//! over rpc instead of HTTP ([`Front`]), which is all that is ours of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Kv;
use crate::coordinator::{Coordinator, CoordinatorOptions};
use crate::raft::{OpenError, Replica, ReplicaOptions, Surroundings, until_spared};
use crate::rpc::{self, Dialer, FrameReceiver, FrameSender, Service};
use crate::sim::net::{Net, Place};
use crate::types::deadline::Deadline;
use crate::types::ids::NodeId;
use crate::types::limits::DRAIN_TIMEOUT;
use crate::types::peer::{Hello, Reply, Request};

/// How a process has ended that nobody has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Ended {
    /// Its machine has lost its power.
    NoPower,
    /// It was asked to stop, and has.
    Stopped,
    /// Its data is damaged, and its group can do without: it is to begin anew with an empty disk.
    Spared,
    /// It can't go on, and says why.
    ByItself(String),
}

/// What a process shows of itself.
#[derive(Default)]
pub(in crate::sim) struct Face {
    pub(in crate::sim) replica: Option<Replica>,
    pub(in crate::sim) coordinator: Option<Arc<Front>>,
    pub(in crate::sim) ended: Option<Ended>,
}

/// What a process has from outside.
pub(in crate::sim) struct Outside {
    pub(in crate::sim) net: Net,
    pub(in crate::sim) place: Place,
    pub(in crate::sim) face: Arc<Mutex<Face>>,
    /// Cancelled to have it stop in good order.
    pub(in crate::sim) stop: CancellationToken,
}

impl Outside {
    fn face(&self) -> MutexGuard<'_, Face> {
        lock(&self.face)
    }
}

/// What a `sage shard` does.
pub(in crate::sim) async fn shard(
    options: ReplicaOptions,
    surroundings: Surroundings,
    outside: Outside,
) {
    let (url, peers, timing) = (options.url.clone(), options.peers.clone(), options.timing);
    let dialer = surroundings.dialer.clone();
    let replica = match Replica::open_in(options, surroundings).await {
        Ok(replica) => replica,
        Err(damage) if damage.is_damage() && !peers.is_empty() => {
            let spared = until_spared(&url, &peers, timing, &dialer);
            let ended = wait_damaged(&damage, spared, &outside).await;
            outside.face().ended = Some(ended);
            return;
        }
        Err(error) => {
            outside.face().ended = Some(Ended::ByItself(format!("it does not open: {error}")));
            return;
        }
    };
    outside.face().replica = Some(replica.clone());
    let door = Door::open(&outside, Arc::new(replica.clone()));
    let former = replica.clone();
    let mut forming = tokio::spawn(async move { former.form().await });
    let refused = async {
        match (&mut forming).await {
            Ok(Err(reason)) => reason,
            Ok(Ok(())) | Err(_) => std::future::pending().await,
        }
    };
    let reason = tokio::select! {
        biased;
        reason = replica.failed() => Some(reason),
        reason = refused => Some(reason),
        // Memory does not flip bits here.
        reason = replica.condemned() => Some(format!("it was condemned: {reason}")),
        () = outside.stop.cancelled() => None,
    };
    if let Some(reason) = reason {
        outside.face().ended = Some(Ended::ByItself(reason));
        return;
    }
    forming.abort();
    replica.hand_over().await;
    door.close(&outside).await;
    replica.shutdown().await;
    outside.face().ended = Some(Ended::Stopped);
}

/// What a replica with damaged data does until its group can do without it: it answers nobody.
async fn wait_damaged(
    damage: &OpenError,
    spared: impl Future<Output = ()>,
    outside: &Outside,
) -> Ended {
    let Outside { net, place, .. } = outside;
    net.note(format_args!("{place} is damaged: {damage}"));
    let refusing = async {
        loop {
            drop(net.accept(*place).await);
        }
    };
    tokio::select! {
        biased;
        () = outside.stop.cancelled() => Ended::Stopped,
        () = spared => Ended::Spared,
        () = refusing => Ended::Stopped,
    }
}

/// What a `sage coordinator` does.
pub(in crate::sim) async fn coordinator(
    options: CoordinatorOptions,
    dialer: Dialer,
    outside: Outside,
) {
    let stopping = CancellationToken::new();
    let front = Arc::new(Front(Coordinator::start(options, dialer, stopping.clone())));
    outside.face().coordinator = Some(Arc::clone(&front));
    let door = Door::open(&outside, front);
    outside.stop.cancelled().await;
    door.close(&outside).await;
    stopping.cancel();
    outside.face().ended = Some(Ended::Stopped);
}

/// A coordinator behind rpc.
pub(in crate::sim) struct Front(pub(in crate::sim) Coordinator);

impl Service for Front {
    fn welcome(&self, _hello: &Hello) -> Result<(), String> {
        Ok(())
    }

    async fn call(&self, _from: Option<NodeId>, request: Request) -> Reply {
        let Request::Kv { request, timeout_ms } = request else {
            return Reply::NotReady("a coordinator serves keys".into());
        };
        let timeout = std::time::Duration::from_millis(u64::from(timeout_ms));
        Reply::Kv(self.0.call(request, Deadline::after(timeout)).await)
    }

    async fn stream(&self, _hello: Hello, _sender: FrameSender, _receiver: FrameReceiver) {}
}

/// Where a process takes connections.
struct Door {
    closing: CancellationToken,
    connections: TaskTracker,
}

impl Door {
    fn open<S: Service>(outside: &Outside, service: Arc<S>) -> Self {
        let door = Self { closing: CancellationToken::new(), connections: TaskTracker::new() };
        let (net, place) = (outside.net.clone(), outside.place);
        let (closing, connections) = (door.closing.clone(), door.connections.clone());
        tokio::spawn(door.closing.clone().run_until_cancelled_owned(async move {
            loop {
                let io = net.accept(place).await;
                connections.spawn(rpc::serve(io, Arc::clone(&service), closing.clone()));
            }
        }));
        door
    }

    /// Takes nothing new and waits a while for what is under way.
    async fn close(self, outside: &Outside) {
        outside.net.close(outside.place);
        self.closing.cancel();
        self.connections.close();
        // In time or not: the process ends now.
        drop(tokio::time::timeout(DRAIN_TIMEOUT, self.connections.wait()).await);
    }
}

pub(in crate::sim) fn lock(face: &Mutex<Face>) -> MutexGuard<'_, Face> {
    face.lock().unwrap_or_else(PoisonError::into_inner)
}
