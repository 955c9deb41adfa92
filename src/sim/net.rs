//! A network in memory: connections between simulated processes, as TCP would show them.
//!
//! Bytes arrive in order, after a delay that is drawn for each piece; nothing is lost in between,
//! for TCP sends it again. So what a bad network does is what TCP makes of it: a link that is
//! *blocked*, in one direction or both, holds everything back until it is open again; a connection
//! is *reset*; nobody listens, and it is refused. Each direction has a window, and who writes
//! more than fits waits.
//!
//! A process that is killed has its connections reset by its host. One whose machine loses its
//! power falls silent, and nothing that it writes from that very moment on leaves it; when the
//! machine is back, it resets what it does not know.

mod conn;
mod end;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::rpc::Io;
use crate::sim::net::conn::{Conn, Piece, Way};
use crate::sim::net::end::End;
use crate::sim::trace::Trace;

pub(in crate::sim) use crate::sim::net::end::From;

/// A host of the network.
pub(in crate::sim) type Place = usize;

/// How long a piece takes on a link, in milliseconds: at least, and less than.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) struct Delay {
    pub(in crate::sim) min: u64,
    pub(in crate::sim) max: u64,
}

/// What a link is like when nothing is wrong with it.
pub(in crate::sim) const CALM: Delay = Delay { min: 1, max: 3 };

/// The network. Clones share it.
#[derive(Clone)]
pub(in crate::sim) struct Net(Arc<Mutex<Inner>>);

struct Inner {
    now: u64,
    rng: StdRng,
    trace: Trace,
    conns: BTreeMap<u64, Conn>,
    next: u64,
    dials: Vec<Dial>,
    hosts: BTreeMap<Place, Host>,
    blocked: BTreeSet<(Place, Place)>,
    slow: BTreeMap<(Place, Place), Delay>,
}

/// What runs at a place.
#[derive(Default)]
struct Host {
    /// Whether a process listens.
    listens: bool,
    /// Set when the machine has lost its power.
    off: Arc<AtomicBool>,
    /// Connections that it has not accepted yet.
    backlog: VecDeque<u64>,
    acceptor: Option<Waker>,
}

/// Somebody wants a connection.
struct Dial {
    conn: u64,
    from: Place,
    to: Place,
    /// When the request, or the answer, is there.
    due: u64,
    /// Whether it is the answer that is under way, and which.
    answer: Option<bool>,
    waker: Option<Waker>,
}

impl Inner {
    fn delay(&mut self, from: Place, to: Place) -> u64 {
        let Delay { min, max } = self.slow.get(&(from, to)).copied().unwrap_or(CALM);
        self.rng.random_range(min..max.max(min + 1))
    }

    fn is_off(&self, place: Place) -> bool {
        self.hosts.get(&place).is_some_and(|host| host.off.load(Ordering::SeqCst))
    }

    /// Sends a piece from one end of a connection.
    fn send(&mut self, conn: u64, side: usize, piece: Piece) {
        let Some([from, to]) = self.conns.get(&conn).map(|conn| {
            let [a, b] = conn.ends;
            if side == 0 { [a, b] } else { [b, a] }
        }) else {
            return;
        };
        if self.is_off(from) {
            return;
        }
        let due = self.now + self.delay(from, to);
        if let Some(conn) = self.conns.get_mut(&conn) {
            let way = &mut conn.ways[side];
            let due = way.flight.back().map_or(due, |(last, _)| due.max(*last));
            way.flight.push_back((due, piece));
        }
    }
}

