//! `sage put`: store a value.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use clap::builder::BoolishValueParser;

use crate::cli::Ending;
use crate::cli::output::{Format, is_mismatch, mismatch, print_json, print_line};
use crate::cli::remote::RemoteArgs;
use crate::client::WriteOptions;
use crate::types::command::Condition;
use crate::types::item::Version;
use crate::types::limits::VALUE_BYTES_MAX;
use crate::types::once::IdempotencyKey;
use crate::types::units::parse_duration;
use crate::types::value::{Value, ValueError, ValueKind};

const EXAMPLE: &str = "\
Example: text, JSON, a file as it is, and only what nobody else has written meanwhile
  sage put greeting hello
  sage put user:1 --json '{\"name\":\"Ada\"}'
  sage put logo --bytes --file logo.png
  date | sage put today -
  sage put greeting hi --if-version 17
  sage put session:7 open --ttl 30m
  sage put order:7 paid --idempotency-key 8e03978e";

/// Store a value: text, or what --json or --bytes says
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
#[expect(clippy::struct_excessive_bools, reason = "flags that exclude each other")]
pub(super) struct PutArgs {
    /// The key
    key: String,
    /// The value; - reads it from stdin
    #[arg(
        required_unless_present = "file",
        conflicts_with = "file",
        allow_negative_numbers = true
    )]
    value: Option<String>,
    /// Read the value from a file; - is stdin
    #[arg(long, env = "SAGE_FILE", value_name = "PATH")]
    file: Option<PathBuf>,
    /// Store it as JSON
    #[arg(long, env = "SAGE_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
    /// Store it as bytes of any content
    #[arg(long, env = "SAGE_BYTES", value_parser = BoolishValueParser::new())]
    bytes: bool,
    /// Only if the key still has this version; otherwise nothing changes and the exit code is 1
    #[arg(long, env = "SAGE_IF_VERSION", value_name = "VERSION", conflicts_with = "if_absent")]
    if_version: Option<Version>,
    /// Only if the key has no value; otherwise nothing changes and the exit code is 1
    #[arg(long, env = "SAGE_IF_ABSENT", value_parser = BoolishValueParser::new())]
    if_absent: bool,
    /// A name for this write: sent again under it within ten minutes, it takes effect once
    #[arg(long, env = "SAGE_IDEMPOTENCY_KEY", value_name = "NAME", value_parser = IdempotencyKey::new)]
    idempotency_key: Option<IdempotencyKey>,
    /// How long it lasts, like 30s, 12h or 7d; for ever if not given
    #[arg(long, env = "SAGE_TTL", value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl PutArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let client = self.remote.client()?;
        let value = self.value()?;
        let condition = match (self.if_version, self.if_absent) {
            (Some(version), _) => Some(Condition::Version(vec![version])),
            (None, true) => Some(Condition::Absent),
            (None, false) => None,
        };
        let idempotency_key = self.idempotency_key.clone();
        let options = WriteOptions { condition, idempotency_key, ttl: self.ttl };
        let written = match client.put_with(&self.key, value, &options).await {
            Err(error) if is_mismatch(&error) => return mismatch(&error, self.remote.form.output),
            written => written?,
        };
        match self.remote.form.output {
            Format::Json => print_json(&written)?,
            Format::Text => print_line(&format!("ok (version {})", written.version))?,
        }
        Ok(Ending::Done)
    }

    fn value(&self) -> anyhow::Result<Value> {
        ensure!(!(self.json && self.bytes), "--json and --bytes exclude each other");
        let data = match (&self.value, &self.file) {
            (Some(text), _) if text != "-" => text.clone().into_bytes(),
            (_, Some(path)) if path != Path::new("-") => {
                let place = path.display().to_string();
                read(File::open(path).with_context(|| place.clone())?, &place)?
            }
            _ => read(io::stdin().lock(), "stdin")?,
        };
        let kind = match (self.json, self.bytes) {
            (true, _) => ValueKind::Json,
            (false, true) => ValueKind::Bytes,
            (false, false) => ValueKind::Text,
        };
        Value::new(kind, data.into()).map_err(|error| match error {
            ValueError::NotUtf8 => anyhow::anyhow!("{error}; store it with --bytes"),
            ValueError::NotJson(_) => error.into(),
        })
    }
}

/// Reads to the end, but not beyond the largest value there can be.
fn read(source: impl Read, place: &str) -> anyhow::Result<Vec<u8>> {
    let mut data = Vec::new();
    let most = VALUE_BYTES_MAX as u64;
    source.take(most + 1).read_to_end(&mut data).with_context(|| place.to_owned())?;
    ensure!(data.len() <= VALUE_BYTES_MAX, "{place} is too large: at most {most} bytes");
    Ok(data)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    use super::*;

    fn value(flags: &[&str]) -> Result<Value, String> {
        let words = ["sage", "put", "k"].iter().chain(flags);
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Put(args) = cli.command else { panic!("not a put") };
        args.value().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_value_is_text_unless_a_flag_says_otherwise() {
        assert_eq!(value(&["hello"]), Ok(Value::text("hello")));
        assert_eq!(value(&["-5"]), Ok(Value::text("-5")));
        assert_eq!(value(&["--", "--json"]), Ok(Value::text("--json")));
        assert_eq!(value(&["{}", "--json"]).expect("JSON").kind, ValueKind::Json);
        assert_eq!(value(&["{}", "--bytes"]), Ok(Value::bytes(&b"{}"[..])));
    }

    #[test]
    fn a_file_is_read_as_it_is() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"\xff\n").expect("written");
        let path = file.path().to_str().expect("a path");
        assert_eq!(value(&["--bytes", "--file", path]), Ok(Value::bytes(&b"\xff\n"[..])));
        let text = value(&["--file", path]).expect_err("not text");
        assert_eq!(text, "value is not valid UTF-8; store it with --bytes");
    }

    #[test]
    fn what_makes_no_value_is_refused() {
        for flags in [&[][..], &["a", "--file", "b"], &["a", "--json", "--bytes"], &["{", "--json"]]
        {
            assert!(value(flags).is_err(), "{flags:?}");
        }
        let missing = value(&["--file", "/nonexistent/file"]).expect_err("no such file");
        assert!(missing.starts_with("/nonexistent/file: "), "{missing}");
    }
}
