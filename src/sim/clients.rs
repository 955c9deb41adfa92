//! Clients: each makes one request after the other and tells the history what it was told.
//!
//! Without coordinators they ask whichever replica may lead. With some they ask one of them, and now
//! and then a replica of any group, which must refuse what its group does not own. Not before a
//! coordinator has answered, though: until its ring is claimed a group takes every key, and one with
//! keys of others can't be claimed.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::rpc::{CallError, Caller, Dialer, Target};
use crate::sim::history::{History, Id, Kind};
use crate::sim::net::{self, Net, Place};
use crate::types::command::{Condition, KeyWrite, Write};
use crate::types::deadline::Deadline;
use crate::types::error::{Error, WriteOutcome};
use crate::types::host;
use crate::types::item::Item;
use crate::types::key::Key;
use crate::types::kv::{Consistency, KvReply, KvRequest};
use crate::types::peer::{Reply, Request};
use crate::types::value::Value;

/// How many clients there are.
const CLIENTS: usize = 6;
/// Few keys, so that clients meet.
pub(in crate::sim) const KEYS: usize = 6;
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// The longest pause of a client, in milliseconds.
const PAUSE_MS_MAX: u64 = 25;
/// How many of a hundred requests go to a replica though there are coordinators.
const DIRECT_PERCENT: usize = 18;
/// How many of a hundred requests go to somebody else than last time.
const WANDER_PERCENT: usize = 5;
/// The most bytes that a value is padded with.
const PADDING_MAX: u64 = 300;

/// What all clients share.
pub(in crate::sim) struct Clients {
    net: Net,
    callers: Vec<Caller>,
    replicas: Range<Place>,
    coordinators: Range<Place>,
    /// Whether a coordinator has carried a request out: every group has its claim, for good.
    claimed: AtomicBool,
    history: Mutex<History>,
}

/// Whom a client asks next.
enum Next {
    /// The same: all is well.
    Same,
    /// The leader.
    Leader(Place),
    /// Somebody else.
    Another,
}

impl Clients {
    /// Clients of so many replicas, and of the coordinators that have the next places; their own is
    /// behind those.
    pub(in crate::sim) fn new(net: &Net, replicas: usize, coordinators: usize) -> Arc<Self> {
        let place = replicas + coordinators;
        let connect = Arc::new(net::From { net: net.clone(), place });
        let dialer = Dialer::over(connect, None);
        let target = |node| Target { url: net::url(node), node: None, group: None };
        let callers = (0..place).map(|node| Caller::new(dialer.clone(), target(node))).collect();
        Arc::new(Self {
            net: net.clone(),
            callers,
            replicas: 0..replicas,
            coordinators: replicas..place,
            claimed: AtomicBool::new(false),
            history: Mutex::default(),
        })
    }

    /// What they did and were told.
    pub(in crate::sim) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tasks of all clients.
    pub(in crate::sim) fn tasks(
        self: &Arc<Self>,
    ) -> impl Iterator<Item = impl Future<Output = ()> + Send + use<>> {
        (0..CLIENTS).map(|_| Arc::clone(self).work())
    }

    async fn work(self: Arc<Self>) {
        let (mut coordinator, mut leader) = (one_of(&self.coordinators), 0);
        loop {
            tokio::time::sleep(Duration::from_millis(host::random() % PAUSE_MS_MAX)).await;
            let key = below(KEYS);
            let (kind, consistency) = match below(100) {
                0..40 => (Kind::Put, Consistency::Linearizable),
                40..47 => (Kind::Delete, Consistency::Linearizable),
                47..55 => match self.history().newest(key) {
                    0 => (Kind::Put, Consistency::Linearizable),
                    version => (Kind::PutIf(version), Consistency::Linearizable),
                },
                55..85 => (Kind::Read, Consistency::Linearizable),
                _ => (Kind::Read, Consistency::Lease),
            };
            let claimed = self.claimed.load(Ordering::SeqCst);
            let direct = self.coordinators.is_empty() || (claimed && below(100) < DIRECT_PERCENT);
            let (usual, all) = if direct {
                (&mut leader, &self.replicas)
            } else {
                (&mut coordinator, &self.coordinators)
            };
            let node = if below(100) < WANDER_PERCENT { one_of(all) } else { *usual };
            match self.request(node, key, kind, consistency).await {
                Next::Same => {}
                Next::Leader(leader) => *usual = leader,
                Next::Another => *usual = one_of(all),
            }
        }
    }

