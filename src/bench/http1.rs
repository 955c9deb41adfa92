//! A kept HTTP/1.1 connection (RFC 9112) with nothing between a request and its socket: one write sends it, and its
//! answer is parsed where it was read.
//!
//! A load shares its machine with what it measures, so what a request costs here is missing there. Answers have a
//! length or come in chunks; one that lasts until the connection is closed is refused, as is what nobody asked for.

use std::io;

use bytes::{Buf, BytesMut};
use httparse::{EMPTY_HEADER, Status, parse_chunk_size, parse_headers};
use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::connection::Failure;

/// The longest head of an answer, line before a chunk, or trailer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most headers of an answer.
const HEADERS_MAX: usize = 64;
/// How much is read at a time, at least, in bytes.
const READ_BYTES: usize = 4096;
/// A body up to this goes out in one write with its head, in bytes; a longer one is not copied for that.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, for one.
    pub method: &'a str,
    /// With its query, encoded.
    pub path: &'a str,
    /// What is sent: its content type, and its bytes.
    pub body: Option<(&'a str, &'a [u8])>,
}

/// What was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// As the server says.
    pub status: StatusCode,
    /// As much of the body as was to be kept.
    pub body: Vec<u8>,
}

/// An open connection to one server.
#[derive(Debug)]
pub struct Http1 {
    place: String,
    stream: TcpStream,
    output: Vec<u8>,
    /// What was read and is not used yet.
    input: BytesMut,
}

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Length {
    Bytes(u64),
    Chunks,
}

impl Http1 {
    /// Opens a connection to `place`, which is `host:port`.
    pub async fn open(place: &str) -> Result<Self, Failure> {
        let failed = |error| broken(place, &error);
        let stream = TcpStream::connect(place).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self { place: place.to_owned(), stream, output: Vec::new(), input: BytesMut::new() })
    }

    /// Sends a request and reads its answer to the end. Of the body so many bytes are kept as `kept_max` says for the status.
    ///
    /// After an error, or if the future is dropped before it is done, the connection is of no more use.
    pub async fn ask(
        &mut self,
        request: &Request<'_>,
        kept_max: impl Fn(StatusCode) -> usize,
    ) -> Result<Answer, Failure> {
        let answered = self.exchange(request, kept_max).await;
        answered.map_err(|error| broken(&self.place, &error))
    }

    async fn exchange(
        &mut self,
        request: &Request<'_>,
        kept_max: impl Fn(StatusCode) -> usize,
    ) -> io::Result<Answer> {
        self.send(request).await?;
        let (status, length) = self.head().await?;
        let (mut body, kept_max) = (Vec::new(), kept_max(status));
        match length {
            Length::Bytes(count) => self.take(count, &mut body, kept_max).await?,
            Length::Chunks => self.chunks(&mut body, kept_max).await?,
        }
        if self.input.is_empty() {
            Ok(Answer { status, body })
        } else {
            Err(invalid("the server sends what nobody asked for"))
        }
    }

    async fn send(&mut self, request: &Request<'_>) -> io::Result<()> {
        let Request { method, path, body } = *request;
        let output = &mut self.output;
        output.clear();
        for part in [method, " ", path, " HTTP/1.1\r\nhost: ", &self.place, "\r\n"] {
            output.extend_from_slice(part.as_bytes());
        }
        let mut rest = &[][..];
        if let Some((content_type, body)) = body {
            let length = body.len().to_string();
            for part in ["content-type: ", content_type, "\r\ncontent-length: ", &length, "\r\n"] {
                output.extend_from_slice(part.as_bytes());
            }
            rest = body;
        }
        output.extend_from_slice(b"\r\n");
        if rest.len() <= COPIED_BYTES_MAX {
            output.extend_from_slice(std::mem::take(&mut rest));
        }
        self.stream.write_all(output).await?;
        self.stream.write_all(rest).await
    }

    /// Reads until the head of an answer is there that is not an interim one.
    async fn head(&mut self) -> io::Result<(StatusCode, Length)> {
        loop {
            let Some((bytes, status, length)) = head(&self.input)? else {
                self.read(HEAD_BYTES_MAX).await?;
                continue;
            };
            self.input.advance(bytes);
            if !status.is_informational() {
                return Ok((status, length));
            }
        }
    }

    /// Takes so many bytes of a body.
    async fn take(&mut self, mut left: u64, body: &mut Vec<u8>, kept_max: usize) -> io::Result<()> {
        while left > 0 {
            if self.input.is_empty() {
                self.read(READ_BYTES).await?;
            }
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
            let kept = here.min(kept_max - body.len());
            body.extend_from_slice(&self.input[..kept]);
            self.input.advance(here);
            left -= u64::try_from(here).expect("a length in memory");
        }
        Ok(())
    }

    /// Takes a body that comes in chunks (RFC 9112 §7.1).
    async fn chunks(&mut self, body: &mut Vec<u8>, kept_max: usize) -> io::Result<()> {
        loop {
            let (line, size) = loop {
                match parse_chunk_size(&self.input) {
                    Ok(Status::Complete(found)) => break found,
                    Ok(Status::Partial) => self.read(HEAD_BYTES_MAX).await?,
                    Err(_) => return Err(invalid("the length of a chunk is none")),
                }
            };
            self.input.advance(line);
            if size == 0 {
                return self.trailer().await;
            }
            self.take(size, body, kept_max).await?;
            while self.input.len() < 2 {
                self.read(READ_BYTES).await?;
            }
            if !self.input.starts_with(b"\r\n") {
                return Err(invalid("a chunk is longer than it says"));
            }
            self.input.advance(2);
        }
    }

    async fn trailer(&mut self) -> io::Result<()> {
        loop {
            match trailer(&self.input)? {
                Some(bytes) => {
                    self.input.advance(bytes);
                    return Ok(());
                }
                None => self.read(HEAD_BYTES_MAX).await?,
            }
        }
    }

    /// Reads more, if there is not as much as `max` bytes already.
    async fn read(&mut self, max: usize) -> io::Result<()> {
        if self.input.len() >= max {
            return Err(invalid(format!("there is no end in {max} bytes")));
        }
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server has closed the connection",
            )),
            _ => Ok(()),
        }
    }
}

