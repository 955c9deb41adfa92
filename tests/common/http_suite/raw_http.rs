//! A tiny HTTP/1.1 client over a bare socket, so that a test says exactly what goes out.
//!
//! One request per connection, answers by `Content-Length` only. Every wait ends within
//! [`PATIENCE`], so that a server that hangs fails its test.

use std::fmt::Write;
use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, header names in lower case.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON, which its content type must say.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A connection.
pub(crate) struct Connection {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    /// Connects to `base`, an `http://host:port`.
    pub(crate) async fn open(base: &str) -> Self {
        let place = base.strip_prefix("http://").expect("an http URL");
        let socket = patiently(TcpStream::connect(place)).await.expect("the server listens");
        Self { socket, read: Vec::new() }
    }

    /// Sends bytes as they are, as far as they are taken: a server may answer early and close,
    /// and what it answered is what counts.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        drop(patiently(self.socket.write_all(bytes)).await);
    }

    /// Reads one answer; `bodiless` if none follows the head whatever its length says.
    pub(crate) async fn answer(&mut self, bodiless: bool) -> Answer {
        let head_bytes = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await;
        };
        let head = String::from_utf8(self.read.drain(..head_bytes).collect()).expect("UTF-8 head");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers = lines
            .map(|line| line.split_once(':').expect("a header"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let status = status.parse().expect("a status");
        let mut answer = Answer { status, headers, body: Vec::new() };
        if !bodiless && status >= 200 && status != 304 {
            let length = answer.header("content-length").expect("an answer says its length");
            let length: usize = length.parse().expect("a length");
            while self.read.len() < length {
                self.more().await;
            }
            answer.body = self.read.drain(..length).collect();
        }
        answer
    }

    async fn more(&mut self) {
        let read = patiently(self.socket.read_buf(&mut self.read)).await.expect("readable");
        let so_far = String::from_utf8_lossy(&self.read);
        assert!(read > 0, "the server closed the connection after {so_far:?}");
    }
}

/// Sends one whole request and reads its answer.
pub(crate) async fn send(
    base: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut connection = Connection::open(base).await;
    let mut request = head(base, method, target, headers);
    if !body.is_empty() || method == "PUT" {
        write!(request, "content-length: {}\r\n", body.len()).expect("a string takes it");
    }
    request.push_str("connection: close\r\n\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    connection.send(&bytes).await;
    connection.answer(method == "HEAD").await
}

/// The request line and headers, without the empty line that ends them.
pub(crate) fn head(base: &str, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let place = base.strip_prefix("http://").expect("an http URL");
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {place}\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a string takes it");
    }
    head
}

/// Waits for `future`, but not for ever.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the server took too long")
}
