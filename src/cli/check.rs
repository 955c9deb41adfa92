//! `sage check`: verifies a data directory offline.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::{Format, print_bytes, print_json, show_bytes, table};
use crate::cli::remote::FormArgs;
use crate::store::check::{Report, check};
use crate::types::ids::LogId;

const EXAMPLE: &str = "\
Example: before a copy is trusted, or after a disk was in doubt
  sage check ./data
  sage check ./data -o json";

/// Verify the data directory of a replica that does not run: reads and checks every byte of log and
/// snapshots, changes nothing. Exit 0 whole, 1 damaged, 2 could not be checked
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct CheckArgs {
    /// The data directory
    dir: PathBuf,
    #[command(flatten)]
    form: FormArgs,
}

impl CheckArgs {
    pub(super) fn run(self) -> anyhow::Result<Ending> {
        let report = check(&self.dir)?;
        match self.form.output {
            Format::Json => print_json(&report)?,
            Format::Text => print_bytes(show(&report).as_bytes())?,
        }
        Ok(if report.ok { Ending::Done } else { Ending::Damaged })
    }
}

fn show(report: &Report) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("node", or_dash(report.node));
    let name = report.name.as_deref().unwrap_or("-");
    row("group", format!("{name} {}", or_dash(report.group)).trim_end_matches(" -").into());
    row("members", or_dash((!report.members.is_empty()).then(|| report.members.join(" "))));
    let log = &report.log;
    row("log", format!("{} segments, {}", log.segments, show_bytes(log.bytes)));
    let last = log.last.map(|last| last.index);
    row(
        "entries",
        match (log.first, last) {
            (Some(first), Some(last)) => format!("{first} to {last}"),
            (_, _) => "none".into(),
        },
    );
    row("purged", show_id(log.purged));
    row("committed", show_id(log.committed));
    let vote = log.vote.map(|vote| format!("term {}, {}", vote.term, vote.node));
    row("vote", or_dash(vote));
    for snapshot in &report.snapshots {
        let (keys, bytes) = (snapshot.keys, show_bytes(snapshot.bytes));
        let state = if snapshot.ok {
            format!("up to {}, {keys} keys, {bytes}", show_id(snapshot.last))
        } else {
            format!("{} is damaged", snapshot.file.display())
        };
        row("snapshot", state);
    }
    let mut lines = vec![table(&rows).trim_end().to_owned()];
    lines.extend(report.notes.iter().map(|note| format!("note     {note}")));
    lines.extend(report.problems.iter().map(|problem| format!("problem  {problem}")));
    lines.push(if report.ok {
        "ok: every byte of log and snapshots is as it was written\n".into()
    } else {
        format!("damaged: {}\n", report.cure())
    });
    lines.join("\n")
}

fn show_id(id: Option<LogId>) -> String {
    id.map_or_else(|| "-".into(), |id| format!("entry {} of term {}", id.index, id.term))
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}
