//! A lock's version is a fencing token: whoever held the lock and comes late is refused by what the lock
//! protects, inside the cluster and outside, also if the leader died meanwhile.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sagedb::client::Client;
use sagedb::types::key::Key;
use sagedb::types::once::IdempotencyKey;
use sagedb::types::value::Value;
use serde_json::{Value as Json, json};
use tokio::io::AsyncWriteExt;

use crate::common::process::Launch;
use crate::common::until::{SOON, until};
use crate::common::world::{World, sage};
use crate::recipes::lock::{Archive, Lock};

const LOCK: &str = "{report}lock";
const TEXT: &str = "{report}text";

fn key(text: &'static str) -> Key {
    Key::new(text).expect("a key")
}

/// Tries until nobody has the lock; each attempt has a name of its own.
async fn acquired(client: &Client, owner: &str, ttl: Duration) -> Lock {
    let mut attempt = 0;
    until("the lock is free", SOON, async || {
        attempt += 1;
        let name = IdempotencyKey::new(&format!("{owner}-{attempt}")).expect("a name");
        let lock = Lock::acquire(client, key(LOCK), ttl, name).await;
        lock.map_err(|error| error.to_string())?.ok_or("somebody has it".into())
    })
    .await
}

/// A write of the holder of `lock`, by a process of its own that has not begun to send it.
struct Writer {
    child: tokio::process::Child,
    transaction: Json,
}

impl Writer {
    fn start(world: &World, url: &str, lock: &Lock, text: &str) -> Self {
        let launch = Launch {
            name: "writer".into(),
            program: sage(),
            args: ["txn", "-", "--url", url].map(String::from).to_vec(),
            directory: world.directory().into(),
            env: Vec::new(),
        };
        let mut command = tokio::process::Command::from(launch.command());
        command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().expect("sage can be started");
        let transaction = json!({
            "if": [{"key": LOCK, "version": lock.token}],
            "then": [{"op": "put", "key": TEXT, "value": text}],
        });
        Self { child, transaction }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(pid.expect("it runs"), signal).expect("it is ours");
    }

    /// Lets it write; the exit code, and the answer.
    async fn finish(mut self) -> (Option<i32>, Json) {
        let mut stdin = self.child.stdin.take().expect("it is piped");
        stdin.write_all(self.transaction.to_string().as_bytes()).await.expect("it reads");
        drop(stdin);
        let output = tokio::time::timeout(SOON, self.child.wait_with_output()).await;
        let output = output.expect("it ends").expect("its output can be read");
        let answer = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), answer)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_late_write_of_a_paused_holder_is_refused() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let coordinator = world.routed(&[&group]).await;
    let client = Client::new([&coordinator.url]).expect("a URL");
    let mut archive = Archive::default();

    let first = acquired(&client, "ann", Duration::from_secs(2)).await;
    // All is well with it, but it stands still before it writes.
    let paused = Writer::start(&world, &coordinator.url, &first, "late");
    paused.signal(Signal::STOP);
    let leader = group.leader(&world.http).await;
    group.nodes[leader].kill();

    let second = acquired(&client, "bob", Duration::from_secs(60)).await;
    assert!(second.token > first.token, "{second:?} after {first:?}");
    let written = until("the second writes", SOON, async || {
        let written = second.write(&client, key(TEXT), Value::text("by Bob")).await;
        written.map_err(|error| error.to_string())
    })
    .await;
    assert!(written && archive.write(second.token, "by Bob"));

    group.nodes[leader].start().expect("it starts");
    group.until_ready(&world.http).await;
    paused.signal(Signal::CONT);
    let (code, answer) = paused.finish().await;
    assert_eq!((code, &answer["succeeded"]), (Some(1), &json!(false)), "{answer}");
    assert!(!archive.write(first.token, "late"));
    let ttl = Duration::from_secs(60);
    assert!(!first.renew(&client, ttl).await.expect("an answer"), "it is not the first's");
    assert!(!first.release(&client).await.expect("an answer"), "nor can the first release it");

    let text = client.get(TEXT).await.expect("an answer").expect("a text");
    assert_eq!((text.value, archive.text.as_str()), (Value::text("by Bob"), "by Bob"));
    // And the holder's, in the same words, is not.
    let (code, answer) = Writer::start(&world, &coordinator.url, &second, "more").finish().await;
    assert_eq!((code, &answer["succeeded"]), (Some(0), &json!(true)), "{answer}");
    assert!(second.release(&client).await.expect("an answer"));
}
