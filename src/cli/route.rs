//! `sage route`: where a key lives.

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::{Format, print_bytes, print_json, table};
use crate::cli::remote::RemoteArgs;

const EXAMPLE: &str = "\
Example: two keys with one tag share a group
  sage route '{user1}:cart'
  sage route '{user1}:name' -o json";

/// Show which group owns a key, and who leads it; asks a coordinator
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct RouteArgs {
    /// The key; it need not exist
    key: String,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl RouteArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let route = self.remote.client()?.route(&self.key).await?;
        if self.remote.form.output == Format::Json {
            print_json(&route)?;
            return Ok(Ending::Done);
        }
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let rows = [
            row("shard", route.shard),
            row("url", route.url),
            row("replicas", route.replicas.join(" ")),
            row("hash", route.hash),
            row("epoch", route.epoch.to_string()),
        ];
        print_bytes(table(&rows).as_bytes())?;
        Ok(Ending::Done)
    }
}
