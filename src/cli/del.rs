//! `sage del`: delete a key.

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::{Format, is_mismatch, mismatch, print_json, print_line};
use crate::cli::remote::RemoteArgs;
use crate::types::command::Condition;
use crate::types::item::Version;

const EXAMPLE: &str = "\
Example: always, and only what was read as version 17
  sage del greeting
  sage del greeting --if-version 17";

/// Delete a key; deleting what is not there is done too
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct DelArgs {
    /// The key
    key: String,
    /// Only if the key still has this version; otherwise nothing changes and the exit code is 1
    #[arg(long, env = "SAGE_IF_VERSION", value_name = "VERSION")]
    if_version: Option<Version>,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl DelArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let client = self.remote.client()?;
        let written = match self.if_version {
            None => client.delete(&self.key).await,
            Some(version) => client.delete_if(&self.key, &Condition::Version(vec![version])).await,
        };
        let written = match written {
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
