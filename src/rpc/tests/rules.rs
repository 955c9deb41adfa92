//! Bytes that break a rule end their connection and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{FAR, HELD, Puppet, echo, hello, pipe, served};
use crate::rpc::frame::{self, Kind, PAYLOAD_BYTES_MAX};
use crate::rpc::{connection, handshake, serve};
use crate::types::codec;
use crate::types::limits::CONNECT_TIMEOUT;
use crate::types::peer::{Lane, PROTOCOL_VERSION, Welcome};

fn wire(kind: Kind, id: u64, payload: &[u8]) -> Vec<u8> {
    [&frame::header(kind, id, payload)[..], payload].concat()
}

/// Serves what is sent in one go after the welcome; true if the connection was ended for it.
async fn is_refused(bytes: &[u8]) -> bool {
    let (mut client, server) = tokio::io::duplex(1024 * 1024);
    let serving = serve(server, Puppet::new(), CancellationToken::new());
    client.write_all(&wire(Kind::Hello, 0, &codec::encode(&hello(Lane::Calls)))).await.unwrap();
    client.write_all(bytes).await.unwrap();
    tokio::select! {
        () = serving => true,
        () = async { for _ in 0..50 { tokio::task::yield_now().await } } => false,
    }
}

#[tokio::test]
async fn calls_that_break_a_rule_end_the_connection() {
    let call = codec::encode(&echo(1));
    assert!(!is_refused(&wire(Kind::Call, 0, &call)).await, "nothing is wrong with this one");
    assert!(!is_refused(&wire(Kind::KeepAlive, 0, b"")).await, "nor with this");
    let mut too_long = wire(Kind::Call, 0, &call);
    too_long[..4].copy_from_slice(&u32::try_from(PAYLOAD_BYTES_MAX + 1).unwrap().to_le_bytes());
    let mut flipped = wire(Kind::Call, 0, &call);
    *flipped.last_mut().unwrap() ^= 1;
    for (what, bytes) in [
        ("too long", too_long),
        ("flipped bit", flipped),
        ("no request", wire(Kind::Call, 0, b"\xff\xff")),
        ("left over", wire(Kind::Call, 0, &[&call[..], b"x"].concat())),
        ("used id", [wire(Kind::Call, 5, &call), wire(Kind::Call, 5, &call)].concat()),
        ("last id", wire(Kind::Call, u64::MAX, &call)),
        ("unknown kind", vec![99; 100]),
        ("second hello", wire(Kind::Hello, 0, b"")),
        ("answer", wire(Kind::Answer, 0, b"")),
        ("data", wire(Kind::Data, 0, b"")),
    ] {
        assert!(is_refused(&bytes).await, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_says_nothing_or_too_little_is_sent_away() {
    for bytes in [&b""[..], &wire(Kind::Hello, 0, b"half")[..19]] {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(bytes).await.unwrap();
        let serving = serve(server, Puppet::new(), CancellationToken::new());
        timeout(CONNECT_TIMEOUT * 2, serving).await.expect("it does not wait for ever");
    }
}

#[tokio::test]
async fn another_version_gets_a_sentence_whatever_else_its_hello_says() {
    let (client, server) = tokio::io::duplex(1024);
    tokio::spawn(serve(server, Puppet::new(), CancellationToken::new()));
    let (mut reader, mut writer) = connection::split(client);
    let mut payload = codec::encode(&(PROTOCOL_VERSION + 1));
    payload.extend(b"fields of the future");
    writer.push(Kind::Hello, 0, payload.into());
    writer.flush().await.unwrap();
    let answer = reader.next().await.unwrap().unwrap();
    assert_eq!(answer.kind, Kind::Welcome);
    let refusal = codec::decode::<Welcome>(&answer.payload, 1024).unwrap().unwrap_err();
    let versions = [format!("version {PROTOCOL_VERSION}"), format!("not {}", PROTOCOL_VERSION + 1)];
    assert!(versions.iter().all(|version| refusal.contains(version)), "{refusal}");
    assert_eq!(reader.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_very_long_refusal_still_fits() {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let refusal = "ü".repeat(100_000);
    let service = Puppet::with(super::Stream::Echo, Some(&refusal));
    tokio::spawn(serve(server, service, CancellationToken::new()));
    let (mut reader, mut writer) = connection::split(client);
    let refused = handshake::introduce(&mut reader, &mut writer, &hello(Lane::Calls)).await;
    assert!(refused.unwrap().unwrap_err().starts_with("üüü"));
}

#[tokio::test]
async fn an_announced_length_reserves_no_memory() {
    let ((mut reader, _writer), mut there) = pipe(1024);
    let mut bytes = wire(Kind::Data, 0, b"");
    bytes[..4].copy_from_slice(&u32::try_from(PAYLOAD_BYTES_MAX).unwrap().to_le_bytes());
    there.write_all(&bytes).await.unwrap();
    there.write_all(&[0; 100]).await.unwrap();
    drop(there);
    assert!(reader.next().await.is_err());
    assert!(reader.capacity() <= 256 * 1024, "{}", reader.capacity());
}

#[tokio::test]
async fn a_frame_as_large_as_may_be_passes() {
    let ((mut reader, _writer), there) = pipe(64 * 1024);
    let (_reader, mut writer) = connection::split(there);
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES_MAX]);
    let sent = payload.clone();
    tokio::spawn(async move {
        writer.push(Kind::Data, 0, sent);
        writer.flush().await.unwrap();
    });
    assert_eq!(reader.next().await.unwrap().unwrap().payload, payload);
}

#[tokio::test]
async fn calls_under_way_end_with_their_connection() {
    let service = Puppet::new();
    let (reader, mut writer, serving) = served(&service, Lane::Calls).await;
    writer.push(Kind::Call, 0, codec::encode(&HELD).into());
    writer.flush().await.unwrap();
    service.until_begun(1).await;
    drop((reader, writer));
    timeout(FAR, serving).await.expect("the end is noticed").unwrap();
    assert_eq!(Arc::strong_count(&service), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_the_server_panic(
        introduced: bool,
        lane in prop_oneof![Just(Lane::Calls), Just(Lane::Append)],
        kinds in proptest::collection::vec((1..9_u8, 0..4_u64, any::<Vec<u8>>()), 0..4),
        tail: Vec<u8>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bytes = Vec::new();
            if introduced {
                bytes.extend(wire(Kind::Hello, 0, &codec::encode(&hello(lane))));
            }
            for (kind, id, payload) in kinds {
                let mut crc = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
                crc.push(kind);
                crc.extend(id.to_le_bytes());
                let sum = crc32c::crc32c_append(crc32c::crc32c(&crc), &payload);
                bytes.extend(crc);
                bytes.extend(sum.to_le_bytes());
                bytes.extend(payload);
            }
            bytes.extend(tail);
            let (mut client, server) = tokio::io::duplex(1024 * 1024);
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let serving = serve(server, Puppet::new(), CancellationToken::new());
            timeout(FAR, serving).await.expect("it ends");
        });
    }
}
