//! The HTTP API as the engine sees it: one kept connection for each client ([`Http1`]).
//!
//! Answers are read to their end and thrown away; the status decides. Proxies of the environment are not used: they
//! would be measured, too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;

use crate::bench::connection::{Connect, Connection, Failure, Operation, Outcome};
use crate::bench::http1::{Answer, Http1, Request};
use crate::types::http::{CONTENT_JSON, CONTENT_TEXT, ErrorBody, PATH_BATCH, PATH_KV};
use crate::types::kv::Consistency;
use crate::types::limits::REQUEST_TIMEOUT_DEFAULT;
use crate::types::url::{UrlError, base_url};

/// How much of a refusal is kept, in bytes.
const REFUSAL_BYTES_MAX: usize = 512;
/// How much of the answer to a batch is kept, in bytes: a thousand results of some hundred bytes each. What is longer
/// can't be one, and is not understood.
const BATCH_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Opens connections to the servers of a cluster, to each in turn.
#[derive(Debug)]
pub struct HttpConnect {
    servers: Vec<Arc<Server>>,
}

/// What the requests to one server have in common.
#[derive(Debug)]
struct Server {
    /// As in the URL: `host:port`.
    place: String,
    /// What stands behind the key when it is read, and when it is written.
    read_suffix: String,
    write_suffix: String,
}

impl HttpConnect {
    /// To coordinators or replicas at `urls`, each `http://host:port`. Reads are as fresh as `consistency` says, and
    /// the servers are told that there is no more time than `timeout`.
    pub fn new(
        urls: &[String],
        consistency: Consistency,
        timeout: Duration,
    ) -> Result<Self, UrlError> {
        let write_suffix = match timeout {
            REQUEST_TIMEOUT_DEFAULT => String::new(),
            timeout => format!("&timeout={}ms", timeout.as_millis()),
        };
        let read_suffix = format!("&raw=true&consistency={}{write_suffix}", consistency.name());
        let server = |url: &String| {
            let url = base_url(url)?;
            let place = url.trim_start_matches("http://").to_owned();
            let (read_suffix, write_suffix) = (read_suffix.clone(), write_suffix.clone());
            Ok(Arc::new(Server { place, read_suffix, write_suffix }))
        };
        Ok(Self { servers: urls.iter().map(server).collect::<Result<_, UrlError>>()? })
    }
}

impl Connect for HttpConnect {
    type Connection = HttpConnection;

    async fn connect(&self, client: usize) -> Result<HttpConnection, Failure> {
        let nobody = || Failure::Broken("no URL was given".into());
        let at = client.checked_rem(self.servers.len()).ok_or_else(nobody)?;
        let server = Arc::clone(&self.servers[at]);
        let http = Http1::open(&server.place).await?;
        Ok(HttpConnection { http, path: String::new(), server })
    }
}

/// An open connection to one server.
#[derive(Debug)]
pub struct HttpConnection {
    http: Http1,
    /// Of the last request; its room is used again.
    path: String,
    server: Arc<Server>,
}

impl Connection for HttpConnection {
    async fn run(&mut self, operation: &Operation) -> Result<Outcome, Failure> {
        let Answer { status, body } = self.ask(operation).await?;
        match (operation, status) {
            (_, StatusCode::OK) => Ok(Outcome::Done),
            (Operation::Read { .. }, StatusCode::NOT_FOUND) => Ok(Outcome::NotFound),
            (Operation::Read { .. } | Operation::Update { .. }, _) => Err(refusal(status, &body)),
        }
    }

    async fn load(&mut self, items: &[(String, Bytes)]) -> Result<(), Failure> {
        if let [(key, value)] = items {
            // Alone, a value may be larger than in a batch.
            let (key, value) = (key.clone(), value.clone());
            return self.run(&Operation::Update { key, value }).await.map(|_| ());
        }
        let body = batch(items)?;
        let request = Request {
            method: "POST",
            path: PATH_BATCH,
            body: Some((CONTENT_JSON, body.as_bytes())),
        };
        let Answer { status, body } = self.http.ask(&request, |_| BATCH_ANSWER_BYTES_MAX).await?;
        if status != StatusCode::OK {
            return Err(refusal(status, &body));
        }
        let odd = |error| Failure::Broken(format!("the answer to a batch can't be read: {error}"));
        let answer: BatchAnswer = serde_json::from_slice(&body).map_err(odd)?;
        match answer.results.into_iter().find(|result| result.status != 200) {
            None => Ok(()),
            Some(BatchResult { status, error }) => {
                Err(Failure::Refused { status, text: error.unwrap_or_default() })
            }
        }
    }
}

/// What loading wants to know of the answer to a batch.
#[derive(Deserialize)]
struct BatchAnswer {
    results: Vec<BatchResult>,
}

#[derive(Deserialize)]
struct BatchResult {
    status: u16,
    error: Option<String>,
}

