//! Stores without a group behind them: one that works, in memory, and one that fails as told.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sagedb::api::{CoordinatorFace, Kv, Options, Rpc, ShardFace, coordinator_router, shard_router};
use sagedb::rpc::{FrameReceiver, FrameSender, Service};
use sagedb::types::command::{KeyWrite, Write};
use sagedb::types::deadline::Deadline;
use sagedb::types::error::Error;
use sagedb::types::hash::Token;
use sagedb::types::http::{
    ClusterBody, GroupBody, ReadyBody, RingStatus, Role, RouteBody, ShardStatus,
};
use sagedb::types::ids::{ClusterId, GroupId, NodeId, StateHash};
use sagedb::types::item::Item;
use sagedb::types::key::Key;
use sagedb::types::kv::{Consistency, GroupIndex, KvReply, KvRequest, Read, Written};
use sagedb::types::once::{IdempotencyKey, Once};
use sagedb::types::peer::{Hello, Reply, Request};
use sagedb::types::scan::{Deleted, Found, Listed, Scan, Scanned, Span, Want};
use sagedb::types::txn::{Batched, Compare, Op, OpError, OpResult, Txn, TxnOutcome, TxnReply};
use sagedb::types::value::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    index: u64,
    versions: BTreeMap<Key, u64>,
    items: BTreeMap<Key, Item>,
    /// When items that are not for ever are over.
    ends: BTreeMap<Key, Instant>,
    /// Writes with a name, and their answers.
    names: BTreeMap<IdempotencyKey, (KeyWrite, Result<KvReply, Error>)>,
    /// The same of transactions and batches.
    txns: BTreeMap<IdempotencyKey, (Txn, Result<TxnReply, Error>)>,
}

impl Fake {
    pub(crate) fn new(mode: Mode) -> Arc<Self> {
        Arc::new(Self { mode, state: Mutex::default() })
    }