/// The head in `input`, if it is whole: its bytes, the status, and how long the body is.
fn head(input: &[u8]) -> io::Result<Option<(usize, StatusCode, Length)>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let Status::Complete(bytes) = response.parse(input).map_err(invalid)? else { return Ok(None) };
    let status = StatusCode::from_u16(response.code.unwrap_or_default()).map_err(invalid)?;
    let mut length = None;
    for header in response.headers.iter() {
        let found = if header.name.eq_ignore_ascii_case("content-length") {
            Length::Bytes(number(header.value)?)
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(invalid("a transfer encoding other than chunked"));
            }
            Length::Chunks
        } else {
            continue;
        };
        // Who takes one of two for the length, and who takes the other, see different answers.
        if length.replace(found).is_some_and(|other| other != found) {
            return Err(invalid("an answer with two lengths"));
        }
    }
    match (status, length) {
        (StatusCode::SWITCHING_PROTOCOLS, _) => Err(invalid("the server changes the protocol")),
        (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => {
            Ok(Some((bytes, status, Length::Bytes(0))))
        }
        (_, Some(length)) => Ok(Some((bytes, status, length))),
        (status, None) if status.is_informational() => Ok(Some((bytes, status, Length::Bytes(0)))),
        (_, None) => Err(invalid("an answer without a length")),
    }
}

/// The bytes of the trailer in `input`, if it is whole.
fn trailer(input: &[u8]) -> io::Result<Option<usize>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    match parse_headers(input, &mut headers).map_err(invalid)? {
        Status::Complete((bytes, _)) => Ok(Some(bytes)),
        Status::Partial => Ok(None),
    }
}

