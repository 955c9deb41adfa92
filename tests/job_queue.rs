//! Every job of a queue takes effect exactly once, though one of two workers dies again and again in the
//! middle of its jobs, comes back late from others, and leaders are killed.

use std::time::Duration;

use sagedb::client::{Client, ScanOptions};
use sagedb::types::command::Write;
use sagedb::types::key::Key;
use sagedb::types::txn::Op;
use sagedb::types::value::Value;

use crate::common::until::{SOON, until};
use crate::common::world::World;
use crate::recipes::queue::{Job, Queue};

const JOBS: usize = 40;
const LEASE: Duration = Duration::from_millis(300);

/// What a job comes to: its own counter, and that of all.
fn effect(job: &Job) -> [Op; 2] {
    let add =
        |key: String| Op::Write { key: Key::new(key).expect("a key"), write: Write::Add { by: 1 } };
    let name = String::from_utf8_lossy(&job.payload.data);
    [add(format!("{{mail}}done:{name}")), add("{mail}sum".into())]
}

/// Takes what is there and does it, and puts back what others left; forever.
async fn steady(queue: Queue) {
    loop {
        // What fails may have happened or not. Then the lease ends, and somebody looks at it again.
        match queue.take("steady").await {
            Ok(Some(job)) => drop(queue.finish(&job, &effect(&job)).await),
            Ok(None) | Err(_) => drop(queue.put_back().await),
        }
        tokio::task::yield_now().await;
    }
}

/// A worker's life: it dies with the job in its hands.
async fn doomed(queue: &Queue, life: usize) -> Option<Job> {
    queue.take(&format!("doomed-{life}")).await.ok().flatten()
}

async fn done(queue: &Queue) -> Result<Vec<(String, Option<i64>)>, String> {
    let prefix = "{mail}done:".to_owned();
    let all = ScanOptions { prefix, limit: 1000, ..ScanOptions::default() };
    let page = queue.client.scan(&all, None).await.map_err(|error| error.to_string())?;
    let count = |value: Option<Value>| value.and_then(|value| value.as_integer());
    let items = page.items.into_iter();
    Ok(items.map(|item| (item.key.as_str().to_owned(), count(item.value))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_takes_effect_once_though_a_worker_dies_and_comes_back_late() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let coordinator = world.routed(&[&group]).await;
    let client = Client::new([&coordinator.url]).expect("a URL");
    let queue = Queue { client, name: "mail".into(), lease: LEASE };
    for number in 0..JOBS {
        let name = format!("job-{number:02}");
        until("it is put in", SOON, async || {
            let pushed = queue.push(&name, Value::text(name.as_str())).await;
            pushed.map_err(|error| error.to_string())
        })
        .await;
    }

    let mut left = Vec::new();
    left.extend(doomed(&queue, 0).await);
    assert_eq!(left.len(), 1, "it has a job, and dies");
    let worker = tokio::spawn(steady(queue.clone()));
    let mut life = 0;
    until("every job is done", SOON, async || {
        life += 1;
        left.extend(doomed(&queue, life).await);
        if life == 3 {
            let leader = group.leader(&world.http).await;
            group.nodes[leader].kill();
            group.nodes[leader].start().expect("it starts");
        }
        // Somebody was thought to be dead and is not.
        if let Some(job) = left.iter().rev().nth(1) {
            drop(queue.finish(job, &effect(job)).await);
        }
        let done = done(&queue).await?;
        if done.len() == JOBS { Ok(()) } else { Err(format!("{} are done", done.len())) }
    })
    .await;
    assert!(left.len() > 2, "workers died with {} jobs", left.len());

    // All who were thought dead come back, with jobs that others have done.
    until("nothing is left in the queue", SOON, async || {
        let (waiting, taken) =
            (queue.client.count("{mail}todo:"), queue.client.count("{mail}taken:"));
        match (waiting.await, taken.await) {
            (Ok(0), Ok(0)) => Ok(()),
            counts => Err(format!("{counts:?}")),
        }
    })
    .await;
    for job in &left {
        let finished = queue.finish(job, &effect(job)).await;
        assert!(!finished.expect("an answer"), "{job:?} took effect before");
        assert!(!queue.acknowledge(job).await.expect("an answer"), "{job:?}");
    }
    worker.abort();
    let done = done(&queue).await.expect("an answer");
    assert!(done.iter().all(|(_, times)| *times == Some(1)), "each once: {done:?}");
    let sum = queue.client.get("{mail}sum").await.expect("an answer").expect("a sum");
    assert_eq!(sum.value.as_integer(), i64::try_from(JOBS).ok(), "{done:?}");
}
