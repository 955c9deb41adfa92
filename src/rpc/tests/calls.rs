//! Many calls over one connection: each gets its own answer, whatever the others do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    FAR, HELD, PANIC, Puppet, Server, echo, echoed, far, hello, large, passed, served, soon,
};
use crate::rpc::frame::Kind;
use crate::rpc::{CallError, connection, handshake, serve};
use crate::types::codec;
use crate::types::limits::{
    CALL_BYTES_IN_FLIGHT_MAX, CALLS_IN_FLIGHT_MAX, DRAIN_TIMEOUT, LINGER_MAX, SILENCE_MAX,
};
use crate::types::peer::{Lane, Reply};

#[tokio::test]
async fn a_call_is_answered() {
    let server = Server::start(Puppet::new()).await;
    assert_eq!(server.caller().call(&echo(7), far()).await, Ok(echoed(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_calls_each_get_their_own_answer() {
    let server = Server::start(Puppet::new()).await;
    let caller = server.caller();
    let calls = futures::stream::iter(0..10_000).map(|number| {
        let caller = caller.clone();
        tokio::spawn(async move { (number, caller.call(&echo(number), far()).await) })
    });
    let answers: Vec<_> = calls.buffer_unordered(CALLS_IN_FLIGHT_MAX).collect().await;
    assert_eq!(answers.len(), 10_000);
    for answer in answers {
        let (number, reply) = answer.unwrap();
        assert_eq!(reply, Ok(echoed(number)));
    }
    assert_eq!(*server.connections.borrow(), 1);
}

#[tokio::test]
async fn first_calls_share_one_connection() {
    let server = Server::start(Puppet::new()).await;
    let caller = server.caller();
    let requests: Vec<_> = (0..100).map(echo).collect();
    let answers = join_all(requests.iter().map(|request| caller.call(request, far()))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(*server.connections.borrow(), 1);
}

#[tokio::test]
async fn a_slow_call_delays_no_other() {
    let service = Puppet::new();
    let server = Server::start(Arc::clone(&service)).await;
    let caller = server.caller();
    let slow = caller.call(&HELD, far());
    tokio::pin!(slow);
    tokio::select! {
        biased;
        reply = &mut slow => panic!("the gate is closed, and yet {reply:?}"),
        () = service.until_begun(1) => {}
    }
    assert_eq!(caller.call(&echo(1), far()).await, Ok(echoed(1)));
    service.gate.add_permits(1);
    assert_eq!(slow.await, Ok(passed()));
}

#[tokio::test]
async fn calls_beyond_the_bound_are_refused_at_once_until_one_is_given_up() {
    let server = Server::start(Puppet::new()).await;
    let caller = server.caller();
    caller.call(&echo(0), far()).await.unwrap();
    let mut calls: Vec<_> =
        (0..CALLS_IN_FLIGHT_MAX).map(|_| Box::pin(caller.call(&HELD, far()))).collect();
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    let overloaded = Err(CallError::Overloaded(server.url.clone()));
    assert_eq!(caller.call(&echo(1), far()).await, overloaded);
    calls.pop();
    assert!(futures::poll!(Box::pin(caller.call(&HELD, far()))).is_pending());
}

#[tokio::test]
async fn a_call_without_an_answer_ends_at_its_deadline_and_a_late_answer_goes_nowhere() {
    let service = Puppet::new();
    let server = Server::start(Arc::clone(&service)).await;
    let caller = server.caller();
    caller.call(&echo(0), far()).await.unwrap();
    let lost = caller.call(&HELD, soon()).await;
    assert!(matches!(&lost, Err(CallError::Late(text)) if text.contains("in time")), "{lost:?}");
    service.gate.add_permits(1);
    assert_eq!(caller.call(&echo(1), far()).await, Ok(echoed(1)));
    assert_eq!(*server.connections.borrow(), 1);
}

#[tokio::test]
async fn a_panic_ends_its_connection_and_the_next_call_opens_another() {
    let service = Puppet::new();
    let server = Server::start(Arc::clone(&service)).await;
    let caller = server.caller();
    let (held, panicked) = tokio::join!(caller.call(&HELD, far()), caller.call(&PANIC, far()));
    assert!(matches!(panicked, Err(CallError::Lost(_))), "{panicked:?}");
    assert!(matches!(held, Err(CallError::Lost(_))), "{held:?}");
    let again = async {
        while let Err(error) = caller.call(&echo(1), far()).await {
            assert!(matches!(error, CallError::NotSent(_)), "{error:?}");
            tokio::task::yield_now().await;
        }
    };
    timeout(FAR, again).await.expect("a new connection");
    assert_eq!(*server.connections.borrow(), 2);
}

#[tokio::test]
async fn a_connection_that_ends_again_and_again_is_opened_with_pauses() {
    let server = Server::start(Puppet::new()).await;
    let caller = server.caller();
    let started = Instant::now();
    while *server.connections.borrow() < 6 {
        caller.call(&PANIC, far()).await.unwrap_err();
        tokio::task::yield_now().await;
    }
    let least = Duration::from_millis(10 + 20 + 40 + 80 + 160);
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_server_takes_no_more_calls_than_its_bound_and_loses_none() {
    let service = Puppet::new();
    let (mut reader, mut writer, _serving) = served(&service, Lane::Calls).await;
    let count = CALLS_IN_FLIGHT_MAX as u64 + 500;
    let writing = tokio::spawn(async move {
        for id in 0..count {
            writer.push(Kind::Call, id, codec::encode(&HELD).into());
            writer.flush().await.unwrap();
        }
        writer
    });
    service.until_begun(CALLS_IN_FLIGHT_MAX).await;
    let writer = timeout(FAR, writing).await.expect("frames fit into the pipe").unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*service.begun.borrow(), CALLS_IN_FLIGHT_MAX);

    service.gate.add_permits(usize::try_from(count).unwrap());
    let mut answered = vec![false; usize::try_from(count).unwrap()];
    while answered.contains(&false) {
        let frame = timeout(FAR, reader.next()).await.expect("in time").unwrap().unwrap();
        if frame.kind == Kind::Answer {
            assert_eq!(codec::decode::<Reply>(&frame.payload, 100).unwrap(), passed());
            answered[usize::try_from(frame.id).unwrap()] = true;
        }
    }
    drop(writer);
}

#[tokio::test(start_paused = true)]
async fn a_full_server_does_not_take_its_own_deafness_for_silence() {
    let service = Puppet::new();
    let (mut reader, mut writer, serving) = served(&service, Lane::Calls).await;
    for id in 0..CALLS_IN_FLIGHT_MAX as u64 {
        writer.push(Kind::Call, id, codec::encode(&HELD).into());
    }
    writer.flush().await.unwrap();
    service.until_begun(CALLS_IN_FLIGHT_MAX).await;
    tokio::time::sleep(SILENCE_MAX * 3).await;
    assert!(!serving.is_finished());
    service.gate.add_permits(1);
    while reader.next().await.unwrap().unwrap().kind != Kind::Answer {}
}

#[tokio::test]
async fn the_server_takes_in_no_more_bytes_than_its_bound() {
    let service = Puppet::new();
    let (_reader, mut writer, _serving) = served(&service, Lane::Calls).await;
    let call = Bytes::from(codec::encode(&large(CALL_BYTES_IN_FLIGHT_MAX / 4)));
    let writing = tokio::spawn(async move {
        for id in 0..6 {
            writer.push(Kind::Call, id, call.clone());
            writer.flush().await.unwrap();
        }
    });
    service.until_begun(4).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*service.begun.borrow(), 4);
    assert!(!writing.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_gives_up_calls_that_do_not_end() {
    let service = Puppet::new();
    let (client, io) = tokio::io::duplex(1024);
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(io, Arc::clone(&service), shutdown.clone()));
    let (mut reader, mut writer) = connection::split(client);
    let hello = hello(Lane::Calls);
    handshake::introduce(&mut reader, &mut writer, &hello).await.unwrap().unwrap();
    writer.push(Kind::Call, 0, codec::encode(&HELD).into());
    writer.flush().await.unwrap();
    service.until_begun(1).await;
    let stopped = Instant::now();
    shutdown.cancel();
    timeout(FAR, serving).await.expect("it is given up").unwrap();
    assert!(stopped.elapsed() >= DRAIN_TIMEOUT, "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn a_stopping_server_stays_until_its_last_answers_are_read() {
    let service = Puppet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (io, _) = listener.accept().await.unwrap();
    let shutdown = CancellationToken::new();
    let mut serving = tokio::spawn(serve(io, Arc::clone(&service), shutdown.clone()));
    let (mut reader, mut writer) = connection::split(client);
    let hello = hello(Lane::Calls);
    handshake::introduce(&mut reader, &mut writer, &hello).await.unwrap().unwrap();
    writer.push(Kind::Call, 0, codec::encode(&HELD).into());
    writer.flush().await.unwrap();
    service.until_begun(1).await;
    shutdown.cancel();
    assert_eq!(reader.next().await.unwrap().unwrap().kind, Kind::GoAway);
    // These are never read: a socket that is closed over them would be reset.
    for id in 1..1000 {
        writer.push(Kind::Call, id, codec::encode(&HELD).into());
    }
    writer.flush().await.unwrap();
    service.gate.add_permits(1);
    timeout(LINGER_MAX / 2, &mut serving).await.expect_err("it waits for us");
    assert_eq!(reader.next().await.unwrap().unwrap().kind, Kind::Answer);
    assert_eq!(reader.next().await.unwrap(), None);
    drop((reader, writer));
    timeout(FAR, serving).await.expect("it ends").unwrap();
    assert_eq!(*service.begun.borrow(), 1);
}

#[tokio::test]
async fn a_stopping_server_finishes_what_it_has_taken_and_says_what_it_has_not() {
    let service = Puppet::new();
    let server = Server::start(Arc::clone(&service)).await;
    let caller = server.caller();
    let taken = caller.call(&HELD, far());
    tokio::pin!(taken);
    tokio::select! {
        biased;
        reply = &mut taken => panic!("the gate is closed, and yet {reply:?}"),
        () = service.until_begun(1) => {}
    }
    server.shutdown.cancel();
    let refused = async {
        loop {
            match caller.call(&echo(1), far()).await {
                Ok(reply) => assert_eq!(reply, echoed(1)),
                Err(error) => break error,
            }
        }
    };
    let refused = timeout(FAR, refused).await.expect("in time");
    assert!(
        matches!(&refused, CallError::NotSent(text) if text.contains("stopping")),
        "{refused:?}"
    );
    service.gate.add_permits(1);
    assert_eq!(taken.await, Ok(passed()));
}

#[tokio::test]
async fn dropping_the_last_clone_closes_the_connection_and_ends_its_tasks() {
    let server = Server::start(Puppet::new()).await;
    // Listening needs one task for ever; the HTTP front of a connection ends with its upgrade.
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let caller = server.caller();
    caller.clone().call(&echo(1), far()).await.unwrap();
    assert!(alive() > before);
    drop(caller);
    let gone = async {
        while alive() > before {
            tokio::task::yield_now().await;
        }
    };
    timeout(FAR, gone).await.expect("no task is left");
}