impl Net {
    /// A calm network.
    pub(in crate::sim) fn new(seed: u64) -> Self {
        let inner = Inner {
            now: 0,
            rng: StdRng::seed_from_u64(seed),
            trace: Trace::default(),
            conns: BTreeMap::new(),
            next: 0,
            dials: Vec::new(),
            hosts: BTreeMap::new(),
            blocked: BTreeSet::new(),
            slow: BTreeMap::new(),
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the trace.
    pub(in crate::sim) fn trace<T>(&self, work: impl FnOnce(&mut Trace) -> T) -> T {
        work(&mut self.lock().trace)
    }

    /// Takes note of what happened now.
    pub(in crate::sim) fn note(&self, what: fmt::Arguments<'_>) {
        let mut inner = self.lock();
        let now = inner.now;
        inner.trace.note(now, what);
    }

    /// A process listens at `place` from now on; `off` tells when its machine has no power.
    pub(in crate::sim) fn listen(&self, place: Place, off: Arc<AtomicBool>) {
        let host = Host { listens: true, off, ..Host::default() };
        self.lock().hosts.insert(place, host);
    }

    /// The process at `place` has ended; with `silently` so has its machine.
    pub(in crate::sim) fn end(&self, place: Place, silently: bool) {
        let mut inner = self.lock();
        let Some(host) = inner.hosts.get_mut(&place) else { return };
        host.listens = false;
        host.backlog.clear();
        host.acceptor = None;
        if silently {
            host.off.store(true, Ordering::SeqCst);
        } else {
            host.off = Arc::default(); // It is the host that speaks now.
        }
        inner.dials.retain(|dial| dial.from != place);
        for (conn, side) in inner.ends_at(place) {
            if !silently {
                inner.send(conn, side, Piece::Reset);
            }
            if let Some(conn) = inner.conns.get_mut(&conn) {
                let (mine, theirs) = (side, 1 - side);
                conn.ways[mine].closed = true;
                conn.ways[theirs].arrived.clear();
                conn.ways[theirs].wake();
            }
        }
    }

    /// Nobody listens at `place` any more; who was not let in yet is reset.
    pub(in crate::sim) fn close(&self, place: Place) {
        let mut inner = self.lock();
        let Some(host) = inner.hosts.get_mut(&place) else { return };
        host.listens = false;
        host.acceptor = None;
        for conn in std::mem::take(&mut host.backlog) {
            inner.send(conn, 1, Piece::Reset);
            if let Some(conn) = inner.conns.get_mut(&conn) {
                conn.ways[1].closed = true;
            }
        }
    }

    /// The machine at `place` has its power again, and knows nothing of its connections.
    pub(in crate::sim) fn power_on(&self, place: Place) {
        let mut inner = self.lock();
        inner.hosts.remove(&place);
        for (conn, side) in inner.ends_at(place) {
            inner.send(conn, side, Piece::Reset);
        }
    }

    /// Holds back what goes from one place to another, or lets it go.
    pub(in crate::sim) fn block(&self, from: Place, to: Place, blocked: bool) {
        let mut inner = self.lock();
        if blocked {
            inner.blocked.insert((from, to));
        } else {
            inner.blocked.remove(&(from, to));
        }
    }

    /// Has what goes from one place to another take its time.
    pub(in crate::sim) fn slow(&self, from: Place, to: Place, delay: Delay) {
        self.lock().slow.insert((from, to), delay);
    }

    /// Opens all links and makes them fast again.
    pub(in crate::sim) fn heal(&self) {
        let mut inner = self.lock();
        inner.blocked.clear();
        inner.slow.clear();
    }

    /// Breaks every connection between two places.
    pub(in crate::sim) fn reset(&self, one: Place, other: Place) {
        let mut inner = self.lock();
        for conn in inner.conns.values_mut() {
            if conn.ends == [one, other] || conn.ends == [other, one] {
                conn.break_off();
            }
        }
    }

    /// Goes on to `now` and delivers what is due.
    pub(in crate::sim) fn advance(&self, now: u64) {
        let mut inner = self.lock();
        inner.now = now;
        inner.answer_dials();
        let Inner { conns, blocked, hosts, trace, .. } = &mut *inner;
        let off =
            |place: &Place| hosts.get(place).is_some_and(|host| host.off.load(Ordering::SeqCst));
        for (id, conn) in conns.iter_mut() {
            let [a, b] = conn.ends;
            for (side, (from, to)) in [(a, b), (b, a)].into_iter().enumerate() {
                if blocked.contains(&(from, to)) || off(&to) {
                    continue;
                }
                conn.deliver(*id, side, now, trace);
            }
        }
        conns.retain(|_, conn| !conn.is_over());
    }

    /// The next connection to `place`.
    async fn accepted(&self, place: Place) -> u64 {
        std::future::poll_fn(|cx| {
            let mut inner = self.lock();
            let Some(host) = inner.hosts.get_mut(&place) else { return Poll::Pending };
            if let Some(conn) = host.backlog.pop_front() {
                return Poll::Ready(conn);
            }
            host.acceptor = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits for the next connection to `place`.
    pub(in crate::sim) async fn accept(&self, place: Place) -> impl Io + use<> {
        let conn = self.accepted(place).await;
        End { net: self.clone(), conn, side: 1 }
    }
}

impl Inner {
    /// The connections that end at `place`, with the number of that end.
    fn ends_at(&self, place: Place) -> Vec<(u64, usize)> {
        let ends = self.conns.iter().flat_map(|(id, conn)| [(*id, 0, conn), (*id, 1, conn)]);
        let here = ends.filter(|(_, side, conn)| conn.ends[*side] == place);
        here.map(|(id, side, _)| (id, side)).collect()
    }

    /// Takes requests for connections to whom they are for, and the answers back.
    fn answer_dials(&mut self) {
        for at in 0..self.dials.len() {
            let Dial { conn, from, to, due, answer, .. } = self.dials[at];
            if due > self.now {
                continue;
            }
            if answer.is_some() {
                if let Some(waker) = self.dials[at].waker.take() {
                    waker.wake();
                }
                continue;
            }
            if self.blocked.contains(&(from, to))
                || self.blocked.contains(&(to, from))
                || self.is_off(to)
            {
                continue; // It is asked again and again.
            }
            let delay = self.delay(to, from);
            let host = self.hosts.entry(to).or_default();
            let accepted = host.listens;
            if accepted {
                host.backlog.push_back(conn);
                let acceptor = host.acceptor.take();
                let ways = [Way::default(), Way::default()];
                self.conns.insert(conn, Conn { ends: [from, to], ways });
                if let Some(waker) = acceptor {
                    waker.wake();
                }
            }
            let now = self.now;
            self.trace.note(now, format_args!("dial {from} -> {to}: {conn} {accepted}"));
            self.dials[at].due = now + delay;
            self.dials[at].answer = Some(accepted);
        }
    }
}

/// The URL of a place.
pub(in crate::sim) fn url(place: Place) -> String {
    format!("http://sim-{place}")
}

/// The place of a URL.
pub(in crate::sim) fn place_of(url: &str) -> Option<Place> {
    url.strip_prefix("http://sim-")?.parse().ok()
}
