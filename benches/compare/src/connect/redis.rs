//! Redis: `SET` and `WAIT 1 0` in one write, so that a put is answered when a replica has it, too; `GET` as it is.
//!
//! Neither is what the others promise. `WAIT` says that a replica has *received* the write, not that it is on
//! its disk, and a `GET` asks nobody whether the server still is the master: it is not linearizable.

use bytes::BytesMut;
use sagedb::bench::{Failure, Operation, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest value, and the longest line of an answer, in bytes.
const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;
const LINE_BYTES_MAX: usize = 64 * 1024;
/// How much is read at a time, at least.
const READ_BYTES: usize = 4096;
/// Of replicas a write is waited for, forever: the load engine has a limit of its own.
const WAIT: &[u8] = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n";

/// Opens connections to the master.
#[derive(Debug)]
pub(crate) struct Redis {
    /// The master: `host:port`.
    pub(crate) place: String,
}

impl Redis {
    pub(crate) async fn connect(&self) -> Result<RedisConnection, Failure> {
        let failed = |error: std::io::Error| Failure::Broken(format!("{}: {error}", self.place));
        let stream = TcpStream::connect(&self.place).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(RedisConnection { stream, output: Vec::new(), input: BytesMut::new() })
    }
}

/// An open connection.
pub(crate) struct RedisConnection {
    stream: TcpStream,
    output: Vec<u8>,
    input: BytesMut,
}

impl RedisConnection {
    pub(super) async fn run(&mut self, operation: &Operation) -> Result<Outcome, Failure> {
        match operation {
            Operation::Read { key } => match self.command(&[b"GET", key.as_bytes()]).await? {
                Reply::Bulk(Some(_)) => Ok(Outcome::Done),
                Reply::Bulk(None) => Ok(Outcome::NotFound),
                odd @ (Reply::Line(_) | Reply::Error(_) | Reply::Integer(_)) => Err(odd.refusal()),
            },
            Operation::Update { key, value } => {
                self.output.clear();
                write_command(&mut self.output, &[b"SET", key.as_bytes(), value]);
                self.output.extend_from_slice(WAIT);
                self.send().await?;
                let (set, waited) = (self.reply().await?, self.reply().await?);
                match (set, waited) {
                    (Reply::Line(_), Reply::Integer(1..)) => Ok(Outcome::Done),
                    (Reply::Line(_), odd) | (odd, _) => Err(odd.refusal()),
                }
            }
        }
    }

    /// Sends one command and waits for the reply.
    pub(crate) async fn command(&mut self, words: &[&[u8]]) -> Result<Reply, Failure> {
        self.output.clear();
        write_command(&mut self.output, words);
        self.send().await?;
        self.reply().await
    }

    async fn send(&mut self) -> Result<(), Failure> {
        self.stream.write_all(&self.output).await.map_err(|error| broken(&error))
    }

    async fn reply(&mut self) -> Result<Reply, Failure> {
        loop {
            if let Some((reply, length)) = parse(&self.input).map_err(|odd| broken(&odd))? {
                // Nothing is left of most: the buffer is used again.
                drop(self.input.split_to(length));
                return Ok(reply);
            }
            self.input.reserve(READ_BYTES);
            let read = self.stream.read_buf(&mut self.input).await;
            if read.map_err(|error| broken(&error))? == 0 {
                return Err(broken(&"redis has closed the connection"));
            }
        }
    }
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

fn write_command(output: &mut Vec<u8>, words: &[&[u8]]) {
    output.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        output.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        output.extend_from_slice(word);
        output.extend_from_slice(b"\r\n");
    }
}

/// What Redis answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    /// `+OK`.
    Line(String),
    /// `-ERR …`.
    Error(String),
    /// `:1`.
    Integer(i64),
    /// A value, or that there is none.
    Bulk(Option<Vec<u8>>),
}

impl Reply {
    fn refusal(&self) -> Failure {
        Failure::Refused { status: 0, text: format!("{self:?}") }
    }
}

/// The first reply in `input` and its length, if all of it is there; what is wrong if it can't be one.
fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(end) = input.windows(2).take(LINE_BYTES_MAX).position(|pair| pair == b"\r\n") else {
        let long = input.len() > LINE_BYTES_MAX;
        return if long { Err("a line without an end".into()) } else { Ok(None) };
    };
    let (line, behind) = (&input[..end], end + 2);
    let (kind, text) = line.split_first().ok_or("an empty line")?;
    let text = || std::str::from_utf8(text).map_err(|error| error.to_string());
    let number = || text()?.parse::<i64>().map_err(|error| format!("{:?}: {error}", text()));
    match kind {
        b'+' => Ok(Some((Reply::Line(text()?.to_owned()), behind))),
        b'-' => Ok(Some((Reply::Error(text()?.to_owned()), behind))),
        b':' => Ok(Some((Reply::Integer(number()?), behind))),
        b'$' if number()? == -1 => Ok(Some((Reply::Bulk(None), behind))),
        b'$' => {
            let length = usize::try_from(number()?).map_err(|error| error.to_string())?;
            if length > VALUE_BYTES_MAX {
                return Err(format!("a value of {length} bytes"));
            }
            let Some(value) = input[behind..].get(..length + 2) else { return Ok(None) };
            let ended = value.strip_suffix(b"\r\n").ok_or("a value without an end")?;
            Ok(Some((Reply::Bulk(Some(ended.to_vec())), behind + length + 2)))
        }
        other => Err(format!("a reply that begins with byte {other}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replies_are_read_when_they_are_whole() {
        let cases: [(&[u8], Reply); 6] = [
            (b"+OK\r\n", Reply::Line("OK".into())),
            (b"-ERR no\r\n", Reply::Error("ERR no".into())),
            (b":2\r\n", Reply::Integer(2)),
            (b"$-1\r\n", Reply::Bulk(None)),
            (b"$0\r\n\r\n", Reply::Bulk(Some(Vec::new()))),
            (b"$4\r\na\r\nb\r\n", Reply::Bulk(Some(b"a\r\nb".to_vec()))),
        ];
        for (bytes, reply) in cases {
            let more = [bytes, b"+next"].concat();
            assert_eq!(parse(&more), Ok(Some((reply, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let odd: [&[u8]; 7] = [
            b"\r\n",
            b"*1\r\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"$1\r\nabc",
            b"+\xff\r\n",
        ];
        for bytes in odd {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        assert!(parse(&vec![b'+'; LINE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn commands_are_arrays_of_their_words() {
        let mut wait = Vec::new();
        write_command(&mut wait, &[b"WAIT", b"1", b"0"]);
        assert_eq!(wait, WAIT);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_reply_or_not(kind in "[+:$*-]", rest: Vec<u8>) {
            let bytes = [kind.as_bytes(), &rest].concat();
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
