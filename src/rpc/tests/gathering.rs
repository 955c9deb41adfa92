//! What is there at once goes out in one write, whatever else happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::DuplexStream;
use tokio::time::timeout;
use tokio_util::io::InspectWriter;
use tokio_util::sync::CancellationToken;

use super::{FAR, HELD, Puppet, hello, passed};
use crate::rpc::connection::{self, Io};
use crate::rpc::frame::Kind;
use crate::rpc::{handshake, serve};
use crate::types::codec;
use crate::types::peer::{Lane, Reply};

const CALLS: u64 = 48;

/// Counts the writes of one side.
fn counted(io: DuplexStream) -> (impl Io, Arc<AtomicUsize>) {
    let writes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&writes);
    let counting = move |_: &[u8]| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    (InspectWriter::new(io, counting), writes)
}

// On a worker, whose tasks run as soon as one that runs wakes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_that_end_together_are_answered_in_one_write() {
    let service = Puppet::new();
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (counting, writes) = counted(server);
    let _serving = tokio::spawn(serve(counting, Arc::clone(&service), CancellationToken::new()));
    let (mut reader, mut sender) = connection::split(client);
    handshake::introduce(&mut reader, &mut sender, &hello(Lane::Calls)).await.unwrap().unwrap();
    for id in 0..CALLS {
        sender.push(Kind::Call, id, codec::encode(&HELD).into());
    }
    sender.flush().await.unwrap();
    let calls = usize::try_from(CALLS).unwrap();
    service.until_begun(calls).await;

    let before = writes.load(Ordering::Relaxed);
    // From the worker, which wakes all of them before it goes on.
    tokio::spawn(async move { service.gate.add_permits(calls) }).await.unwrap();
    let mut answered = 0;
    while answered < CALLS {
        let frame = timeout(FAR, reader.next()).await.expect("in time").unwrap().unwrap();
        if frame.kind == Kind::Answer {
            assert_eq!(codec::decode::<Reply>(&frame.payload, 100).unwrap(), passed());
            answered += 1;
        }
    }
    // One, and signs of life.
    let writes = writes.load(Ordering::Relaxed) - before;
    assert!(writes <= 3, "{writes} writes for {CALLS} answers");
}
