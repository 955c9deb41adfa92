//! A counter that counts each event once: the recipe of `docs/recipes/counter.md`.
//!
//! An increment has the name of what it counts, so it can be sent again when its answer is lost. Run it
//! against a cluster of `sage dev`: `cargo run --example counter`.

use sagedb::client::{Client, ClientError, WriteOptions};
use sagedb::types::error::WriteOutcome;
use sagedb::types::once::IdempotencyKey;

/// Attempts before it is left to the caller to try again, under the same name.
const ATTEMPTS_MAX: usize = 5;

/// Counts an event once, however often this must be tried, and says what the counter came to with it.
pub(crate) async fn count(
    client: &Client,
    counter: &str,
    event: IdempotencyKey,
) -> Result<i64, ClientError> {
    let once = WriteOptions { idempotency_key: Some(event), ..WriteOptions::default() };
    let mut answer = client.incr(counter, 1, &once).await;
    for _ in 1..ATTEMPTS_MAX {
        match &answer {
            // It may have counted or not: under the same name it counts once.
            Err(error) if error.outcome() == WriteOutcome::Unknown => {
                answer = client.incr(counter, 1, &once).await;
            }
            Ok(_) | Err(_) => break,
        }
    }
    Ok(answer?.value.unwrap_or_default())
}

/// Three events, one of which is reported twice.
pub(crate) async fn run(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    // Another name for each event, also in the next run.
    let run: u64 = rand::random();
    for (view, expected) in [(1, 1), (2, 2), (1, 1), (3, 3)] {
        let event = IdempotencyKey::new(&format!("view-{view}-{run:x}"))?;
        assert_eq!(count(client, "example-visits", event).await?, expected, "view {view}");
    }
    let visits = client.get("example-visits").await?.ok_or("no counter")?;
    assert_eq!(visits.value.as_integer(), Some(3));
    client.delete("example-visits").await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("SAGE_URL").unwrap_or_else(|_| "http://127.0.0.1:4000".into());
    run(&Client::new([url])?).await
}