/// `1*DIGIT`, without the sign that Rust would take, too.
fn number(text: &[u8]) -> io::Result<u64> {
    let digits = text.iter().all(u8::is_ascii_digit);
    let text = digits.then(|| str::from_utf8(text).ok()).flatten();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| invalid("the length of an answer is no number"))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn broken(place: &str, error: &io::Error) -> Failure {
    Failure::Broken(format!("http://{place}: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    const GET: Request<'_> = Request { method: "GET", path: "/a", body: None };

    /// What a client makes of an answer that is sent in these pieces, after which the connection is closed.
    async fn answered(pieces: &[&[u8]], kept_max: usize) -> Result<Answer, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let place = listener.local_addr().expect("an address").to_string();
        let serving = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            stream.set_nodelay(true).expect("it can be set");
            let read = stream.read(&mut [0; 1024]).await;
            assert!(read.is_ok_and(|count| count > 0), "a request");
            for piece in pieces {
                // Whether the client has gone, its own result says.
                drop(stream.write_all(piece).await);
            }
        };
        let asking = async {
            let mut http = Http1::open(&place).await.expect("a connection");
            http.ask(&GET, |_| kept_max).await
        };
        tokio::join!(asking, serving).0
    }

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, body: body.into() }
    }

    #[tokio::test]
    async fn an_answer_ends_where_it_says() {
        let cases: [(&str, u16, &str); 8] = [
            ("200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, "hello"),
            ("404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, ""),
            ("204 No Content\r\n\r\n", 204, ""),
            ("200\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nab", 200, "ab"),
            ("102 Wait\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na", 200, "a"),
            ("200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200, ""),
            (
                "200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
                200,
                "abc0123456",
            ),
            (
                "500 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nend: now\r\n\r\n",
                500,
                "a",
            ),
        ];
        for (text, status, body) in cases {
            let text = format!("HTTP/1.1 {text}");
            assert_eq!(answered(&[text.as_bytes()], 10).await, Ok(answer(status, body)), "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused() {
        let ends = "0\r\n\r\n";
        let cases = [
            ("", "has closed"),
            ("HTTP/1.1 200 OK\r\ncontent-le", "has closed"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", "has closed"),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "without a length"),
            ("HTTP/1.1 101 Upgrade\r\n\r\n", "changes the protocol"),
            ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", "is no number"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", "is no number"),
            ("HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n", "is no number"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "two lengths"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "other than chunked"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", "nobody asked for"),
            ("HTTP/1.1 007 Bond\r\ncontent-length: 1\r\n\r\na", "status"),
            ("PING\r\n\r\n", "HTTP version"),
        ];
        for (text, said) in cases {
            let failed = answered(&[text.as_bytes()], 10).await;
            let Err(Failure::Broken(why)) = failed else { panic!("{text}: {failed:?}") };
            assert!(why.contains(said), "{text}: {why}");
        }
        let both = format!("content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{ends}");
        for text in [
            both.as_str(),
            "transfer-encoding: chunked\r\n\r\nx\r\n",
            "transfer-encoding: chunked\r\n\r\n1\r\nabc",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{text}");
            let failed = answered(&[text.as_bytes()], 10).await;
            assert!(matches!(failed, Err(Failure::Broken(_))), "{text}: {failed:?}");
        }
    }

    #[tokio::test]
    async fn no_answer_takes_more_memory_than_it_should() {
        let endless = vec![b'a'; 2 * HEAD_BYTES_MAX];
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for begin in [
            &b"HTTP/1.1 200 OK\r\nx: "[..],
            &[&chunked[..], b"1;"].concat(),
            &[&chunked[..], b"0\r\nx: "].concat(),
        ] {
            let failed = answered(&[begin, &endless], 10).await;
            let Err(Failure::Broken(why)) = failed else { panic!("{failed:?}") };
            assert!(why.contains("there is no end"), "{why}");
        }
        let long =
            answered(&[b"HTTP/1.1 200 OK\r\ncontent-length: 131072\r\n\r\n", &endless], 3).await;
        assert_eq!(long, Ok(answer(200, "aaa")));
    }

    #[tokio::test]
    async fn a_body_is_sent_as_it_is_however_long() {
        for count in [0, 1, COPIED_BYTES_MAX, COPIED_BYTES_MAX + 1, 300_000] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let place = listener.local_addr().expect("an address").to_string();
            let body = vec![b'v'; count];
            let head = format!(
                "PUT /kv?key=a HTTP/1.1\r\nhost: {place}\r\ncontent-type: text/plain\r\ncontent-length: {count}\r\n\r\n"
            );
            let serving = async {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut bytes = vec![0; head.len() + count];
                stream.read_exact(&mut bytes).await.expect("a request");
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.expect("the client reads");
                bytes
            };
            let asking = async {
                let mut http = Http1::open(&place).await.expect("a connection");
                let body = Some(("text/plain", &body[..]));
                http.ask(&Request { method: "PUT", path: "/kv?key=a", body }, |_| 0).await
            };
            let (answered, bytes) = tokio::join!(asking, serving);
            assert_eq!(answered, Ok(answer(200, "")));
            assert!(bytes == [head.as_bytes(), &body].concat(), "{count} bytes arrived otherwise");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_not(bytes: Vec<u8>, valid: bool) {
            let bytes = if valid { [b"HTTP/1.1 200 OK\r\ncontent-length: ", &bytes[..]].concat() } else { bytes };
            if let Ok(Some((length, ..))) = head(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn an_answer_may_come_in_any_pieces(cuts in prop::collection::vec(0_usize..120, 0..5)) {
            let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                3\r\nabc\r\n2;x\r\nde\r\n0\r\nend: now\r\n\r\n";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let answered = runtime.expect("a runtime").block_on(answered(&pieces, 10));
            prop_assert_eq!(answered, Ok(answer(200, "abcde")));
        }
    }
}
