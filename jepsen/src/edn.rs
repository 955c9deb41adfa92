//! The history in Jepsen's form, one map a line, so that other checkers can judge it, too.
//!
//! Operations are as Jepsen's own workloads write them: `:read`, `:write` and `:cas` with the value
//! `[key value]` (an independent key), or transactions of `:append` and `:r` for Elle. A bank is an
//! independent key, too: it reads as a map of balances, and a `:transfer` has those that it writes. What was
//! watched stands beside the operations: a `:watch` has the changes that were told, each `[:put key value version]`
//! or `[:delete …]`, and a `:write-both` a map of keys. A fault is
//! two `:info` events of the process `:nemesis`, `:start` and `:stop`, among the others by time.
//!
//! What differs: a key without a value reads as `0`, because `nil` means *not known* to Knossos, and
//! removing a key is a `:write` of `0`. So a model begins with 0: `(model/cas-register 0)`. Final
//! reads are ordinary reads. `:lease-read` and `:stale-read` promise something else than a read; a
//! checker of linearizability has to leave `:stale-read` out.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::ValueEnum;

use crate::history::{Action, Event, Half, Stage, Told, Value};
use crate::nemesis::{Fault, Hold};

/// A fault begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Edge {
    Start,
    Stop,
}

/// Writes a history and its faults, by time.
///
/// # Errors
///
/// When `out` can't be written.
pub(crate) fn write(out: &mut impl Write, history: &[Event], faults: &[Fault]) -> io::Result<()> {
    let mut edges: Vec<(u64, Edge, &Fault)> = faults
        .iter()
        .flat_map(|fault| {
            [(fault.begin, Edge::Start, fault), (fault.end.max(fault.begin), Edge::Stop, fault)]
        })
        .collect();
    edges.sort_by_key(|(time, edge, _)| (*time, *edge));
    let mut edges = edges.into_iter().peekable();
    let lists = history
        .iter()
        .any(|event| event.f == Action::Append || matches!(event.value, Value::List(_)));
    let mut index = 0_u64;
    for event in history {
        while let Some((time, edge, fault)) = edges.next_if(|(time, ..)| *time <= event.time) {
            writeln!(out, "{}", nemesis(index, time, edge, fault))?;
            index += 1;
        }
        writeln!(out, "{}", operation(index, event, lists))?;
        index += 1;
    }
    for (time, edge, fault) in edges {
        writeln!(out, "{}", nemesis(index, time, edge, fault))?;
        index += 1;
    }
    Ok(())
}

fn nemesis(index: u64, time: u64, edge: Edge, fault: &Fault) -> String {
    let f = match edge {
        Edge::Start => "start",
        Edge::Stop => "stop",
    };
    let hold = match fault.hold {
        Hold::Installed => "installed",
        Hold::Skipped => "skipped",
        Hold::Indeterminate => "indeterminate",
    };
    let kind = fault.kind.to_possible_value();
    let kind = kind.as_ref().map_or("fault", |kind| kind.get_name());
    format!(
        "{{:index {index}, :time {time}, :process :nemesis, :type :info, :f :{f}, \
         :value [:{kind} {}], :hold :{hold}}}",
        string(&fault.what)
    )
}

/// One event; in a history of lists every operation is a transaction.
fn operation(index: u64, event: &Event, lists: bool) -> String {
    let stage = match event.stage {
        Stage::Invoke => "invoke",
        Stage::Ok => "ok",
        Stage::Fail => "fail",
        Stage::Info => "info",
    };
    let (f, value) = if lists { transaction(event) } else { register(event) };
    let Event { time, process, .. } = event;
    let mut map = format!(
        "{{:index {index}, :time {time}, :process {process}, :type :{stage}, :f :{f}, \
         :value {value}, :node {}",
        string(&event.node)
    );
    let mut more = |name, value: String| {
        write!(map, ", :{name} {value}").expect("a string takes everything");
    };
    if let Some(version) = event.version {
        more("version", version.to_string());
    }
    if let Some(lag) = event.lag_ms {
        more("lag-ms", lag.to_string());
    }
    if let Some(error) = &event.error {
        more("error", string(error));
    }
    map.push('}');
    map
}

/// A register under an independent key.
fn register(event: &Event) -> (&'static str, String) {
    let f = match event.f {
        Action::Read | Action::FinalRead => "read",
        Action::LeaseRead => "lease-read",
        Action::StaleRead => "stale-read",
        Action::Write | Action::Delete => "write",
        Action::Cas => "cas",
        Action::Append => "append",
        Action::Transfer => "transfer",
        Action::WriteBoth => "write-both",
        Action::WatchBegin => "watch-begin",
        Action::WatchResume => "watch-resume",
        Action::Watch => "watch",
        Action::WatchEnd => "watch-end",
    };
    let value = if event.f == Action::Delete { "0".into() } else { plain(&event.value) };
    (f, format!("[{} {value}]", string(&event.key)))
}

