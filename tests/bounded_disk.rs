//! The disk does not fill up: what was overwritten goes away, by snapshots and purges.
//!
//! The client is written for speed, so that a million requests take a minute and not ten: plain
//! sockets, with the next request on its way before the last is answered.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::world::World;

const OVERWRITES: usize = 1_000_000;
const KEYS: usize = 10_000;
/// So long that the log of all writes would be far over the limit if nothing were ever purged.
const VALUE_BYTES: usize = 500;
const DISK_BYTES_MAX: u64 = 300_000_000;
const CONNECTIONS: usize = 256;
/// Requests that are sent before the first of them is answered.
const PIPELINE: usize = 8;
/// Between two looks at the disk.
const LOOK: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_overwrites_stay_under_300_megabytes() {
    let mut world = World::alone().await;
    let group = world.started("group", 1, &[]).await;
    let start = Instant::now();
    let address = group.url().trim_start_matches("http://").to_string();
    let mut writers = JoinSet::new();
    for writer in 0..CONNECTIONS {
        writers.spawn(overwrite(address.clone(), writer));
    }
    let mut peak = 0;
    let mut look = tokio::time::interval(LOOK);
    while !writers.is_empty() {
        tokio::select! {
            ended = writers.join_next() => {
                ended.expect("there is one").expect("every write is answered 200");
            }
            _ = look.tick() => peak = peak.max(disk_bytes(&group.data(0))),
        }
    }
    let took = start.elapsed();
    let bytes = disk_bytes(&group.data(0));
    println!("{OVERWRITES} overwrites in {took:?}; {bytes} bytes at the end, {peak} at the peak");
    assert!(bytes < DISK_BYTES_MAX, "{bytes} bytes");
    assert!(peak < DISK_BYTES_MAX, "{peak} bytes at the peak");
    let status = group.status(&world.http, 0).await.expect("it answers");
    assert!(status.purged.is_some() && status.snapshot_index >= status.purged, "{status:?}");
    assert_eq!(status.keys, KEYS as u64);
    assert!(status.wal_bytes + status.snapshot_bytes <= bytes, "{status:?}");
}

/// Writes this connection's part: every key comes round, from another connection each time.
async fn overwrite(address: String, writer: usize) {
    let mut socket = TcpStream::connect(&address).await.expect("a connection");
    socket.set_nodelay(true).expect("a TCP socket");
    let numbers: Vec<usize> = (writer..OVERWRITES).step_by(CONNECTIONS).collect();
    let mut answers = Vec::new();
    for burst in numbers.chunks(PIPELINE) {
        let requests: String = burst.iter().map(|number| request(&address, *number)).collect();
        socket.write_all(requests.as_bytes()).await.expect("the server reads");
        for _ in burst {
            read_answer(&mut socket, &mut answers).await;
        }
    }
}

fn request(host: &str, number: usize) -> String {
    let key = number % KEYS;
    format!(
        "PUT /kv?key=key-{key} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {VALUE_BYTES}\r\n\r\n\
         {number:0VALUE_BYTES$}"
    )
}

/// Reads one answer to its end and takes it off the front of `buffer`.
async fn read_answer(socket: &mut TcpStream, buffer: &mut Vec<u8>) {
    loop {
        if let Some(end) = answer_end(buffer) {
            let ok = buffer.starts_with(b"HTTP/1.1 200 ");
            assert!(ok, "{}", String::from_utf8_lossy(&buffer[..end]));
            buffer.drain(..end);
            return;
        }
        let read = socket.read_buf(buffer).await.expect("the server answers");
        assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(buffer));
    }
}

/// Where the first answer ends, if all of it is there.
fn answer_end(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).expect("headers are text");
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let end = head + length.expect("an answer has a length").expect("a number");
    (buffer.len() >= end).then_some(end)
}

/// What a directory takes on the disk: blocks that are allocated, or lengths if that is more.
fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let bytes = |data: Metadata| data.len().max(data.blocks() * 512);
    // A file may go away while we look.
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
        Ok(data) => bytes(data),
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn answers_are_told_apart() {
    let one = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab";
    assert_eq!(answer_end(one), Some(one.len()));
    assert_eq!(answer_end(&one[..one.len() - 1]), None);
    assert_eq!(answer_end(&one[..20]), None);
    let two = [one.as_slice(), one.as_slice()].concat();
    assert_eq!(answer_end(&two), Some(one.len()));
}
