//! Makes operations of events: each beginning with its end.
//!
//! Takes any history, also one cut off or made up: an end without a beginning is left out, a
//! beginning without an end is an operation that never ended.

use std::collections::HashMap;

use crate::history::{Account, Action, Event, Half, Put, Stage, Told, Value};
use crate::workload::bank;

/// Characters of a value beside a point or in a bar.
const LABEL_CHARS_MAX: usize = 40;
/// Numbers of a list that a label shows, from its end.
const LABEL_LIST: usize = 4;

/// How an operation ended, as the page colours it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// It succeeded.
    Ok,
    /// It certainly had no effect.
    Fail,
    /// Nobody knows, or it never ended.
    Unknown,
}

impl Outcome {
    /// In the words of Jepsen.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Unknown => "info",
        }
    }
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op<'a> {
    /// Its beginning.
    pub(crate) begin: &'a Event,
    /// Where its beginning stands in the history.
    pub(crate) begin_at: usize,
    /// Its end, and where that stands in the history.
    pub(crate) end: Option<(usize, &'a Event)>,
}

impl<'a> Op<'a> {
    /// How it ended.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.end.map(|(_, end)| end.stage) {
            Some(Stage::Ok) => Outcome::Ok,
            Some(Stage::Fail) => Outcome::Fail,
            Some(Stage::Info | Stage::Invoke) | None => Outcome::Unknown,
        }
    }

    /// When it ended, in nanoseconds; `last` if it never did.
    pub(crate) fn end_time(&self, last: u64) -> u64 {
        self.end.map_or(last, |(_, end)| end.time).max(self.begin.time)
    }

    /// How long it took, in nanoseconds.
    pub(crate) fn latency(&self, last: u64) -> u64 {
        self.end_time(last) - self.begin.time
    }

    /// The event that says most about it.
    pub(crate) fn last_word(&self) -> &'a Event {
        self.end.map_or(self.begin, |(_, end)| end)
    }

    /// What was read, or what is written.
    pub(crate) fn value(&self) -> &'a Value {
        match self.end {
            Some((_, end)) if end.value != Value::None => &end.value,
            Some(_) | None => &self.begin.value,
        }
    }

    /// What it does and with what, such as `write 17`.
    pub(crate) fn label(&self) -> String {
        let unknown = self.value() == &Value::None;
        match self.begin.f {
            Action::Delete => "delete".into(),
            f if unknown => format!("{} ?", action(f)),
            f => format!("{} {}", action(f), clip(&short(self.value()), LABEL_CHARS_MAX)),
        }
    }
}

/// All operations, in the order in which they began.
pub(crate) fn operations(history: &[Event]) -> Vec<Op<'_>> {
    let mut ops = Vec::with_capacity(history.len() / 2);
    let mut open: HashMap<u32, usize> = HashMap::new();
    for (at, event) in history.iter().enumerate() {
        if event.stage == Stage::Invoke {
            open.insert(event.process, ops.len());
            ops.push(Op { begin: event, begin_at: at, end: None });
        } else if let Some(op) = open.remove(&event.process) {
            ops[op].end = Some((at, event));
        }
    }
    ops
}

/// What an operation is called.
pub(crate) fn action(f: Action) -> &'static str {
    match f {
        Action::Write => "write",
        Action::Delete => "delete",
        Action::Cas => "cas",
        Action::Append => "append",
        Action::Transfer => "transfer",
        Action::Read => "read",
        Action::LeaseRead => "lease-read",
        Action::StaleRead => "stale-read",
        Action::FinalRead => "final-read",
        Action::WriteBoth => "write-both",
        Action::WatchBegin => "watch-begin",
        Action::WatchResume => "watch-resume",
        Action::Watch => "watch",
        Action::WatchEnd => "watch-end",
    }
}

/// Whether it changes nothing.
pub(crate) fn is_read(f: Action) -> bool {
    !f.is_write()
}

/// A value in a few characters; of a list only its end.
fn short(value: &Value) -> String {
    match value {
        Value::List(list) if list.len() > LABEL_LIST => {
            let tail: Vec<String> =
                list[list.len() - LABEL_LIST..].iter().map(u64::to_string).collect();
            format!("[… {}] ({})", tail.join(" "), list.len())
        }
        // Who wrote what is in the table.
        Value::Bank { accounts } => {
            let balances: Vec<String> =
                accounts.iter().map(|one| one.balance.to_string()).collect();
            balances.join(" ")
        }
        value => full(value),
    }
}

