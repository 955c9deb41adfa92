//! `sage incr`: add to a counter.

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::{Format, is_mismatch, mismatch, print_json, print_line};
use crate::cli::remote::RemoteArgs;
use crate::client::WriteOptions;
use crate::types::command::Condition;
use crate::types::item::Version;
use crate::types::once::IdempotencyKey;

const EXAMPLE: &str = "\
Example: one more, ten less, and once however often it is sent
  sage incr visits
  sage incr stock:7 -10
  sage incr visits --idempotency-key 8e03978e";

/// Add to the integer under a key, and print what it comes to; a key without a value counts as 0
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct IncrArgs {
    /// The key
    key: String,
    /// How much
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    by: i64,
    /// Only if the key still has this version; otherwise nothing changes and the exit code is 1
    #[arg(long, env = "SAGE_IF_VERSION", value_name = "VERSION")]
    if_version: Option<Version>,
    /// A name for this change: sent again under it within ten minutes, it takes effect once
    #[arg(long, env = "SAGE_IDEMPOTENCY_KEY", value_name = "NAME", value_parser = IdempotencyKey::new)]
    idempotency_key: Option<IdempotencyKey>,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl IncrArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let client = self.remote.client()?;
        let condition = self.if_version.map(|version| Condition::Version(vec![version]));
        let options = WriteOptions { condition, idempotency_key: self.idempotency_key, ttl: None };
        let written = match client.incr(&self.key, self.by, &options).await {
            Err(error) if is_mismatch(&error) => return mismatch(&error, self.remote.form.output),
            written => written?,
        };
        match (self.remote.form.output, written.value) {
            (Format::Text, Some(value)) => print_line(&value.to_string())?,
            (Format::Json, _) | (Format::Text, None) => print_json(&written)?,
        }
        Ok(Ending::Done)
    }
}
