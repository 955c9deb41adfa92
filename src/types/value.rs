//! A value: bytes and the kind they were stored as.
//!
//! JSON is kept as the text that was sent, byte for byte, so that numbers beyond 2^53, the order
//! of names and duplicates survive.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How a value was sent and how it comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum ValueKind {
    /// Valid UTF-8; comes back as a JSON string.
    Text,
    /// One valid JSON text; comes back as it is.
    Json,
    /// Any bytes; come back as base64.
    Bytes,
}

/// A stored value. Cloning counts a reference.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
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

    /// Checks that `data` is what `kind` says. JSON keeps its inner white space, but not what
    /// stands around it.
    pub fn new(kind: ValueKind, data: Bytes) -> Result<Self, ValueError> {
        let data = match kind {
            ValueKind::Bytes => data,
            ValueKind::Text if std::str::from_utf8(&data).is_ok() => data,
            ValueKind::Text => return Err(ValueError::NotUtf8),
            ValueKind::Json => {
                let text: &serde_json::value::RawValue = serde_json::from_slice(&data)
                    .map_err(|error| ValueError::NotJson(error.to_string()))?;
                data.slice_ref(text.get().as_bytes())
            }
        };
        Ok(Self { kind, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
