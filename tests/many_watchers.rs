//! Ten thousand watchers on one coordinator: what they cost while nothing happens, and that each of them
//! hears everything. Run by hand: `cargo test --release --test promises ten_thousand -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sagedb::types::limits::WATCH_PROGRESS_INTERVAL;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::world::World;

const WATCHERS: u64 = 10_000;
const CHANGES: usize = 20;
/// How long all may take: this is no promise but an end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Reads a stream of events, and says how many changes it has seen.
struct Reader {
    socket: TcpStream,
    seen: usize,
    /// The end of what was read, where an event may be cut in two.
    rest: Vec<u8>,
}

impl Reader {
    async fn open(place: &str, query: &str) -> Self {
        let mut socket = TcpStream::connect(place).await.expect("it listens");
        let request = format!("GET /watch?{query} HTTP/1.1\r\nhost: {place}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("it is taken");
        let mut reader = Self { socket, seen: 0, rest: Vec::new() };
        while !reader.more("id: ").await {}
        reader
    }

    /// Whether the next bytes have this in them.
    async fn more(&mut self, what: &str) -> bool {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.rest)).await;
        assert!(read.expect("in time").expect("readable") > 0, "the watch ended");
        let found = self.rest.windows(what.len()).filter(|part| *part == what.as_bytes()).count();
        self.seen += found;
        let keep = self.rest.len().min(what.len() - 1);
        self.rest.drain(..self.rest.len() - keep);
        self.rest.shrink_to_fit();
        found > 0
    }
}

/// The resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and its figures are for people"]
async fn ten_thousand_watchers_hear_everything() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("it may");
    let mut world = World::alone().await;
    let mut groups = Vec::new();
    for name in ["red", "green", "blue"] {
        groups.push(world.started(name, 1, &["--id", name]).await);
    }
    let coordinator = world.routed(&groups.iter().collect::<Vec<_>>()).await;
    let pid = coordinator.process.as_ref().expect("it runs").child.id();
    let place = coordinator.url.trim_start_matches("http://").to_owned();
    world.http.put(&coordinator.url, "w:warm", "up").await.expect(200);
    let (before, begun) = (resident(pid), Instant::now());
    let mut readers = Vec::new();
    for _ in 0..WATCHERS {
        readers.push(Reader::open(&place, "prefix=w:").await);
    }
    println!("{WATCHERS} watchers in {:?}", begun.elapsed());
    let each = || (resident(pid) - before) * 1024 / WATCHERS;
    // Each is told meanwhile that nothing has happened.
    tokio::time::sleep(WATCH_PROGRESS_INTERVAL * 3).await;
    println!("idle: {} bytes each", each());
    let hear = |mut reader: Reader| async move {
        while reader.seen < CHANGES {
            reader.more("event: put").await;
        }
        reader
    };
    let hearing: Vec<_> = readers.into_iter().map(|reader| tokio::spawn(hear(reader))).collect();
    let begun = Instant::now();
    for number in 0..CHANGES {
        world.http.put(&coordinator.url, &format!("w:{number}"), "value").await.expect(200);
    }
    let written = begun.elapsed();
    let all = timeout(PATIENCE, futures::future::try_join_all(hearing)).await;
    let readers = all.expect("in time").expect("each hears everything");
    println!("{CHANGES} changes written in {written:?}, heard by all after {:?}", begun.elapsed());
    tokio::time::sleep(WATCH_PROGRESS_INTERVAL * 3).await;
    println!("idle again: {} bytes each of {}", each(), readers.len());
}
