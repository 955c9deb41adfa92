//! What a simulated process runs on: the machine's randomness, clocks and disk speed, and a runtime
//! that works only while it is let.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::types::clock::{Clock, TimestampMs};
use crate::types::host::{self, Host};

/// What wall clocks show at the start of a run.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// What a simulated process has from its machine.
pub(in crate::sim) struct Machine {
    rng: RefCell<StdRng>,
    /// The longest time that a batch of the log takes to be written.
    lag: Cell<Duration>,
}

impl Machine {
    /// A machine with a fast disk.
    pub(in crate::sim) fn new(seed: u64) -> Rc<Self> {
        let rng = RefCell::new(StdRng::seed_from_u64(seed));
        Rc::new(Self { rng, lag: Cell::default() })
    }
}

impl Machine {
    /// Has each batch of the log take up to so long.
    pub(in crate::sim) fn slow_disk(&self, lag: Duration) {
        self.lag.set(lag);
    }
}

impl Host for Machine {
    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    fn random(&self) -> u64 {
        self.rng.borrow_mut().next_u64()
    }

    fn disk_lag(&self) -> Duration {
        let lag = self.lag.get();
        if lag.is_zero() { lag } else { self.rng.borrow_mut().random_range(Duration::ZERO..lag) }
    }
}

/// The wall clock of one machine.
#[derive(Default)]
pub(in crate::sim) struct Wall {
    elapsed_ms: AtomicI64,
    skew_ms: AtomicI64,
}

impl Wall {
    /// Lets a millisecond go by.
    pub(in crate::sim) fn go_on(&self) {
        self.elapsed_ms.fetch_add(1, Ordering::SeqCst);
    }

    /// Has it show another time than is right.
    pub(in crate::sim) fn skew(&self, ms: i64) {
        self.skew_ms.store(ms, Ordering::SeqCst);
    }
}

impl Clock for Wall {
    fn now_ms(&self) -> TimestampMs {
        let offset = self.elapsed_ms.load(Ordering::SeqCst) + self.skew_ms.load(Ordering::SeqCst);
        u64::try_from(EPOCH_MS + offset).unwrap_or_default()
    }
}

/// A runtime that does its work in steps.
pub(in crate::sim) struct Steps {
    runtime: Runtime,
    machine: Rc<Machine>,
    start: Instant,
    /// How far its clock has gone.
    elapsed: f64,
}

impl Steps {
    /// On this machine; its clock has not gone yet.
    pub(in crate::sim) fn new(machine: &Rc<Machine>) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O can be made");
        let start = runtime.block_on(async { Instant::now() });
        Self { runtime, machine: Rc::clone(machine), start, elapsed: 0.0 }
    }

    /// Spawns a task.
    pub(in crate::sim) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let _entered = host::enter(Rc::clone(&self.machine) as Rc<dyn Host>);
        drop(self.runtime.spawn(task));
    }

    /// Works for so many milliseconds by its own clock.
    pub(in crate::sim) fn step(&mut self, ms: f64) {
        let _entered = host::enter(Rc::clone(&self.machine) as Rc<dyn Host>);
        self.elapsed += ms;
        let until = self.start + Duration::from_millis(whole(self.elapsed));
        self.runtime.block_on(async move { tokio::time::sleep_until(until).await });
    }

    /// Has its clock go on without any work.
    pub(in crate::sim) fn skip(&mut self, ms: f64) {
        let _entered = host::enter(Rc::clone(&self.machine) as Rc<dyn Host>);
        let before = whole(self.elapsed);
        self.elapsed += ms;
        let skipped = Duration::from_millis(whole(self.elapsed) - before);
        self.runtime.block_on(async move { tokio::time::advance(skipped).await });
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are small and positive"
)]
fn whole(ms: f64) -> u64 {
    ms as u64
}
