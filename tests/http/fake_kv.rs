//! Stores without a group behind them: one that works, in memory, and one that fails as told.

use std::future::pending;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::middleware::map_request;
use sagedb::api::{
    CoordinatorFace, Kv, Options, Rpc, ShardFace, coordinator_router, let_run_out, shard_router,
};
use sagedb::rpc::{FrameReceiver, FrameSender, Service};
use sagedb::types::command::KeyWrite;
use sagedb::types::deadline::Deadline;
use sagedb::types::error::{Decline, Error};
use sagedb::types::hash::Token;
use sagedb::types::http::{
    ClusterBody, GroupBody, ReadyBody, RingStatus, Role, RouteBody, ShardStatus,
};
use sagedb::types::ids::{ClusterId, GroupId, NodeId, StateHash};
use sagedb::types::key::Key;
use sagedb::types::kv::{Consistency, KvReply, KvRequest, Read};
use sagedb::types::once::Once;
use sagedb::types::peer::{Hello, Reply, Request};
use sagedb::types::scan::{Deleted, Scan, Scanned, Span, Want};
use sagedb::types::txn::{Batched, Op, Txn};
use sagedb::types::watch::Watch;
use sagedb::watch::{Group, Hub, Watching};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fake_state::State;
use crate::fake_watch::Changes;

/// How a store behaves.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// As it should.
    Works,
    /// Every call fails with this.
    Fails(Error),
    /// No call ever ends.
    Hangs,
    /// Writes are answered as reads and reads as writes, scans as counts and counts as scans.
    Confused,
}

/// A store in memory.
#[derive(Debug)]
pub(crate) struct Fake {
    mode: Mode,
    state: Arc<Mutex<State>>,
    hub: Arc<Hub>,
}

impl Fake {
    pub(crate) fn new(mode: Mode) -> Arc<Self> {
        let state = Arc::<Mutex<State>>::default();
        let group = Group { id: GroupId(7), name: "fake".into() };
        let hub = Hub::new(Changes(Arc::clone(&state)), 1, vec![group], CancellationToken::new());
        Arc::new(Self { mode, state, hub })
    }

    fn answer(&self, request: KvRequest) -> Result<KvReply, Error> {
        let mut state = self.state.lock().expect("no panic under the lock");
        state.expire();
        match request {
            KvRequest::Write { write, once: Some(Once::Key(name)) } => {
                if let Some((first, answer)) = state.names.get(&name) {
                    let same = *first == write;
                    return if same {
                        answer.clone()
                    } else {
                        Err(state.declined(Decline::IdempotencyKeyReused))
                    };
                }
                let answer = state.write_if(write.clone());
                state.names.insert(name, (write, answer.clone()));
                answer
            }
            KvRequest::Write { write, .. } => state.write_if(write),
            KvRequest::Txn { txn, once } => state.txn_once(txn, once).map(KvReply::Txn),
            KvRequest::Get { at_least, .. }
                if at_least.iter().any(|at| *at.group == *"fake" && at.index > state.index) =>
            {
                Err(Error::unavailable("it has not come that far"))
            }
            KvRequest::Get { key, consistency, .. } => Ok(KvReply::Read(Read {
                at: state.at(),
                item: state.items.get(&key).cloned(),
                lag_ms: (consistency == Consistency::Stale).then_some(7),
            })),
        }
    }
}

impl Kv for Fake {
    async fn batch(
        &self,
        ops: Vec<Op>,
        once: Option<Once>,
        deadline: Deadline,
    ) -> Result<Batched, Error> {
        match self.call(KvRequest::Txn { txn: Txn::Batch { ops }, once }, deadline).await? {
            KvReply::Txn(reply) => {
                let at = vec![reply.at.clone()];
                Ok(Batched { at, results: reply.into_ops().map(Ok).collect() })
            }
            other => panic!("not a batch's answer: {other:?}"),
        }
    }

    async fn call(&self, request: KvRequest, _deadline: Deadline) -> Result<KvReply, Error> {
        match &self.mode {
            Mode::Works => self.answer(request),
            Mode::Fails(error) => Err(error.clone()),
            Mode::Hangs => pending().await,
            Mode::Confused => {
                let key = request.key().expect("it has a key").clone();
                let opposite = if request.is_write() {
                    KvRequest::get(key, Consistency::Linearizable)
                } else {
                    KeyWrite::delete(key).into()
                };
                self.answer(opposite)
            }
        }
    }

    async fn scan(&self, scan: Scan, _deadline: Deadline) -> Result<Scanned, Error> {
        let state = || self.state.lock().expect("no panic under the lock");
        match &self.mode {
            Mode::Works => {
                let mut state = state();
                state.expire();
                Ok(state.scan(&scan))
            }
            Mode::Fails(error) => Err(error.clone()),
            Mode::Hangs => pending().await,
            Mode::Confused => {
                let want = match scan.want {
                    Want::Count => {
                        Want::Page { limit: 1, bytes: 1, reverse: false, keys_only: false }
                    }
                    Want::Page { .. } => Want::Count,
                };
                Ok(state().scan(&Scan { want, ..scan }))
            }
        }
    }

