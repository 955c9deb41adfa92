//! The JSON of transactions and batches, as it goes over HTTP in both directions.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::types::bounded::bounded;
use crate::types::clock::TimestampMs;
use crate::types::command::Write;
use crate::types::error::Error;
use crate::types::item::Version;
use crate::types::key::Key;
use crate::types::limits::{TTL_MAX, TXN_OPS_MAX};
use crate::types::txn::{Compare, Holds, Op, Txn};
use crate::types::units::parse_duration;
use crate::types::value::{Value, ValueKind};

/// Body of `POST /batch`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    /// The operations.
    #[serde(deserialize_with = "objects")]
    #[schema(min_items = 1, max_items = 1000)]
    pub ops: Vec<OpBody>,
}

/// Body of `POST /txn`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TxnBody {
    /// What must hold.
    #[serde(default, rename = "if", deserialize_with = "objects")]
    #[schema(max_items = 1000)]
    pub compare: Vec<CompareBody>,
    /// What happens if all of it does.
    #[serde(default, deserialize_with = "objects")]
    #[schema(max_items = 1000)]
    pub then: Vec<OpBody>,
    /// What happens if not.
    #[serde(default, rename = "else", deserialize_with = "objects")]
    #[schema(max_items = 1000)]
    pub otherwise: Vec<OpBody>,
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OpName {
    /// Reads.
    Get,
    /// Writes a value.
    Put,
    /// Removes a value.
    Delete,
    /// Adds to a counter.
    Incr,
    /// Lets a value last for another while.
    Touch,
}

/// What a value in JSON stands for, if not for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TypeName {
    /// Bytes, in base64.
    Bytes,
}

/// One operation.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpBody {
    /// What it does.
    pub op: OpName,
    /// To which key.
    #[schema(min_length = 1, max_length = 4096)]
    pub key: String,
    /// Of `put`: any JSON value; a string is stored as text.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value)]
    pub value: Option<Box<RawValue>>,
    /// Of `put`: what the value stands for.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<TypeName>,
    /// Of `put` and `touch`: how long it lasts; `none` for ever, of `touch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Of `incr`: how much is added; 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<i64>,
}

/// What must hold of one key: exactly one of `version`, `exists` and `value`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareBody {
    /// Of which.
    #[schema(min_length = 1, max_length = 4096)]
    pub key: String,
    /// Its version is this; 0 if it has no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// It has a value, or has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// It has this value.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value)]
    pub value: Option<Box<RawValue>>,
    /// What the value stands for.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<TypeName>,
}

/// A list of at most [`TXN_OPS_MAX`] objects.
fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let objects: Vec<Object<T>> = bounded::<_, _, TXN_OPS_MAX>(deserializer)?;
    Ok(objects.into_iter().map(|Object(body)| body).collect())
}

/// What must come as an object: as it is derived, a struct may come as a list of its fields, too.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Also a `null` is a value.
pub(in crate::types) fn given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl BatchBody {
    /// The batch that it says; its values of at most so many bytes.
    pub fn parse(self, max_value_bytes: usize) -> Result<Vec<Op>, Error> {
        if self.ops.is_empty() {
            return Err(invalid("ops", "at least one operation"));
        }
        ops("ops", self.ops, max_value_bytes)
    }

    /// What says this batch.
    pub fn of(batch: &[Op]) -> Self {
        Self { ops: batch.iter().map(OpBody::of).collect() }
    }
}

impl TxnBody {
    /// The transaction that it says; its values of at most so many bytes.
    pub fn parse(self, max_value_bytes: usize) -> Result<Txn, Error> {
        let Self { compare, then, otherwise } = self;
        if compare.is_empty() && then.is_empty() && otherwise.is_empty() {
            return Err(invalid("then", "at least one condition or operation"));
        }
        let compare = compare.into_iter().enumerate();
        let compare = compare.map(|(at, compare)| {
            compare.parse(max_value_bytes).map_err(|error| within("if", at, error))
        });
        Ok(Txn::Atomic {
            compare: compare.collect::<Result<_, _>>()?,
            then: ops("then", then, max_value_bytes)?,
            otherwise: ops("else", otherwise, max_value_bytes)?,
        })
    }

    /// What says this transaction.
    pub fn of(compare: &[Compare], then: &[Op], otherwise: &[Op]) -> Self {
        Self {
            compare: compare.iter().map(CompareBody::of).collect(),
            then: then.iter().map(OpBody::of).collect(),
            otherwise: otherwise.iter().map(OpBody::of).collect(),
        }
    }
}

fn ops(list: &str, ops: Vec<OpBody>, max_value_bytes: usize) -> Result<Vec<Op>, Error> {
    let ops = ops.into_iter().enumerate();
    ops.map(|(at, op)| op.parse(max_value_bytes).map_err(|error| within(list, at, error))).collect()
}

