//! etcd through its JSON gateway: keys and values in base64, reads linearizable, as is the default.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use sagedb::bench::{Answer, Failure, Http1, Operation, Outcome};

use crate::connect::post;

/// How much of a refusal is kept, in bytes.
const REFUSAL_BYTES_MAX: usize = 512;

/// Opens connections to one member.
#[derive(Debug)]
pub(crate) struct EtcdJson {
    /// The member: `host:port`.
    pub(crate) place: String,
}

impl EtcdJson {
    pub(super) async fn connect(&self) -> Result<EtcdJsonConnection, Failure> {
        Ok(EtcdJsonConnection(Http1::open(&self.place).await?))
    }
}

/// An open connection.
pub(crate) struct EtcdJsonConnection(Http1);

impl EtcdJsonConnection {
    pub(super) async fn run(&mut self, operation: &Operation) -> Result<Outcome, Failure> {
        let (path, json) = match operation {
            Operation::Read { key } => {
                ("/v3/kv/range", format!(r#"{{"key":"{}"}}"#, STANDARD.encode(key)))
            }
            Operation::Update { key, value } => {
                let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
                ("/v3/kv/put", format!(r#"{{"key":"{key}","value":"{value}"}}"#))
            }
        };
        let Answer { status, body } = post(&mut self.0, path, &json).await?;
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BYTES_MAX)]);
            return Err(Failure::Refused { status: status.as_u16(), text: text.into_owned() });
        }
        match operation {
            Operation::Read { .. } if !has_value(&body) => Ok(Outcome::NotFound),
            Operation::Read { .. } | Operation::Update { .. } => Ok(Outcome::Done),
        }
    }
}

/// Whether the answer to a read has a key in it: the gateway leaves the field out if there is none. Base64 has no
/// quotes, so that no key or value can look like it.
fn has_value(body: &[u8]) -> bool {
    const FIELD: &[u8] = b"\"kvs\"";
    body.windows(FIELD.len()).any(|window| window == FIELD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_without_a_key_found_nothing() {
        assert!(has_value(br#"{"header":{"revision":"2"},"kvs":[{"key":"YQ=="}],"count":"1"}"#));
        assert!(!has_value(br#"{"header":{"revision":"2"}}"#) && !has_value(b""));
    }
}
