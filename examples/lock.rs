//! A lock whose version is a fencing token: the recipe of `docs/recipes/lock.md`.
//!
//! A lock is a value with a time to live that only one can put where none is. Its version rises from
//! holder to holder, so whatever the lock protects can tell a late holder from the present one. Run it
//! against a cluster of `sage dev`: `cargo run --example lock`.

use std::time::Duration;

use sagedb::client::{Client, ClientError, WriteOptions};
use sagedb::types::command::{Condition, Write};
use sagedb::types::item::Version;
use sagedb::types::key::Key;
use sagedb::types::once::IdempotencyKey;
use sagedb::types::txn::{Compare, Holds, Op};
use sagedb::types::value::Value;

/// A lock that was granted. That it still is, nobody can know: hence the token.
#[derive(Debug)]
pub(crate) struct Lock {
    key: Key,
    /// Greater than that of every holder before.
    pub(crate) token: Version,
}

impl Lock {
    /// Takes the lock for `ttl`, or returns `None` if somebody has it. `attempt` names this attempt and
    /// no other: sent again under it, also to another server, it takes the lock once.
    pub(crate) async fn acquire(
        client: &Client,
        key: Key,
        ttl: Duration,
        attempt: IdempotencyKey,
    ) -> Result<Option<Self>, ClientError> {
        let value = Value::text(attempt.as_str());
        let options = WriteOptions {
            condition: Some(Condition::Absent),
            idempotency_key: Some(attempt),
            ttl: Some(ttl),
        };
        match client.put_with(key.as_str(), value, &options).await {
            Ok(written) => Ok(Some(Self { key, token: written.version })),
            Err(error) if is_refused(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Holds it for another `ttl` from now on; `false` if it is lost.
    pub(crate) async fn renew(&self, client: &Client, ttl: Duration) -> Result<bool, ClientError> {
        held(client.touch(self.key.as_str(), Some(ttl), &self.as_holder()).await)
    }

    /// Lets go of it; `false` if it was lost before.
    pub(crate) async fn release(self, client: &Client) -> Result<bool, ClientError> {
        held(client.delete_with(self.key.as_str(), &self.as_holder()).await)
    }

    /// Writes a key with the lock's hash tag, if the lock is still held in that moment; `false` if not,
    /// and then nothing has changed.
    pub(crate) async fn write(
        &self,
        client: &Client,
        key: Key,
        value: Value,
    ) -> Result<bool, ClientError> {
        let held = Compare { key: self.key.clone(), holds: Holds::Version(self.token) };
        let put = Op::Write { key, write: Write::Put { value } };
        Ok(client.txn((&[held], &[put], &[]), None).await?.succeeded)
    }

    fn as_holder(&self) -> WriteOptions {
        let condition = Some(Condition::Version(vec![self.token]));
        WriteOptions { condition, ..WriteOptions::default() }
    }
}

/// Whether a write under the condition that the lock is held has happened.
fn held<T>(written: Result<T, ClientError>) -> Result<bool, ClientError> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_refused(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_refused(error: &ClientError) -> bool {
    matches!(error, ClientError::Api { code, .. } if code == "version_mismatch")
}

/// Something outside of the cluster that the lock protects: a file store, a printer, another database.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    greatest: Version,
    pub(crate) text: String,
}

impl Archive {
    /// Takes what the holder of the greatest token sends, and refuses all who come later with a smaller
    /// one. Check and change must be one step, here by `&mut`.
    pub(crate) fn write(&mut self, token: Version, text: &str) -> bool {
        if token < self.greatest {
            return false;
        }
        self.greatest = token;
        text.clone_into(&mut self.text);
        true
    }
}

/// One holder after the other, and the first once more.
pub(crate) async fn run(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    let lock = || Key::new("{example}lock");
    let (report, ttl) = (Key::new("{example}report")?, Duration::from_secs(30));
    let mut archive = Archive::default();

    // Another name for each attempt, also in the next run.
    let run: u64 = rand::random();
    let attempt = |name: &str| IdempotencyKey::new(&format!("{name}-{run:x}"));
    let first =
        Lock::acquire(client, lock()?, ttl, attempt("ann-1")?).await?.ok_or("it is held")?;
    let refused = Lock::acquire(client, lock()?, ttl, attempt("bob-1")?).await?;
    assert!(refused.is_none(), "somebody has it");
    assert!(first.renew(client, ttl).await?);
    assert!(first.write(client, report.clone(), Value::text("by Ann")).await?);
    assert!(archive.write(first.token, "by Ann"));

    // As if it had ended while Ann was away for too long.
    client.delete(first.key.as_str()).await?;
    let second = Lock::acquire(client, lock()?, ttl, attempt("bob-2")?).await?.ok_or("held")?;
    assert!(second.token > first.token);
    assert!(second.write(client, report.clone(), Value::text("by Bob")).await?);
    assert!(archive.write(second.token, "by Bob"));

    // Ann does not know yet.
    assert!(!first.write(client, report.clone(), Value::text("late")).await?);
    assert!(!archive.write(first.token, "late"));
    assert!(!first.renew(client, ttl).await? && !first.release(client).await?);

    let written = client.get(report.as_str()).await?.ok_or("no report")?;
    assert_eq!((written.value, archive.text.as_str()), (Value::text("by Bob"), "by Bob"));
    assert!(second.release(client).await?);
    client.delete(report.as_str()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("SAGE_URL").unwrap_or_else(|_| "http://127.0.0.1:4000".into());
    run(&Client::new([url])?).await
}
