//! What the load engine drives: one kind of connection for each protocol, in one type.
//!
//! HTTP/1.1 and Redis' protocol are written to their sockets and parsed where they were read, HTTP/2 is hyper's and has a task of its own: the processor is
//! shared with the servers, so that a client that costs more is counted against its server. The report says what each costs.

mod etcd_grpc;
mod etcd_json;
mod redis;

use bytes::Bytes;
use sagedb::bench::{
    Answer, Connect, Connection, Failure, Http1, HttpConnect, HttpConnection, Operation, Outcome,
    Request,
};

pub(crate) use etcd_grpc::{EtcdGrpc, EtcdGrpcConnection};
pub(crate) use etcd_json::{EtcdJson, EtcdJsonConnection};
pub(crate) use redis::{Redis, RedisConnection, Reply};

/// The longest answer that is kept, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Asks for a path, on a connection of its own.
pub(crate) async fn get(place: &str, path: &str) -> Result<Answer, Failure> {
    let request = Request { method: "GET", path, body: None };
    Http1::open(place).await?.ask(&request, |_| ANSWER_BYTES_MAX).await
}

/// Sends JSON to a path.
pub(crate) async fn post(http: &mut Http1, path: &str, json: &str) -> Result<Answer, Failure> {
    let body = Some(("application/json", json.as_bytes()));
    let request = Request { method: "POST", path, body };
    http.ask(&request, |_| ANSWER_BYTES_MAX).await
}

/// Opens connections of any kind.
#[derive(Debug)]
pub(crate) enum AnyConnect {
    /// `SageDB`'s API.
    Http(HttpConnect),
    EtcdJson(EtcdJson),
    EtcdGrpc(EtcdGrpc),
    Redis(Redis),
}

/// A connection of any kind. Boxed where they differ much in size.
pub(crate) enum AnyConnection {
    Http(Box<HttpConnection>),
    EtcdJson(Box<EtcdJsonConnection>),
    EtcdGrpc(Box<EtcdGrpcConnection>),
    Redis(Box<RedisConnection>),
}

impl Connect for AnyConnect {
    type Connection = AnyConnection;

    async fn connect(&self, client: usize) -> Result<AnyConnection, Failure> {
        Ok(match self {
            Self::Http(http) => AnyConnection::Http(Box::new(http.connect(client).await?)),
            Self::EtcdJson(etcd) => AnyConnection::EtcdJson(Box::new(etcd.connect().await?)),
            Self::EtcdGrpc(etcd) => AnyConnection::EtcdGrpc(Box::new(etcd.connect().await?)),
            Self::Redis(redis) => AnyConnection::Redis(Box::new(redis.connect().await?)),
        })
    }
}

impl Connection for AnyConnection {
    async fn run(&mut self, operation: &Operation) -> Result<Outcome, Failure> {
        match self {
            Self::Http(http) => http.run(operation).await,
            Self::EtcdJson(etcd) => etcd.run(operation).await,
            Self::EtcdGrpc(etcd) => etcd.run(operation).await,
            Self::Redis(redis) => redis.run(operation).await,
        }
    }

    async fn load(&mut self, items: &[(String, Bytes)]) -> Result<(), Failure> {
        if let Self::Http(http) = self {
            return http.load(items).await;
        }
        for (key, value) in items {
            let (key, value) = (key.clone(), value.clone());
            self.run(&Operation::Update { key, value }).await?;
        }
        Ok(())
    }
}
