//! `sage txn` and `sage batch`: several operations in one request.

use std::io::{self, Read};

use anyhow::{Context, ensure};
use clap::Args;
use serde::Deserialize;

use crate::cli::Ending;
use crate::cli::output::print_line;
use crate::cli::remote::RemoteArgs;
use crate::types::http::{PATH_BATCH, PATH_TXN};
use crate::types::limits::TXN_BODY_BYTES_MAX;
use crate::types::once::IdempotencyKey;

const TXN_EXAMPLE: &str = "\
Example: take a lock that nobody holds, and move money between two accounts of one group
  sage txn '{\"if\":[{\"key\":\"lock\",\"exists\":false}],\"then\":[{\"op\":\"put\",\"key\":\"lock\",\"value\":\"me\",\"ttl\":\"30s\"}]}'
  sage txn '{\"then\":[{\"op\":\"incr\",\"key\":\"{bank}a\",\"by\":-5},{\"op\":\"incr\",\"key\":\"{bank}b\",\"by\":5}]}'
  sage txn - < transaction.json";

const BATCH_EXAMPLE: &str = "\
Example: two keys of any groups at once
  sage batch '{\"ops\":[{\"op\":\"put\",\"key\":\"a\",\"value\":1},{\"op\":\"get\",\"key\":\"b\"}]}'";

/// Carry out operations if conditions hold, all or none, on keys of one group; exits with 1 if they don't hold
#[derive(Args, Debug)]
#[command(after_help = TXN_EXAMPLE)]
pub(super) struct TxnArgs {
    #[command(flatten)]
    body: BodyArgs,
}

/// Carry out operations on keys of any groups, each by itself
#[derive(Args, Debug)]
#[command(after_help = BATCH_EXAMPLE)]
pub(super) struct BatchArgs {
    #[command(flatten)]
    body: BodyArgs,
}

#[derive(Args, Debug)]
struct BodyArgs {
    /// What to do, as JSON; - reads it from stdin
    json: String,
    /// A name for it: sent again under it within ten minutes, it takes effect once
    #[arg(long, env = "SAGE_IDEMPOTENCY_KEY", value_name = "NAME", value_parser = IdempotencyKey::new)]
    idempotency_key: Option<IdempotencyKey>,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl BodyArgs {
    /// Sends it and prints the answer, which is JSON in either form of output.
    async fn send(self, path: &'static str) -> anyhow::Result<String> {
        let client = self.remote.client()?;
        let json = if self.json == "-" { read()? } else { self.json.into_bytes() };
        let answer = client.several_as_json(path, json, self.idempotency_key.as_ref()).await?;
        print_line(answer.get())?;
        Ok(answer.get().to_owned())
    }
}

fn read() -> anyhow::Result<Vec<u8>> {
    let mut json = Vec::new();
    let most = TXN_BODY_BYTES_MAX as u64;
    io::stdin().lock().take(most + 1).read_to_end(&mut json).context("stdin")?;
    ensure!(json.len() <= TXN_BODY_BYTES_MAX, "stdin is too large: at most {most} bytes");
    Ok(json)
}

impl TxnArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        #[derive(Deserialize)]
        struct Answer {
            succeeded: bool,
        }
        let answer: Answer = serde_json::from_str(&self.body.send(PATH_TXN).await?)?;
        Ok(if answer.succeeded { Ending::Done } else { Ending::Mismatch })
    }
}

impl BatchArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        #[derive(Deserialize)]
        struct Answer {
            results: Vec<Status>,
        }
        #[derive(Deserialize)]
        struct Status {
            status: u16,
        }
        let answer: Answer = serde_json::from_str(&self.body.send(PATH_BATCH).await?)?;
        let failed = answer.results.iter().filter(|result| result.status >= 500).count();
        ensure!(failed == 0, "{failed} operations failed or are of unknown outcome");
        Ok(Ending::Done)
    }
}
