//! Several operations in one request: transactions and batches.

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::answer::Answer;
use crate::client::error::is_settled;
use crate::client::scan::value_of;
use crate::client::{Client, ClientError, Request, WriteOptions};
use crate::types::error::WriteOutcome;
use crate::types::http::{ErrorBody, GetBody, PATH_BATCH, PATH_TXN, WriteBody};
use crate::types::ids::Index;
use crate::types::item::Item;
use crate::types::once::IdempotencyKey;
use crate::types::txn::{Compare, Op};
use crate::types::txn_body::{BatchBody, TxnBody};
use crate::types::value::{Value, ValueKind};

/// What became of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnAnswer {
    /// Whether all conditions held, so that the first list of operations was carried out; else the second was.
    pub succeeded: bool,
    /// What became of each operation, in order.
    pub results: Vec<OpAnswer>,
    /// Where it stands in its group's log: it rises from transaction to transaction of the group.
    pub version: Index,
}

/// What became of one operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpAnswer {
    /// What a key has.
    Read(Option<Item>),
    /// A key was written.
    Written(WriteBody),
    /// It was refused, or nobody knows.
    Failed {
        /// As an HTTP status.
        status: u16,
        /// What programs match on.
        code: String,
        /// A sentence.
        error: String,
        /// What became of it.
        outcome: WriteOutcome,
    },
}

#[derive(Deserialize)]
struct SeveralBody {
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    version: Index,
    results: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Kind {
    status: u16,
    found: Option<bool>,
    code: Option<String>,
}

impl Client {
    /// If all of `compare` holds, carries out `then`, else `otherwise`: all of it in one moment, or nothing.
    /// All keys must belong to one group, which a part in braces sees to: `{user:1}:cart`.
    ///
    /// With an idempotency key it takes effect once, however often it is sent.
    ///
    /// # Panics
    /// Never: what is sent has a JSON form.
    pub async fn txn(
        &self,
        (compare, then, otherwise): (&[Compare], &[Op], &[Op]),
        idempotency_key: Option<&IdempotencyKey>,
    ) -> Result<TxnAnswer, ClientError> {
        let body = TxnBody::of(compare, then, otherwise);
        let json = serde_json::to_vec(&body).expect("our own bodies have a JSON form");
        let (results, answered) = self.several(PATH_TXN, json, idempotency_key).await?;
        Ok(TxnAnswer { succeeded: results.succeeded, results: answered, version: results.version })
    }

    /// Carries out each operation by itself, those of one group in one moment, in as few round trips as
    /// there are groups.
    ///
    /// # Panics
    /// Never: what is sent has a JSON form.
    pub async fn batch(
        &self,
        ops: &[Op],
        idempotency_key: Option<&IdempotencyKey>,
    ) -> Result<Vec<OpAnswer>, ClientError> {
        let json =
            serde_json::to_vec(&BatchBody::of(ops)).expect("our own bodies have a JSON form");
        Ok(self.several(PATH_BATCH, json, idempotency_key).await?.1)
    }

    /// Sends a body of JSON, as it is, to `/txn` or `/batch`, and returns the JSON of the answer.
    pub(crate) async fn several_as_json(
        &self,
        path: &'static str,
        json: Vec<u8>,
        idempotency_key: Option<&IdempotencyKey>,
    ) -> Result<Box<RawValue>, ClientError> {
        self.several_as_sent(path, json, idempotency_key).await?.body()
    }

    pub(super) async fn several_as_sent(
        &self,
        path: &'static str,
        json: Vec<u8>,
        idempotency_key: Option<&IdempotencyKey>,
    ) -> Result<Answer, ClientError> {
        let body = Value { kind: ValueKind::Json, data: json.into() };
        let options =
            WriteOptions { idempotency_key: idempotency_key.cloned(), ..WriteOptions::default() };
        let mut request = Request { method: Method::POST, ..Request::get(path) };
        request.value = Some(&body);
        request.options = Some(&options);
        self.send(request).await
    }

    async fn several(
        &self,
        path: &'static str,
        json: Vec<u8>,
        idempotency_key: Option<&IdempotencyKey>,
    ) -> Result<(SeveralBody, Vec<OpAnswer>), ClientError> {
        let answer = self.several_as_sent(path, json, idempotency_key).await?;
        let results: SeveralBody = answer.body()?;
        let answered = results.results.iter().map(|result| {
            op_answer(result, answer.after_lost).map_err(|reason| answer.odd(reason))
        });
        let answered = answered.collect::<Result<_, _>>()?;
        Ok((results, answered))
    }
}

fn op_answer(json: &RawValue, after_lost: bool) -> Result<OpAnswer, String> {
    let text = |error: serde_json::Error| error.to_string();
    let Kind { status, found, code } = serde_json::from_str(json.get()).map_err(text)?;
    if code.is_some() {
        let ErrorBody { error, code, outcome, .. } =
            serde_json::from_str(json.get()).map_err(text)?;
        // Unless it is the group's own word, which holds for every attempt.
        let unknown = after_lost && !is_settled(&code);
        let outcome = match outcome {
            // Servers say it of all that writes, and no read is answered like that.
            None if status == 504 => WriteOutcome::Unknown,
            None => WriteOutcome::NotApplied,
            Some(_) if unknown => WriteOutcome::Unknown,
            Some(outcome) => outcome,
        };
        return Ok(OpAnswer::Failed { status, code, error, outcome });
    }
    match found {
        None => Ok(OpAnswer::Written(serde_json::from_str(json.get()).map_err(text)?)),
        Some(false) => Ok(OpAnswer::Read(None)),
        Some(true) => {
            let body: GetBody = serde_json::from_str(json.get()).map_err(text)?;
            let GetBody { value, encoding, ts, version, expires, .. } = body;
            let (Some(value), Some(ts), Some(version)) = (value, ts, version) else {
                return Err("a value without its version or time".into());
            };
            let value = value_of(&value, encoding.as_deref())?;
            Ok(OpAnswer::Read(Some(Item { value, ts, version, expires: expires.into() })))
        }
    }
}