/// A transaction of one operation on a list.
fn transaction(event: &Event) -> (&'static str, String) {
    let key = string(&event.key);
    let f = match event.f {
        Action::Append | Action::Read | Action::FinalRead => "txn",
        Action::LeaseRead => "lease-read",
        Action::StaleRead => "stale-read",
        // None of them is an operation on a list: nothing that Elle would take for one.
        Action::Write
        | Action::Delete
        | Action::Cas
        | Action::Transfer
        | Action::WriteBoth
        | Action::WatchBegin
        | Action::WatchResume
        | Action::Watch
        | Action::WatchEnd => return register(event),
    };
    let value = match (&event.value, event.f) {
        (value, Action::Append) => format!("[[:append {key} {}]]", plain(value)),
        // A list that is not there has nothing in it.
        (Value::Number(0), _) => format!("[[:r {key} []]]"),
        (value, _) => format!("[[:r {key} {}]]", plain(value)),
    };
    (f, value)
}

fn plain(value: &Value) -> String {
    match value {
        Value::None => "nil".into(),
        Value::Number(number) => number.to_string(),
        Value::Cas { from, to } => format!("[{from} {to}]"),
        Value::List(list) => {
            let numbers: Vec<String> = list.iter().map(u64::to_string).collect();
            format!("[{}]", numbers.join(" "))
        }
        Value::Transfer { puts, .. } => balances(puts.iter().map(|put| (put.account, put.balance))),
        Value::Bank { accounts } => {
            balances(accounts.iter().enumerate().map(|(at, one)| (at, one.balance)))
        }
        Value::Both { both } => {
            let half = |half: &Half| format!("{} {}", string(&half.key), half.number);
            format!("{{{}}}", both.iter().map(half).collect::<Vec<_>>().join(", "))
        }
        Value::Told { told } => {
            let change = |one: &Told| {
                let (key, value) = (string(&one.key), plain(&one.value));
                format!("[:{} {key} {value} {}]", one.kind, one.version)
            };
            format!("[{}]", told.iter().map(change).collect::<Vec<_>>().join(" "))
        }
        Value::Foreign { foreign } => string(foreign),
    }
}

