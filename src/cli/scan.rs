//! `sage scan`: list keys and values in order.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use clap::builder::BoolishValueParser;

use crate::cli::Ending;
use crate::cli::get::FreshArgs;
use crate::cli::output::{Format, print_while_read};
use crate::cli::remote::RemoteArgs;
use crate::client::ScanOptions;
use crate::types::http::ItemBody;
use crate::types::limits::SCAN_LIMIT_MAX;
use crate::types::scan::Listed;
use crate::types::value::ValueKind;

const EXAMPLE: &str = "\
Example: all of one kind, the ten last keys, and a part of them for a script
  sage scan user:
  sage scan --reverse --limit 10 --keys-only
  sage scan --start user:100 --end user:200 -o json";

/// List keys and values in order, all of them; exits with 1 if there are none
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
#[expect(clippy::struct_excessive_bools, reason = "two independent flags")]
pub(super) struct ScanArgs {
    /// What the keys start with
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// The first key that may be listed
    #[arg(
        long,
        env = "SAGE_START",
        value_name = "KEY",
        default_value = "",
        hide_default_value = true
    )]
    start: String,
    /// The key before which the list ends
    #[arg(
        long,
        env = "SAGE_END",
        value_name = "KEY",
        default_value = "",
        hide_default_value = true
    )]
    end: String,
    /// How many are listed at most; all without it
    #[arg(long, env = "SAGE_LIMIT", value_name = "KEYS")]
    limit: Option<u64>,
    /// From the last key down
    #[arg(long, env = "SAGE_REVERSE", value_parser = BoolishValueParser::new())]
    reverse: bool,
    /// Without the values
    #[arg(long, env = "SAGE_KEYS_ONLY", value_parser = BoolishValueParser::new())]
    keys_only: bool,
    #[command(flatten)]
    fresh: FreshArgs,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl ScanArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let client = self.remote.client()?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut options = ScanOptions {
            prefix: self.prefix,
            start: self.start,
            end: self.end,
            reverse: self.reverse,
            keys_only: self.keys_only,
            consistency: self.fresh.consistency.into(),
            ..ScanOptions::default()
        };
        let (mut ending, mut cursor) = (Ending::NotFound, None);
        while left > 0 {
            options.limit = u32::try_from(left).unwrap_or(u32::MAX).min(SCAN_LIMIT_MAX);
            let page = client.scan(&options, cursor.as_deref()).await?;
            left -= page.items.len() as u64;
            if !page.items.is_empty() {
                ending = Ending::Done;
            }
            let mut lines = Vec::new();
            for item in &page.items {
                write_item(item, self.remote.form.output, &mut lines);
            }
            let is_read = print_while_read(&lines)?;
            cursor = page.cursor;
            if cursor.is_none() || !is_read {
                break;
            }
        }
        Ok(ending)
    }
}

/// One line: the key, and its value behind a tab.
pub(super) fn write_item(item: &Listed, output: Format, lines: &mut Vec<u8>) {
    match (output, &item.value) {
        (Format::Json, _) => ItemBody::render(item, lines),
        (Format::Text, None) => lines.extend_from_slice(item.key.as_bytes()),
        (Format::Text, Some(value)) => {
            lines.extend_from_slice(item.key.as_bytes());
            lines.push(b'\t');
            match value.kind {
                ValueKind::Text | ValueKind::Json => lines.extend_from_slice(&value.data),
                ValueKind::Bytes => {
                    lines.extend_from_slice(BASE64_STANDARD.encode(&value.data).as_bytes());
                }
            }
        }
    }
    lines.push(b'\n');
}
