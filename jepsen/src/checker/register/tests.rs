//! From events to verdicts: what counts as an operation, and what each anomaly is called.

use super::*;

/// Events in a line: process, what, how it ends. `1w5+` process 1 writes 5 and is told so, `-`
/// refused, `?` unknown; `2r5` reads 5; `3c56+` replaces 5 by 6; `4d+` removes, `4x+` finds nothing to remove; `5r!` reads
/// something foreign. `1w5(` only begins, and `1)` ends it well.
fn kinds(steps: &str) -> Vec<Kind> {
    let mut history: Vec<Event> = Vec::new();
    for step in steps.split_whitespace() {
        let process = u32::from(step.as_bytes()[0] - b'0');
        let what = &step[1..];
        if what == ")" {
            let begun = history.iter().rev().find(|event| event.process == process);
            let event = Event { stage: Stage::Ok, ..begun.expect("it began").clone() };
            history.push(event);
            continue;
        }
        let digits: Vec<u64> =
            what.bytes().filter(u8::is_ascii_digit).map(|digit| u64::from(digit - b'0')).collect();
        let number = Value::Number(digits.first().copied().unwrap_or(0));
        let (f, value) = match &what[..1] {
            "w" => (Action::Write, number),
            "d" | "x" => (Action::Delete, number),
            "c" => (Action::Cas, Value::Cas { from: digits[0], to: digits[1] }),
            "r" if what.ends_with('!') => (Action::Read, Value::Foreign { foreign: "x".into() }),
            "r" => (Action::Read, number),
            other => panic!("{other}"),
        };
        let event = |stage, value| Event {
            time: 0,
            process,
            stage,
            f,
            key: "k".into(),
            value,
            node: "n".into(),
            version: None,
            existed: what.starts_with('x').then_some(false),
            group: None,
            lag_ms: None,
            error: None,
        };
        let asked = if f == Action::Read { Value::None } else { value.clone() };
        history.push(event(Stage::Invoke, asked));
        match what.as_bytes()[what.len() - 1] {
            b'(' => {}
            b'-' => history.push(event(Stage::Fail, value)),
            b'?' => history.push(event(Stage::Info, value)),
            _ => history.push(event(Stage::Ok, value)),
        }
    }
    let checked = check(&history);
    assert!(checked.unknown.is_empty(), "{checked:?}");
    for anomaly in &checked.anomalies {
        assert!(anomaly.events.iter().all(|at| *at < history.len()), "{anomaly:?}");
    }
    checked.anomalies.iter().map(|anomaly| anomaly.kind).collect()
}

#[test]
fn what_is_linearizable_is_fine() {
    assert_eq!(kinds("1w1+ 2r1 3c12+ 2r2 1d+ 2r0 1w3- 2r0 4w4? 2r0 2r4"), []);
    assert_eq!(kinds("1w1( 2r0 2r1 1) 2r1"), []);
    // The run ended before the answer came.
    assert_eq!(kinds("1w1( 2r1"), []);
    assert_eq!(kinds("1w1+ 2r- 3r1 4c12- 3r1"), []);
    assert_eq!(kinds("1x+ 1w1( 2x+ 1) 2r1 1d+ 2x+"), []);
}

#[test]
fn anomalies_have_their_names() {
    assert_eq!(kinds("1w1+ 1w2+ 2r1"), [Kind::NotLinearizable]);
    assert_eq!(kinds("1w1+ 1c12+ 2c13+"), [Kind::NotLinearizable]);
    assert_eq!(kinds("1w1+ 1d+ 2r1"), [Kind::NotLinearizable]);
    assert_eq!(kinds("1w1+ 2x+"), [Kind::NotLinearizable]);
    assert_eq!(kinds("2r7"), [Kind::NotLinearizable]);
    assert_eq!(kinds("1w1- 2r1"), [Kind::FailedWriteSeen]);
    assert_eq!(kinds("1w1+ 1c12- 2r2 2r1"), [Kind::FailedWriteSeen]);
    assert_eq!(kinds("1w1+ 2r!"), [Kind::ForeignValue]);
}