impl OpBody {
    fn parse(self, max_value_bytes: usize) -> Result<Op, Error> {
        let Self { op, key, value, kind, ttl, by } = self;
        let key = Key::new(key)?;
        let only = |field: &'static str, given: bool, belongs: bool| {
            if given && !belongs {
                Err(invalid(field, format!("not of {}", name(op))))
            } else {
                Ok(())
            }
        };
        only("value", value.is_some(), op == OpName::Put)?;
        only("type", kind.is_some(), op == OpName::Put)?;
        only("ttl", ttl.is_some(), matches!(op, OpName::Put | OpName::Touch))?;
        only("by", by.is_some(), op == OpName::Incr)?;
        let write = match op {
            OpName::Get => return Ok(Op::Get { key }),
            OpName::Delete => Write::Delete,
            OpName::Incr => Write::Add { by: by.unwrap_or(1) },
            OpName::Touch => {
                let ttl =
                    ttl.ok_or_else(|| invalid("ttl", "required; a duration, or none for ever"))?;
                let ttl_ms = if ttl == "none" { None } else { Some(ttl_ms(&ttl)?) };
                Write::Touch { ttl_ms }
            }
            OpName::Put => {
                let value = value.ok_or_else(|| invalid("value", "required"))?;
                let value = value_of(&value, kind, max_value_bytes)?;
                match ttl {
                    None => Write::Put { value },
                    Some(ttl) => Write::PutFor { value, ttl_ms: ttl_ms(&ttl)? },
                }
            }
        };
        Ok(Op::Write { key, write })
    }

    fn of(op: &Op) -> Self {
        let bare = |op, key: &Key| Self {
            op,
            key: key.as_str().to_owned(),
            value: None,
            kind: None,
            ttl: None,
            by: None,
        };
        let put = |key, value| {
            let (value, kind) = in_json(value);
            Self { value: Some(value), kind, ..bare(OpName::Put, key) }
        };
        let text = |ttl_ms: u64| format!("{ttl_ms}ms");
        match op {
            Op::Get { key } => bare(OpName::Get, key),
            Op::Write { key, write } => match write {
                Write::Put { value } => put(key, value),
                Write::PutFor { value, ttl_ms } => {
                    Self { ttl: Some(text(*ttl_ms)), ..put(key, value) }
                }
                Write::Delete => bare(OpName::Delete, key),
                Write::Add { by } => Self { by: Some(*by), ..bare(OpName::Incr, key) },
                Write::Touch { ttl_ms } => {
                    let ttl = ttl_ms.map_or_else(|| "none".to_owned(), text);
                    Self { ttl: Some(ttl), ..bare(OpName::Touch, key) }
                }
            },
        }
    }
}

fn name(op: OpName) -> &'static str {
    match op {
        OpName::Get => "get",
        OpName::Put => "put",
        OpName::Delete => "delete",
        OpName::Incr => "incr",
        OpName::Touch => "touch",
    }
}

impl CompareBody {
    fn parse(self, max_value_bytes: usize) -> Result<Compare, Error> {
        let Self { key, version, exists, value, kind } = self;
        let key = Key::new(key)?;
        if kind.is_some() && value.is_none() {
            return Err(invalid("type", "only beside value"));
        }
        let holds = match (version, exists, value) {
            (Some(version), None, None) => Holds::Version(version),
            (None, Some(exists), None) => Holds::Exists(exists),
            (None, None, Some(value)) => Holds::Value(value_of(&value, kind, max_value_bytes)?),
            _ => return Err(invalid("version", "exactly one of version, exists and value")),
        };
        Ok(Compare { key, holds })
    }

    fn of(compare: &Compare) -> Self {
        let key = compare.key.as_str().to_owned();
        let bare = Self { key, version: None, exists: None, value: None, kind: None };
        match &compare.holds {
            Holds::Version(version) => Self { version: Some(*version), ..bare },
            Holds::Exists(exists) => Self { exists: Some(*exists), ..bare },
            Holds::Value(value) => {
                let (value, kind) = in_json(value);
                Self { value: Some(value), kind, ..bare }
            }
        }
    }
}

/// The value that JSON says.
fn value_of(json: &RawValue, kind: Option<TypeName>, max: usize) -> Result<Value, Error> {
    let text = || serde_json::from_str::<String>(json.get()).ok();
    let value = match kind {
        Some(TypeName::Bytes) => {
            let bytes = text().and_then(|text| BASE64_STANDARD.decode(text).ok());
            Value::bytes(
                bytes.ok_or_else(|| invalid("value", "bytes must come as a string of base64"))?,
            )
        }
        None => match text() {
            Some(text) => Value::text(text),
            None => Value { kind: ValueKind::Json, data: json.get().to_owned().into() },
        },
    };
    if value.data.len() > max {
        return Err(Error::ValueTooLarge { max: max as u64 });
    }
    Ok(value)
}

/// The JSON that says a value.
fn in_json(value: &Value) -> (Box<RawValue>, Option<TypeName>) {
    let raw = |json: String| RawValue::from_string(json).expect("it was made as JSON");
    let string = |text: &str| raw(serde_json::to_string(text).expect("text has a JSON form"));
    match value.kind {
        ValueKind::Text => (string(&String::from_utf8_lossy(&value.data)), None),
        ValueKind::Bytes => (string(&BASE64_STANDARD.encode(&value.data)), Some(TypeName::Bytes)),
        ValueKind::Json => (raw(String::from_utf8_lossy(&value.data).into_owned()), None),
    }
}

fn ttl_ms(text: &str) -> Result<TimestampMs, Error> {
    let ttl = parse_duration(text).map_err(|error| invalid("ttl", error.to_string()))?;
    if ttl.is_zero() || ttl > TTL_MAX {
        let days = TTL_MAX.as_secs() / (24 * 60 * 60);
        return Err(invalid("ttl", format!("out of range; more than 0, at most {days}d")));
    }
    Ok(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

fn invalid(name: &str, reason: impl Into<String>) -> Error {
    Error::InvalidParameter { name: name.to_owned(), reason: reason.into() }
}

/// Says in which element of a list it is.
fn within(list: &str, at: usize, error: Error) -> Error {
    match error {
        Error::InvalidParameter { name, reason } => {
            invalid(&format!("{list}[{at}].{name}"), reason)
        }
        Error::MissingKey => invalid(&format!("{list}[{at}].key"), "empty"),
        error => error,
    }
}
