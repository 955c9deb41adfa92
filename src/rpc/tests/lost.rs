//! When there is no answer: what is said about the call is true, and it is said soon.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{
    FAR, HELD, Puppet, Server, Stream, echo, echoed, far, listen, pipe, served, soon, target,
};
use crate::rpc::calls::Calls;
use crate::rpc::connection::split;
use crate::rpc::frame::Kind;
use crate::rpc::{CallError, Caller, Dialer};
use crate::types::codec;
use crate::types::deadline::Deadline;
use crate::types::limits::{
    CALLS_IN_FLIGHT_MAX, CONNECT_TIMEOUT, KEEP_ALIVE_INTERVAL, SILENCE_MAX, STALL_TIMEOUT,
};
use crate::types::peer::Lane;

fn url() -> String {
    "http://there".into()
}

/// More than any buffer between the two sides.
fn big() -> Bytes {
    vec![0; 4096].into()
}

fn caller(url: &str) -> Caller {
    Caller::new(Dialer::new(None), target(url))
}

async fn hang(stream: TcpStream) {
    let _open = stream;
    pending::<()>().await;
}

fn is_lost<T>(result: &Result<T, CallError>) -> bool {
    matches!(result, Err(CallError::Lost(_)))
}

fn is_not_sent<T>(result: &Result<T, CallError>) -> bool {
    matches!(result, Err(CallError::NotSent(_)))
}

#[tokio::test]
async fn when_the_connection_breaks_written_calls_are_lost_and_queued_ones_were_not_sent() {
    let ((reader, writer), mut there) = pipe(64);
    let calls = Calls::start(reader, writer, url());
    let (mut written, mut queued) =
        (Box::pin(calls.call(big(), far())), Box::pin(calls.call(big(), far())));
    assert!(futures::poll!(&mut written).is_pending());
    there.read_exact(&mut [0; 10]).await.unwrap();
    assert!(futures::poll!(&mut queued).is_pending());
    drop(there);
    let (written, queued) = tokio::join!(written, queued);
    assert!(is_lost(&written), "{written:?}");
    assert!(is_not_sent(&queued), "{queued:?}");
    assert!(is_not_sent(&calls.call(big(), far()).await));
}

#[tokio::test]
async fn at_its_deadline_a_written_call_is_late_and_a_queued_one_was_not_sent_and_never_will_be() {
    let ((reader, writer), mut there) = pipe(64);
    let calls = Calls::start(reader, writer, url());
    let mut written = Box::pin(calls.call(big(), soon()));
    assert!(futures::poll!(&mut written).is_pending());
    there.read_exact(&mut [0; 10]).await.unwrap();
    let queued = calls.call(big(), soon()).await;
    assert!(is_not_sent(&queued), "{queued:?}");
    let written = written.await;
    assert!(matches!(written, Err(CallError::Late(_))), "{written:?}");

    let mut third = Box::pin(calls.call(Bytes::from_static(b"third"), far()));
    assert!(futures::poll!(&mut third).is_pending());
    let mut rest = vec![0; 17 + big().len() - 10];
    there.read_exact(&mut rest).await.unwrap();
    let (mut frames, _writer) = split(there);
    let next = frames.next().await.unwrap().unwrap();
    assert_eq!((next.id, &next.payload[..]), (2, &b"third"[..]));
}

