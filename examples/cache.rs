//! A cache in front of something slow: the recipe of `docs/recipes/cache.md`.
//!
//! Whoever misses asks for the right to fill, which one gets at a time and which an invalidation takes
//! away, so what was read before the invalidation never gets in after it. Run it against a cluster of
//! `sage dev`: `cargo run --example cache`.

use std::time::Duration;

use sagedb::client::{Client, ClientError, ReadOptions, WriteOptions};
use sagedb::types::command::{Condition, Write};
use sagedb::types::item::Version;
use sagedb::types::key::{Key, KeyError};
use sagedb::types::kv::Consistency;
use sagedb::types::txn::{Compare, Holds, Op};
use sagedb::types::value::Value;

/// How long a cached value lasts, in milliseconds.
const VALUE_TTL_MS: u64 = 60_000;
/// How long a filler may take, until another may try.
const FILL_TTL: Duration = Duration::from_secs(5);

/// The keys of one cached value, of one group.
#[derive(Debug)]
pub(crate) struct Cached {
    value: Key,
    fill: Key,
}

impl Cached {
    pub(crate) fn new(name: &str) -> Result<Self, KeyError> {
        let key = |kind: &str| Key::new(format!("{{{name}}}{kind}"));
        Ok(Self { value: key("value")?, fill: key("fill")? })
    }

    /// What is cached, from any replica: it may be old by a moment.
    pub(crate) async fn get(&self, client: &Client) -> Result<Option<Value>, ClientError> {
        let stale = ReadOptions { consistency: Consistency::Stale, ..ReadOptions::default() };
        Ok(client.get_with(self.value.as_str(), &stale).await?.map(|item| item.value))
    }

    /// The right to fill it, for one at a time. Ask before the source is read.
    pub(crate) async fn may_fill(&self, client: &Client) -> Result<Option<Version>, ClientError> {
        let condition = Some(Condition::Absent);
        let options = WriteOptions { condition, ttl: Some(FILL_TTL), ..WriteOptions::default() };
        match client.put_with(self.fill.as_str(), Value::text(""), &options).await {
            Ok(written) => Ok(Some(written.version)),
            Err(ClientError::Api { code, .. }) if code == "version_mismatch" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fills it, unless it was invalidated since the right was given.
    pub(crate) async fn fill(
        &self,
        client: &Client,
        right: Version,
        value: Value,
    ) -> Result<bool, ClientError> {
        let still = Compare { key: self.fill.clone(), holds: Holds::Version(right) };
        let put = Write::PutFor { value, ttl_ms: VALUE_TTL_MS };
        let then = [
            Op::Write { key: self.value.clone(), write: put },
            Op::Write { key: self.fill.clone(), write: Write::Delete },
        ];
        Ok(client.txn((&[still], &then, &[]), None).await?.succeeded)
    }

    /// After the source has changed: takes away the value, and the right of whoever read the old one.
    pub(crate) async fn invalidate(&self, client: &Client) -> Result<(), ClientError> {
        let keys = [self.value.clone(), self.fill.clone()];
        let then = keys.map(|key| Op::Write { key, write: Write::Delete });
        client.txn((&[], &then, &[]), None).await.map(|_| ())
    }
}

/// A miss, a fill, and a fill that comes too late.
pub(crate) async fn run(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    let client = client.clone().with_session();
    let cached = Cached::new("example-page")?;
    assert_eq!(cached.get(&client).await?, None);
    let right = cached.may_fill(&client).await?.ok_or("somebody fills it")?;
    assert_eq!(cached.may_fill(&client).await?, None, "one at a time");
    assert!(cached.fill(&client, right, Value::text("first edition")).await?);
    // The session sees what it wrote, from any replica.
    assert_eq!(cached.get(&client).await?, Some(Value::text("first edition")));

    cached.invalidate(&client).await?;
    let late = cached.may_fill(&client).await?.ok_or("somebody fills it")?;
    cached.invalidate(&client).await?;
    assert!(!cached.fill(&client, late, Value::text("first edition")).await?);
    assert_eq!(cached.get(&client).await?, None);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("SAGE_URL").unwrap_or_else(|_| "http://127.0.0.1:4000".into());
    run(&Client::new([url])?).await
}
