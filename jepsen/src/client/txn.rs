//! Sends a transaction and says what its answer means.
//!
//! An answer is taken only if it says of each operation what such an operation can come to, and of
//! the whole where it stands in its group's log. A transaction with conditions whose answer breaks
//! off after `200` may have been carried out or not: its fate is open.

use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use sagedb::types::error::WriteOutcome;
use sagedb::types::http::{ErrorBody, GetBody, WriteBody};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::{Client, Server, group, index, may_refuse};

/// What is asked for: `then` if everything holds, otherwise `otherwise`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Txn {
    /// What must hold, of which key.
    pub(crate) compare: Vec<(String, Holds)>,
    /// What happens if it does.
    pub(crate) then: Vec<Op>,
    /// What happens if it does not.
    pub(crate) otherwise: Vec<Op>,
}

/// What must hold of a key.
#[derive(Clone, Debug)]
pub(crate) enum Holds {
    /// It has this version; 0 for no value.
    Version(u64),
    /// It has this value.
    Value(Json),
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Reads this key.
    Get(String),
    /// Writes this key.
    Put(String, Json),
}

/// A transaction that was carried out, one way or the other.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whether all conditions held.
    pub(crate) succeeded: bool,
    /// What each operation came to.
    pub(crate) results: Vec<OpDone>,
    /// Where it stands in its group's log.
    pub(crate) index: u64,
    /// The group.
    pub(crate) group: Arc<str>,
}

/// What an operation came to.
#[derive(Debug)]
pub(crate) enum OpDone {
    /// The value's JSON and version; `None` for no value.
    Read(Option<(String, u64)>),
    /// The version of what was written.
    Written(u64),
}

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Answered {
    /// It was carried out.
    Done(Done),
    /// It has not and never will take effect.
    Failed(String),
    /// Nobody knows.
    Unknown(String),
    /// Nobody knows, and no server may answer like that.
    Bad(String),
}

/// As the API has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    succeeded: bool,
    results: Vec<Box<RawValue>>,
    version: u64,
}

/// What every operation's result has.
#[derive(Deserialize)]
struct Status {
    status: u16,
}

impl Txn {
    fn body(&self) -> Json {
        let compare = self.compare.iter().map(|(key, holds)| match holds {
            Holds::Version(version) => json!({"key": key, "version": version}),
            Holds::Value(value) => json!({"key": key, "value": value}),
        });
        let ops = |ops: &[Op]| -> Vec<Json> {
            let op = |op: &Op| match op {
                Op::Get(key) => json!({"op": "get", "key": key}),
                Op::Put(key, value) => json!({"op": "put", "key": key, "value": value}),
            };
            ops.iter().map(op).collect()
        };
        json!({
            "if": compare.collect::<Vec<_>>(),
            "then": ops(&self.then),
            "else": ops(&self.otherwise),
        })
    }

    fn only_reads(&self) -> bool {
        self.then.iter().chain(&self.otherwise).all(|op| matches!(op, Op::Get(_)))
    }
}

impl Client {
    /// Carries out a transaction.
    pub(crate) async fn txn(&self, server: &Server, txn: &Txn) -> Answered {
        let request = self
            .http
            .post(&server.txn)
            .query(&[("timeout", &self.deadline)])
            .header(CONTENT_TYPE, "application/json")
            .body(txn.body().to_string());
        // What only reads has no effect that could be unknown.
        let broken = |error: reqwest::Error| match format!("{error:?}") {
            reason if error.is_timeout() => Answered::Bad(reason),
            reason if error.is_connect() || txn.only_reads() => Answered::Failed(reason),
            reason => Answered::Unknown(reason),
        };
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return broken(error),
        };
        let (status, headers) = (answer.status(), answer.headers().clone());
        match answer.bytes().await {
            Ok(body) => answered(txn, (status, &headers), &body),
            Err(error) if status == StatusCode::OK || status == StatusCode::GATEWAY_TIMEOUT => {
                broken(error)
            }
            Err(error) => Answered::Failed(format!("{status} {error:?}")),
        }
    }
}

/// What a whole answer says.
fn answered(txn: &Txn, (status, headers): (StatusCode, &HeaderMap), body: &[u8]) -> Answered {
    let text = || format!("{status} {}", String::from_utf8_lossy(body));
    if status == StatusCode::OK {
        return match done(txn, headers, body) {
            Ok(done) => Answered::Done(done),
            Err(reason) => Answered::Bad(format!("{reason}: {}", text())),
        };
    }
    let Ok(error) = serde_json::from_slice::<ErrorBody>(body) else {
        return Answered::Bad(text());
    };
    match error.outcome {
        Some(WriteOutcome::Unknown)
            if status == StatusCode::GATEWAY_TIMEOUT && !txn.only_reads() =>
        {
            Answered::Unknown(text())
        }
        // Whether it holds what it is asked to hold is said in a body.
        Some(WriteOutcome::NotApplied)
            if may_refuse(status) && status != StatusCode::PRECONDITION_FAILED =>
        {
            Answered::Failed(text())
        }
        _ => Answered::Bad(text()),
    }
}

