//! The network shows what TCP would.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::rpc::Connect;

/// Two places, and a connection from 0 to 1.
async fn connected(net: &Net) -> (Box<dyn Io>, impl Io + use<>) {
    net.listen(1, Arc::default());
    let from = From { net: net.clone(), place: 0 };
    let dialing = tokio::spawn(async move { from.connect(&url(1)).await });
    let end = {
        let accepting = net.accept(1);
        tokio::pin!(accepting);
        for now in 1..10 {
            tokio::task::yield_now().await;
            net.advance(now);
        }
        accepting.await
    };
    tokio::task::yield_now().await;
    (dialing.await.expect("no panic").expect("somebody listens"), end)
}

#[tokio::test]
async fn what_is_held_back_arrives_in_order_when_the_link_is_open() {
    let net = Net::new(1);
    let (mut one, mut other) = connected(&net).await;
    net.block(0, 1, true);
    one.write_all(b"one, ").await.expect("there is room");
    one.write_all(b"two").await.expect("there is room");
    net.advance(1000);
    let mut bytes = [0; 8];
    assert!(futures::FutureExt::now_or_never(other.read(&mut bytes)).is_none());
    other.write_all(b"back").await.expect("there is room");
    net.advance(1010);
    assert_eq!(one.read(&mut bytes).await.expect("the other way is open"), 4);
    net.block(0, 1, false);
    net.advance(1020);
    other.read_exact(&mut bytes).await.expect("it has arrived");
    assert_eq!(&bytes, b"one, two");
    drop(one);
    net.advance(1030);
    assert_eq!(other.read(&mut bytes).await.expect("it was closed"), 0);
}

#[tokio::test]
async fn a_process_that_is_killed_resets_and_one_without_power_is_silent() {
    let net = Net::new(2);
    let (mut one, _other) = connected(&net).await;
    net.end(1, false);
    net.advance(100);
    let reset = one.read(&mut [0; 8]).await.expect_err("the host says so");
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    let refused = From { net: net.clone(), place: 0 };
    let refused = tokio::spawn(async move { refused.connect(&url(1)).await.is_err() });
    for now in 100..110 {
        tokio::task::yield_now().await;
        net.advance(now);
    }
    assert!(refused.await.expect("no panic"), "nobody listens");

    let net = Net::new(3);
    let (mut one, mut other) = connected(&net).await;
    net.lock().hosts[&1].off.store(true, Ordering::SeqCst);
    other.write_all(b"late").await.expect("nobody hears it");
    net.end(1, true);
    net.advance(100);
    assert!(futures::FutureExt::now_or_never(one.read(&mut [0; 8])).is_none());
    net.power_on(1);
    net.advance(200);
    assert!(one.read(&mut [0; 8]).await.is_err(), "the host does not know the connection");
}
