//! `sage watch`: print changes of keys as they come.

use clap::Args;
use serde_json::value::RawValue;

use crate::cli::Ending;
use crate::cli::output::{Format, print_while_read};
use crate::cli::remote::RemoteArgs;
use crate::cli::scan::write_item;
use crate::client::{WatchEvent, WatchOptions, Watched};
use crate::types::http::ItemBody;

const EXAMPLE: &str = "\
Example: one key, all of one kind, and everything that changed since a write
  sage watch config
  sage watch --prefix user:
  sage watch config --since shard-1:17 -o json
It goes on until it is interrupted; --since with the last id that was printed goes on where it was.";

/// Print changes of keys as they come, through restarts and failovers of servers
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct WatchArgs {
    /// The key
    #[arg(required_unless_present = "prefix")]
    key: Option<String>,
    /// Watch all keys that start with this instead; all there are, if it is empty
    #[arg(long, env = "SAGE_PREFIX", conflicts_with = "key")]
    prefix: Option<String>,
    /// Begin behind this id of an earlier watch, or position as in `X-Sage-Index`, instead of now
    #[arg(long, env = "SAGE_SINCE", value_name = "ID")]
    since: Option<String>,
    /// End after so many changes
    #[arg(long, env = "SAGE_LIMIT", value_name = "CHANGES")]
    limit: Option<u64>,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl WatchArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let keys = match self.key {
            Some(key) => Watched::Key(key),
            None => Watched::Prefix(self.prefix.unwrap_or_default()),
        };
        let mut left = self.limit.unwrap_or(u64::MAX);
        let client = self.remote.client()?;
        let mut watch = client.watch(WatchOptions { keys, since: self.since }).await?;
        while left > 0 {
            let event = tokio::select! {
                event = watch.next() => event?,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted?;
                    break;
                }
            };
            let mut line = Vec::new();
            write_event(&event, self.remote.form.output, &mut line)?;
            if !print_while_read(&line)? {
                break;
            }
            left -= 1;
        }
        Ok(Ending::Done)
    }
}

/// One line: what happened, the key, and its value, with tabs between them.
fn write_event(event: &WatchEvent, output: Format, line: &mut Vec<u8>) -> anyhow::Result<()> {
    match output {
        Format::Text => {
            line.extend_from_slice(event.kind.name().as_bytes());
            line.push(b'\t');
            write_item(&event.item, output, line);
        }
        Format::Json => {
            let mut item = Vec::new();
            ItemBody::render(&event.item, &mut item);
            let item: &RawValue = serde_json::from_slice(&item)?;
            let body = Body { event: event.kind.name(), id: &event.id, item };
            serde_json::to_writer(&mut *line, &body)?;
            line.push(b'\n');
        }
    }
    Ok(())
}

/// An event for scripts.
#[derive(serde::Serialize)]
struct Body<'a> {
    event: &'a str,
    id: &'a str,
    /// As in `GET /keys`.
    item: &'a RawValue,
}