    fn answer(&self, request: KvRequest) -> Result<KvReply, Error> {
        let mut state = self.state.lock().expect("no panic under the lock");
        state.expire();
        match request {
            KvRequest::Write { write, once: Some(Once::Key(name)) } => {
                if let Some((first, answer)) = state.names.get(&name) {
                    let same = *first == write;
                    return if same { answer.clone() } else { Err(Error::IdempotencyKeyReused) };
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

impl State {
    fn txn_once(&mut self, txn: Txn, once: Option<Once>) -> Result<TxnReply, Error> {
        let Some(Once::Key(name)) = once else { return self.txn(&txn) };
        if let Some((first, answer)) = self.txns.get(&name) {
            return if *first == txn { answer.clone() } else { Err(Error::IdempotencyKeyReused) };
        }
        let answer = self.txn(&txn);
        self.txns.insert(name, (txn, answer.clone()));
        answer
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnReply, Error> {
        let before = self.clone();
        let (succeeded, ops, atomic) = match txn {
            Txn::Batch { ops } => (true, ops, false),
            Txn::Atomic { compare, then, otherwise } => {
                let holds = |compare: &Compare| compare.holds.of(self.items.get(&compare.key));
                let succeeded = compare.iter().all(holds);
                (succeeded, if succeeded { then } else { otherwise }, true)
            }
        };
        let mut results = Vec::new();
        for op in ops {
            let result = match op {
                Op::Get { key } => Ok(OpResult::Read(self.items.get(key).cloned())),
                Op::Write { key, write } => {
                    let (key, write) = (key.clone(), write.clone());
                    self.write_if(KeyWrite { key, condition: None, write })
                        .map(|reply| written(&reply))
                }
            };
            match result {
                Ok(result) => results.push(result),
                Err(error) if atomic => {
                    *self = before;
                    return Err(error);
                }
                Err(Error::NotAnInteger) => results.push(OpResult::Failed(OpError::NotAnInteger)),
                Err(_) => results.push(OpResult::Failed(OpError::NoValue)),
            }
        }
        let (at, ts, outcome) = (self.at(), self.now(), TxnOutcome { succeeded, results });
        Ok(TxnReply { at, ts, outcome, acks: 2, quorum: 2 })
    }

    fn at(&self) -> GroupIndex {
        GroupIndex { group: "fake".into(), index: self.index }
    }

    fn write_if(&mut self, write: KeyWrite) -> Result<KvReply, Error> {
        let KeyWrite { key, condition, write } = write;
        let version = self.items.get(&key).map(|item| item.version);
        if condition.is_some_and(|condition| !condition.holds(version)) {
            return Err(Error::VersionMismatch { version });
        }
        let written = match write {
            Write::Put { value } => self.write(key, Some(value)),
            Write::Delete => self.write(key, None),
            Write::PutFor { value, ttl_ms } => {
                let written = self.write(key.clone(), Some(value));
                Written { expires: self.end(key, Some(ttl_ms)), ..written }
            }
            Write::Add { by } => {
                let held = self.items.get(&key).map_or(Some(0), |item| item.value.as_integer());
                let value =
                    held.and_then(|held| held.checked_add(by)).ok_or(Error::NotAnInteger)?;
                let expires = self.items.get(&key).and_then(|item| item.expires);
                let end = self.ends.get(&key).copied();
                let written = self.write(key.clone(), Some(Value::integer(value)));
                self.items.get_mut(&key).expect("just written").expires = expires;
                self.ends.extend(end.map(|end| (key, end)));
                Written { value: Some(value), expires, ..written }
            }
            Write::Touch { ttl_ms } => {
                let version = version.ok_or(Error::KeyNotFound)?;
                self.index += 1;
                let expires = self.end(key, ttl_ms);
                let (at, ts) = (self.at(), self.now());
                Written { at, ts, version, existed: true, expires, value: None, acks: 2, quorum: 2 }
            }
        };
        Ok(KvReply::Written(written))
    }

    fn now(&self) -> u64 {
        1_755_248_123_456 + self.index
    }

    /// Lets the item of a key end after so long.
    fn end(&mut self, key: Key, ttl_ms: Option<u64>) -> Option<u64> {
        let expires = ttl_ms.map(|ttl_ms| self.now() + ttl_ms);
        self.items.get_mut(&key).expect("it has a value").expires = expires;
        match ttl_ms {
            Some(ttl_ms) => self.ends.insert(key, Instant::now() + Duration::from_millis(ttl_ms)),
            None => self.ends.remove(&key),
        };
        expires
    }

    /// Removes what is over.
    fn expire(&mut self) {
        let now = Instant::now();
        let over: Vec<Key> =
            self.ends.iter().filter(|(_, end)| **end <= now).map(|(key, _)| key.clone()).collect();
        for key in over {
            self.write(key, None);
        }
    }

    fn write(&mut self, key: Key, value: Option<Value>) -> Written {
        self.index += 1;
        let version = self.versions.entry(key.clone()).or_default();
        *version += 1;
        self.ends.remove(&key);
        let (version, ts) = (*version, 1_755_248_123_456 + self.index);
        let before = match value {
            Some(value) => self.items.insert(key, Item { value, ts, version, expires: None }),
            None => self.items.remove(&key),
        };
        let (at, existed) = (self.at(), before.is_some());
        Written { at, ts, version, existed, expires: None, value: None, acks: 2, quorum: 2 }
    }
}

fn written(reply: &KvReply) -> OpResult {
    let KvReply::Written(Written { version, existed, expires, value, .. }) = *reply else {
        panic!("not a write's answer")
    };
    OpResult::Written { version, existed, expires, value }
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

impl State {
    fn delete_span(&mut self, Span { from, to }: Span) -> Deleted {
        let inside =
            |key: &&Key| key.as_bytes() >= from && to.as_ref().is_none_or(|to| key.as_bytes() < to);
        let doomed: Vec<Key> = self.items.keys().filter(inside).cloned().collect();
        let keys = doomed.len() as u64;
        for key in doomed {
            self.write(key, None);
        }
        Deleted { at: vec![self.at()], keys }
    }

    fn scan(&self, scan: &Scan) -> Scanned {
        let Scan { span: Span { from, to }, want, consistency } = scan;
        let inside =
            |key: &&Key| key.as_bytes() >= from && to.as_ref().is_none_or(|to| key.as_bytes() < to);
        let keys = self.items.keys().filter(inside);
        let found = match *want {
            Want::Count => Found::Count(keys.count() as u64),
            Want::Page { limit, bytes, reverse, keys_only } => {
                let listed = |key| Listed::of(key, &self.items[key], keys_only);
                let mut items: Vec<Listed> = keys.map(listed).collect();
                if reverse {
                    items.reverse();
                }
                Found::page(items.into_iter(), limit as usize, bytes as usize)
            }
        };
        let lag_ms = (*consistency == Consistency::Stale).then_some(7);
        Scanned { at: vec![self.at()], lag_ms, found }
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
