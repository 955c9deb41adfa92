//! The whole coordinator over groups without a network.

mod fake;
mod serving;
mod starting;

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use self::fake::Net;
use crate::api::CoordinatorFace;
use crate::api::Kv;
use crate::coordinator::{Coordinator, CoordinatorOptions};
use crate::types::command::KeyWrite;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::host::{self, Entered, Host};
use crate::types::key::Key;
use crate::types::kv::{Consistency, KvReply, KvRequest};
use crate::types::limits::VNODES_DEFAULT;
use crate::types::value::Value;

/// A clock that goes on as soon as nothing else can happen, so that no test is late because its
/// machine is busy.
struct VirtualTime;

impl Host for VirtualTime {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn random(&self) -> u64 {
        getrandom::u64().expect("the operating system has some")
    }

    fn disk_lag(&self) -> Duration {
        Duration::ZERO
    }
}

/// Has this thread live in virtual time until what this returns is dropped.
fn virtual_time() -> Entered {
    host::enter(Rc::new(VirtualTime))
}

fn start(net: &Net, shards: Vec<String>) -> Coordinator<Net> {
    let options = CoordinatorOptions { shards, vnodes: VNODES_DEFAULT };
    Coordinator::over(net.clone(), options, CancellationToken::new())
}

/// A coordinator over all groups of `net` that is ready, every leader known.
async fn started(net: &Net) -> Coordinator<Net> {
    let coordinator = start(net, net.urls());
    coordinator.until_ready().await;
    coordinator
}

/// Waits for `condition`.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} never came true");
}

fn key(number: u32) -> Key {
    Key::new(format!("user:{number}")).expect("key")
}

/// The first key that lives in the group called `shard`.
fn key_of(coordinator: &Coordinator<Net>, shard: &str) -> Key {
    let there = |key: &Key| coordinator.route(key).expect("a ring").shard == shard;
    (0..10_000).map(key).find(there).expect("every group has some")
}

fn timeout(ms: u64) -> Deadline {
    Deadline::after(Duration::from_millis(ms))
}

async fn put(coordinator: &Coordinator<Net>, key: &Key, ms: u64) -> Result<KvReply, Error> {
    let write = KeyWrite::put(key.clone(), Value::text("v"));
    coordinator.call(write.into(), timeout(ms)).await
}

async fn get(
    coordinator: &Coordinator<Net>,
    key: &Key,
    consistency: Consistency,
) -> Result<KvReply, Error> {
    coordinator.call(KvRequest::get(key.clone(), consistency), timeout(3000)).await
}