/// A value in full.
pub(crate) fn full(value: &Value) -> String {
    match value {
        Value::None => String::new(),
        Value::Number(0) => "none".into(),
        Value::Number(number) => number.to_string(),
        Value::Cas { from, to } => format!("{from} → {to}"),
        Value::List(list) => {
            let numbers: Vec<String> = list.iter().map(u64::to_string).collect();
            format!("[{}]", numbers.join(" "))
        }
        Value::Transfer { id, puts } => {
            let put = |put: &Put| format!("{} {}", bank::letter(put.account), put.balance);
            format!("{id}: {}", puts.iter().map(put).collect::<Vec<_>>().join(", "))
        }
        Value::Bank { accounts } => {
            let account = |(at, one): (usize, &Account)| {
                format!("{} {} (by {})", bank::letter(at), one.balance, one.by)
            };
            accounts.iter().enumerate().map(account).collect::<Vec<_>>().join(", ")
        }
        Value::Both { both } => {
            let half = |half: &Half| format!("{} {}", half.key, half.number);
            both.iter().map(half).collect::<Vec<_>>().join(", ")
        }
        Value::Told { told } => {
            let change = |one: &Told| {
                format!("{} {} {} v{}", one.kind, one.key, full(&one.value), one.version)
            };
            told.iter().map(change).collect::<Vec<_>>().join(", ")
        }
        Value::Foreign { foreign } => format!("foreign {foreign:?}"),
    }
}

/// At most so many characters, and `…` in place of the rest.
pub(crate) fn clip(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

/// Milliseconds, for people: `870 ms` or `12.3 s`.
pub(crate) fn milliseconds(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1000, ms % 1000 / 100) }
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::synthetic::event;

    #[test]
    fn beginnings_find_their_ends() {
        let history = [
            event(1, 0, Stage::Ok, Action::Write, Value::Number(9)),
            event(2, 0, Stage::Invoke, Action::Write, Value::Number(1)),
            event(3, 1, Stage::Invoke, Action::Read, Value::None),
            event(4, 0, Stage::Info, Action::Write, Value::Number(1)),
            event(5, 2, Stage::Invoke, Action::Read, Value::None),
            event(6, 1, Stage::Ok, Action::Read, Value::Number(0)),
        ];
        let ops = operations(&history);
        let found: Vec<_> =
            ops.iter().map(|op| (op.begin_at, op.end.map(|(at, _)| at), op.outcome())).collect();
        assert_eq!(
            found,
            [
                (1, Some(3), Outcome::Unknown),
                (2, Some(5), Outcome::Ok),
                (4, None, Outcome::Unknown)
            ]
        );
        let labels: Vec<String> = ops.iter().map(Op::label).collect();
        assert_eq!(labels, ["write 1", "read none", "read ?"]);
        assert_eq!(ops[2].latency(11), 6);
        assert_eq!(ops[2].latency(1), 0, "time that goes back is no panic");
    }

    #[test]
    fn texts_are_short() {
        assert_eq!(clip("añb", 2), "añ…");
        assert_eq!(clip("añb", 3), "añb");
        assert_eq!(short(&Value::List(vec![1, 2, 3, 4, 5])), "[… 2 3 4 5] (5)");
        assert_eq!(full(&Value::Cas { from: 3, to: 4 }), "3 → 4");
        let put = Put { account: 1, after: 2, balance: 40, version: None };
        assert_eq!(full(&Value::Transfer { id: 7, puts: vec![put, put] }), "7: b 40, b 40");
        let accounts = vec![Account { balance: 60, by: 2, version: 5 }, Account::default()];
        let bank = Value::Bank { accounts };
        assert_eq!((full(&bank), short(&bank)), ("a 60 (by 2), b 0 (by 0)".into(), "60 0".into()));
        assert_eq!([grouped(7), grouped(1000), grouped(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!([milliseconds(9_999), milliseconds(61_250)], ["9999 ms", "61.2 s"]);
    }
}
