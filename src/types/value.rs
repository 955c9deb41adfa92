//! A value: bytes and the kind they were stored as.
//!
//! JSON is kept as the text that was sent, byte for byte, so that numbers beyond 2^53, the order
//! of names and duplicates survive.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// The length of the longest integer of 64 bits: `-9223372036854775808`.
const INTEGER_BYTES_MAX: usize = 20;

/// How a value was sent and how it comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueKind {
    /// Valid UTF-8; comes back as a JSON string.
    Text,
    /// One valid JSON text; comes back as it is.
    Json,
    /// Any bytes; come back as base64.
    Bytes,
}

/// A stored value. Cloning counts a reference.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Deserialize)]
pub struct Value {
    /// What the bytes are.
    pub kind: ValueKind,
    /// The bytes as they were sent.
    pub data: Bytes,
}

/// Why bytes are no value of the kind they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not one whole JSON text.
    #[error("Invalid JSON: {0}")]
    NotJson(String),
    /// Not text.
    #[error("value is not valid UTF-8")]
    NotUtf8,
}

impl Value {
    /// Text, from a checked string.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: ValueKind::Text, data: Bytes::from(text.into()) }
    }

    /// Bytes of any content.
    pub fn bytes(data: impl Into<Bytes>) -> Self {
        Self { kind: ValueKind::Bytes, data: data.into() }
    }

    /// A JSON integer.
    pub fn integer(number: i64) -> Self {
        Self { kind: ValueKind::Json, data: Bytes::from(number.to_string()) }
    }

    /// The JSON integer that it is, if it is one of 64 bits.
    pub fn as_integer(&self) -> Option<i64> {
        match self.kind {
            // No longer text is one.
            ValueKind::Json if self.data.len() <= INTEGER_BYTES_MAX => {
                std::str::from_utf8(&self.data).ok()?.parse().ok()
            }
            ValueKind::Json | ValueKind::Text | ValueKind::Bytes => None,
        }
    }

    /// Whether two values say the same: text and a JSON string of it do, and JSON may differ in
    /// insignificant white space, but in nothing else: not in the order of names, nor in how a number is
    /// written.
    pub fn is_same(&self, other: &Self) -> bool {
        let text = |value: &Self| match value.kind {
            ValueKind::Bytes => None,
            ValueKind::Text => String::from_utf8(value.data.to_vec()).ok(),
            ValueKind::Json => serde_json::from_slice(&value.data).ok(),
        };
        match (self.kind, other.kind) {
            (ValueKind::Bytes, ValueKind::Bytes) => self.data == other.data,
            (ValueKind::Bytes, _) | (_, ValueKind::Bytes) => false,
            (ValueKind::Json, ValueKind::Json) => text(self).zip(text(other)).map_or_else(
                || significant(&self.data).eq(significant(&other.data)),
                |(one, other)| one == other,
            ),
            (ValueKind::Text | ValueKind::Json, ValueKind::Text | ValueKind::Json) => {
                text(self).zip(text(other)).is_some_and(|(one, other)| one == other)
            }
        }
    }

    /// Checks that `data` is what `kind` says. JSON keeps its inner white space, but not what
    /// stands around it.
    pub fn new(kind: ValueKind, data: Bytes) -> Result<Self, ValueError> {
        let data = match kind {
            ValueKind::Bytes => data,
            ValueKind::Text if std::str::from_utf8(&data).is_ok() => data,
            ValueKind::Text => return Err(ValueError::NotUtf8),
            ValueKind::Json => {
                let text: &RawValue = serde_json::from_slice(&data)
                    .map_err(|error| ValueError::NotJson(error.to_string()))?;
                data.slice_ref(text.get().as_bytes())
            }
        };
        Ok(Self { kind, data })
    }
}

/// The bytes of a JSON text but its insignificant white space (RFC 8259, section 2).
fn significant(json: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let (mut in_string, mut escaped) = (false, false);
    json.iter().copied().filter(move |byte| {
        let counts = in_string || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match (*byte, escaped) {
            (_, true) => escaped = false,
            (b'\\', false) => escaped = in_string,
            (b'"', false) => in_string = !in_string,
            _ => {}
        }
        counts
    })
}

/// For people as a `GET` shows it, with the kind beside it; in our own encoding kind and bytes.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let readable = serializer.is_human_readable();
        let mut fields = serializer.serialize_struct("Value", 2)?;
        fields.serialize_field("kind", &self.kind)?;
        match (readable, self.kind) {
            (false, _) => fields.serialize_field("data", &self.data)?,
            (true, ValueKind::Json) => {
                let text = serde_json::from_slice::<&RawValue>(&self.data);
                fields.serialize_field("value", text.map_err(serde::ser::Error::custom)?)?;
            }
            (true, ValueKind::Text) => {
                fields.serialize_field("value", &String::from_utf8_lossy(&self.data))?;
            }
            (true, ValueKind::Bytes) => {
                fields.serialize_field("value", &BASE64_STANDARD.encode(&self.data))?;
            }
        }
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_as_it_is_answered() {
        let json = Value::new(ValueKind::Json, Bytes::from("{\"b\": 1e400}")).expect("valid");
        for (value, shown) in [
            (json, r#"{"kind":"json","value":{"b": 1e400}}"#),
            (Value::text("a\"b"), r#"{"kind":"text","value":"a\"b"}"#),
            (Value::bytes(&b"\xff\0"[..]), r#"{"kind":"bytes","value":"/wA="}"#),
        ] {
            assert_eq!(serde_json::to_string(&value).expect("it has a form"), shown);
            let encoded = crate::types::codec::encode(&value);
            assert_eq!(crate::types::codec::decode::<Value>(&encoded, 100), Ok(value));
        }
    }

    #[test]
    fn json_is_checked_and_kept_byte_for_byte() {
        let sent = r#" {"b":1, "a":12345678901234567890123, "a":1e400} "#;
        let value = Value::new(ValueKind::Json, Bytes::from(sent)).expect("valid");
        assert_eq!(value.data, sent.trim());
        for bad in ["", "{", "{} {}", "nul", "\"\u{1}\"", "01"] {
            assert!(Value::new(ValueKind::Json, Bytes::from(bad)).is_err(), "{bad}");
        }
        let not_utf8 = Bytes::from_static(b"\"\xff\"");
        assert!(Value::new(ValueKind::Json, not_utf8.clone()).is_err());
        assert_eq!(Value::new(ValueKind::Text, not_utf8), Err(ValueError::NotUtf8));
    }
}
