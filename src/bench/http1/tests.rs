//! What is an answer, and what is not.

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
        ("500 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nend: now\r\n\r\n", 500, "a"),
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
    let long = answered(&[b"HTTP/1.1 200 OK\r\ncontent-length: 131072\r\n\r\n", &endless], 3).await;
    assert_eq!(long, Ok(answer(200, "aaa")));
}

#[tokio::test]
async fn who_finds_its_connection_closed_opens_another_one() {
    const KEPT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n";
    const CLOSED: &str = "HTTP/1.1 200 OK\r\nConnection: Close\r\ncontent-length: 1\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = listener.local_addr().expect("an address").to_string();
    let (go, mut closed) = tokio::sync::mpsc::channel(1);
    // Each connection has one answer; that of the second one is left open, though it says otherwise.
    let serving = async {
        let mut open = Vec::new();
        for (head, body) in [(KEPT, "1"), (CLOSED, "2"), (KEPT, "3")] {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let read = stream.read(&mut [0; 1024]).await;
            assert!(read.is_ok_and(|count| count > 0), "a request");
            let answer = [head, body].concat();
            stream.write_all(answer.as_bytes()).await.expect("the client reads");
            if head == CLOSED {
                open.push(stream);
            } else {
                drop(stream);
            }
            go.send(()).await.expect("the client waits");
        }
    };
    let asking = async {
        let mut http = Http1::open(&place).await.expect("a connection");
        for body in ["1", "2", "3"] {
            assert_eq!(http.ask(&GET, |_| 10).await, Ok(answer(200, body)));
            closed.recv().await.expect("the server goes on");
            if body == "1" {
                http.stream.readable().await.expect("its end can be seen");
            }
        }
    };
    let both = async { tokio::join!(asking, serving) };
    let patience = std::time::Duration::from_secs(30);
    tokio::time::timeout(patience, both).await.expect("each has its answer");
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
