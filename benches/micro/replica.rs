//! A replica without a group behind it, which answers every write and every read alike and at once: what is left
//! is the way there and back.

use std::sync::Arc;

use axum::Router;
use sagedb::api::{Kv, Options, Rpc, ShardFace, shard_router};
use sagedb::rpc::{FrameReceiver, FrameSender, Service};
use sagedb::types::deadline::Deadline;
use sagedb::types::error::Error;
use sagedb::types::http::{ReadyBody, ShardStatus};
use sagedb::types::ids::NodeId;
use sagedb::types::item::{Expiry, Item};
use sagedb::types::kv::{GroupIndex, KvReply, KvRequest, Read, Written};
use sagedb::types::once::Once;
use sagedb::types::peer::{Hello, Reply, Request};
use sagedb::types::scan::{Deleted, Scan, Scanned, Span};
use sagedb::types::txn::{Batched, Op};
use sagedb::types::watch::Watch;
use sagedb::watch::Watching;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::data;

/// What it answers.
#[derive(Debug)]
struct Replica {
    written: Written,
    read: Read,
}

/// All that a replica serves on its port.
pub(crate) fn router() -> Router {
    let replica = Arc::new(Replica::new());
    let rpc = Rpc {
        service: Arc::clone(&replica),
        shutdown: CancellationToken::new(),
        tracker: TaskTracker::new(),
    };
    shard_router(replica, Options::default(), rpc)
}

impl Replica {
    fn new() -> Self {
        let at = GroupIndex { group: "shard-1".into(), index: 1_234_567 };
        let (ts, version) = (1_755_248_123_456, 17);
        let written = Written {
            at: at.clone(),
            ts,
            version,
            existed: true,
            expires: None,
            value: None,
            acks: 2,
            quorum: 2,
        };
        let item = Item { value: data::value(0), ts, version, expires: Expiry::NEVER };
        Self { written, read: Read { at, item: Some(item), lag_ms: None } }
    }

    fn answer(&self, request: &KvRequest) -> KvReply {
        if request.is_write() {
            KvReply::Written(self.written.clone())
        } else {
            KvReply::Read(self.read.clone())
        }
    }
}

impl Kv for Replica {
    async fn call(&self, request: KvRequest, _deadline: Deadline) -> Result<KvReply, Error> {
        Ok(self.answer(&request))
    }

    async fn scan(&self, _scan: Scan, _deadline: Deadline) -> Result<Scanned, Error> {
        Err(not_here())
    }

    async fn batch(
        &self,
        _ops: Vec<Op>,
        _once: Option<Once>,
        _deadline: Deadline,
    ) -> Result<Batched, Error> {
        Err(not_here())
    }

    async fn watch(&self, _watch: Watch, _deadline: Deadline) -> Result<Watching, Error> {
        Err(not_here())
    }

    async fn delete_span(&self, _span: Span, _deadline: Deadline) -> Result<Deleted, Error> {
        Err(not_here())
    }
}

impl ShardFace for Replica {
    fn status(&self) -> ShardStatus {
        panic!("no benchmark asks for the status");
    }

    fn ready(&self) -> ReadyBody {
        ReadyBody { ready: true, reason: None }
    }
}

impl Service for Replica {
    fn welcome(&self, _hello: &Hello) -> Result<(), String> {
        Ok(())
    }

    async fn call(&self, _from: Option<NodeId>, request: Request) -> Reply {
        match request {
            Request::Kv { request, .. } => Reply::Kv(Ok(self.answer(&request))),
            other => Reply::NotReady(format!("not measured: {other:?}")),
        }
    }

    async fn stream(&self, _hello: Hello, _sender: FrameSender, _receiver: FrameReceiver) {}
}

fn not_here() -> Error {
    Error::unavailable("it is not measured")
}
