//! What people and scripts see: the only functions that write to stdout and stderr.
//!
//! A reader that goes away (`sage get k | head -1`) is no error.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::Ending;
use crate::client::ClientError;
use crate::types::code::Code;

/// The form of a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    /// For eyes
    Text,
    /// For scripts: the answer of the HTTP API
    Json,
}

/// Writes one line to stdout.
pub(super) fn print_line(text: &str) -> anyhow::Result<()> {
    print_bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to stdout as they are.
pub(super) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    print_while_read(bytes).map(|_| ())
}

/// Writes bytes to stdout as they are; whether anybody still reads them.
pub(super) fn print_while_read(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// Writes one line of JSON to stdout.
pub(super) fn print_json(body: &impl Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string(body)?)
}

/// Whether a write was refused because its condition did not hold.
pub(super) fn is_mismatch(error: &ClientError) -> bool {
    matches!(error, ClientError::Api { code, .. } if code == Code::VersionMismatch.as_str())
}

/// Says that nothing has changed, because the condition of a write did not hold.
pub(super) fn mismatch(error: &ClientError, output: Format) -> anyhow::Result<Ending> {
    match output {
        Format::Json => {
            let version = match error {
                ClientError::Api { version, .. } => *version,
                _ => None,
            };
            let mut body = serde_json::json!({"ok": false, "code": Code::VersionMismatch.as_str()});
            if let Some(version) = version {
                body["version"] = version.into();
            }
            print_json(&body)?;
        }
        Format::Text => complain(&format!("{error}; nothing was changed")),
    }
    Ok(Ending::Mismatch)
}

/// Writes one line about a failure to stderr.
pub(super) fn complain(sentence: &str) {
    let line = sentence.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    // Where there is no stderr, the exit code must do.
    drop(writeln!(io::stderr(), "error: {line}"));
}

/// Shows on stderr how far something is: in one line that is written over, if that is a terminal.
pub(super) fn show_progress(text: &str) {
    let mut stderr = io::stderr().lock();
    // Where there is no stderr, nobody misses it.
    drop(if stderr.is_terminal() {
        write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush())
    } else {
        writeln!(stderr, "{text}")
    });
}

/// Takes away what [`show_progress`] has left on a terminal.
pub(super) fn end_progress() {
    if io::stderr().is_terminal() {
        show_progress("");
    }
}

/// How often [`show_progress`] shall be called: a log needs fewer lines than a terminal.
pub(super) fn progress_interval() -> Duration {
    Duration::from_secs(if io::stderr().is_terminal() { 1 } else { 5 })
}

/// What clap says of a mistake, in one line: the mistake, its hint, and where to read on.
pub(super) fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut paragraphs = text.split("\n\n");
    let mistake = paragraphs.next().unwrap_or_default();
    let mut line = mistake.split_whitespace().collect::<Vec<_>>().join(" ");
    let tip = paragraphs.find(|paragraph| paragraph.trim_start().starts_with("tip: "));
    if let Some(tip) = tip {
        write!(line, "; {}", tip.trim()).expect("a string takes it");
    }
    line.push_str("; see --help");
    line
}

/// Lines up columns by their widest cell, two spaces apart.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:<width$}  ").expect("a string takes it");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes with a unit, to one place: `1.5 KiB`.
pub(super) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit_at = 0;
    let mut unit_bytes = 1;
    while bytes / unit_bytes >= 1024 && unit_at + 1 < UNITS.len() {
        unit_at += 1;
        unit_bytes *= 1024;
    }
    let (whole, tenths) = (bytes / unit_bytes, bytes % unit_bytes * 10 / unit_bytes);
    match unit_at {
        0 => format!("{bytes} B"),
        _ => format!("{whole}.{tenths} {}", UNITS[unit_at]),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    use super::*;

    #[test]
    fn a_mistake_is_told_in_one_line() {
        let line = |flags: &[&str]| {
            let words = ["sage"].iter().chain(flags);
            usage_line(&Cli::try_parse_from(words).expect_err("a mistake"))
        };
        let unknown = line(&["dev", "--prt", "1"]);
        assert_eq!(
            unknown,
            "unexpected argument '--prt' found; tip: a similar argument exists: '--port'; see --help"
        );
        let missing = line(&["coordinator"]);
        assert!(missing.contains("not provided: --shards"), "{missing}");
        for mistake in [unknown, missing, line(&["shard", "--port", "x"]), line(&["put"])] {
            assert!(!mistake.contains('\n'), "{mistake}");
        }
    }

    #[test]
    fn columns_line_up_without_trailing_spaces() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(table(&[row(["A", "B"]), row(["long", ""])]), "A     B\nlong\n");
    }

    #[test]
    fn sizes_are_short() {
        let shown = [0, 1023, 1536, 1 << 20, u64::MAX].map(show_bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.5 KiB", "1.0 MiB", "16777215.9 TiB"]);
    }
}
