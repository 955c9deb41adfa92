//! Clients of the group: each makes one request after the other, of any replica that may lead,
//! and tells the history what it was told.

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
/// The most bytes that a value is padded with.
const PADDING_MAX: u64 = 300;

/// What all clients share.
pub(in crate::sim) struct Clients {
    net: Net,
    callers: Vec<Caller>,
    history: Mutex<History>,
}

impl Clients {
    /// Clients at `place` of so many nodes.
    pub(in crate::sim) fn new(net: &Net, place: Place, nodes: usize) -> Arc<Self> {
        let connect = Arc::new(net::From { net: net.clone(), place });
        let dialer = Dialer::over(connect, None);
        let target = |node| Target { url: net::url(node), node: None, group: None };
        let callers = (0..nodes).map(|node| Caller::new(dialer.clone(), target(node))).collect();
        Arc::new(Self { net: net.clone(), callers, history: Mutex::default() })
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
        let mut leader = 0;
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
            // Now and then somebody who does not lead.
            let node = if below(20) == 0 { below(self.callers.len()) } else { leader };
            if let Err(Some(hint)) = self.request(node, key, kind, consistency).await {
                leader = hint;
            }
        }
    }

    /// Makes one request of a node; if it does not succeed, whom to ask the next time.
    async fn request(
        &self,
        node: Place,
        key: usize,
        kind: Kind,
        consistency: Consistency,
    ) -> Result<(), Option<Place>> {
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
            Kind::Read => KvRequest::Get { key: name, consistency },
        };
        let deadline = Deadline::after(TIMEOUT);
        let request = Request::Kv { request, timeout_ms: deadline.left_ms() };
        let answer = self.callers[node].call(&request, deadline).await;
        self.net.note(format_args!("{id} {}", shown(&answer)));
        let mut history = self.history();
        let other = Some(below(self.callers.len()));
        match answer {
            Ok(Reply::Kv(Ok(KvReply::Written(written)))) => {
                if kind == Kind::Delete && !written.existed {
                    history.deleted_nothing(id, written.version);
                } else {
                    history.written(id, written.version);
                }
                Ok(())
            }
            Ok(Reply::Kv(Ok(KvReply::Read(read)))) => {
                match &read.item {
                    Some(item) => history.found(id, written_by(item), item.version),
                    None => history.found_nothing(id),
                }
                Ok(())
            }
            Ok(Reply::Kv(Err(error))) => {
                match error.outcome() {
                    WriteOutcome::NotApplied => history.refused(id),
                    WriteOutcome::Unknown => history.unknown(id),
                }
                if let Error::NotLeader { leader: Some(leader) } = &error {
                    return Err(net::place_of(&leader.url));
                }
                let stays = matches!(error, Error::VersionMismatch { .. });
                Err(other.filter(|_| !stays))
            }
            Ok(_) | Err(CallError::NotSent(_) | CallError::Overloaded(_)) => {
                history.refused(id);
                Err(other)
            }
            Err(CallError::Lost(_)) => {
                history.unknown(id);
                Err(other)
            }
        }
    }

    /// Asks around until every key was read and one was written, all with success.
    pub(in crate::sim) async fn read_all(
        self: Arc<Self>,
        done: Arc<std::sync::atomic::AtomicBool>,
    ) {
        for key in 0..KEYS {
            for kind in [Kind::Read, Kind::Put, Kind::Read] {
                let mut node = 0;
                while let Err(hint) = self.request(node, key, kind, Consistency::Linearizable).await
                {
                    node = hint.unwrap_or(node);
                    tokio::time::sleep(Duration::from_millis(PAUSE_MS_MAX)).await;
                }
            }
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    }
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
