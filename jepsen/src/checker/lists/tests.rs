//! Hand-made histories of each anomaly, and of what only looks like one.

use super::*;

/// Events in a line: `a1+` adds 1 and is told so, `a1-` refused, `a1?` unknown, `r12` reads [1, 2],
/// `f12` at the end. With another process before it: `2:a1(` begins, `2:+` ends it well, `2:r(`
/// begins a read that `2:12)` ends.
fn kinds(steps: &str) -> Vec<Kind> {
    let mut history: Vec<Event> = Vec::new();
    for step in steps.split_whitespace() {
        let (process, what) = step.split_once(':').unwrap_or(("1", step));
        let process: u32 = process.parse().expect("a number");
        let digits: Vec<u64> =
            what.bytes().filter(u8::is_ascii_digit).map(|digit| u64::from(digit - b'0')).collect();
        let event = |stage, f, value| Event {
            time: 0,
            process,
            stage,
            f,
            key: "k".into(),
            value,
            node: "n".into(),
            version: None,
            existed: None,
            group: None,
            lag_ms: None,
            error: None,
        };
        let number = Value::Number(digits.first().copied().unwrap_or(0));
        let list = Value::List(digits);
        let begun = history.iter().rev().find(|event| event.process == process).cloned();
        let (verb, mark) = (what.as_bytes()[0], what.as_bytes()[what.len() - 1]);
        match (verb, mark) {
            (b'+', _) => {
                let begun = begun.expect("it began");
                history.push(Event { stage: Stage::Ok, ..begun });
            }
            (_, b')') => history.push(event(Stage::Ok, Action::Read, list)),
            (b'a', mark) => {
                history.push(event(Stage::Invoke, Action::Append, number.clone()));
                match mark {
                    b'+' => history.push(event(Stage::Ok, Action::Append, number)),
                    b'-' => history.push(event(Stage::Fail, Action::Append, number)),
                    b'?' => history.push(event(Stage::Info, Action::Append, number)),
                    _ => {}
                }
            }
            (b'r' | b'f', mark) => {
                let f = if verb == b'f' { Action::FinalRead } else { Action::Read };
                history.push(event(Stage::Invoke, f, Value::None));
                if mark != b'(' {
                    history.push(event(Stage::Ok, f, list));
                }
            }
            _ => panic!("{step}"),
        }
    }
    check(&history).anomalies.iter().map(|anomaly| anomaly.kind).collect()
}

#[test]
fn lists_that_grow_are_fine() {
    assert_eq!(kinds("r a1+ r1 a2+ r12 f12"), []);
    assert_eq!(kinds("a1+ a2- r1 a3? r1 r13 f13"), []);
    assert_eq!(kinds("a1+ a2? r1 f1"), []);
    // What overlaps may be seen or not, and stand in either order.
    assert_eq!(kinds("2:a1( 3:a2( r r2 r21 2:+ 3:+ f21"), []);
    assert_eq!(kinds("a1+ 2:r( a2+ 2:1) f12"), []);
}

#[test]
fn a_lost_update_is_found() {
    assert_eq!(kinds("a1+ a2+ r2"), [Kind::StaleRead]);
    assert_eq!(kinds("a1+ a2+ f2"), [Kind::LostWrite]);
    assert_eq!(kinds("a1+ r1 a2+ r2"), [Kind::ListBroken, Kind::StaleRead]);
    assert_eq!(kinds("a1+ f"), [Kind::LostWrite]);
}

#[test]
fn reads_that_disagree_are_found() {
    assert_eq!(kinds("2:a1( 3:a2( r12 r2 2:+ 3:+"), [Kind::ListBroken]);
    assert_eq!(kinds("2:a1( 3:a2( r12 r1 2:+ 3:+"), [Kind::ReadWentBack]);
}

#[test]
fn what_should_not_be_there_is_found() {
    assert_eq!(kinds("a1+ r11"), [Kind::ListBroken]);
    assert_eq!(kinds("a1- r1"), [Kind::FailedWriteSeen]);
    assert_eq!(kinds("r7"), [Kind::ForeignValue]);
    assert_eq!(kinds("r1 a1+ r1"), [Kind::ReadFromFuture]);
}

#[test]
fn a_wrong_order_is_found() {
    assert_eq!(kinds("a1+ a2+ r21"), [Kind::ListBroken]);
    assert_eq!(kinds("a1+ a2? r21"), [Kind::ListBroken]);
}
