//! The network between the processes: every outgoing connection of each of them passes through a
//! proxy of its own, here in the harness, which can break it.
//!
//! A process is told of its proxy by `http_proxy`, so it needs no special build, and no rights.
//! The proxy knows whose it is, and by the port who is asked for; so each connection is two
//! directed pipes, and faults are of directed *links*, whoever opened the connection:
//!
//! - cut silently: nothing gets through, nothing is lost. Packets that are dropped are sent again
//!   by TCP when the link is healed, so a stream that stalls is what both ends see of it. The end
//!   of a connection is held back like its bytes, and a connection that is opened hangs.
//! - cut by resets: connections are reset at once, new ones too.
//! - slow: bytes come later, unevenly later, or only so many a second, always in order.
//!
//! Each fault imposes what it does to a link for itself; where several overlap, a link is as bad as
//! the worst of them, and one that ends takes only its own away.

pub(crate) mod grudge;
mod pipe;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a head may take to come.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// Whether bytes get through; what comes later is worse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Cut {
    /// They do.
    #[default]
    None,
    /// They wait until the link is healed.
    Silent,
    /// Connections are reset.
    Reset,
}

/// The state of a directed link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Link {
    /// Whether bytes get through.
    pub(crate) cut: Cut,
    /// How much later they come.
    pub(crate) delay: Duration,
    /// And up to so much later still, drawn for each piece.
    pub(crate) jitter: Duration,
    /// How many a second, if that is limited.
    pub(crate) bytes_per_second: Option<u64>,
}

impl Link {
    /// A link that is as bad as the worse of both in every way.
    fn and(self, other: Self) -> Self {
        let rates = [self.bytes_per_second, other.bytes_per_second];
        Self {
            cut: self.cut.max(other.cut),
            delay: self.delay.max(other.delay),
            jitter: self.jitter.max(other.jitter),
            bytes_per_second: rates.into_iter().flatten().min(),
        }
    }
}

/// What a fault does to links, until this is dropped.
#[derive(Debug)]
pub(crate) struct Imposed {
    net: Net,
    fault: u64,
    links: Vec<(usize, usize)>,
    before: Counts,
}

/// What a set of links did to what passed through them, since the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    held: u64,
    slowed: u64,
}

/// All links. Clones share them; when the last is dropped, every connection ends.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    wires: Arc<Wires>,
    proxies: Arc<Vec<u16>>,
    _tasks: Arc<JoinSet<()>>,
}

/// What the proxies share.
#[derive(Debug)]
struct Wires {
    ports: Vec<u16>,
    /// The next fault's number.
    faults: AtomicU64,
    /// The link from `from` to `to` is at `from * ports.len() + to`.
    links: Vec<Wire>,
    jitter: Mutex<StdRng>,
}

/// One directed link.
#[derive(Debug)]
struct Wire {
    /// What each fault that lasts does to it.
    imposed: Mutex<BTreeMap<u64, Link>>,
    /// All of that together.
    state: watch::Sender<Link>,
    /// When the last byte that was let through has passed, where the rate is limited.
    busy: Mutex<Instant>,
    /// How often something was held back or reset.
    held: AtomicU64,
    /// How often something came later than it would have.
    slowed: AtomicU64,
}

impl Net {
    /// Starts a proxy for each process; process `at` listens on `ports[at]`. Jitter follows from
    /// the seed.
    pub(crate) async fn start(ports: Vec<u16>, seed: u64) -> io::Result<Self> {
        let wire = || Wire {
            imposed: Mutex::default(),
            state: watch::Sender::default(),
            busy: Mutex::new(Instant::now()),
            held: AtomicU64::new(0),
            slowed: AtomicU64::new(0),
        };
        let links = (0..ports.len() * ports.len()).map(|_| wire()).collect();
        let jitter = Mutex::new(StdRng::seed_from_u64(seed));
        let wires = Arc::new(Wires { ports, faults: AtomicU64::new(0), links, jitter });
        let mut tasks = JoinSet::new();
        let mut proxies = Vec::new();
        for from in 0..wires.ports.len() {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            proxies.push(listener.local_addr()?.port());
            tasks.spawn(listen(listener, from, Arc::clone(&wires)));
        }
        Ok(Self { wires, proxies: Arc::new(proxies), _tasks: Arc::new(tasks) })
    }

    /// The proxy of a process.
    pub(crate) fn proxy_url(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.proxies[at])
    }

    /// Makes these links, each (from, to), as bad as this for as long as what is returned lives.
    pub(crate) fn impose(&self, links: Vec<(usize, usize)>, link: Link) -> Imposed {
        let fault = self.wires.faults.fetch_add(1, Ordering::Relaxed);
        let before = self.counts(&links);
        for (from, to) in &links {
            self.wires.link(*from, *to).change(|imposed| {
                imposed.insert(fault, link);
            });
        }
        Imposed { net: self.clone(), fault, links, before }
    }

    /// Heals every link.
    pub(crate) fn heal(&self) {
        for wire in &self.wires.links {
            wire.change(BTreeMap::clear);
        }
    }

    fn counts(&self, links: &[(usize, usize)]) -> Counts {
        let wires = links.iter().map(|(from, to)| self.wires.link(*from, *to));
        wires.fold(Counts::default(), |counts, wire| Counts {
            held: counts.held + wire.held.load(Ordering::Relaxed),
            slowed: counts.slowed + wire.slowed.load(Ordering::Relaxed),
        })
    }
}