    async fn watch(&self, watch: Watch, deadline: Deadline) -> Result<Watching, Error> {
        match &self.mode {
            Mode::Works | Mode::Confused => self.hub.watch(watch, None, deadline).await,
            Mode::Fails(error) => Err(error.clone()),
            Mode::Hangs => pending().await,
        }
    }

    async fn delete_span(&self, span: Span, _deadline: Deadline) -> Result<Deleted, Error> {
        match &self.mode {
            Mode::Fails(error) => Err(error.clone()),
            Mode::Hangs => pending().await,
            // There is no other answer that it could give.
            Mode::Works | Mode::Confused => {
                Ok(self.state.lock().expect("no panic under the lock").delete_span(span))
            }
        }
    }
}

impl ShardFace for Fake {
    fn status(&self) -> ShardStatus {
        ShardStatus {
            node: NodeId(1),
            url: "http://127.0.0.1:4101".into(),
            group: Some(GroupId(2)),
            name: Some("fake".into()),
            role: Role::Leader,
            term: 1,
            leader: Some(NodeId(1)),
            leader_url: Some("http://127.0.0.1:4101".into()),
            last_index: Some(9),
            committed: Some(9),
            applied: None,
            hash: StateHash(0),
            compared: None,
            differs: None,
            lag_ms: Some(0),
            members: Vec::new(),
            quorum: 1,
            keys: 3,
            bytes: 30,
            memory: 900,
            max_memory: None,
            disk_full: false,
            cluster: None,
            epoch: 0,
            wal_bytes: 100,
            snapshot_bytes: 0,
            snapshot_index: None,
            purged: None,
        }
    }

    fn ready(&self) -> ReadyBody {
        readiness(&self.mode)
    }
}

impl CoordinatorFace for Fake {
    fn ring(&self) -> Option<RingStatus> {
        Some(RingStatus { epoch: 1, groups: 1, leaderless: 0 })
    }

    fn route(&self, key: &Key) -> Result<RouteBody, Error> {
        if let Mode::Fails(error) = &self.mode {
            return Err(error.clone());
        }
        Ok(RouteBody {
            key: key.to_string(),
            shard: "fake".into(),
            url: "http://127.0.0.1:4101".into(),
            replicas: vec!["http://127.0.0.1:4101".into()],
            hash: format!("{:016x}", Token::of_key(key).0),
            epoch: 1,
        })
    }

    async fn cluster(&self, _deadline: Deadline) -> Result<ClusterBody, Error> {
        match &self.mode {
            Mode::Fails(error) => return Err(error.clone()),
            Mode::Hangs => pending().await,
            Mode::Works | Mode::Confused => (),
        }
        let group = GroupBody {
            id: GroupId(2),
            name: "fake".into(),
            share: 1.0,
            leader: Some("http://127.0.0.1:4101".into()),
            members: vec!["http://127.0.0.1:4101".into()],
            replicas: vec![self.status()],
            unreachable: Vec::new(),
        };
        Ok(ClusterBody { cluster: ClusterId(3), epoch: 1, vnodes: 100, groups: vec![group] })
    }

    fn ready(&self) -> ReadyBody {
        readiness(&self.mode)
    }
}

fn readiness(mode: &Mode) -> ReadyBody {
    match mode {
        Mode::Works | Mode::Confused => ReadyBody { ready: true, reason: None },
        Mode::Fails(error) => ReadyBody { ready: false, reason: Some(error.to_string()) },
        Mode::Hangs => ReadyBody { ready: false, reason: Some("no leader yet".into()) },
    }
}

/// Welcomes nobody.
#[derive(Debug)]
pub(crate) struct Unwelcoming;

impl Service for Unwelcoming {
    fn welcome(&self, _hello: &Hello) -> Result<(), String> {
        Err("nobody is welcome here".into())
    }

    async fn call(&self, _from: Option<NodeId>, _request: Request) -> Reply {
        Reply::NotReady("a fake".into())
    }

    async fn stream(&self, _hello: Hello, _sender: FrameSender, _receiver: FrameReceiver) {}
}

/// A server on a free port of the loopback; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) base: String,
    /// Of a shard: ends its rpc connections.
    pub(crate) shutdown: CancellationToken,
    /// Of a shard: counts its rpc connections.
    pub(crate) tracker: TaskTracker,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `fake` as a shard.
    pub(crate) async fn shard(fake: Arc<Fake>, options: Options) -> Self {
        let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
        let rpc = Rpc {
            service: Arc::new(Unwelcoming),
            shutdown: shutdown.clone(),
            tracker: tracker.clone(),
        };
        Self::start(shard_router(fake, options, rpc), shutdown, tracker).await
    }

    /// Serves `fake` as a coordinator.
    pub(crate) async fn coordinator(fake: Arc<Fake>, options: Options) -> Self {
        let router = coordinator_router(fake, options);
        Self::start(router, CancellationToken::new(), TaskTracker::new()).await
    }

    async fn start(
        router: axum::Router,
        shutdown: CancellationToken,
        tracker: TaskTracker,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let router = router.layer(map_request(async |request| let_run_out::<Body>(request)));
        let serve = async move { axum::serve(listener, router).await.expect("serves") };
        Self { base, shutdown, tracker, task: tokio::spawn(serve) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.task.abort();
    }
}
