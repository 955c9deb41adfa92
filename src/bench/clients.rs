//! The clients of one thread: each has one connection and one operation under way.
//!
//! A client whose operation failed pauses, longer from failure to failure, and opens a new connection if the old
//! one is of no more use. Nothing here knows a protocol, or moves time: the tests run it on virtual time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::bench::connection::{Connect, Connection, Failure, Operation, Outcome};
use crate::bench::keys::{Operations, Values};
use crate::bench::progress::Progress;
use crate::bench::schedule::Phase;
use crate::bench::settings::{Settings, Workload};
use crate::bench::tally::{ErrorKind, OperationKind, Tallies};
use crate::types::limits::{BENCH_PAUSE_MAX, BENCH_PAUSE_MIN};

/// What all threads of a run share.
#[derive(Debug)]
pub(super) struct Plan<C> {
    pub(super) connect: Arc<C>,
    pub(super) settings: Settings,
    pub(super) workload: Workload,
    /// One after the other.
    pub(super) phases: Vec<Phase>,
    pub(super) progress: Arc<Progress>,
    /// Ends the run early.
    pub(super) stop: CancellationToken,
}

/// What the clients of one thread share.
struct Share<C> {
    plan: Arc<Plan<C>>,
    thread: usize,
    tallies: RefCell<Tallies>,
}

/// Runs the clients of thread number `thread`, until their phases are over or the run is stopped. To be called in a `LocalSet`.
pub(super) async fn run_share<C: Connect>(plan: Arc<Plan<C>>, thread: usize) -> Tallies {
    let stop = plan.stop.clone();
    let values = Values::new(plan.settings.value_size, plan.settings.seed);
    let share = Rc::new(Share { plan, thread, tallies: RefCell::default() });
    let settings = &share.plan.settings;
    let mut clients = JoinSet::new();
    for number in (thread..settings.clients).step_by(settings.threads) {
        let operations = Operations::new(settings, share.plan.workload, &values, number);
        clients.spawn_local(Client::new(Rc::clone(&share), number).run(operations));
    }
    tokio::select! {
        biased;
        () = stop.cancelled() => (),
        () = async {
            while let Some(ended) = clients.join_next().await {
                ended.expect("no client panics or is aborted");
            }
        } => (),
    }
    share.tallies.take()
}

/// One client.
struct Client<C: Connect> {
    share: Rc<Share<C>>,
    number: usize,
    connection: Option<C::Connection>,
    /// How long it waits after the next failure.
    pause: Duration,
}

impl<C: Connect> Client<C> {
    fn new(share: Rc<Share<C>>, number: usize) -> Self {
        Self { share, number, connection: None, pause: BENCH_PAUSE_MIN }
    }

    async fn run(mut self, mut operations: Operations) {
        let plan = Arc::clone(&self.share.plan);
        for phase in &plan.phases {
            while self.is_connected(phase).await {
                let Some(intended) = phase.next().await else { break };
                let operation = operations.next();
                let result = self.carry_out(&operation).await;
                self.share.note(phase, &operation, intended, &result);
                if let Err(failure) = result {
                    self.recover(&failure, phase).await;
                } else {
                    self.pause = BENCH_PAUSE_MIN;
                }
            }
        }
    }

    /// Opens a connection if there is none, however often that takes; whether there is one before the phase
    /// ends.
    async fn is_connected(&mut self, phase: &Phase) -> bool {
        while self.connection.is_none() {
            if Instant::now() >= phase.end {
                return false;
            }
            let plan = &self.share.plan;
            match timeout(plan.settings.timeout, plan.connect.connect(self.number)).await {
                Ok(Ok(connection)) => self.connection = Some(connection),
                failed => {
                    let failure = failed.map_or(Failure::Timeout, |failed| {
                        failed.err().unwrap_or(Failure::Timeout)
                    });
                    self.share.note_unopened(phase, &failure);
                    self.recover(&failure, phase).await;
                }
            }
        }
        true
    }

    async fn carry_out(&mut self, operation: &Operation) -> Result<Outcome, Failure> {
        let Some(connection) = &mut self.connection else {
            return Err(Failure::Broken("there is no connection".into()));
        };
        let limit = self.share.plan.settings.timeout;
        timeout(limit, connection.run(operation)).await.unwrap_or(Err(Failure::Timeout))
    }

    /// Gives up what is of no more use, and pauses.
    async fn recover(&mut self, failure: &Failure, phase: &Phase) {
        match failure {
            Failure::Broken(_) | Failure::Timeout => self.connection = None,
            Failure::Refused { .. } => (),
        }
        sleep_until((Instant::now() + self.pause).min(phase.end)).await;
        self.pause = (self.pause * 2).min(BENCH_PAUSE_MAX);
    }
}

impl<C> Share<C> {
    fn note(
        &self,
        phase: &Phase,
        operation: &Operation,
        intended: Instant,
        result: &Result<Outcome, Failure>,
    ) {
        let now = Instant::now();
        match result {
            Ok(_) => self.plan.progress.add_ops(self.thread, 1),
            Err(_) => self.plan.progress.add_error(self.thread),
        }
        if !phase.counts {
            return;
        }
        let mut tallies = self.tallies.borrow_mut();
        let tally = tallies.of(OperationKind::from(operation));
        match result {
            Ok(outcome) => tally.answered(*outcome, now - intended, now > phase.end),
            Err(failure) => {
                tally.failed(ErrorKind::from(failure));
                tallies.remember(failure);
            }
        }
    }

    fn note_unopened(&self, phase: &Phase, failure: &Failure) {
        self.plan.progress.add_error(self.thread);
        if phase.counts {
            let mut tallies = self.tallies.borrow_mut();
            *tallies.unopened.entry(ErrorKind::from(failure)).or_default() += 1;
            tallies.remember(failure);
        }
    }
}
