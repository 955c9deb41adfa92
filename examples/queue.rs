//! A queue whose jobs take effect once, though workers die: the recipe of `docs/recipes/queue.md`.
//!
//! All keys of a queue share a hash tag, so each step is one transaction. A job is in `todo:` or in
//! `taken:`, and never in both or in neither; what ends by itself is only the lease beside it. Run it
//! against a cluster of `sage dev`: `cargo run --example queue`.

use std::time::Duration;

use sagedb::client::{Client, ClientError, OpAnswer, ScanOptions, WriteOptions};
use sagedb::types::command::{Condition, Write};
use sagedb::types::item::Version;
use sagedb::types::key::Key;
use sagedb::types::once::IdempotencyKey;
use sagedb::types::scan::Listed;
use sagedb::types::txn::{Compare, Holds, Op};
use sagedb::types::value::Value;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A queue, by the name that its keys have in braces.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) client: Client,
    pub(crate) name: String,
    /// How long a job is its worker's without a sign of life.
    pub(crate) lease: Duration,
}

/// A job that somebody works on.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its place in the queue, with zeros before it.
    pub(crate) number: String,
    /// What is to be done.
    pub(crate) payload: Value,
    /// The version of its `taken:` key: the fencing token of this taking.
    taken: Version,
}

impl Queue {
    /// A key of the queue: they sort as their numbers do, because those have their zeros.
    pub(crate) fn key(&self, kind: &str, number: &str) -> Key {
        Key::new(format!("{{{}}}{kind}:{number}", self.name)).expect("it is neither empty nor long")
    }

    fn part(&self, kind: &str) -> ScanOptions {
        ScanOptions { prefix: format!("{{{}}}{kind}:", self.name), ..ScanOptions::default() }
    }

    /// Puts a job at the end. `name` is the job's own: sent again under it, it is there once.
    pub(crate) async fn push(&self, name: &str, payload: Value) -> Result<(), Failure> {
        let once = WriteOptions {
            idempotency_key: Some(IdempotencyKey::new(name)?),
            ..WriteOptions::default()
        };
        let last = format!("{{{}}}last", self.name);
        let counted = self.client.incr(&last, 1, &once).await?;
        let number = format!("{:020}", counted.value.ok_or("a counter has a value")?);
        // Another write, so another name.
        let idempotency_key = Some(IdempotencyKey::new(&format!("{name}/put"))?);
        let once = WriteOptions { idempotency_key, ..once };
        self.client.put_with(self.key("todo", &number).as_str(), payload, &once).await?;
        Ok(())
    }

    /// Takes the first job, or returns `None` if there is none.
    pub(crate) async fn take(&self, worker: &str) -> Result<Option<Job>, Failure> {
        loop {
            let first = ScanOptions { limit: 1, ..self.part("todo") };
            let page = self.client.scan(&first, None).await?;
            let Some(Listed { key, value: Some(payload), version, .. }) = page.items.first() else {
                return Ok(None);
            };
            let number = number_of(key);
            let (taken, lease) = (self.key("taken", &number), self.key("lease", &number));
            let ttl_ms = u64::try_from(self.lease.as_millis())?;
            let still_there = Compare { key: key.clone(), holds: Holds::Version(*version) };
            let is_mine = Write::PutFor { value: Value::text(worker), ttl_ms };
            let then = [
                Op::Write { key: taken, write: Write::Put { value: payload.clone() } },
                Op::Write { key: lease, write: is_mine },
                Op::Write { key: key.clone(), write: Write::Delete },
            ];
            let answer = self.client.txn((&[still_there], &then, &[]), None).await?;
            if let (true, Some(OpAnswer::Written(taken))) =
                (answer.succeeded, answer.results.first())
            {
                let (payload, taken) = (payload.clone(), taken.version);
                return Ok(Some(Job { number, payload, taken }));
            }
            // Somebody was faster: there is another first job now.
        }
    }

