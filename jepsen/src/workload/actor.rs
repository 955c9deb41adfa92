//! What every client can do: send one operation to a server and take down how it began and ended.

use std::sync::Arc;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::checker::{Anomaly, Kind};
use crate::client::txn::{Answered, Done, Txn};
use crate::client::{Body, Client, Condition, Freshness, Server, Unread, Written};
use crate::history::{Action, Event, Recorder, Stage, Value};
use crate::workload::Servers;

/// Of a hundred operations, so many go straight to a replica, of the right group or not.
const DIRECT_PERCENT: u32 = 10;

/// One client.
#[derive(Debug)]
pub(crate) struct Actor {
    /// Which of the clients it is.
    pub(crate) id: u16,
    /// How many there are.
    pub(crate) clients: u16,
    /// Everything it draws follows from the seed.
    pub(crate) rng: StdRng,
    /// Its name in the history; a new one after each operation of unknown fate.
    process: u32,
    client: Client,
    coordinator: Server,
    replicas: Vec<Server>,
    recorder: Arc<Recorder>,
}

/// How a write ended for the client that sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// It took effect; the key has this version now.
    Ok(Option<u64>),
    /// It did not and will not.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl Actor {
    /// Client `id` of `clients`, which has one of the coordinators.
    pub(crate) fn new(
        (id, clients): (u16, u16),
        seed: u64,
        servers: &Servers,
        recorder: &Arc<Recorder>,
    ) -> Result<Self> {
        let coordinator = usize::from(id) % servers.coordinators.len();
        let own = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok(Self {
            id,
            clients,
            rng: StdRng::seed_from_u64(seed ^ own),
            process: u32::from(id),
            client: Client::new(servers.deadline)?,
            coordinator: servers.coordinators[coordinator].clone(),
            replicas: servers.replicas.clone(),
            recorder: Arc::clone(recorder),
        })
    }

    /// The server for the next operation: mostly the client's coordinator.
    pub(crate) fn any_server(&mut self) -> Server {
        if self.rng.random_range(0..100) < DIRECT_PERCENT {
            return self.any_replica();
        }
        self.coordinator.clone()
    }

    /// A replica, of whatever group.
    pub(crate) fn any_replica(&mut self) -> Server {
        let at = self.rng.random_range(0..self.replicas.len());
        self.replicas[at].clone()
    }

    /// Writes, and takes it down as `f` with `value`.
    pub(crate) async fn write(
        &mut self,
        server: &Server,
        (f, key): (Action, &Arc<str>),
        value: Value,
        (body, condition): (Body, Condition),
    ) -> Ended {
        let mut event = self.event(server, f, key, value);
        self.recorder.record(event.clone());
        let written = self.client.write(server, key, &body, condition).await;
        if let Written::Bad(reason) = &written {
            self.recorder.saw(bad_answer(server, key, reason));
        }
        let ended = match written {
            Written::Ok(ok) => {
                event.stage = Stage::Ok;
                event.version = ok.version;
                event.existed = ok.existed;
                event.group = ok.group;
                Ended::Ok(ok.version)
            }
            Written::Failed(reason) => {
                event.stage = Stage::Fail;
                event.error = Some(reason);
                Ended::Failed
            }
            Written::Unknown(reason) | Written::Bad(reason) => {
                event.stage = Stage::Info;
                event.error = Some(reason);
                self.process += u32::from(self.clients);
                Ended::Unknown
            }
        };
        self.recorder.record(event);
        ended
    }

    /// Reads a key, says with `decode` what was read, and takes it down as `f`; `None` without an
    /// answer.
    pub(crate) async fn read(
        &mut self,
        server: &Server,
        (f, key): (Action, &Arc<str>),
        decode: impl Fn(Option<&str>) -> Value,
    ) -> Option<(Value, Option<u64>)> {
        let freshness = match f {
            Action::LeaseRead => Freshness::Lease,
            Action::StaleRead => Freshness::Stale,
            Action::Read | Action::FinalRead => Freshness::Linearizable,
            Action::Write
            | Action::Delete
            | Action::Cas
            | Action::Append
            | Action::Transfer
            | Action::WriteBoth
            | Action::WatchBegin
            | Action::WatchResume
            | Action::Watch
            | Action::WatchEnd => unreachable!("{f:?} is no read of a key"),
        };
        let mut event = self.event(server, f, key, Value::None);
        self.recorder.record(event.clone());
        let found = self.client.read(server, key, freshness).await;
        if let Err(Unread::Bad(reason)) = &found {
            self.recorder.saw(bad_answer(server, key, reason));
        }
        let read = match found {
            Ok(found) => {
                event.stage = Stage::Ok;
                event.value = decode(found.json.as_deref());
                event.version = found.version;
                event.lag_ms = found.lag_ms;
                event.group = found.group;
                Some((event.value.clone(), event.version))
            }
            Err(Unread::Refused(reason) | Unread::Bad(reason)) => {
                event.stage = Stage::Fail;
                event.error = Some(reason);
                None
            }
        };
        self.recorder.record(event);
        read
    }

    /// Sends a transaction, and takes it down as `f`, which begins with `value` and ends with what
    /// `shown` makes of its answer. One whose conditions did not hold has failed, and shows what it
    /// read.
    pub(crate) async fn txn(
        &mut self,
        server: &Server,
        (f, key): (Action, &Arc<str>),
        (value, txn): (Value, &Txn),
        shown: impl Fn(&Done) -> Value,
    ) -> (Stage, Value) {
        let mut event = self.event(server, f, key, value);
        self.recorder.record(event.clone());
        let answered = self.client.txn(server, txn).await;
        if let Answered::Bad(reason) = &answered {
            self.recorder.saw(bad_answer(server, key, reason));
        }
        event.ended(answered, shown);
        if event.stage == Stage::Info {
            self.process += u32::from(self.clients);
        }
        self.recorder.record(event.clone());
        (event.stage, event.value)
    }

    /// The same, under another name in the history.
    pub(super) fn named(self, process: u32) -> Self {
        Self { process, ..self }
    }

    /// Its coordinator.
    pub(super) fn coordinator(&self) -> Server {
        self.coordinator.clone()
    }

    /// Takes down something that is wrong.
    pub(super) fn saw(&self, anomaly: Anomaly) {
        self.recorder.saw(anomaly);
    }

    /// Takes down a beginning or an end that it has made by itself.
    pub(super) fn record(&self, event: &Event) {
        self.recorder.record(event.clone());
    }

    /// What it begins to do.
    pub(super) fn event(&self, server: &Server, f: Action, key: &Arc<str>, value: Value) -> Event {
        Event {
            time: 0,
            process: self.process,
            stage: Stage::Invoke,
            f,
            key: Arc::clone(key),
            value,
            node: Arc::clone(&server.name),
            version: None,
            existed: None,
            group: None,
            lag_ms: None,
            error: None,
        }
    }
}

impl Event {
    /// Makes the beginning of a transaction its end.
    pub(crate) fn ended(&mut self, answered: Answered, shown: impl Fn(&Done) -> Value) {
        match answered {
            Answered::Done(done) => {
                self.stage = if done.succeeded { Stage::Ok } else { Stage::Fail };
                self.error = (!done.succeeded).then(|| "a condition did not hold".into());
                self.value = shown(&done);
                self.version = Some(done.index);
                self.group = Some(done.group);
            }
            Answered::Failed(reason) => {
                self.stage = Stage::Fail;
                self.error = Some(reason);
            }
            // What only reads and was answered badly had no effect either way.
            Answered::Unknown(reason) | Answered::Bad(reason) => {
                self.stage = if self.f.is_write() { Stage::Info } else { Stage::Fail };
                self.error = Some(reason);
            }
        }
    }
}

/// A server has answered as none may.
pub(crate) fn bad_answer(server: &Server, key: &Arc<str>, reason: &str) -> Anomaly {
    let (kind, detail) = (Kind::BadAnswer, format!("{}: {reason}", server.name));
    Anomaly { kind, key: Arc::clone(key), detail, events: Vec::new() }
}