fn done(txn: &Txn, headers: &HeaderMap, body: &[u8]) -> Result<Done, String> {
    let Body { succeeded, results, version } =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if !succeeded && txn.compare.is_empty() {
        return Err("there was nothing that could not hold".into());
    }
    let ops = if succeeded { &txn.then } else { &txn.otherwise };
    if ops.len() != results.len() {
        return Err(format!("{} results of {} operations", results.len(), ops.len()));
    }
    if index(headers) != Some(version) {
        return Err("its header names another place in the log".into());
    }
    let results = ops.iter().zip(&results).map(|(op, result)| op_done(op, result.get()));
    let results = results.collect::<Result<_, String>>()?;
    let group = group(headers).ok_or("it names no group")?;
    Ok(Done { succeeded, results, index: version, group })
}

fn op_done(op: &Op, json: &str) -> Result<OpDone, String> {
    let text = |error: serde_json::Error| error.to_string();
    let Status { status } = serde_json::from_str(json).map_err(text)?;
    match op {
        Op::Get(_) => {
            let read: GetBody = serde_json::from_str(json).map_err(text)?;
            match (status, read.found, read.value, read.version) {
                (404, false, None, None) => Ok(OpDone::Read(None)),
                (200, true, Some(value), Some(version)) => {
                    Ok(OpDone::Read(Some((value.get().into(), version))))
                }
                _ => Err(format!("no result of a get: {json}")),
            }
        }
        Op::Put(..) => {
            let written: WriteBody = serde_json::from_str(json).map_err(text)?;
            if status != 200 || !written.ok || written.acks < written.quorum {
                return Err(format!("no result of a put: {json}"));
            }
            Ok(OpDone::Written(written.version))
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use sagedb::types::http::HEADER_INDEX;

    use super::*;

    const WRITTEN: &str = r#"{"succeeded":true,"results":[{"status":200,"ok":true,"acks":3,"quorum":2,"ts":1,"version":7,"existed":true}],"version":17}"#;
    const READ: &str = r#"{"succeeded":false,"results":[{"status":200,"found":true,"value":{"a":1},"ts":1,"version":7},{"status":404,"found":false}],"version":17}"#;
    const NOT_APPLIED: &str = r#"{"error":"no","code":"no","outcome":"not_applied"}"#;
    const UNKNOWN: &str = r#"{"error":"no","code":"no","outcome":"unknown"}"#;

    fn transfer() -> Txn {
        Txn {
            compare: vec![("k".into(), Holds::Version(6)), ("l".into(), Holds::Value(json!(1)))],
            then: vec![Op::Put("k".into(), json!({"a": 2}))],
            otherwise: vec![Op::Get("k".into()), Op::Get("l".into())],
        }
    }

    fn look() -> Txn {
        Txn { then: transfer().otherwise, ..Txn::default() }
    }

    /// The first letter of what became of it.
    fn letter(txn: &Txn, status: u16, body: &str) -> char {
        let index = HeaderValue::from_static("g1:17");
        let headers = HeaderMap::from_iter([(HEADER_INDEX.parse().expect("a name"), index)]);
        let status = StatusCode::from_u16(status).expect("a status");
        match answered(txn, (status, &headers), body.as_bytes()) {
            Answered::Done(_) => 'd',
            Answered::Failed(_) => 'f',
            Answered::Unknown(_) => 'u',
            Answered::Bad(_) => 'b',
        }
    }

    #[test]
    fn an_answer_says_what_each_operation_came_to() {
        assert_eq!((letter(&transfer(), 200, WRITTEN), letter(&transfer(), 200, READ)), ('d', 'd'));
        let held = READ.replace("false,\"results", "true,\"results");
        assert_eq!((letter(&look(), 200, &held), letter(&transfer(), 200, &held)), ('d', 'b'));
        let bad = [
            (look(), READ.to_string()),
            (transfer(), WRITTEN.replace("acks\":3", "acks\":1")),
            (transfer(), WRITTEN.replace("version\":17", "version\":18")),
            (transfer(), WRITTEN.replace("status\":200", "status\":503")),
            (transfer(), READ.replace("status\":404", "status\":200")),
            (transfer(), READ.replace("\"found\":true", "\"found\":false")),
            (transfer(), WRITTEN.replace("true,\"results", "false,\"results")),
            (transfer(), r#"{"succeeded":true,"results":[],"version":17}"#.into()),
            (transfer(), NOT_APPLIED.into()),
            (transfer(), String::new()),
        ];
        for (txn, body) in bad {
            assert_eq!(letter(&txn, 200, &body), 'b', "{body}");
        }
    }

    #[test]
    fn only_504_leaves_the_fate_of_a_transaction_open_that_writes() {
        for status in [421, 429, 503, 507] {
            assert_eq!(letter(&transfer(), status, NOT_APPLIED), 'f', "{status}");
            assert_eq!(letter(&look(), status, NOT_APPLIED), 'f', "{status}");
            assert_eq!(letter(&transfer(), status, UNKNOWN), 'b', "{status}");
        }
        assert_eq!((letter(&transfer(), 504, UNKNOWN), letter(&look(), 504, UNKNOWN)), ('u', 'b'));
        for status in [201, 400, 404, 412, 413, 500, 504] {
            assert_eq!(letter(&transfer(), status, NOT_APPLIED), 'b', "{status}");
        }
    }

    #[test]
    fn a_body_is_as_the_api_has_it() {
        assert_eq!(
            transfer().body(),
            json!({
                "if": [{"key": "k", "version": 6}, {"key": "l", "value": 1}],
                "then": [{"op": "put", "key": "k", "value": {"a": 2}}],
                "else": [{"op": "get", "key": "k"}, {"op": "get", "key": "l"}],
            })
        );
        assert!(look().only_reads() && !transfer().only_reads());
    }
}
