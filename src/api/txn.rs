//! `POST /txn` and `POST /batch`: several operations in one request, over any [`Kv`].
//!
//! The body is JSON, strictly read: what is not known is refused, never ignored. What became of each
//! operation is said as its single request would be answered, with its status beside it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;

use crate::api::Kv;
use crate::api::accepted;
use crate::api::body;
use crate::api::error::{About, declined, json_body, plain, refuse};
use crate::api::extract::Query;
use crate::api::headers::{idempotency_key, only_a_name};
use crate::api::routes::Shared;
use crate::types::command::Write;
use crate::types::deadline::Deadline;
use crate::types::error::{Decline, Error};
use crate::types::http::{CONTENT_JSON, ErrorBody, GetBody, HEADER_INDEX, WriteBody};
use crate::types::kv::{GroupIndex, KvReply, KvRequest};
use crate::types::limits::{DEADLINE_MARGIN, INDEX_HEADER_BYTES_MAX, TXN_BODY_BYTES_MAX};
use crate::types::once::Once;
use crate::types::txn::{BatchedOp, Op, OpResult, Txn, TxnReply};
use crate::types::txn_body::{BatchBody, Object, TxnBody};

/// `POST /txn`.
pub(super) async fn txn<K: Kv>(State(shared): State<Arc<Shared<K>>>, request: Request) -> Response {
    try_txn(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Write))
}

