//! Calls over one connection of our own protocol: one at a time, and many in flight.
//!
//! Both ends are in this process, each in a runtime of its own, as two processes would have one; between them are the
//! loopback, the upgrade from HTTP, and frames as they are. A call is a put of 100 bytes, which is answered
//! at once. Left out is the server's limit on the time for a write.

use std::cell::LazyCell;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use axum::serve::ListenerExt;
use criterion::{BenchmarkId, Criterion, Throughput};
use sagedb::rpc::{Caller, Dialer, Target};
use sagedb::types::command::KeyWrite;
use sagedb::types::deadline::Deadline;
use sagedb::types::limits::REQUEST_TIMEOUT_DEFAULT;
use sagedb::types::peer::{Reply, Request};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::{data, replica};

pub(crate) fn benches(criterion: &mut Criterion) {
    let link = LazyCell::new(Link::open);
    let mut group = criterion.benchmark_group("rpc");
    for in_flight in [1, 64, 256] {
        group.throughput(Throughput::Elements(in_flight));
        group.bench_function(BenchmarkId::new("calls_in_flight", in_flight), |bencher| {
            let link = &*link;
            bencher.iter_custom(|rounds| link.carry(in_flight, rounds));
        });
    }
    group.finish();
}

/// A connection, and the runtimes of its two ends.
struct Link {
    client: Runtime,
    caller: Caller,
    _server: Runtime,
}

impl Link {
    fn open() -> Self {
        let [client, server] = [(); 2].map(|()| Runtime::new().expect("a runtime"));
        let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let listener =
            listener.tap_io(|socket| socket.set_nodelay(true).expect("the socket takes it"));
        server.spawn(axum::serve(listener, replica::router()).into_future());
        let target = Target { url, node: None, group: None };
        Self { client, caller: Caller::new(Dialer::new(None), target), _server: server }
    }

    /// How long `in_flight` tasks take that make `rounds` calls each.
    fn carry(&self, in_flight: u64, rounds: u64) -> Duration {
        self.client.block_on(async {
            let start = Instant::now();
            let tasks = (0..in_flight).map(|task| call(self.caller.clone(), task, rounds));
            tasks.collect::<JoinSet<()>>().join_all().await;
            start.elapsed()
        })
    }
}

/// Makes calls, one after the other.
async fn call(caller: Caller, task: u64, rounds: u64) {
    let put = KeyWrite::put(data::key(task), data::value(task));
    let request = Request::Kv { request: put.into(), timeout_ms: 5000 };
    for _ in 0..rounds {
        let reply = caller.call(&request, Deadline::after(REQUEST_TIMEOUT_DEFAULT)).await;
        assert!(matches!(reply, Ok(Reply::Kv(Ok(_)))), "{reply:?}");
    }
}