#[tokio::test]
async fn a_killed_process_loses_its_calls_at_once() {
    let service = Puppet::new();
    let server = Server::start(Arc::clone(&service)).await;
    let caller = server.caller();
    let started = Instant::now();
    let (lost, ()) = tokio::join!(caller.call(&HELD, far()), async {
        service.until_begun(1).await;
        server.kill().await;
    });
    assert!(is_lost(&lost), "{lost:?}");
    assert!(started.elapsed() < FAR / 3, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_process_that_starts_again_on_its_port_is_found_again() {
    let server = Server::start(Puppet::new()).await;
    let caller = server.caller();
    caller.call(&echo(1), far()).await.unwrap();
    server.kill().await;
    let unsent = timeout(FAR, async {
        loop {
            // The first may be written before the end of the connection is noticed.
            match caller.call(&echo(2), far()).await {
                Err(CallError::NotSent(text)) if text.contains("refused") => break,
                Err(_) => tokio::task::yield_now().await,
                Ok(reply) => panic!("{reply:?} from nobody"),
            }
        }
    });
    unsent.await.expect("the server is gone");
    let _server = Server::start_at(server.address, Puppet::new()).await;
    let found = timeout(FAR, async {
        loop {
            match caller.call(&echo(3), far()).await {
                Ok(reply) => break reply,
                Err(error) => assert!(matches!(error, CallError::NotSent(_)), "{error:?}"),
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(found.await.expect("the new process is found"), echoed(3));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_loses_its_calls_soon() {
    let ((reader, writer), _there) = pipe(1024 * 1024);
    let calls = Calls::start(reader, writer, url());
    let started = tokio::time::Instant::now();
    let lost = calls.call(big(), far()).await;
    assert!(matches!(&lost, Err(CallError::Lost(text)) if text.contains("silent")), "{lost:?}");
    let took = started.elapsed();
    assert!(took >= SILENCE_MAX && took <= SILENCE_MAX + KEEP_ALIVE_INTERVAL, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_keep_an_idle_connection_open_on_both_sides() {
    let service = Puppet::new();
    let (reader, writer, serving) = served(&service, Lane::Calls).await;
    let calls = Calls::start(reader, writer, url());
    tokio::time::sleep(SILENCE_MAX * 10).await;
    assert!(calls.closed().is_none() && !serving.is_finished());
    drop(calls);
    timeout(FAR, serving).await.expect("the end is noticed").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_caller_falls_silent_ends_the_connection() {
    let service = Puppet::new();
    let (_reader, _writer, serving) = served(&service, Lane::Calls).await;
    timeout(SILENCE_MAX + 2 * KEEP_ALIVE_INTERVAL, serving).await.expect("it is noticed").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_shows_life_but_takes_nothing_breaks_the_connection() {
    let ((reader, writer), there) = pipe(64);
    let calls = Calls::start(reader, writer, url());
    let (_there_reader, mut there_writer) = split(there);
    let alive = tokio::spawn(async move {
        loop {
            there_writer.push(Kind::KeepAlive, 0, Bytes::new());
            if there_writer.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(KEEP_ALIVE_INTERVAL).await;
        }
    });
    let started = tokio::time::Instant::now();
    let lost = calls.call(big(), far()).await;
    assert!(is_lost(&lost), "{lost:?}");
    assert!(started.elapsed() <= STALL_TIMEOUT + 2 * KEEP_ALIVE_INTERVAL);
    alive.abort();
}

#[tokio::test(start_paused = true)]
async fn answers_that_arrived_count_although_nothing_can_be_written_any_more() {
    let (incoming, answers) = tokio::io::duplex(1024);
    let (_, outgoing) = tokio::io::duplex(64);
    let (reader, writer) = split(tokio::io::join(incoming, outgoing));
    let calls = Calls::start(reader, writer, url());
    let (_reader, mut there) = split(answers);
    let (answered, ()) = tokio::join!(calls.call(big(), far()), async {
        while calls.closed().is_none() {
            tokio::task::yield_now().await;
        }
        there.push(Kind::Answer, 0, codec::encode(&echoed(1)).into());
        there.flush().await.unwrap();
    });
    assert_eq!(answered, Ok(echoed(1)));
}

#[tokio::test]
async fn nobody_there_is_a_sentence_with_the_url() {
    let server = Server::start(Puppet::new()).await;
    server.kill().await;
    let error = caller(&server.url).call(&echo(1), far()).await.unwrap_err();
    let CallError::NotSent(text) = &error else { panic!("{error:?}") };
    assert!(text.contains(&server.url) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_refusal_arrives_word_for_word() {
    let sentence = "replica n3f1 belongs to group g9a2, not g771c; check --replicas";
    let server = Server::start(Puppet::with(Stream::Echo, Some(sentence))).await;
    let error = server.caller().call(&echo(1), far()).await.unwrap_err();
    assert_eq!(error, CallError::NotSent(sentence.into()));
}

#[tokio::test]
async fn other_servers_are_told_from_ours() {
    let http = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let garbage = "220 mail.example.com ESMTP\r\n";
    let upgraded = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: sage-rpc/1\r\n\r\nand then something else entirely";
    for (answer, said) in [(http, "404"), (garbage, "cannot connect"), (upgraded, "frame")] {
        let url = listen(move |mut stream| async move {
            assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
            stream.write_all(answer.as_bytes()).await.ok();
            stream.shutdown().await.ok();
        })
        .await;
        let error = caller(&url).call(&echo(1), far()).await.unwrap_err();
        let CallError::NotSent(text) = &error else { panic!("{error:?}") };
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_takes_no_longer_than_the_deadline_or_the_bound() {
    let url = listen(hang).await;
    let (short, long) = (caller(&url), caller(&url));
    let started = Instant::now();
    assert!(is_not_sent(&short.call(&echo(1), soon()).await));
    assert!(started.elapsed() < CONNECT_TIMEOUT / 2);
    let (dialer, target) = (Dialer::new(None), target(&url));
    let request = echo(1);
    let (called, opened) =
        tokio::join!(long.call(&request, far()), dialer.open(&target, Lane::Append, far()));
    assert!(is_not_sent(&called) && is_not_sent(&opened));
    assert!(started.elapsed() < FAR / 3);
}

#[tokio::test]
async fn calls_that_wait_for_a_connection_are_bounded() {
    let url = listen(hang).await;
    let caller = caller(&url);
    let request = echo(1);
    let mut calls: Vec<_> =
        (0..CALLS_IN_FLIGHT_MAX).map(|_| Box::pin(caller.call(&request, far()))).collect();
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    assert_eq!(caller.call(&request, far()).await, Err(CallError::Overloaded(url)));
}

#[tokio::test]
async fn while_the_pause_runs_calls_fail_at_once_and_nothing_is_attempted() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let url = listen(move |_stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {}
    })
    .await;
    let caller = caller(&url);
    let started = Instant::now();
    let mut calls = 0;
    while attempts.load(Ordering::Relaxed) < 6 {
        assert!(is_not_sent(&caller.call(&echo(1), far()).await));
        calls += 1;
        tokio::task::yield_now().await;
    }
    let least = Duration::from_millis(10 + 20 + 40 + 80 + 160);
    assert!(started.elapsed() >= least && calls > 6, "{:?}, {calls} calls", started.elapsed());
}

#[tokio::test]
async fn a_call_whose_time_is_up_attempts_nothing() {
    let server = Server::start(Puppet::new()).await;
    let late = Deadline::after(Duration::ZERO);
    assert!(is_not_sent(&server.caller().call(&echo(1), late).await));
    assert_eq!(*server.connections.borrow(), 0);
}
