//! `sage count`: how many keys there are.

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::{Format, print_json, print_line};
use crate::cli::remote::RemoteArgs;
use crate::types::http::CountBody;

const EXAMPLE: &str = "\
Example: of one kind, and all
  sage count user:
  sage count -o json";

/// Count the keys that start with a prefix, or all
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct CountArgs {
    /// What they start with
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl CountArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let count = self.remote.client()?.count(&self.prefix).await?;
        match self.remote.form.output {
            Format::Json => print_json(&CountBody { count })?,
            Format::Text => print_line(&count.to_string())?,
        }
        Ok(Ending::Done)
    }
}
