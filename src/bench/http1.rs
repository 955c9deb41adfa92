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
    /// Whether the server said that it closes the connection after its last answer.
    closes: bool,
}

/// What stands before a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    status: StatusCode,
    length: Length,
    closes: bool,
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
        let stream = connect(place).await.map_err(|error| broken(place, &error))?;
        let (output, input) = (Vec::new(), BytesMut::new());
        Ok(Self { place: place.to_owned(), stream, output, input, closes: false })
    }

    /// Sends a request and reads its answer to the end. Of the body so many bytes are kept as `kept_max` says for the status.
    /// If the server has closed the connection since the last answer, another one is opened first.
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
        if self.closes || self.is_closed()? {
            self.stream = connect(&self.place).await?;
        }
        self.send(request).await?;
        let Head { status, length, closes } = self.head().await?;
        self.closes = closes;
        let (mut body, kept_max) = (Vec::new(), kept_max(status));
        match length {
            Length::Bytes(count) => self.take(count, &mut body, kept_max).await?,
            Length::Chunks => self.chunks(&mut body, kept_max).await?,
        }
        if self.input.is_empty() { Ok(Answer { status, body }) } else { Err(unasked()) }
    }

    /// Whether the server has closed it while nothing was asked. As long as nothing has come, that is no look at the socket.
    fn is_closed(&self) -> io::Result<bool> {
        match self.stream.try_read(&mut [0]) {
            Ok(0) => Ok(true),
            Ok(_) => Err(unasked()),
            Err(error) => Ok(error.kind() != io::ErrorKind::WouldBlock),
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
    async fn head(&mut self) -> io::Result<Head> {
        loop {
            let Some((bytes, head)) = head(&self.input)? else {
                self.read(HEAD_BYTES_MAX).await?;
                continue;
            };
            self.input.advance(bytes);
            if !head.status.is_informational() {
                return Ok(head);
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

async fn connect(place: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(place).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The head in `input` and its bytes, if it is whole.
fn head(input: &[u8]) -> io::Result<Option<(usize, Head)>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let Status::Complete(bytes) = response.parse(input).map_err(invalid)? else { return Ok(None) };
    let status = StatusCode::from_u16(response.code.unwrap_or_default()).map_err(invalid)?;
    let (mut length, mut closes) = (None, response.version == Some(0));
    for header in response.headers.iter() {
        let is = |name| header.name.eq_ignore_ascii_case(name);
        let found = if is("content-length") {
            Length::Bytes(number(header.value)?)
        } else if is("transfer-encoding") {
            if !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(invalid("a transfer encoding other than chunked"));
            }
            Length::Chunks
        } else {
            closes |= is("connection") && header.value.eq_ignore_ascii_case(b"close");
            continue;
        };
        // Who takes one of two for the length, and who takes the other, see different answers.
        if length.replace(found).is_some_and(|other| other != found) {
            return Err(invalid("an answer with two lengths"));
        }
    }
    let length = match (status, length) {
        (StatusCode::SWITCHING_PROTOCOLS, _) => {
            return Err(invalid("the server changes the protocol"));
        }
        (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => Length::Bytes(0),
        (_, Some(length)) => length,
        (status, None) if status.is_informational() => Length::Bytes(0),
        (_, None) => return Err(invalid("an answer without a length")),
    };
    Ok(Some((bytes, Head { status, length, closes })))
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

fn unasked() -> io::Error {
    invalid("the server sends what nobody asked for")
}

fn broken(place: &str, error: &io::Error) -> Failure {
    Failure::Broken(format!("http://{place}: {error}"))
}

#[cfg(test)]
mod tests;