    /// A sign of life from a worker that needs longer; `false` if the lease has ended, so that others
    /// may have the job.
    pub(crate) async fn renew(&self, job: &Job) -> Result<bool, ClientError> {
        let lease = self.key("lease", &job.number);
        match self.client.touch(lease.as_str(), Some(self.lease), &WriteOptions::default()).await {
            Ok(_) => Ok(true),
            Err(ClientError::Api { code, .. }) if code == "key_not_found" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Does what the job comes to and takes it out of the queue, both or nothing. `false` if it is not
    /// this worker's any more: somebody else does it.
    pub(crate) async fn finish(&self, job: &Job, effect: &[Op]) -> Result<bool, ClientError> {
        let taken = self.key("taken", &job.number);
        let is_mine = Compare { key: taken.clone(), holds: Holds::Version(job.taken) };
        let mut then = effect.to_vec();
        for key in [taken, self.key("lease", &job.number)] {
            then.push(Op::Write { key, write: Write::Delete });
        }
        Ok(self.client.txn((&[is_mine], &then, &[]), None).await?.succeeded)
    }

    /// Takes a job that is done elsewhere out of the queue; `false` if it is not this worker's any more.
    pub(crate) async fn acknowledge(&self, job: &Job) -> Result<bool, ClientError> {
        let condition = Some(Condition::Version(vec![job.taken]));
        let options = WriteOptions { condition, ..WriteOptions::default() };
        match self.client.delete_with(self.key("taken", &job.number).as_str(), &options).await {
            Ok(_) => Ok(true),
            Err(ClientError::Api { code, .. }) if code == "version_mismatch" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts the jobs of workers that gave no sign of life back to where they were, and says how many.
    /// Anybody may do it at any time.
    pub(crate) async fn put_back(&self) -> Result<usize, Failure> {
        let (mut cursor, mut count) = (None, 0);
        loop {
            let page = self.client.scan(&self.part("taken"), cursor.as_deref()).await?;
            for job in page.items {
                count += usize::from(self.put_one_back(job).await?);
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(count);
            }
        }
    }

    async fn put_one_back(&self, job: Listed) -> Result<bool, ClientError> {
        let (number, Some(value)) = (number_of(&job.key), job.value) else { return Ok(false) };
        let nobody_works = Compare { key: self.key("lease", &number), holds: Holds::Exists(false) };
        let still_taken = Compare { key: job.key.clone(), holds: Holds::Version(job.version) };
        let then = [
            Op::Write { key: self.key("todo", &number), write: Write::Put { value } },
            Op::Write { key: job.key, write: Write::Delete },
        ];
        let answer = self.client.txn((&[nobody_works, still_taken], &then, &[]), None).await?;
        Ok(answer.succeeded)
    }
}

/// `{mail}todo:00000000000000000007` is number 00000000000000000007.
fn number_of(key: &Key) -> String {
    key.as_str().rsplit(':').next().unwrap_or_default().to_owned()
}

/// A worker that dies, and one that does what it left.
pub(crate) async fn run(client: &Client) -> Result<(), Failure> {
    let lease = Duration::from_millis(200);
    let queue = Queue { client: client.clone(), name: "example".into(), lease };
    // Another name for each job, also in the next run.
    let run: u64 = rand::random();
    for (order, text) in [(1, "pack"), (2, "ship"), (2, "ship")] {
        queue.push(&format!("order-{order}-{run:x}"), Value::text(text)).await?;
    }
    let dying = queue.take("ann").await?.ok_or("no job")?;
    assert_eq!(dying.payload, Value::text("pack"));
    assert!(queue.renew(&dying).await?);

    while queue.put_back().await? == 0 {
        tokio::task::yield_now().await;
    }
    let done = Key::new("{example}done")?;
    let effect = [Op::Write { key: done.clone(), write: Write::Add { by: 1 } }];
    let again = queue.take("bob").await?.ok_or("no job")?;
    assert_eq!(again.number, dying.number, "it is the first once more");
    assert!(!queue.finish(&dying, &effect).await?, "it is not Ann's any more");
    assert!(queue.finish(&again, &effect).await?);

    let second = queue.take("bob").await?.ok_or("no job")?;
    assert!(queue.acknowledge(&second).await? && queue.take("bob").await?.is_none());
    let done = client.get(done.as_str()).await?.ok_or("nothing was done")?;
    assert_eq!(done.value, Value::integer(1));
    client.delete_prefix("{example}").await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::var("SAGE_URL").unwrap_or_else(|_| "http://127.0.0.1:4000".into());
    run(&Client::new([url])?).await
}
