//! `sage touch`: let a value last for another while.

use std::time::Duration;

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::{Format, is_mismatch, mismatch, print_json, print_line};
use crate::cli::remote::RemoteArgs;
use crate::client::{ClientError, WriteOptions};
use crate::types::code::Code;
use crate::types::command::Condition;
use crate::types::item::Version;
use crate::types::units::{UnitError, parse_duration};

const EXAMPLE: &str = "\
Example: another half hour, only as long as it is still mine, and for ever
  sage touch session:7 30m
  sage touch lock:backup 10s --if-version 17
  sage touch session:7 none";

/// Let a value last for another while, from now on; its version stays. Exits with 1 if there is none
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct TouchArgs {
    /// The key
    key: String,
    /// How long, like 30s, 12h or 7d; or none, for ever
    #[arg(value_parser = ttl)]
    ttl: Ttl,
    /// Only if the key still has this version; otherwise nothing changes and the exit code is 1
    #[arg(long, env = "SAGE_IF_VERSION", value_name = "VERSION")]
    if_version: Option<Version>,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// How long a value lasts from now on.
#[derive(Clone, Copy, Debug)]
enum Ttl {
    For(Duration),
    ForEver,
}

fn ttl(text: &str) -> Result<Ttl, UnitError> {
    if text == "none" { Ok(Ttl::ForEver) } else { parse_duration(text).map(Ttl::For) }
}

impl TouchArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let client = self.remote.client()?;
        let condition = self.if_version.map(|version| Condition::Version(vec![version]));
        let options = WriteOptions { condition, ..WriteOptions::default() };
        let ttl = match self.ttl {
            Ttl::For(ttl) => Some(ttl),
            Ttl::ForEver => None,
        };
        let written = match client.touch(&self.key, ttl, &options).await {
            Err(error) if is_mismatch(&error) => return mismatch(&error, self.remote.form.output),
            Err(ClientError::Api { code, .. }) if code == Code::KeyNotFound.as_str() => {
                if self.remote.form.output == Format::Json {
                    print_json(&serde_json::json!({"ok": false, "code": code}))?;
                }
                return Ok(Ending::NotFound);
            }
            written => written?,
        };
        match self.remote.form.output {
            Format::Json => print_json(&written)?,
            Format::Text => match written.expires {
                Some(expires) => print_line(&format!("ok (until {expires} ms)"))?,
                None => print_line("ok (for ever)")?,
            },
        }
        Ok(Ending::Done)
    }
}