impl Imposed {
    /// Whether anything was held back or reset on these links since.
    pub(crate) fn has_held(&self) -> bool {
        self.net.counts(&self.links).held > self.before.held
    }

    /// Whether anything came later on these links since.
    pub(crate) fn has_slowed(&self) -> bool {
        self.net.counts(&self.links).slowed > self.before.slowed
    }
}

impl Drop for Imposed {
    fn drop(&mut self) {
        for (from, to) in &self.links {
            self.net.wires.link(*from, *to).change(|imposed| {
                imposed.remove(&self.fault);
            });
        }
    }
}

impl Wires {
    fn link(&self, from: usize, to: usize) -> &Wire {
        &self.links[from * self.ports.len() + to]
    }

    /// When a piece that was read now comes out of a link in this state.
    fn due(&self, link: Link) -> Instant {
        let now = Instant::now();
        if link.jitter.is_zero() {
            return now + link.delay;
        }
        let mut jitter = self.jitter.lock().unwrap_or_else(PoisonError::into_inner);
        now + link.delay + jitter.random_range(Duration::ZERO..=link.jitter)
    }
}

impl Wire {
    /// Changes what is imposed on it.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, Link>)) {
        let mut imposed = self.imposed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut imposed);
        let link = imposed.values().copied().fold(Link::default(), Link::and);
        if link.bytes_per_second.is_none() {
            *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        // Under the lock, so that the last change is the one that stays.
        self.state.send_replace(link);
    }

    /// Takes note that something was held back or reset.
    fn holds(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }
}

async fn listen(listener: TcpListener, from: usize, wires: Arc<Wires>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of sockets for a moment, or gone already: the next one may do.
                let Ok((client, _)) = accepted else { continue };
                let wires = Arc::clone(&wires);
                connections.spawn(async move { serve(client, from, &wires).await });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection of process `from` to its end.
async fn serve(mut client: TcpStream, from: usize, wires: &Wires) {
    client.set_nodelay(true).ok();
    let head = tokio::time::timeout(HEAD_MAX, read_head(&mut client)).await;
    let head = head.ok().and_then(Result::ok);
    let Some((to, head)) = head.and_then(|head| aim(&head, &wires.ports)) else {
        let answer = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        client.write_all(answer).await.ok();
        return;
    };
    let (there, back) = (wires.link(from, to), wires.link(to, from));
    if !passable(&client, [there, back]).await {
        return abort(&client);
    }
    let Ok(target) = TcpStream::connect(("127.0.0.1", wires.ports[to])).await else {
        // Nobody listens: the client shall know as soon as if it had asked itself.
        return abort(&client);
    };
    target.set_nodelay(true).ok();
    let both = async {
        tokio::try_join!(
            pipe::pump(&client, &target, head, (wires, there)),
            pipe::pump(&target, &client, Vec::new(), (wires, back)),
        )
    };
    tokio::select! {
        ended = both => if ended.is_ok() { return },
        () = until_reset(there) => {}
        () = until_reset(back) => {}
    }
    abort(&client);
    abort(&target);
}

/// Waits while one of the links is cut silently; false if the client gives up, or a link resets.
async fn passable(client: &TcpStream, links: [&Wire; 2]) -> bool {
    for wire in links {
        let mut state = wire.state.subscribe();
        if state.borrow_and_update().cut != Cut::None {
            wire.holds();
        }
        tokio::select! {
            biased;
            _ = state.wait_for(|link| link.cut != Cut::Silent) => {}
            () = until_end(client) => return false,
        }
        if state.borrow().cut == Cut::Reset {
            return false;
        }
    }
    true
}

/// Waits until a client that has said nothing more since its request ends; for ever if it has.
async fn until_end(client: &TcpStream) {
    let said = client.peek(&mut [0]).await;
    if said.is_ok_and(|bytes| bytes > 0) {
        std::future::pending::<()>().await;
    }
}

async fn until_reset(wire: &Wire) {
    let mut state = wire.state.subscribe();
    let reset = state.wait_for(|link| link.cut == Cut::Reset).await.is_ok();
    if !reset {
        std::future::pending::<()>().await;
    }
    wire.holds();
}

/// Makes the end of a connection a reset.
fn abort(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}

async fn read_head(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(client.read_u8().await?);
    }
    Ok(head)
}

/// Which process a request for `http://127.0.0.1:<port>/<path>` is for, and the request as that
/// process expects it.
fn aim(head: &[u8], ports: &[u16]) -> Option<(usize, Vec<u8>)> {
    let head = std::str::from_utf8(head).ok()?;
    let (line, rest) = head.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (method, url, version) = (words.next()?, words.next()?, words.next()?);
    let address = url.strip_prefix("http://127.0.0.1:")?;
    let (port, path) = address.split_at(address.find('/').unwrap_or(address.len()));
    let port: u16 = port.parse().ok()?;
    let to = ports.iter().position(|known| *known == port)?;
    let path = if path.is_empty() { "/" } else { path };
    Some((to, format!("{method} {path} {version}\r\n{rest}").into_bytes()))
}

#[cfg(test)]
mod tests;
