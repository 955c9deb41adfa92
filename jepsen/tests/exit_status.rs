//! What scripts go by: the exit status says whether a run was valid, wrong, or proves nothing.

use std::process::{Command, Output};

use serde_json::{Value, json};

/// Judges this text as a stored history, by the program itself.
fn check(history: &str) -> Output {
    let directory = tempfile::tempdir().expect("the temporary directory can be written");
    let path = directory.path().join("history.jsonl");
    std::fs::write(&path, history).expect("a file can be written");
    let mut jepsen = Command::new(env!("CARGO_BIN_EXE_jepsen"));
    jepsen.arg("check").arg(&path).output().expect("the harness starts")
}

fn lines(lines: &[Value]) -> String {
    lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n")
}

/// A key is written once, with 1, and read twice: this by a client, and 1 at the end.
fn one_write_then(read: &Value) -> Vec<Value> {
    let event = |time: u64, kind: &str, f: &str, value: &Value| {
        json!({"time": time, "process": 0, "type": kind, "f": f, "key": "k", "value": value,
               "node": "coordinator-1"})
    };
    let answered = |time: u64, f: &str, value: &Value| {
        let mut event = event(time, "ok", f, value);
        event["version"] = json!(1);
        event["group"] = json!("g1");
        event
    };
    let one = json!(1);
    vec![
        json!({"setup": {"workload": "register", "nemesis": [], "target": "any", "groups": 1,
               "replicas": 3, "coordinators": 1, "clients": 1, "duration_ms": 1000,
               "deadline_ms": 10000, "seed": 1}}),
        event(1, "invoke", "write", &one),
        answered(2, "write", &one),
        event(3, "invoke", "read", &Value::Null),
        answered(4, "read", read),
        event(5, "invoke", "final-read", &Value::Null),
        answered(6, "final-read", &one),
        json!({"evidence": {"attacked": 1_000_000_000, "recovered_ms": 1, "anomalies": []}}),
    ]
}

fn assert_ended(output: &Output, status: i32, said: &str) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(text.contains(said), "{said:?} is not in:\n{text}");
}

#[test]
fn a_valid_history_ends_with_0() {
    let history = lines(&one_write_then(&json!(1)));
    assert_ended(&check(&history), 0, "valid");
}

#[test]
fn an_anomaly_ends_with_1() {
    let history = lines(&one_write_then(&json!(2)));
    assert_ended(&check(&history), 1, "not linearizable");
}

#[test]
fn a_run_that_proves_nothing_ends_with_2() {
    let mut history = one_write_then(&json!(1));
    history.retain(|line| line["f"] != "final-read");
    assert_ended(&check(&lines(&history)), 2, "void");
}

#[test]
fn a_run_that_was_broken_off_ends_with_2() {
    let mut history = one_write_then(&json!(1));
    history.pop();
    assert_ended(&check(&lines(&history)), 2, "the run was broken off");
}

#[test]
fn what_is_no_history_ends_with_2() {
    let mut history = lines(&one_write_then(&json!(1)));
    history.truncate(history.len() - 5);
    assert_ended(&check(&history), 2, "line 8");
    assert_ended(&check(""), 2, "line 1");
}
