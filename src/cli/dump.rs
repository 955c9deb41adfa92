//! `sage dump`: what is inside a segment of the log or a snapshot.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use crate::cli::Ending;
use crate::cli::output::{Format, print_json, print_line, show_bytes};
use crate::cli::remote::FormArgs;
use crate::store::disk::Real;
use crate::store::snapshot::{self, Part};
use crate::store::wal::{Piece, Pieces, Record};
use crate::types::command::{Action, Condition, KeyWrite, Write};
use crate::types::key::Key;
use crate::types::limits::WAL_SEGMENT_BYTES_MAX;
use crate::types::log::{Entry, Payload};
use crate::types::once::{Once, WriteId};
use crate::types::value::{Value, ValueKind};

const EXAMPLE: &str = "\
Example: the log and the state of a replica that does not run
  sage dump wal data/wal/00000000000000000001.log
  sage dump snapshot data/snapshot/*.snap -o json | jq .key";

/// Show what is inside a file of a data directory, line by line, also of one that is damaged. Exit
/// 0 whole, 1 damaged, 2 can't be read
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct DumpArgs {
    /// What the file is
    what: What,
    /// The file
    file: PathBuf,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum What {
    /// A segment of the log, `wal/*.log`
    Wal,
    /// A snapshot, `snapshot/*.snap`
    Snapshot,
}

impl DumpArgs {
    pub(super) fn run(self) -> anyhow::Result<Ending> {
        match self.what {
            What::Wal => dump_segment(&self.file, self.form.output),
            What::Snapshot => dump_snapshot(&self.file, self.form.output),
        }
    }
}

fn dump_segment(file: &Path, format: Format) -> anyhow::Result<Ending> {
    let named = || file.display().to_string();
    let bytes = std::fs::metadata(file).with_context(named)?.len();
    anyhow::ensure!(
        bytes <= WAL_SEGMENT_BYTES_MAX,
        "{} has {}; no segment of a log has more than {}",
        file.display(),
        show_bytes(bytes),
        show_bytes(WAL_SEGMENT_BYTES_MAX)
    );
    let bytes = std::fs::read(file).with_context(named)?;
    let mut ending = Ending::Done;
    for piece in Pieces::new(&bytes) {
        if matches!(piece, Piece::Unreadable { .. }) {
            ending = Ending::Damaged;
        }
        match format {
            Format::Json => print_json(&piece)?,
            Format::Text => show_piece(&piece)?,
        }
    }
    Ok(ending)
}

fn show_piece(piece: &Piece) -> anyhow::Result<()> {
    match piece {
        Piece::Header { number, node, identity } => {
            print_line(&format!("segment {number}, written by {node}, identity {identity}"))
        }
        Piece::Batch { offset, bytes, sequence, records } => {
            print_line(&format!("{offset:>9}  batch {sequence}, {bytes} bytes"))?;
            records
                .iter()
                .try_for_each(|record| print_line(&format!("           {}", line(record))))
        }
        Piece::Unreadable { offset, end, why } => {
            print_line(&format!("{offset:>9}  UNREADABLE up to byte {end}: {why}"))
        }
    }
}

fn line(record: &Record) -> String {
    match record {
        Record::Entry(entry) => format!("entry {}  {}", entry.id, payload(entry)),
        Record::Vote(vote) => {
            let state = if vote.committed { "leads" } else { "has this vote" };
            format!("vote  term {}: {} {state}", vote.term, vote.node)
        }
        Record::Committed(None) => "committed  nothing".into(),
        Record::Committed(Some(id)) => format!("committed  {id}"),
        Record::Truncate(None) => "truncate  everything".into(),
        Record::Truncate(Some(id)) => format!("truncate  after {id}"),
        Record::Purge(id) => format!("purge  up to {id}"),
    }
}

fn payload(entry: &Entry) -> String {
    let command = match &entry.payload {
        Payload::Blank => return "blank: a leader begins its term".into(),
        Payload::Membership(membership) => {
            let urls: Vec<&str> = membership.urls.values().map(String::as_str).collect();
            return format!("members {}", urls.join(" "));
        }
        Payload::Command(command) => command,
    };
    let what = match &command.action {
        Action::Found { group, name } => format!("found {group} {name}"),
        Action::Put { key, value } => format!("put {key:?} {}", preview(value)),
        Action::Delete { key } => format!("delete {key:?}"),
        Action::Claim(claim) => format!("claim, epoch {}", claim.topology.epoch),
        Action::Confirm { cluster } => format!("confirm {cluster}"),
        Action::Release { cluster } => format!("release {cluster}"),
        Action::Conditional { key, condition, write } => key_write(key, Some(condition), write),
        Action::OpenSession { session } => format!("open session {session}"),
        Action::Once { once, write: KeyWrite { key, condition, write } } => {
            format!("{}, once: {}", key_write(key, condition.as_ref(), write), name(once))
        }
        Action::Write(KeyWrite { key, condition, write }) => {
            key_write(key, condition.as_ref(), write)
        }
        Action::Expire => "expire".into(),
        Action::Txn { once, txn } => {
            let (reads, writes) = (txn.keys().count() - txn.writes().count(), txn.writes());
            let writes: Vec<_> = writes.map(|(key, write)| key_write(key, None, write)).collect();
            let once = once.as_ref().map(|once| format!(", once: {}", name(once)));
            let once = once.unwrap_or_default();
            format!("txn: {}, and {reads} keys looked at{once}", writes.join("; "))
        }
        Action::DeleteSpan { span, limit, once } => {
            let [from, to] = [Some(&span.from), span.to.as_ref()]
                .map(|end| end.map(|end| String::from_utf8_lossy(end)).unwrap_or_default());
            let once = once.map(|id| format!(", once: {}", name(&Once::Session(id))));
            let once = once.unwrap_or_default();
            format!("delete {limit} keys from {from:?} to {to:?}{once}")
        }
    };
    format!("{what}  at {}", command.ts)
}

fn name(once: &Once) -> String {
    match once {
        Once::Session(WriteId { session, slot, seq }) => {
            format!("session {session}, slot {slot}, write {seq}")
        }
        Once::Key(key) => format!("idempotency key {key}"),
    }
}

fn key_write(key: &Key, condition: Option<&Condition>, write: &Write) -> String {
    let what = match write {
        Write::Put { value } => format!("put {key:?} {}", preview(value)),
        Write::Delete => format!("delete {key:?}"),
        Write::PutFor { value, ttl_ms } => {
            format!("put {key:?} {} for {ttl_ms} ms", preview(value))
        }
        Write::Touch { ttl_ms: Some(ttl_ms) } => format!("touch {key:?} for {ttl_ms} ms"),
        Write::Touch { ttl_ms: None } => format!("touch {key:?} for ever"),
        Write::Add { by } => format!("add {by} to {key:?}"),
    };
    match condition {
        Some(condition) => format!("{what} if {condition:?}"),
        None => what,
    }
}

/// The kind of a value, its length, and how it begins.
fn preview(value: &Value) -> String {
    const SHOWN: usize = 40;
    let kind = match value.kind {
        ValueKind::Text => "text",
        ValueKind::Json => "json",
        ValueKind::Bytes => return format!("bytes, {}", show_bytes(value.data.len() as u64)),
    };
    let text = String::from_utf8_lossy(&value.data);
    let begin: String = text.chars().take(SHOWN).collect();
    let more = if begin.len() < text.len() { "…" } else { "" };
    format!("{kind}, {}: {begin:?}{more}", show_bytes(value.data.len() as u64))
}

fn dump_snapshot(file: &Path, format: Format) -> anyhow::Result<Ending> {
    let mut printed = Ok(());
    let see = |part| {
        if printed.is_ok() {
            printed = show_part(&part, format);
        }
    };
    match snapshot::show(&Real, file, see) {
        Ok(()) => printed.map(|()| Ending::Done),
        Err(error @ snapshot::SnapshotError::Damaged { .. }) => {
            printed?;
            let why = error.to_string();
            match format {
                Format::Json => print_json(&json!({"part": "unreadable", "why": why})),
                Format::Text => print_line(&format!("UNREADABLE from here on: {why}")),
            }?;
            Ok(Ending::Damaged)
        }
        Err(error) => Err(error.into()),
    }
}

fn show_part(part: &Part, format: Format) -> anyhow::Result<()> {
    match (part, format) {
        (Part::Head(head), Format::Json) => {
            print_json(&tagged("head", serde_json::to_value(head)?))
        }
        (Part::Head(head), Format::Text) => {
            let last = head.last.map_or_else(|| "nothing".into(), |last| format!("entry {last}"));
            let name = head.group.as_ref().map_or("no group", |(_, name)| name);
            let (keys, bytes, codec) = (head.keys, show_bytes(head.bytes), head.codec);
            print_line(&format!("{name} up to {last}: {keys} keys, {bytes}, codec {codec}"))
        }
        (Part::Record(key, item), Format::Json) => {
            let mut record = json!({"key": key, "ts": item.ts, "version": item.version});
            let value = serde_json::to_value(&item.value)?;
            record["kind"] = value["kind"].clone();
            record["value"] = value["value"].clone();
            print_json(&tagged("record", record))
        }
        (Part::Record(key, item), Format::Text) => print_line(&format!(
            "{key:?}  version {}, at {}, {}",
            item.version,
            item.ts,
            preview(&item.value)
        )),
        (Part::Remembered(thing), Format::Json) => {
            print_json(&tagged("remembered", serde_json::to_value(thing)?))
        }
        (Part::Remembered(thing), Format::Text) => print_line(&format!("remembered  {thing:?}")),
    }
}

fn tagged(part: &str, mut json: Json) -> Json {
    json["part"] = part.into();
    json
}