    /// Makes one request of a node.
    async fn request(&self, node: Place, key: usize, kind: Kind, consistency: Consistency) -> Next {
        let id = self.history().begin(key, kind);
        self.net.note(format_args!("{id} {kind:?} key {key} {consistency:?} at {node}"));
        let name = Key::new(format!("key-{key}")).expect("it is short");
        let request = match kind {
            Kind::Put => KeyWrite::put(name, value(id)).into(),
            Kind::PutIf(version) => {
                let condition = Some(Condition::Version(vec![version]));
                KeyWrite { key: name, condition, write: Write::Put { value: value(id) } }.into()
            }
            Kind::Delete => KeyWrite::delete(name).into(),
            Kind::Read => KvRequest::get(name, consistency),
        };
        let deadline = Deadline::after(TIMEOUT);
        let request = Request::Kv { request, timeout_ms: deadline.left_ms() };
        let answer = self.callers[node].call(&request, deadline).await;
        self.net.note(format_args!("{id} {}", shown(&answer)));
        let mut history = self.history();
        if matches!(answer, Ok(Reply::Kv(Ok(_)))) && self.coordinators.contains(&node) {
            self.claimed.store(true, Ordering::SeqCst);
        }
        match answer {
            Ok(Reply::Kv(Ok(KvReply::Written(written)))) => {
                if kind == Kind::Delete && !written.existed {
                    history.deleted_nothing(id, written.version);
                } else {
                    history.written(id, written.version);
                }
                Next::Same
            }
            Ok(Reply::Kv(Ok(KvReply::Read(read)))) => {
                match &read.item {
                    Some(item) => history.found(id, written_by(item), item.version),
                    None => history.found_nothing(id),
                }
                Next::Same
            }
            Ok(Reply::Kv(Err(error))) => {
                match error.outcome() {
                    WriteOutcome::NotApplied => history.refused(id),
                    WriteOutcome::Unknown => history.unknown(id),
                }
                if let Error::NotLeader { leader: Some(leader) } = &error {
                    return net::place_of(&leader.url).map_or(Next::Another, Next::Leader);
                }
                let stays = error.is_settled();
                if stays { Next::Same } else { Next::Another }
            }
            Ok(_) | Err(CallError::NotSent(_) | CallError::Overloaded(_)) => {
                history.refused(id);
                Next::Another
            }
            Err(CallError::Lost(_) | CallError::Late(_)) => {
                history.unknown(id);
                Next::Another
            }
        }
    }

    /// Asks around until every key was read and written with success, through each coordinator if
    /// there are any.
    pub(in crate::sim) async fn read_all(self: Arc<Self>, done: Arc<AtomicBool>) {
        let direct = self.coordinators.is_empty();
        let ways = if direct { 0..1 } else { self.coordinators.clone() };
        for way in ways {
            for key in 0..KEYS {
                for kind in [Kind::Read, Kind::Put, Kind::Read] {
                    let mut node = way;
                    loop {
                        match self.request(node, key, kind, Consistency::Linearizable).await {
                            Next::Same => break,
                            Next::Leader(leader) => node = leader,
                            Next::Another if direct => node = one_of(&self.replicas),
                            Next::Another => {}
                        }
                        tokio::time::sleep(Duration::from_millis(PAUSE_MS_MAX)).await;
                    }
                }
            }
        }
        done.store(true, Ordering::SeqCst);
    }
}

fn one_of(places: &Range<Place>) -> Place {
    places.start + below(places.len())
}

fn below(bound: usize) -> usize {
    let bound = bound.max(1) as u64;
    usize::try_from(host::random() % bound).unwrap_or_default()
}

fn value(id: Id) -> Value {
    let padding = usize::try_from(host::random() % PADDING_MAX).unwrap_or_default();
    Value::text(format!("{id} {}", "x".repeat(padding)))
}

fn written_by(item: &Item) -> Id {
    let text = std::str::from_utf8(&item.value.data).unwrap_or_default();
    text.split(' ').next().and_then(|id| id.parse().ok()).unwrap_or_default()
}

fn shown(answer: &Result<Reply, CallError>) -> String {
    match answer {
        Ok(Reply::Kv(Ok(KvReply::Written(written)))) => format!("written at {}", written.version),
        Ok(Reply::Kv(Ok(KvReply::Read(read)))) => match &read.item {
            Some(item) => format!("finds {} at {}", written_by(item), item.version),
            None => "finds nothing".into(),
        },
        Ok(Reply::Kv(Err(error))) => format!("{error}"),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("{error:?}"),
    }
}
