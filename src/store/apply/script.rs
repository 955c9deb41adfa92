//! `apply` as scripts: `src/store/testscripts/apply/*.txt`.
//!
//! A script is blocks of commands, a line `---`, and what they print. With `UPDATE_GOLDEN=1` the
//! test writes what it sees instead of comparing. Each command but `read` and `state` is one
//! entry; its index and its outcome are printed.
//!
//! ```text
//! blank / members 1,2,3
//! found 7 name              gives the group an identity
//! put KEY VALUE / delete KEY
//! put KEY VALUE for MS       for a while; touch KEY MS, touch KEY ever
//! delete-span PREFIX 2      the first two keys; with a name of a session, once
//! batch OP ; OP             each for itself; get KEY, or a write
//! txn KEY COND ; KEY COND then OP ; OP else OP   as a whole; COND is exists, absent, version=1 or a value;
//! txn as 9.0.1 …            with a name
//! expire                    moves the time on to the entry's stamp
//! @5000 COMMAND             with this stamp, instead of 1000 and the index, or the time if that is later
//! if COND put KEY VALUE     if COND holds: absent, present, or versions such as 1,2; also delete
//! open 9                    opens a session
//! once 9.3.1 put KEY VALUE  write 1 of slot 3 of session 9; also delete, and if COND
//! once key=K put KEY VALUE  with an idempotency key
//! later 11                  eleven minutes go by before the next entry
//! claim 1 2 RANGE           of cluster 1 at epoch 2; RANGE is all, none, low or high: the whole
//!                           ring, nothing, tokens up to and above 2^63
//! confirm 1 / release 1     the claim of cluster 1
//! read KEY                  prints what a reader gets
//! state                     prints everything
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;
use crate::types::hash::{HashRange, Token};
use crate::types::ids::{LogId, NodeId, SessionId};
use crate::types::log::Membership;
use crate::types::scan::Span;
use crate::types::topology::Topology;
use crate::types::txn::{Compare, Holds, Op, OpResult, Txn, TxnOutcome};
use crate::types::value::ValueKind;

const MIDDLE: Token = Token(1 << 63);

/// A claim whose topology names no groups: `apply` looks at cluster, epoch and ranges only.
pub(super) fn claim(cluster: u64, epoch: u64, range: &str) -> Claim {
    let owned = match range {
        "all" => vec![HashRange { after: MIDDLE, upto: MIDDLE }],
        "none" => vec![],
        "low" => vec![HashRange { after: Token(u64::MAX), upto: MIDDLE }],
        "high" => vec![HashRange { after: MIDDLE, upto: Token(u64::MAX) }],
        other => panic!("no range is called {other}"),
    };
    let cluster = ClusterId(cluster);
    Claim { topology: Topology { cluster, epoch, vnodes: 1, groups: vec![] }, owned }
}

fn key_write(words: &[&str]) -> KeyWrite {
    let key = |text: &str| Key::new(text).unwrap();
    let (condition, write) = match *words {
        ["if", condition, ref write @ ..] => (Some(condition), write),
        _ => (None, words),
    };
    let condition = condition.map(|condition| match condition {
        "absent" => Condition::Absent,
        "present" => Condition::Present,
        versions => {
            Condition::Version(versions.split(',').map(|text| text.parse().unwrap()).collect())
        }
    });
    match *write {
        ["put", at, value] => {
            KeyWrite { key: key(at), condition, write: Write::Put { value: Value::text(value) } }
        }
        ["delete", at] => KeyWrite { key: key(at), condition, write: Write::Delete },
        ["put", at, value, "for", ttl] => {
            let write = Write::PutFor { value: Value::text(value), ttl_ms: ttl.parse().unwrap() };
            KeyWrite { key: key(at), condition, write }
        }
        ["add", at, by] => {
            let write = Write::Add { by: by.parse().unwrap() };
            KeyWrite { key: key(at), condition, write }
        }
        ["json", at, json] => {
            let value = Value::new(ValueKind::Json, json.to_owned().into()).unwrap();
            KeyWrite { key: key(at), condition, write: Write::Put { value } }
        }
        ["touch", at, ttl] => {
            let write = Write::Touch { ttl_ms: ttl.parse().ok() };
            KeyWrite { key: key(at), condition, write }
        }
        _ => panic!("no such command: {words:?}"),
    }
}

/// With `;` between them.
fn operations(words: &[&str]) -> Vec<Op> {
    let ops = words.split(|word| *word == ";").filter(|words| !words.is_empty());
    ops.map(|words| {
        if let ["get", at] = *words {
            return Op::Get { key: Key::new(at).unwrap() };
        }
        let KeyWrite { key, write, .. } = key_write(words);
        Op::Write { key, write }
    })
    .collect()
}