/// Accounts with their balances.
fn balances(accounts: impl Iterator<Item = (usize, i64)>) -> String {
    let pairs: Vec<String> = accounts.map(|(at, balance)| format!("{at} {balance}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// A string that stays on its line.
fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // Others that end a line for somebody, or can't be seen; all are of four digits.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                write!(quoted, "\\u{:04x}", u32::from(c)).expect("a string takes everything");
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Account, Put};
    use crate::nemesis::FaultKind;

    fn event(stage: Stage, f: Action, value: Value) -> Event {
        let (key, node) = ("k".into(), "c1".into());
        Event {
            time: 10,
            process: 3,
            stage,
            f,
            key,
            value,
            node,
            version: None,
            existed: None,
            group: None,
            lag_ms: None,
            error: None,
        }
    }

    fn fault(begin: u64, end: u64) -> Fault {
        Fault {
            kind: FaultKind::Kill,
            what: "kill \"n1\"".into(),
            begin,
            end,
            groups: Vec::new(),
            away: None,
            hold: Hold::Installed,
            leader: false,
            failover_ms: None,
        }
    }

    fn lines(history: &[Event], faults: &[Fault]) -> Vec<String> {
        let mut out = Vec::new();
        write(&mut out, history, faults).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_string).collect()
    }

    /// The `:f` and `:value` of each event.
    fn values(history: &[Event]) -> Vec<String> {
        let between = |line: &String| {
            let (_, rest) = line.split_once(":f ").expect("an f");
            rest.split_once(", :node").expect("a node").0.replace(", :value", "")
        };
        lines(history, &[]).iter().map(between).collect()
    }

    #[test]
    fn a_line_is_a_map_with_everything() {
        let end = Event {
            version: Some(7),
            lag_ms: Some(2),
            error: Some("no\n\"leader\"\\".into()),
            ..event(Stage::Info, Action::Write, Value::Number(5))
        };
        assert_eq!(
            lines(&[event(Stage::Invoke, Action::Write, Value::Number(5)), end], &[]),
            [
                r#"{:index 0, :time 10, :process 3, :type :invoke, :f :write, :value ["k" 5], :node "c1"}"#,
                r#"{:index 1, :time 10, :process 3, :type :info, :f :write, :value ["k" 5], :node "c1", :version 7, :lag-ms 2, :error "no\n\"leader\"\\"}"#,
            ]
        );
    }

    #[test]
    fn registers_are_independent_keys() {
        let foreign = Value::Foreign { foreign: "x\ty".into() };
        let history = [
            event(Stage::Invoke, Action::Read, Value::None),
            event(Stage::Ok, Action::Read, Value::Number(0)),
            event(Stage::Ok, Action::FinalRead, Value::Number(u64::MAX)),
            event(Stage::Ok, Action::Cas, Value::Cas { from: 3, to: 4 }),
            event(Stage::Ok, Action::Delete, Value::None),
            event(Stage::Ok, Action::StaleRead, foreign),
        ];
        assert_eq!(
            values(&history),
            [
                r#":read ["k" nil]"#,
                r#":read ["k" 0]"#,
                r#":read ["k" 18446744073709551615]"#,
                r#":cas ["k" [3 4]]"#,
                r#":write ["k" 0]"#,
                r#":stale-read ["k" "x\ty"]"#,
            ]
        );
    }

    #[test]
    fn a_bank_is_a_map_of_balances() {
        let put = |account, balance| Put { account, after: 1, balance, version: None };
        let account = |balance| Account { balance, by: 1, version: 3 };
        let transfer = Value::Transfer { id: 7, puts: vec![put(2, 60), put(0, 140)] };
        let history = [
            event(Stage::Ok, Action::Transfer, transfer),
            event(Stage::Ok, Action::Read, Value::Bank { accounts: vec![account(9), account(-1)] }),
        ];
        let expected = [r#":transfer ["k" {2 60, 0 140}]"#, r#":read ["k" {0 9, 1 -1}]"#];
        assert_eq!(values(&history), expected);
    }

    #[test]
    fn what_was_told_is_a_list_of_changes() {
        let told = |kind: &str, value, version| Told {
            key: "a".into(),
            kind: kind.into(),
            value: Value::Number(value),
            version,
            id: "id".into(),
        };
        let half = |key: &str| Half { key: key.into(), number: 7, version: Some(3) };
        let told = Value::Told { told: vec![told("put", 7, 3), told("delete", 0, 4)] };
        let history = [
            event(Stage::Ok, Action::WriteBoth, Value::Both { both: vec![half("a"), half("b")] }),
            event(Stage::Ok, Action::Watch, told),
        ];
        let expected = [
            r#":write-both ["k" {"a" 7, "b" 7}]"#,
            r#":watch ["k" [[:put "a" 7 3] [:delete "a" 0 4]]]"#,
        ];
        assert_eq!(values(&history), expected);
    }

    #[test]
    fn lists_are_transactions() {
        let history = [
            event(Stage::Invoke, Action::Append, Value::Number(1)),
            event(Stage::Invoke, Action::Read, Value::None),
            event(Stage::Ok, Action::Read, Value::List(vec![1, 2])),
            event(Stage::Ok, Action::FinalRead, Value::Number(0)),
        ];
        assert_eq!(
            values(&history),
            [
                r#":txn [[:append "k" 1]]"#,
                r#":txn [[:r "k" nil]]"#,
                r#":txn [[:r "k" [1 2]]]"#,
                r#":txn [[:r "k" []]]"#,
            ]
        );
    }

    #[test]
    fn faults_stand_among_the_events_by_time() {
        let at = |time| Event { time, ..event(Stage::Invoke, Action::Read, Value::None) };
        let faults = [fault(30, 15), fault(5, 25)];
        let found = lines(&[at(10), at(20), at(30)], &faults);
        let times: Vec<&str> = found.iter().map(|line| line.split(", ").nth(1).unwrap()).collect();
        assert_eq!(
            times,
            [":time 5", ":time 10", ":time 20", ":time 25", ":time 30", ":time 30", ":time 30"]
        );
        assert_eq!(
            found[0],
            r#"{:index 0, :time 5, :process :nemesis, :type :info, :f :start, :value [:kill "kill \"n1\""], :hold :installed}"#
        );
        assert!(found[3].contains(":f :stop"), "{found:#?}");
        let last = "{:index 6, :time 30, :process 3,";
        assert!(found[6].starts_with(last), "faults come before what they may cause: {found:#?}");
    }

    #[test]
    fn a_string_stays_on_its_line() {
        assert_eq!(string("a\"\\\n\r\t\0\u{7f}\u{85}\u{2028}ä😀"), {
            r#""a\"\\\n\r\t\u0000\u007f\u0085\u2028ä😀""#
        });
    }
}
