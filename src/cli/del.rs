//! `sage del`: delete a key.

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::{Format, print_json, print_line};
use crate::cli::remote::RemoteArgs;

const EXAMPLE: &str = "\
Example:
  sage del greeting";

/// Delete a key; deleting what is not there is done too
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct DelArgs {
    /// The key
    key: String,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl DelArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let written = self.remote.client()?.delete(&self.key).await?;
        match self.remote.output {
            Format::Json => print_json(&written)?,
            Format::Text if written.existed == Some(false) => print_line("ok (was not there)")?,
            Format::Text => print_line("ok (deleted)")?,
        }
        Ok(Ending::Done)
    }
}