fn compare_of(words: &[&str]) -> Compare {
    let [at, what] = *words else { panic!("no condition: {words:?}") };
    let holds = match what {
        "exists" => Holds::Exists(true),
        "absent" => Holds::Exists(false),
        _ => match what.strip_prefix("version=") {
            Some(version) => Holds::Version(version.parse().unwrap()),
            None => Holds::Value(Value::text(what)),
        },
    };
    Compare { key: Key::new(at).unwrap(), holds }
}

/// `<session>.<slot>.<number>`
fn write_id(name: &str) -> WriteId {
    let ids: Vec<u64> = name.split('.').map(|text| text.parse().unwrap()).collect();
    WriteId { session: SessionId(ids[0]), slot: u32::try_from(ids[1]).unwrap(), seq: ids[2] }
}

fn payload(words: &[&str], ts: u64) -> Payload {
    let number = |text: &str| text.parse().unwrap();
    let action = match *words {
        ["blank"] => return Payload::Blank,
        ["expire"] => Action::Expire,
        ["members", list] => {
            let voters = list.split(',').map(|id| NodeId(number(id))).collect();
            return Payload::Membership(Membership { voters: vec![voters], urls: [].into() });
        }
        ["found", id, name] => Action::Found { group: GroupId(number(id)), name: name.into() },
        ["delete-span", prefix, limit, ref name @ ..] => {
            let span = Span::of_prefix(prefix.as_bytes());
            let limit = u32::try_from(number(limit)).unwrap();
            let once = name.first().map(|name| write_id(name));
            Action::DeleteSpan { span, limit, once }
        }
        ["batch", ref ops @ ..] => {
            Action::Txn { once: None, txn: Txn::Batch { ops: operations(ops) } }
        }
        ["txn", ref rest @ ..] => {
            let (once, rest) = match *rest {
                ["as", name, ref rest @ ..] => (Some(Once::Session(write_id(name))), rest),
                _ => (None, rest),
            };
            let mut parts = rest.split(|word| *word == "then" || *word == "else");
            let compare = parts.next().unwrap().split(|word| *word == ";");
            let compare = compare.filter(|words| !words.is_empty()).map(compare_of).collect();
            let (then, otherwise) = (parts.next().unwrap_or_default(), parts.next());
            let (then, otherwise) = (operations(then), operations(otherwise.unwrap_or_default()));
            Action::Txn { once, txn: Txn::Atomic { compare, then, otherwise } }
        }
        ["open", session] => Action::OpenSession { session: SessionId(number(session)) },
        ["once", name, ref write @ ..] => {
            let once = if let Some(key) = name.strip_prefix("key=") {
                Once::Key(IdempotencyKey::new(key).unwrap())
            } else {
                Once::Session(write_id(name))
            };
            Action::Once { once, write: key_write(write) }
        }
        ["claim", cluster, epoch, range] => {
            Action::Claim(Box::new(claim(number(cluster), number(epoch), range)))
        }
        ["confirm", cluster] => Action::Confirm { cluster: ClusterId(number(cluster)) },
        ["release", cluster] => Action::Release { cluster: ClusterId(number(cluster)) },
        _ => match key_write(words) {
            KeyWrite { key, condition: Some(condition), write } => {
                Action::Conditional { key, condition, write }
            }
            KeyWrite { key, condition: None, write: Write::Put { value } } => {
                Action::Put { key, value }
            }
            KeyWrite { key, condition: None, write: Write::Delete } => Action::Delete { key },
            write => Action::Write(write),
        },
    };
    Payload::Command(Command { ts, action })
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Written { version, existed } => {
            format!("written version={version} existed={existed}")
        }
        Outcome::WrongShard { epoch } => format!("wrong shard epoch={epoch}"),
        Outcome::Refused(refusal) => format!("refused: {refusal}"),
        Outcome::Mismatch { version: Some(version) } => format!("mismatch version={version}"),
        Outcome::Mismatch { version: None } => "mismatch absent".into(),
        Outcome::Again(Answer { index, ts, result }) => {
            format!("again, as at {index} (ts={ts}): {}", show(&result.clone().into()))
        }
        Outcome::NoSession => "no session".into(),
        Outcome::Superseded => "superseded".into(),
        Outcome::KeyReused => "key reused".into(),
        Outcome::KeysFull => "keys full".into(),
        Outcome::Deleted { index, keys, more } => {
            format!("deleted {keys} keys at {index} more={more}")
        }
        Outcome::Lasting { version, existed, expires } => {
            let until = expires.map_or("for ever".into(), |expires| format!("until {expires}"));
            format!("lasting {until} version={version} existed={existed}")
        }
        Outcome::NoValue => "no value".into(),
        Outcome::Counted { value, version, existed, .. } => {
            format!("counted {value} version={version} existed={existed}")
        }
        Outcome::NotAnInteger => "not an integer".into(),
        Outcome::Txn(TxnOutcome { succeeded, results }) => {
            let results: Vec<_> = results.iter().map(show_result).collect();
            format!("txn succeeded={succeeded} [{}]", results.join(", "))
        }
        Outcome::Aborted(error) => format!("aborted: {error}"),
        Outcome::AnswerNotKept => "answer not kept".into(),
    }
}

