//! Streams: messages in order, each once; an end is an end and a break is a break.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{FAR, Puppet, REFUSAL_BYTES, Server, Stream, far, hello, pipe};
use crate::rpc::frame::{self, Kind, PAYLOAD_BYTES_MAX};
use crate::rpc::stream::start;
use crate::rpc::{CallError, Dialer, FrameReceiver, FrameSender, connection, handshake, serve};
use crate::types::limits::{
    STALL_TIMEOUT, STREAM_QUEUE_BYTES_MAX, STREAM_QUEUE_FRAMES_MAX, WRITE_BATCH_BYTES,
};
use crate::types::peer::Lane;

/// A message that tells its number, of a length that differs from most others.
fn message(number: u32) -> Bytes {
    let filler = if number % 1000 == 999 { 1024 * 1024 } else { (number % 97) as usize };
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(4 + filler, 0x5a);
    bytes.into()
}

fn local(bytes: usize) -> ((FrameSender, FrameReceiver), (FrameSender, FrameReceiver)) {
    let ((reader, writer), there) = pipe(bytes);
    let ends = [(reader, writer), connection::split(there)];
    let [here, there] = ends.map(|(reader, writer)| {
        let (sender, receiver, writing) = start(reader, writer, None);
        tokio::spawn(writing);
        (sender, receiver)
    });
    (here, there)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_and_the_end_after_them() {
    let service = Puppet::new();
    let server = Server::start(Arc::clone(&service)).await;
    let (mut sender, mut receiver) = server.open().await;
    let sending = tokio::spawn(async move {
        for number in 0..10_000 {
            sender.send(message(number)).await.unwrap();
        }
        sender.send(Bytes::new()).await.unwrap();
        sender.finish().await.unwrap();
    });
    for number in 0..10_000 {
        assert_eq!(receiver.next().await.unwrap(), Some(message(number)));
    }
    assert_eq!(receiver.next().await.unwrap(), Some(Bytes::new()));
    assert_eq!(receiver.next().await.unwrap(), None);
    assert_eq!(receiver.next().await.unwrap(), None);
    sending.await.unwrap();
    assert_eq!(*service.ended.borrow(), Some(true));
}

#[tokio::test]
async fn a_sender_that_is_dropped_breaks_the_stream_after_what_it_sent() {
    let server = Server::start(Puppet::with(Stream::Break, None)).await;
    let (_sender, mut receiver) = server.open().await;
    assert_eq!(receiver.next().await.unwrap(), Some(Bytes::from_static(b"hello")));
    for _ in 0..2 {
        assert_eq!(receiver.next().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn the_server_sees_the_break_of_a_stream_too() {
    let service = Puppet::new();
    let server = Server::start(Arc::clone(&service)).await;
    let (mut sender, mut receiver) = server.open().await;
    sender.send(message(1)).await.unwrap();
    assert_eq!(receiver.next().await.unwrap(), Some(message(1)));
    drop(sender);
    assert!(receiver.next().await.is_err());
    assert_eq!(*service.ended.borrow(), Some(false));
}

#[tokio::test]
async fn a_killed_process_breaks_its_streams_at_once() {
    let service = Puppet::new();
    let server = Server::start(Arc::clone(&service)).await;
    let (mut sender, mut receiver) = server.open().await;
    service.until_begun(1).await;
    server.kill().await;
    timeout(FAR / 3, receiver.next()).await.expect("at once").unwrap_err();
    let failed = timeout(FAR, async {
        while sender.send(message(1)).await.is_ok() {
            tokio::task::yield_now().await;
        }
        sender.finish().await
    });
    failed.await.expect("the sender notices").unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_does_not_read_stops_the_sender() {
    let ((mut sender, _r), (_s, mut receiver)) = local(1024);
    let mut sent = 0;
    let second = Duration::from_secs(1);
    while let Ok(result) = timeout(second, sender.send(message(sent))).await {
        result.unwrap();
        sent += 1;
        assert!((sent as usize) < 4 * STREAM_QUEUE_FRAMES_MAX, "nothing stops the sender");
    }
    for number in 0..sent {
        assert_eq!(receiver.next().await.unwrap(), Some(message(number)));
    }
    sender.send(message(sent)).await.unwrap();
    assert_eq!(receiver.next().await.unwrap(), Some(message(sent)));
}

#[tokio::test(start_paused = true)]
async fn large_messages_stop_the_sender_by_their_bytes() {
    let ((mut sender, _r), (_s, _receiver)) = local(1024);
    let large = Bytes::from(vec![0; STREAM_QUEUE_BYTES_MAX / 8]);
    let mut sent = 0;
    while timeout(Duration::from_secs(1), sender.send(large.clone())).await.is_ok() {
        sent += 1;
        assert!(sent * large.len() <= STREAM_QUEUE_BYTES_MAX + WRITE_BATCH_BYTES);
    }
    assert!(sent * large.len() >= STREAM_QUEUE_BYTES_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_stands_still_breaks_the_stream() {
    let ((mut sender, _r), (_s, _receiver)) = local(1024);
    let started = tokio::time::Instant::now();
    let error = loop {
        if let Err(error) = sender.send(message(999)).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() >= STALL_TIMEOUT && started.elapsed() < STALL_TIMEOUT * 2);
}

#[tokio::test]
async fn receiving_can_be_interrupted_anywhere() {
    let ((reader, writer), mut there) = pipe(1024);
    let (_sender, mut receiver, _writing) = start(reader, writer, None);
    let frames: Vec<u8> = (0..3_u8)
        .flat_map(|id| {
            let payload = vec![id; 10];
            [&frame::header(Kind::Data, u64::from(id), &payload)[..], &payload].concat()
        })
        .collect();
    let mut messages = Vec::new();
    for byte in frames {
        there.write_u8(byte).await.unwrap();
        tokio::select! {
            biased;
            message = receiver.next() => messages.extend(message.unwrap()),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(messages, [vec![0; 10], vec![1; 10], vec![2; 10]]);
}

#[tokio::test]
async fn a_missing_or_foreign_frame_breaks_the_stream() {
    for (kind, id) in [(Kind::Data, 1), (Kind::End, 1), (Kind::Call, 0), (Kind::KeepAlive, 0)] {
        let ((reader, writer), mut there) = pipe(1024);
        let (_sender, mut receiver, _writing) = start(reader, writer, None);
        there.write_all(&frame::header(kind, id, b"")).await.unwrap();
        assert_eq!(receiver.next().await.unwrap_err().kind(), ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn a_message_over_the_bound_is_refused_and_the_stream_goes_on() {
    let ((mut sender, _r), (_s, mut receiver)) = local(1024);
    let error = sender.send(vec![0; PAYLOAD_BYTES_MAX + 1].into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    sender.send(message(1)).await.unwrap();
    assert_eq!(receiver.next().await.unwrap(), Some(message(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_arrives_although_nobody_reads_what_is_still_being_sent() {
    let service = Puppet::with(Stream::Refuse, None);
    let server = Server::start(Arc::clone(&service)).await;
    let (mut sender, mut receiver) = server.open().await;
    let sending = tokio::spawn(async move {
        let chunk = Bytes::from(vec![0; 256 * 1024]);
        while sender.send(chunk.clone()).await.is_ok() {}
    });
    // Read only when all is said on the other side, part of it still in its kernel.
    let mut ended = service.ended.subscribe();
    timeout(FAR, ended.wait_for(Option::is_some)).await.expect("buffers hold it").unwrap();
    let answer = receiver.next().await.unwrap().unwrap();
    assert_eq!(answer.len(), REFUSAL_BYTES);
    assert_eq!(receiver.next().await.unwrap(), None);
    drop(receiver);
    timeout(FAR, sending).await.expect("the sender notices").unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_sender_leaves_behind_is_given_up_if_the_other_side_is_too_slow() {
    let ((reader, writer), mut there) = pipe(64);
    let (mut sender, _receiver, writing) = start(reader, writer, None);
    let writing = tokio::spawn(writing);
    sender.send(message(999)).await.unwrap();
    drop(sender);
    let slow = tokio::spawn(async move {
        while there.read_u8().await.is_ok() {
            tokio::time::sleep(STALL_TIMEOUT / 4).await;
        }
    });
    timeout(STALL_TIMEOUT * 2, writing).await.expect("it is given up").unwrap();
    slow.abort();
}

#[tokio::test]
async fn a_stopping_server_breaks_its_streams_and_ends() {
    let service = Puppet::new();
    let server = Server::start(Arc::clone(&service)).await;
    let (_sender, mut receiver) = server.open().await;
    service.until_begun(1).await;
    server.shutdown.cancel();
    timeout(FAR, receiver.next()).await.expect("at once").unwrap_err();
    assert_eq!(*service.ended.borrow(), Some(false));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ignores_the_stop_is_given_up() {
    let service = Puppet::with(Stream::Stuck, None);
    let (client, io) = tokio::io::duplex(1024);
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(io, Arc::clone(&service), shutdown.clone()));
    let (mut reader, mut writer) = connection::split(client);
    let hello = hello(Lane::Snapshot);
    handshake::introduce(&mut reader, &mut writer, &hello).await.unwrap().unwrap();
    service.until_begun(1).await;
    shutdown.cancel();
    timeout(FAR, serving).await.expect("it is given up").unwrap();
}

#[tokio::test]
async fn a_refused_stream_was_not_opened() {
    let server = Server::start(Puppet::with(Stream::Echo, Some("not me"))).await;
    let refused = Dialer::new(None).open(&server.target(), Lane::Snapshot, far()).await;
    assert_eq!(refused.unwrap_err(), CallError::NotSent("not me".into()));
}