async fn try_txn<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let (deadline, once) = envelope(&request)?;
    let _place = shared.admit()?;
    let (body, permit) = read::<TxnBody, K>(shared, request, deadline).await?;
    let txn = body.parse(shared.max_value_bytes)?;
    let writes = !txn.only_reads();
    let [then, otherwise] = Asked::of_lists(&txn);
    let call = shared.face.call(KvRequest::Txn { txn, once }, deadline.earlier_by(DEADLINE_MARGIN));
    let answer = timeout_at(deadline.instant().into(), call).await;
    drop(permit);
    let late = || Error::outcome_unknown("no answer before the deadline");
    let reply = match answer.unwrap_or_else(|_| Err(late())) {
        Ok(KvReply::Txn(reply)) => reply,
        Ok(KvReply::Written(_) | KvReply::Read(_)) => {
            return Err(Error::outcome_unknown(
                "the store answered a transaction with something else",
            ));
        }
        Err(error) => return Err(of_reads(error, writes)),
    };
    let TxnReply { at, ts, outcome, acks, quorum } = reply;
    let mut body = format!(r#"{{"succeeded":{},"results":["#, outcome.succeeded).into_bytes();
    let asked = if outcome.succeeded { then } else { otherwise };
    for (number, (asked, result)) in asked.into_iter().zip(outcome.results).enumerate() {
        let done = BatchedOp { result, ts, acks, quorum };
        render(number, asked, Ok(done), &mut body);
    }
    body.extend_from_slice(format!(r#"],"version":{}}}"#, at.index).as_bytes());
    Ok(answer_of(body, &[at]))
}

/// `POST /batch`.
pub(super) async fn batch<K: Kv>(
    State(shared): State<Arc<Shared<K>>>,
    request: Request,
) -> Response {
    try_batch(&shared, request).await.unwrap_or_else(|error| refuse(error, About::Write))
}

async fn try_batch<K: Kv>(shared: &Shared<K>, request: Request) -> Result<Response, Error> {
    let (deadline, once) = envelope(&request)?;
    let _place = shared.admit()?;
    let (body, permit) = read::<BatchBody, K>(shared, request, deadline).await?;
    let ops = body.parse(shared.max_value_bytes)?;
    let writes = ops.iter().any(|op| matches!(op, Op::Write { .. }));
    let asked = Asked::of_all(&ops);
    let call = shared.face.batch(ops, once, deadline.earlier_by(DEADLINE_MARGIN));
    let answer = timeout_at(deadline.instant().into(), call).await;
    drop(permit);
    let late = Err(Error::outcome_unknown("no answer before the deadline"));
    let batched = answer.unwrap_or(late).map_err(|error| of_reads(error, writes))?;
    let mut body = br#"{"results":["#.to_vec();
    for (number, (asked, result)) in asked.into_iter().zip(batched.results).enumerate() {
        render(number, asked, result, &mut body);
    }
    body.extend_from_slice(b"]}");
    Ok(answer_of(body, &batched.at))
}

/// What changes nothing has nothing that could be unknown.
fn of_reads(error: Error, writes: bool) -> Error {
    match error {
        Error::OutcomeUnknown { reason } if !writes => Error::Unavailable { reason },
        error => error,
    }
}

fn envelope(request: &Request) -> Result<(Deadline, Option<Once>), Error> {
    let query = Query::parse(request.uri(), accepted::ONLY_TIMEOUT)?;
    only_a_name(request.headers())?;
    Ok((query.deadline()?, idempotency_key(request.headers())?.map(Once::Key)))
}

async fn read<T: DeserializeOwned, K: Kv>(
    shared: &Shared<K>,
    request: Request,
    deadline: Deadline,
) -> Result<(T, body::Held), Error> {
    let (body, budget) = (request.into_body(), &shared.body_budget);
    let held = body::read(body, TXN_BODY_BYTES_MAX, budget, deadline).await?;
    let parsed: Result<Object<T>, _> = serde_json::from_slice(&held.data);
    let Object(body) = parsed.map_err(|error| Error::InvalidJson(error.to_string()))?;
    Ok((body, held))
}

/// What an operation is, as far as the answer to its single request depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// Its failure has no outcome.
    Read,
    /// A put, a touch or an addition: whether there was a value before is not told.
    Write,
    /// It is told.
    Delete,
}

impl Asked {
    fn of(op: &Op) -> Self {
        match op {
            Op::Get { .. } => Self::Read,
            Op::Write { write: Write::Delete, .. } => Self::Delete,
            Op::Write {
                write:
                    Write::Put { .. } | Write::PutFor { .. } | Write::Touch { .. } | Write::Add { .. },
                ..
            } => Self::Write,
        }
    }

    fn about(self) -> About {
        match self {
            Self::Read => About::Read,
            Self::Write | Self::Delete => About::Write,
        }
    }

    fn of_all(ops: &[Op]) -> Vec<Self> {
        ops.iter().map(Self::of).collect()
    }

    /// Of what happens if the conditions hold, and of what otherwise.
    fn of_lists(txn: &Txn) -> [Vec<Self>; 2] {
        match txn {
            Txn::Batch { ops } => [Self::of_all(ops), Vec::new()],
            Txn::Atomic { then, otherwise, .. } => [Self::of_all(then), Self::of_all(otherwise)],
        }
    }
}

/// Appends what became of one operation.
fn render(number: usize, asked: Asked, result: Result<BatchedOp, Error>, body: &mut Vec<u8>) {
    if number > 0 {
        body.push(b',');
    }
    let (status, json) = match result {
        Ok(BatchedOp { result: OpResult::Read(Some(item)), .. }) => (200, GetBody::render(&item)),
        Ok(BatchedOp { result: OpResult::Read(None), .. }) => (404, GetBody::NOT_FOUND.into()),
        Ok(BatchedOp {
            result: OpResult::Written { version, existed, expires, value },
            ts,
            acks,
            quorum,
        }) => {
            let existed = (asked == Asked::Delete).then_some(existed);
            let body = WriteBody {
                ok: true,
                acks,
                quorum,
                ts,
                version,
                expires,
                value,
                existed,
                index: None,
            };
            (200, serde_json::to_vec(&body).expect("our own bodies have a JSON form"))
        }
        Ok(BatchedOp { result: OpResult::Failed(error), .. }) => {
            let why = Decline::from(error);
            (why.code().status(), of_error(&declined(why, asked.about())))
        }
        Err(error) => {
            let error = of_reads(error, asked.about() == About::Write);
            (error.status(), of_error(&json_body(&error, asked.about())))
        }
    };
    // Every one of them is an object with at least one field.
    body.extend_from_slice(format!(r#"{{"status":{status},"#).as_bytes());
    body.extend_from_slice(&json[1..]);
}

fn of_error(body: &ErrorBody) -> Vec<u8> {
    serde_json::to_vec(body).expect("our own bodies have a JSON form")
}

fn answer_of(body: Vec<u8>, at: &[GroupIndex]) -> Response {
    let mut response = plain(StatusCode::OK, CONTENT_JSON, body);
    let at: Vec<_> = at.iter().map(GroupIndex::to_string).collect();
    let at = at.join(", ");
    // Where no group could say anything there is no position.
    if (1..=INDEX_HEADER_BYTES_MAX).contains(&at.len())
        && let Ok(value) = HeaderValue::from_str(&at)
    {
        response.headers_mut().insert(HeaderName::from_static(HEADER_INDEX), value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_group_could_say_anything_there_is_no_position() {
        let at = GroupIndex { group: "red".into(), index: 7 };
        let headers =
            |at: &[GroupIndex]| answer_of(Vec::new(), at).headers().get(HEADER_INDEX).cloned();
        assert_eq!(headers(&[at]), Some(HeaderValue::from_static("red:7")));
        assert_eq!(headers(&[]), None);
    }
}
