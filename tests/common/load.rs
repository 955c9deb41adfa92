//! Writers that keep writing whatever happens, and know what was promised to them.
//!
//! Each writer writes keys that nobody else writes. A write that was refused (any status but 2xx
//! and 504) is tried again; one whose fate is unknown is left alone and proves nothing. What was
//! acknowledged must be there at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use reqwest::Method;
use tokio::task::JoinSet;

use super::http::{FORM, Http};
use super::until::{SOON, until};

/// Between two writes of one writer, so that a test does not only measure the machine.
const PACE: Duration = Duration::from_millis(4);
/// Before a refused write is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// Reads under way at a time when acknowledged writes are looked up.
const READERS: usize = 32;

/// What came of the writes.
#[derive(Debug)]
pub(crate) struct Written {
    /// Key and value of each acknowledged write.
    pub(crate) acked: BTreeMap<String, String>,
    /// Answers that said that the write was not taken.
    pub(crate) refused: u64,
    /// Writes whose fate nobody knows.
    pub(crate) unknown: u64,
    /// Answers that no request should ever get.
    pub(crate) unexpected: Vec<String>,
    /// The longest time in which no write was acknowledged to anybody.
    pub(crate) longest_gap: Duration,
    last_ack: Instant,
}

impl Written {
    fn acknowledged(&mut self, key: String, value: String) {
        self.acked.insert(key, value);
        self.longest_gap = self.longest_gap.max(self.last_ack.elapsed());
        self.last_ack = Instant::now();
    }

    /// Reads every acknowledged write back and fails if one is missing or wrong.
    pub(crate) async fn verify(&self, http: &Http, url: &str) {
        assert!(self.unexpected.is_empty(), "{:?}", self.unexpected);
        let reads = stream::iter(&self.acked).map(|(key, value)| async move {
            let answer = http.get(url, key).await;
            let found = answer.status == 200 && answer.json()["value"] == value.as_str();
            (!found).then(|| format!("{key}: {} {}", answer.status, answer.text()))
        });
        let lost: Vec<String> =
            reads.buffer_unordered(READERS).filter_map(std::future::ready).collect().await;
        let count = self.acked.len();
        assert!(lost.is_empty(), "{} of {count} are lost: {:?}", lost.len(), lost.first());
    }
}

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Load {
    written: Arc<Mutex<Written>>,
    stopping: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    /// Starts `writers` that share the servers at `urls`.
    pub(crate) fn start(name: &str, urls: &[String], writers: usize) -> Self {
        let written = Arc::new(Mutex::new(Written {
            acked: BTreeMap::new(),
            refused: 0,
            unknown: 0,
            unexpected: Vec::new(),
            longest_gap: Duration::ZERO,
            last_ack: Instant::now(),
        }));
        let stopping = Arc::new(AtomicBool::new(false));
        let http = Http::new();
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let writer = Writer {
                name: format!("{name}-{writer}"),
                url: urls[writer % urls.len()].clone(),
                http: http.clone(),
                written: Arc::clone(&written),
            };
            tasks.spawn(writer.run(Arc::clone(&stopping)));
        }
        Self { written, stopping, writers: tasks }
    }

    /// How many writes were acknowledged until now.
    pub(crate) fn acknowledged(&self) -> usize {
        lock(&self.written).acked.len()
    }

    /// Waits until `count` more writes have been acknowledged.
    pub(crate) async fn until_more(&self, count: usize) {
        let goal = self.acknowledged() + count;
        until("writes are acknowledged", SOON, async || {
            let now = self.acknowledged();
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        })
        .await;
    }

    /// Ends the writers and says what came of it.
    pub(crate) async fn stop(self) -> Written {
        self.stopping.store(true, Ordering::Relaxed);
        self.writers.join_all().await;
        let mut written = Arc::into_inner(self.written)
            .expect("the writers have ended")
            .into_inner()
            .expect("no writer panicked");
        written.longest_gap = written.longest_gap.max(written.last_ack.elapsed());
        written
    }
}

struct Writer {
    name: String,
    url: String,
    http: Http,
    written: Arc<Mutex<Written>>,
}

impl Writer {
    async fn run(self, stopping: Arc<AtomicBool>) {
        let mut number = 0_u64;
        while !stopping.load(Ordering::Relaxed) {
            let pause = self.write(&mut number).await;
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt; goes on to the next number unless this one was refused.
    async fn write(&self, number: &mut u64) -> Duration {
        let (key, value) = (format!("{}-{number}", self.name), format!("value of {number}"));
        let body = Some((FORM, value.as_bytes().to_vec()));
        let query = [("key", key.as_str())];
        let answer = self.http.send(Method::PUT, (&self.url, "/kv"), &query, body).await;
        let mut written = lock(&self.written);
        let pause = match answer {
            Ok(answer) if answer.status == 200 => {
                written.acknowledged(key, value);
                PACE
            }
            Ok(answer) if answer.status == 503 => {
                written.refused += 1;
                return RETRY;
            }
            Ok(answer) if answer.status == 504 => {
                written.unknown += 1;
                PACE
            }
            Ok(answer) => {
                written.unexpected.push(format!("{} {}", answer.status, answer.text()));
                RETRY
            }
            Err(error) if error.is_connect() => return RETRY,
            Err(error) if error.is_timeout() => {
                written.unexpected.push(format!("a request hung: {error:?}"));
                RETRY
            }
            Err(_) => {
                written.unknown += 1;
                RETRY
            }
        };
        *number += 1;
        pause
    }
}

fn lock(written: &Mutex<Written>) -> MutexGuard<'_, Written> {
    written.lock().expect("no writer panicked")
}
