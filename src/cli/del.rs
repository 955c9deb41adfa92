//! `sage del`: delete a key, or all that start with a prefix.

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::{Format, is_mismatch, mismatch, print_json, print_line};
use crate::cli::remote::RemoteArgs;
use crate::client::WriteOptions;
use crate::types::command::Condition;
use crate::types::http::DeletedBody;
use crate::types::item::Version;
use crate::types::once::IdempotencyKey;

const EXAMPLE: &str = "\
Example: always, and only what was read as version 17
  sage del greeting
  sage del greeting --if-version 17
All keys that start with a prefix:
  sage del --prefix user:";

/// Delete a key, or all that start with a prefix; deleting what is not there is done too
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct DelArgs {
    /// The key
    #[arg(required_unless_present = "prefix")]
    key: Option<String>,
    /// Delete all keys that start with this instead; all there are, if it is empty
    #[arg(long, env = "SAGE_PREFIX", conflicts_with_all = ["key", "if_version", "idempotency_key"])]
    prefix: Option<String>,
    /// Only if the key still has this version; otherwise nothing changes and the exit code is 1
    #[arg(long, env = "SAGE_IF_VERSION", value_name = "VERSION")]
    if_version: Option<Version>,
    /// A name for this deletion: sent again under it within ten minutes, it takes effect once
    #[arg(long, env = "SAGE_IDEMPOTENCY_KEY", value_name = "NAME", value_parser = IdempotencyKey::new)]
    idempotency_key: Option<IdempotencyKey>,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl DelArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let client = self.remote.client()?;
        let Some(key) = &self.key else {
            let prefix = self.prefix.unwrap_or_default();
            let deleted = client.delete_prefix(&prefix).await?;
            match self.remote.form.output {
                Format::Json => print_json(&DeletedBody { ok: true, deleted })?,
                Format::Text => print_line(&format!("ok ({deleted} deleted)"))?,
            }
            return Ok(Ending::Done);
        };
        let condition = self.if_version.map(|version| Condition::Version(vec![version]));
        let idempotency_key = self.idempotency_key;
        let options = WriteOptions { condition, idempotency_key, ttl: None };
        let written = match client.delete_with(key, &options).await {
            Err(error) if is_mismatch(&error) => return mismatch(&error, self.remote.form.output),
            written => written?,
        };
        match self.remote.form.output {
            Format::Json => print_json(&written)?,
            Format::Text if written.existed == Some(false) => print_line("ok (was not there)")?,
            Format::Text => print_line("ok (deleted)")?,
        }
        Ok(Ending::Done)
    }
}