fn show_result(result: &OpResult) -> String {
    match result {
        OpResult::Read(None) => "not found".into(),
        OpResult::Read(Some(item)) => show_item(item),
        OpResult::Written { version, existed, expires, value } => {
            let until = expires.map(|expires| format!(" until {expires}")).unwrap_or_default();
            let value = value.map(|value| format!(" value={value}")).unwrap_or_default();
            format!("written version={version} existed={existed}{until}{value}")
        }
        OpResult::Failed(error) => format!("failed: {error}"),
    }
}

fn show_item(item: &Item) -> String {
    let text = String::from_utf8_lossy(&item.value.data);
    let until = item.expires.at().map(|expires| format!(" until {expires}")).unwrap_or_default();
    format!("{text:?} ts={} version={}{until}", item.ts, item.version)
}

fn show_state(state: &State, out: &mut String) {
    let State { applied, membership, group, claim, confirmed, version_floor, map, bytes, .. } =
        state;
    let applied = applied.map_or("none".into(), |id| id.to_string());
    writeln!(out, "applied={applied} floor={version_floor} bytes={bytes}").unwrap();
    if let Some(id) = membership.id {
        writeln!(out, "members={:?} since {}", membership.membership.voters, id.index).unwrap();
    }
    if let Some((id, name)) = group {
        writeln!(out, "group={id} name={name}").unwrap();
    }
    if let Some(claim) = claim {
        let Topology { cluster, epoch, .. } = claim.topology;
        writeln!(out, "claim={cluster} epoch={epoch} confirmed={confirmed}").unwrap();
    }
    for (key, item) in map {
        writeln!(out, "{key}: {}", show_item(item)).unwrap();
    }
}

fn run_command(state: &mut State, line: &str, out: &mut String) {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["state"] => show_state(state, out),
        ["later", minutes] => state.clock += minutes.parse::<u64>().unwrap() * 60_000,
        ["read", key] => {
            let read = match state.read(&Key::new(key).unwrap()) {
                Ok(Some(item)) => show_item(item),
                Ok(None) => "not found".into(),
                Err(wrong_shard) => wrong_shard.to_string(),
            };
            writeln!(out, "{read}").unwrap();
        }
        _ => {
            let index = state.next_index();
            let (ts, words) = match words[0].strip_prefix('@') {
                Some(ts) => (ts.parse().unwrap(), &words[1..]),
                None => ((1000 + index).max(state.clock), &words[..]),
            };
            let id = LogId { term: 1, leader: NodeId(1), index };
            let entry = Entry { id, payload: payload(words, ts) };
            writeln!(out, "{index}: {}", show(&apply(state, &entry))).unwrap();
        }
    }
}

/// The state after these commands.
pub(in crate::store) fn state_after(commands: &[&str]) -> State {
    let mut state = State::default();
    for command in commands {
        run_command(&mut state, command, &mut String::new());
    }
    state
}

/// The script with the output of each block replaced by what its commands print now.
fn replay(script: &str) -> String {
    let (mut state, mut seen) = (State::default(), String::new());
    for block in script.split("\n\n") {
        let commands = block.split("\n---").next().unwrap_or_default().trim_matches('\n');
        let mut out = String::new();
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            run_command(&mut state, line, &mut out);
        }
        write!(seen, "{commands}\n---\n{out}\n").unwrap();
    }
    seen.truncate(seen.trim_end().len());
    seen + "\n"
}

#[test]
fn scripts_replay_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/testscripts/apply");
    let mut scripts: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for path in scripts {
        let script = fs::read_to_string(&path).unwrap();
        let seen = replay(&script);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, seen).unwrap();
        } else {
            assert_eq!(seen, script, "{} differs: left is what happened", path.display());
        }
    }
}
