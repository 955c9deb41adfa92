//! Sessions of users that end when nobody comes back: the recipe of `docs/recipes/session.md`.
//!
//! A session is a JSON value with a time to live that each visit renews and that a logout deletes. Run it
//! against a cluster of `sage dev`: `cargo run --example session`.

use std::time::Duration;

use sagedb::client::{Client, ClientError, ReadOptions, WriteOptions};
use sagedb::types::command::Condition;
use sagedb::types::item::Item;
use sagedb::types::kv::Consistency;
use sagedb::types::value::{Value, ValueKind};

/// How long a session lasts after the last visit.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);

/// Begins a session under a name that nobody can guess.
pub(crate) async fn log_in(client: &Client, key: &str, session: Value) -> Result<(), ClientError> {
    let condition = Some(Condition::Absent);
    let options = WriteOptions { condition, ttl: Some(IDLE_MAX), ..WriteOptions::default() };
    client.put_with(key, session, &options).await.map(|_| ())
}

/// The session of a visitor, which lasts on; `None` if there is none, and then a touch makes none.
pub(crate) async fn visit(client: &Client, key: &str) -> Result<Option<Item>, ClientError> {
    match client.touch(key, Some(IDLE_MAX), &WriteOptions::default()).await {
        Ok(_) => {}
        Err(ClientError::Api { code, .. }) if code == "key_not_found" => return Ok(None),
        Err(error) => return Err(error),
    }
    // Any replica that has come as far as the touch: a client with a session sees to it.
    let stale = ReadOptions { consistency: Consistency::Stale, ..ReadOptions::default() };
    client.get_with(key, &stale).await
}

/// Changes what was read; `false` if it has changed since, or the user has logged out.
pub(crate) async fn change(
    client: &Client,
    key: &str,
    read: &Item,
    session: Value,
) -> Result<bool, ClientError> {
    let condition = Some(Condition::Version(vec![read.version]));
    // A put begins anew: without a ttl the session would last for ever.
    let options = WriteOptions { condition, ttl: Some(IDLE_MAX), ..WriteOptions::default() };
    match client.put_with(key, session, &options).await {
        Ok(_) => Ok(true),
        Err(ClientError::Api { code, .. }) if code == "version_mismatch" => Ok(false),
        Err(error) => Err(error),
    }
}

/// A visit from login to logout.
pub(crate) async fn run(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    let client = client.clone().with_session();
    let json = |text: &'static str| Value::new(ValueKind::Json, text.into());
    let key = "example-session:ann:5f2c9a";
    log_in(&client, key, json(r#"{"user":"ann","cart":[]}"#)?).await?;
    let read = visit(&client, key).await?.ok_or("no session")?;
    assert!(read.expires.at().is_some());
    assert!(change(&client, key, &read, json(r#"{"user":"ann","cart":["tea"]}"#)?).await?);
    let now = visit(&client, key).await?.ok_or("no session")?;
    assert_eq!(now.value, json(r#"{"user":"ann","cart":["tea"]}"#)?);

    client.delete(key).await?;
    assert_eq!(visit(&client, key).await?, None, "no visit brings it back");
    assert!(!change(&client, key, &now, json("{}")?).await?, "nor does a change");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("SAGE_URL").unwrap_or_else(|_| "http://127.0.0.1:4000".into());
    run(&Client::new([url])?).await
}
