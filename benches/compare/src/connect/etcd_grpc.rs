//! etcd over gRPC: one HTTP/2 connection for each client, reads linearizable, as is the default.
//!
//! The four messages that are needed are written by hand, and so is what gRPC puts around them: five bytes before
//! the message, and a status in the trailers. A generated client does more for each call, on the processor
//! that it shares with etcd.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use hyper::{Method, Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use sagedb::bench::{Failure, Operation, Outcome};
use tokio::net::TcpStream;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Whether the message is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `etcdserverpb.RangeRequest`: of one key, linearizable.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

/// Opens connections to one member.
#[derive(Debug)]
pub(crate) struct EtcdGrpc {
    put: Uri,
    range: Uri,
    place: String,
}

impl EtcdGrpc {
    /// To `place`, which is `host:port`.
    pub(crate) fn new(place: &str) -> anyhow::Result<Self> {
        let method = |name| format!("http://{place}/etcdserverpb.KV/{name}").parse();
        Ok(Self { put: method("Put")?, range: method("Range")?, place: place.to_owned() })
    }

    pub(super) async fn connect(&self) -> Result<EtcdGrpcConnection, Failure> {
        let failed = |error: &dyn std::fmt::Display| broken(&self.place, error);
        let stream = TcpStream::connect(&self.place).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let opened = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, driver) = opened.map_err(|error| failed(&error))?;
        // It ends when the sender is dropped, or with the runtime.
        tokio::spawn(async move { drop(driver.await) });
        let (put, range, place) = (self.put.clone(), self.range.clone(), self.place.clone());
        Ok(EtcdGrpcConnection { sender, put, range, place })
    }
}

/// An open connection.
pub(crate) struct EtcdGrpcConnection {
    sender: SendRequest<Full<Bytes>>,
    put: Uri,
    range: Uri,
    place: String,
}

impl EtcdGrpcConnection {
    pub(super) async fn run(&mut self, operation: &Operation) -> Result<Outcome, Failure> {
        match operation {
            Operation::Read { key } => {
                let key = Bytes::copy_from_slice(key.as_bytes());
                let answer = self.call(self.range.clone(), &RangeRequest { key }).await?;
                let odd = |error: prost::DecodeError| broken(&self.place, &error);
                let found = RangeResponse::decode(message(&answer)?).map_err(odd)?;
                Ok(if found.kvs.is_empty() { Outcome::NotFound } else { Outcome::Done })
            }
            Operation::Update { key, value } => {
                let key = Bytes::copy_from_slice(key.as_bytes());
                let put = PutRequest { key, value: value.clone() };
                self.call(self.put.clone(), &put).await.map(|_| Outcome::Done)
            }
        }
    }

    /// Sends one message, and waits for the answer with its trailers.
    async fn call(&mut self, method: Uri, request: &impl Message) -> Result<Bytes, Failure> {
        let mut http = Request::new(Full::new(framed(request)));
        *http.method_mut() = Method::POST;
        *http.uri_mut() = method;
        let grpc = HeaderValue::from_static("application/grpc");
        http.headers_mut().insert(CONTENT_TYPE, grpc);
        http.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        let failed = |error: &dyn std::fmt::Display| broken(&self.place, error);
        self.sender.ready().await.map_err(|error| failed(&error))?;
        let response = self.sender.send_request(http).await.map_err(|error| failed(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| failed(&error))?;
        // An answer that is nothing but a refusal has it in its only headers.
        check(body.trailers().unwrap_or(&head.headers))?;
        Ok(body.to_bytes())
    }
}

fn broken(place: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Broken(format!("{place}: {error}"))
}

/// A message with its length before it.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("keys and values are bounded"));
    message.encode(&mut bytes).expect("there is room for it");
    bytes.freeze()
}

/// The message of an answer that has exactly one.
fn message(answer: &[u8]) -> Result<&[u8], Failure> {
    let odd = || Failure::Broken(format!("no gRPC message in {} bytes", answer.len()));
    let (prefix, message) = answer.split_first_chunk::<PREFIX_BYTES>().ok_or_else(odd)?;
    let [0, length @ ..] = *prefix else { return Err(odd()) };
    let whole = usize::try_from(u32::from_be_bytes(length)).is_ok_and(|len| len == message.len());
    if whole { Ok(message) } else { Err(odd()) }
}

/// Whether the call succeeded.
fn check(trailers: &HeaderMap) -> Result<(), Failure> {
    let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok());
    match status.and_then(|status| status.parse().ok()) {
        Some(0) => Ok(()),
        Some(status) => {
            let text = trailers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
            Err(Failure::Refused { status, text: String::from_utf8_lossy(text).into_owned() })
        }
        None => Err(Failure::Broken("an answer without a gRPC status".into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_look_as_those_of_etcd() {
        let (key, value) = (Bytes::from_static(b"a"), Bytes::from_static(b"bc"));
        let put = framed(&PutRequest { key: key.clone(), value: value.clone() });
        assert_eq!(&put[..], [0, 0, 0, 0, 7, 0x0a, 1, b'a', 0x12, 2, b'b', b'c']);
        assert_eq!(&framed(&RangeRequest { key: key.clone() })[5..], [0x0a, 1, b'a']);
        let response = RangeResponse { kvs: vec![KeyValue { key, value }] };
        let answer = framed(&response);
        let again = RangeResponse::decode(message(&answer).expect("one")).expect("valid");
        assert_eq!(again, response);
    }

    #[test]
    fn a_status_other_than_0_is_a_refusal_and_none_a_broken_answer() {
        let trailers = |status: &'static str| {
            let status = HeaderValue::from_static(status);
            HeaderMap::from_iter([("grpc-status".parse().expect("a name"), status)])
        };
        assert_eq!(check(&trailers("0")), Ok(()));
        let refused = check(&trailers("14"));
        assert!(matches!(refused, Err(Failure::Refused { status: 14, .. })), "{refused:?}");
        for odd in [HeaderMap::new(), trailers(""), trailers("-1"), trailers("ok")] {
            assert!(matches!(check(&odd), Err(Failure::Broken(_))));
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_a_message_or_refused(answer: Vec<u8>) {
            if let Ok(message) = message(&answer) {
                prop_assert_eq!(message.len() + PREFIX_BYTES, answer.len());
                drop(RangeResponse::decode(message));
            }
        }
    }
}
