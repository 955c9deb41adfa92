//! What the clients do. Every value names its key and a number, so that no answer can be taken for
//! another; what a client does follows from the seed, what it is answered does not.

pub(crate) mod actor;
mod append;
pub(crate) mod bank;
mod ledger;
mod register;
pub(crate) mod value;
pub(crate) mod watch;
pub(crate) mod watcher;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use tokio::sync::watch::Receiver;

use crate::client::Server;
use crate::history::Recorder;
use crate::options::{Options, Workload};
use crate::workload::actor::Actor;

/// The longest pause of a client between two operations.
const PAUSE_MAX: Duration = Duration::from_millis(8);
/// After an operation without success, so that a broken cluster is not only asked in vain.
const PAUSE_FAILED: Duration = Duration::from_millis(40);

/// The servers that clients ask.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// Each client has one of them.
    pub(crate) coordinators: Vec<Server>,
    /// Some operations go straight to one of them, of whatever group.
    pub(crate) replicas: Vec<Server>,
    /// How long they have for each request.
    pub(crate) deadline: Duration,
}

/// A client at work.
#[derive(Debug)]
pub(crate) enum Worker {
    /// Many writers a key, keys written again and again.
    Register(register::Worker),
    /// One writer a key; reads as the workload says.
    Ledger(ledger::Worker),
    /// Lists that grow.
    Append(append::Worker),
    /// Money that moves.
    Bank(bank::Worker),
    /// What others watch.
    Watch(watch::Worker),
}

/// All clients of a run.
pub(crate) fn workers(
    options: &Options,
    servers: &Servers,
    recorder: &Arc<Recorder>,
) -> Result<Vec<Worker>> {
    let clients = options.clients;
    let registers = Arc::new(register::Keys::new());
    let lists = Arc::new(append::Keys::new());
    let banks = Arc::new(bank::Banks::new(options.groups));
    let watched = Arc::new(watch::Keys::new(options.groups));
    let board = Arc::new(ledger::Board::new(clients));
    let workers = (0..clients).map(|id| {
        let actor = Actor::new((id, clients), options.seed, servers, recorder)?;
        Ok(match options.workload {
            Workload::Register => {
                Worker::Register(register::Worker::new(actor, Arc::clone(&registers)))
            }
            Workload::Ledger | Workload::Lease | Workload::Stale => {
                let reads = ledger::Reads::of(options.workload);
                Worker::Ledger(ledger::Worker::new(actor, Arc::clone(&board), reads))
            }
            Workload::ListAppend => Worker::Append(append::Worker::new(actor, Arc::clone(&lists))),
            Workload::Bank => Worker::Bank(bank::Worker::new(actor, Arc::clone(&banks))),
            Workload::Watch => Worker::Watch(watch::Worker::new(actor, Arc::clone(&watched))),
        })
    });
    workers.collect()
}

impl Worker {
    /// Works until it is told to stop.
    pub(crate) async fn run(mut self, stop: Receiver<bool>) {
        while !*stop.borrow() {
            let succeeded = match &mut self {
                Self::Register(worker) => worker.step().await,
                Self::Ledger(worker) => worker.step().await,
                Self::Append(worker) => worker.step().await,
                Self::Bank(worker) => worker.step().await,
                Self::Watch(worker) => worker.step().await,
            };
            let pause = self.actor().rng.random_range(Duration::ZERO..=PAUSE_MAX);
            let pause = if succeeded { pause } else { pause + PAUSE_FAILED };
            tokio::time::sleep(pause).await;
        }
    }

    fn actor(&mut self) -> &mut Actor {
        match self {
            Self::Register(worker) => &mut worker.actor,
            Self::Ledger(worker) => &mut worker.actor,
            Self::Append(worker) => &mut worker.actor,
            Self::Bank(worker) => &mut worker.actor,
            Self::Watch(worker) => &mut worker.actor,
        }
    }
}
