//! What the load engine drives: one kind of connection for each protocol, in one type.
//!
//! All are about as thin as the one of `sagedb::bench`, but for HTTP/2's, which has a task of its own: the processor is shared with the servers, so that a client that
//! costs more would be counted against its server.

mod etcd_grpc;
mod etcd_json;
mod http1;
mod redis;

use bytes::Bytes;
use sagedb::bench::{
    Connect, Connection, Failure, HttpConnect, HttpConnection, Operation, Outcome,
};

pub(crate) use etcd_grpc::{EtcdGrpc, EtcdGrpcConnection};
pub(crate) use etcd_json::{EtcdJson, EtcdJsonConnection};
pub(crate) use http1::Http1;
pub(crate) use redis::{Redis, RedisConnection, Reply};

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
