//! `history.jsonl`: a whole run on disk, one JSON object a line.
//!
//! The first line is `{"setup":{…}}`, and the last one `{"evidence":{…}}`: what was seen beside the
//! others. It is missing if the run was broken off. Every line between is an event, or a fault, which
//! says `"process":"nemesis"`. Lines are in the order of time as far as their own order allows: events
//! among each other, and faults among each other, come back in the order in which they were.
//! Whatever was read from disk is taken for damaged until it is understood; errors name the line.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::history::Event;
use crate::judge::Evidence;
use crate::nemesis::Fault;
use crate::results::Setup;

/// The longest line, with its end; a list or a foreign value can be long.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head<S> {
    setup: S,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail<E> {
    evidence: E,
}

/// A run as it is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// How it was started.
    pub(crate) setup: Setup,
    /// What clients did.
    pub(crate) events: Vec<Event>,
    /// What was broken.
    pub(crate) faults: Vec<Fault>,
    /// What was seen beside that, if the run came to its end.
    pub(crate) evidence: Option<Evidence>,
}

/// The line of a fault.
#[derive(Serialize, Deserialize)]
struct FaultLine<F> {
    process: Nemesis,
    #[serde(flatten)]
    fault: F,
}

#[derive(Serialize, Deserialize)]
enum Nemesis {
    #[serde(rename = "nemesis")]
    Nemesis,
}

/// Whether a line is one of a fault, right or wrong.
#[derive(Deserialize)]
struct Who {
    #[serde(rename = "process")]
    _process: Nemesis,
}

/// Writes a run to a file, in place of what was there.
///
/// # Errors
///
/// When the file can't be written, or a line would be longer than [`load`] takes.
pub(crate) fn save(path: &Path, stored: &Stored) -> Result<()> {
    let Stored { setup, events, faults, evidence } = stored;
    let file = File::create(path).context("the history can't be written")?;
    let mut out = BufWriter::new(file);
    put(&mut out, &Head { setup })?;
    let mut faults = faults.iter().peekable();
    for event in events {
        while let Some(fault) = faults.next_if(|fault| fault.begin <= event.time) {
            put(&mut out, &FaultLine { process: Nemesis::Nemesis, fault })?;
        }
        put(&mut out, event)?;
    }
    for fault in faults {
        put(&mut out, &FaultLine { process: Nemesis::Nemesis, fault })?;
    }
    if let Some(evidence) = evidence {
        put(&mut out, &Tail { evidence })?;
    }
    out.flush().context("the history can't be written")
}

fn put(out: &mut impl Write, line: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    let length = bytes.len() as u64;
    ensure!(length <= LINE_BYTES_MAX, "a line of the history has {length} bytes: too many");
    out.write_all(&bytes).context("the history can't be written")
}

/// Reads a run that [`save`] wrote.
///
/// # Errors
///
/// When the file can't be read, or is not such a history; the error names the first bad line.
pub(crate) fn load(path: &Path) -> Result<Stored> {
    let named = || format!("the history {} can't be read", path.display());
    let file = File::open(path).with_context(named)?;
    read(BufReader::new(file)).with_context(named)
}

fn read(mut lines: impl BufRead) -> Result<Stored> {
    let mut line = Vec::new();
    let mut number = 1_u64;
    ensure!(next(&mut lines, &mut line).context("line 1")?, "line 1: there is none");
    let head: Head<Setup> = serde_json::from_slice(&line).context("line 1: not a setup")?;
    let mut stored =
        Stored { setup: head.setup, events: Vec::new(), faults: Vec::new(), evidence: None };
    loop {
        number += 1;
        if !next(&mut lines, &mut line).with_context(|| format!("line {number}"))? {
            return Ok(stored);
        }
        ensure!(stored.evidence.is_none(), "line {number}: there is one after the last");
        match parse(&line).with_context(|| format!("line {number}"))? {
            Line::Event(event) => stored.events.push(event),
            Line::Fault(fault) => stored.faults.push(fault),
            Line::Evidence(evidence) => stored.evidence = Some(evidence),
        }
    }
}

enum Line {
    Event(Event),
    Fault(Fault),
    Evidence(Evidence),
}