impl HttpConnection {
    /// Sends an operation. Of its answer the beginning is kept if it may say why something was refused.
    async fn ask(&mut self, operation: &Operation) -> Result<Answer, Failure> {
        let Self { http, path, server } = self;
        let request = match operation {
            Operation::Read { key } => {
                write_path(path, key, &server.read_suffix);
                Request { method: "GET", path, body: None }
            }
            Operation::Update { key, value } => {
                write_path(path, key, &server.write_suffix);
                Request { method: "PUT", path, body: Some((CONTENT_TEXT, value)) }
            }
        };
        let kept_max = |status| match status {
            StatusCode::OK | StatusCode::NOT_FOUND => 0,
            _ => REFUSAL_BYTES_MAX,
        };
        http.ask(&request, kept_max).await
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let said = serde_json::from_slice::<ErrorBody>(body).map(|body| body.error);
    let said = said.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    Failure::Refused { status: status.as_u16(), text: format!("{}: {said}", status.as_u16()) }
}

/// Puts of all `items` in one request.
fn batch(items: &[(String, Bytes)]) -> Result<String, Failure> {
    let mut ops = Vec::with_capacity(items.len());
    for (key, value) in items {
        let text = |error| Failure::Broken(format!("a value is no text: {error}"));
        let value = std::str::from_utf8(value).map_err(text)?;
        ops.push(serde_json::json!({"op": "put", "key": key, "value": value}));
    }
    Ok(serde_json::json!({ "ops": ops }).to_string())
}

/// Writes the path of a key, with its bytes as they must be in a query.
fn write_path(path: &mut String, key: &str, suffix: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    path.clear();
    path.push_str(PATH_KV);
    path.push_str("?key=");
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from(HEX[usize::from(value)]);
            path.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    path.push_str(suffix);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server for one connection: it gives these answers, and then says what it was asked.
    async fn server(answers: &'static [&'static str]) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let (mut heard, mut buffer) = (String::new(), [0; 4096]);
            for answer in answers {
                // Requests of this test fit in one segment, and the next comes only after the answer.
                let count = stream.read(&mut buffer).await.expect("a request");
                heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
                stream.write_all(answer.as_bytes()).await.expect("the client reads");
            }
            heard
        });
        (url, serving)
    }

    fn connect_to(urls: &[String]) -> HttpConnect {
        HttpConnect::new(urls, Consistency::Lease, REQUEST_TIMEOUT_DEFAULT).expect("valid")
    }

    fn read(key: &str) -> Operation {
        Operation::Read { key: key.into() }
    }

    const FOUND: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nvalue";
    const MISSING: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nnot";
    const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 46\r\n\r\n\
        {\"error\":\"no leader\",\"code\":\"no_leader\"}      ";

    #[tokio::test]
    async fn the_status_decides_and_the_connection_is_kept() {
        let (url, serving) = server(&[FOUND, MISSING, BUSY, MISSING, FOUND]).await;
        let mut connection = connect_to(&[url]).connect(0).await.expect("a connection");
        assert_eq!(connection.run(&read("bench/1")).await, Ok(Outcome::Done));
        assert_eq!(connection.run(&read("a b&\u{e9}")).await, Ok(Outcome::NotFound));
        let busy = connection.run(&read("k")).await;
        let text = "503: no leader".to_owned();
        assert_eq!(busy, Err(Failure::Refused { status: 503, text }));
        let update = Operation::Update { key: "k".into(), value: Bytes::from_static(b"new") };
        let missing = connection.run(&update).await;
        assert!(matches!(missing, Err(Failure::Refused { status: 404, .. })), "{missing:?}");
        assert_eq!(connection.run(&update).await, Ok(Outcome::Done));
        let heard = serving.await.expect("it was served");
        let first = "GET /kv?key=bench/1&raw=true&consistency=lease HTTP/1.1\r\nhost: 127.0.0.1:";
        assert!(heard.starts_with(first), "{heard}");
        assert!(heard.contains("GET /kv?key=a%20b%26%C3%A9&raw"), "{heard}");
        assert!(heard.contains("PUT /kv?key=k HTTP/1.1"), "{heard}");
        assert!(heard.contains("content-type: text/plain") && heard.ends_with("new"), "{heard}");
        // The server is gone.
        let gone = connection.run(&read("k")).await;
        assert!(matches!(gone, Err(Failure::Broken(_))), "{gone:?}");
    }

    #[tokio::test]
    async fn clients_are_spread_over_the_servers_in_turn() {
        let (first, at_first) = server(&[FOUND]).await;
        let (second, at_second) = server(&[MISSING]).await;
        let connect = connect_to(&[first, second]);
        for (client, outcome) in [(2, Outcome::Done), (5, Outcome::NotFound)] {
            let mut connection = connect.connect(client).await.expect("a connection");
            assert_eq!(connection.run(&read("k")).await, Ok(outcome));
        }
        for serving in [at_first, at_second] {
            assert!(serving.await.expect("it was served").starts_with("GET "));
        }
    }

    #[tokio::test]
    async fn a_batch_is_loaded_if_each_of_its_puts_was() {
        const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n\
            {\"results\":[{\"status\":200},{\"status\":200}]}";
        const BAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 58\r\n\r\n\
            {\"results\":[{\"status\":200},{\"status\":507,\"error\":\"full\"}]}";
        let (url, serving) = server(&[GOOD, BAD, FOUND]).await;
        let mut connection = connect_to(&[url]).connect(0).await.expect("a connection");
        let items = ["a", "b"].map(|key| (key.to_owned(), Bytes::from_static(b"v")));
        assert_eq!(connection.load(&items).await, Ok(()));
        let full = Failure::Refused { status: 507, text: "full".into() };
        assert_eq!(connection.load(&items).await, Err(full));
        assert_eq!(connection.load(&items[..1]).await, Ok(()));
        let heard = serving.await.expect("it was served");
        assert!(heard.starts_with("POST /batch HTTP/1.1"), "{heard}");
        assert!(heard.contains("PUT /kv?key=a"), "one alone is put: {heard}");
    }
}