fn parse(line: &[u8]) -> Result<Line> {
    // Almost every line is an event, so that is tried first, and its error is the one to tell.
    let error = match serde_json::from_slice(line) {
        Ok(event) => return Ok(Line::Event(event)),
        Err(error) => error,
    };
    if let Ok(tail) = serde_json::from_slice::<Tail<Evidence>>(line) {
        return Ok(Line::Evidence(tail.evidence));
    }
    if serde_json::from_slice::<Who>(line).is_err() {
        return Err(error).context("not an event");
    }
    let line: FaultLine<Fault> = serde_json::from_slice(line).context("not a fault")?;
    Ok(Line::Fault(line.fault))
}

/// Reads the next line without its end; false if there is none.
fn next(lines: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)?;
    if line.is_empty() {
        return Ok(false);
    }
    if line.pop() != Some(b'\n') {
        bail!("no end within {LINE_BYTES_MAX} bytes: cut off, or not a history");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{Account, Action, Half, Put, Stage, Told, Value};
    use crate::nemesis::{FaultKind, Hold};
    use crate::page::synthetic;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![".{0,12}", Just("nemesis".to_string()), Just("a\n\"b\"\\\u{2028}\0".into())]
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::None),
            any::<u64>().prop_map(Value::Number),
            any::<(u64, u64)>().prop_map(|(from, to)| Value::Cas { from, to }),
            proptest::collection::vec(any::<u64>(), 0..5).prop_map(Value::List),
            (any::<u64>(), proptest::collection::vec(put(), 0..3))
                .prop_map(|(id, puts)| Value::Transfer { id, puts }),
            proptest::collection::vec(account(), 0..3)
                .prop_map(|accounts| Value::Bank { accounts }),
            proptest::collection::vec(half(), 0..3).prop_map(|both| Value::Both { both }),
            proptest::collection::vec(told(), 0..3).prop_map(|told| Value::Told { told }),
            text().prop_map(|foreign| Value::Foreign { foreign }),
        ]
    }

    fn half() -> impl Strategy<Value = Half> {
        let fields = (text(), any::<(u64, Option<u64>)>());
        fields.prop_map(|(key, (number, version))| Half { key: key.into(), number, version })
    }

    fn told() -> impl Strategy<Value = Told> {
        let value = prop_oneof![
            any::<u64>().prop_map(Value::Number),
            text().prop_map(|foreign| Value::Foreign { foreign })
        ];
        let fields = (text(), text(), value, any::<u64>(), text());
        fields.prop_map(|(key, kind, value, version, id)| Told {
            key: key.into(),
            kind: kind.into(),
            value,
            version,
            id: id.into(),
        })
    }

    fn put() -> impl Strategy<Value = Put> {
        let fields = any::<(usize, u64, i64, Option<u64>)>();
        fields.prop_map(|(account, after, balance, version)| Put {
            account,
            after,
            balance,
            version,
        })
    }

    fn account() -> impl Strategy<Value = Account> {
        let fields = any::<(i64, u64, u64)>();
        fields.prop_map(|(balance, by, version)| Account { balance, by, version })
    }

    fn event() -> impl Strategy<Value = Event> {
        use proptest::option::of;
        let stage =
            proptest::sample::select(vec![Stage::Invoke, Stage::Ok, Stage::Fail, Stage::Info]);
        let action = proptest::sample::select(vec![
            Action::Write,
            Action::Delete,
            Action::Cas,
            Action::Append,
            Action::Transfer,
            Action::WriteBoth,
            Action::Watch,
            Action::Read,
            Action::LeaseRead,
            Action::StaleRead,
            Action::FinalRead,
        ]);
        let numbers = (any::<u64>(), any::<u32>(), of(any::<u64>()), of(any::<u64>()));
        let texts = (text(), text(), of(text()), of(any::<bool>()), of(text()));
        (numbers, stage, action, value(), texts).prop_map(|(numbers, stage, f, value, texts)| {
            let (time, process, version, lag_ms) = numbers;
            let (key, node, error, existed, group) = texts;
            let (key, node, group) = (key.into(), node.into(), group.map(Into::into));
            let event = Event { time, process, stage, ..synthetic::event(0, 0, stage, f, value) };
            Event { key, node, version, existed, group, lag_ms, error, ..event }
        })
    }

    fn fault() -> impl Strategy<Value = Fault> {
        use clap::ValueEnum;
        let kind = proptest::sample::select(FaultKind::value_variants());
        let hold =
            proptest::sample::select(vec![Hold::Installed, Hold::Skipped, Hold::Indeterminate]);
        let times = (any::<u64>(), any::<u64>(), proptest::option::of(any::<u64>()));
        let names = || proptest::collection::vec(text(), 0..3);
        let names = (names(), proptest::option::of(names()));
        (kind, text(), times, names, hold).prop_map(|(kind, what, times, names, hold)| {
            let (begin, end, failover_ms) = times;
            let (groups, away) = names;
            let leader = failover_ms.is_some();
            Fault { kind, what, begin, end, groups, away, hold, leader, failover_ms }
        })
    }

    proptest! {
        #[test]
        fn what_was_saved_is_loaded(
            events in proptest::collection::vec(event(), 0..20),
            faults in proptest::collection::vec(fault(), 0..5),
            workload in text(),
            seen in proptest::option::of(text()),
        ) {
            let setup = Setup { workload, ..synthetic::setup() };
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("history.jsonl");
            let evidence = seen.as_deref().map(evidence);
            let stored = Stored { setup, events, faults, evidence };
            save(&path, &stored).unwrap();
            prop_assert_eq!(load(&path).unwrap(), stored);
        }

        #[test]
        fn damage_is_an_error_and_no_panic(
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = small();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Err(error) = read(&bytes[..]) {
                let error = format!("{error:#}");
                prop_assert!(error.starts_with("line "), "{}", error);
            }
        }
    }

    fn evidence(key: &str) -> Evidence {
        let anomalies = vec![synthetic::anomaly(key, vec![1])];
        Evidence { attacked: 7, recovered_ms: Some(8), anomalies }
    }

    fn run() -> Stored {
        let (results, events, faults) = synthetic::run(400);
        let evidence = Some(evidence("k"));
        Stored { setup: results.setup, events, faults, evidence }
    }

    fn small() -> Vec<u8> {
        let mut run = run();
        run.events.truncate(20);
        run.faults.truncate(2);
        let file = tempfile::NamedTempFile::new().unwrap();
        save(file.path(), &run).unwrap();
        std::fs::read(file.path()).unwrap()
    }

    fn error(text: &str) -> String {
        format!("{:#}", read(text.as_bytes()).expect_err("a bad line"))
    }

    #[test]
    fn errors_name_the_line() {
        let bytes = small();
        let text = std::str::from_utf8(&bytes).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let (setup, event) = (lines[0], lines[1]);
        assert!(error("").contains("line 1: there is none"));
        assert!(error(&format!("{event}\n")).contains("line 1: not a setup"));
        assert!(error(setup).contains("line 1: no end within"));
        let cases = [
            (event.replace("invoke", "invite"), "line 3: not an event: unknown variant `invite`"),
            (event.replace("\"key\"", "\"kee\""), "line 3: not an event: missing field `key`"),
            (r#"{"process":"nemesis"}"#.into(), "line 3: not a fault: missing field"),
            (setup.into(), "line 3: not an event"),
            (String::new(), "line 3: not an event"),
            ("[".repeat(100_000), "line 3: not an event"),
        ];
        for (bad, expected) in cases {
            let error = error(&format!("{setup}\n{event}\n{bad}\n{event}\n"));
            assert!(error.contains(expected), "{error}");
        }
        let tail = lines[lines.len() - 1];
        let error = error(&format!("{setup}\n{tail}\n{event}\n"));
        assert!(error.contains("line 3: there is one after the last"), "{error}");
    }

    #[test]
    fn a_run_that_was_broken_off_has_no_evidence() {
        let whole = small();
        let end = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
        assert!(read(&whole[..]).unwrap().evidence.is_some());
        assert_eq!(read(&whole[..=end]).unwrap().evidence, None);
    }

    #[test]
    fn a_line_has_a_bound() {
        let lines = b"{\"setup\":".iter().copied().chain(std::iter::repeat_n(b' ', 20 << 20));
        let lines: Vec<u8> = lines.collect();
        let error = format!("{:#}", read(&lines[..]).expect_err("too long"));
        assert!(error.contains("line 1: no end within 16777216 bytes"), "{error}");
        let mut run = run();
        run.events[0].error = Some("x".repeat(17 << 20));
        let file = tempfile::NamedTempFile::new().unwrap();
        let saved = save(file.path(), &run);
        assert!(saved.unwrap_err().to_string().contains("too many"));
    }

    #[test]
    fn events_and_faults_stand_in_order_of_time() {
        let run = run();
        let file = tempfile::NamedTempFile::new().unwrap();
        save(file.path(), &run).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let times: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter_map(|line| line.get("time").or(line.get("begin"))?.as_u64())
            .collect();
        assert!(times.is_sorted());
        assert_eq!(times.len(), run.events.len() + run.faults.len());
    }
}
