//! A run from outside: keys are loaded, a workload is warmed up and measured, on threads of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::{LocalSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::bench::clients::{Plan, run_share};
use crate::bench::connection::{Connect, Connection, Failure};
use crate::bench::keys::{Values, key_name};
use crate::bench::progress::Progress;
use crate::bench::report::Measured;
use crate::bench::schedule::{Phase, pace};
use crate::bench::settings::{Settings, SettingsError, Workload};
use crate::bench::tally::Tallies;
use crate::types::limits::{
    BENCH_LOAD_BYTES, BENCH_LOAD_TRIES, BENCH_LOADERS_MAX, BENCH_PAUSE_MAX, BENCH_PAUSE_MIN,
    TXN_OPS_MAX,
};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A thread could not be started.
    #[error("a thread does not start: {0}")]
    Thread(#[from] io::Error),
    /// A server can't be reached at all.
    #[error("no connection can be opened: {0}")]
    Unreachable(Failure),
    /// The keys could not be loaded.
    #[error("the keys can't be loaded: {0}")]
    Load(Failure),
}

/// Runs one workload for `warmup` and then for `duration`, which is measured. It ends early when `stop` is
/// cancelled, with what was measured until then.
///
/// What is under way when the time is over is waited for: its latency counts, its throughput doesn't. To be called
/// in a runtime of tokio; the clients have threads and runtimes of their own.
pub async fn measure<C: Connect>(
    connect: &Arc<C>,
    settings: &Settings,
    workload: Workload,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Measured, BenchError> {
    let plan = Arc::new(plan(connect, settings, workload, progress, stop)?);
    // Dropped when this future ends or is dropped: then the pacer ends.
    let (running, over) = sync_channel(1);
    let one = Arc::clone(&plan);
    let pacer = spawn_blocking(move || pace(&one.phases, &over));
    let each = Arc::clone(&plan);
    let shares =
        spread(plan.settings.threads, move |thread| run_share(Arc::clone(&each), thread)).await?;
    drop(running);
    pacer.await.map_err(io::Error::other)?;
    Ok(summary(&plan, &shares, Instant::now()))
}

/// What is to be done, beginning now.
pub(super) fn plan<C: Connect>(
    connect: &Arc<C>,
    settings: &Settings,
    workload: Workload,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Plan<C>, SettingsError> {
    settings.check()?;
    let (mut settings, start) = (settings.clone(), Instant::now());
    settings.threads = settings.threads.min(settings.clients);
    let warm = start + settings.warmup;
    let phases = vec![
        Phase::new(start, settings.warmup, settings.rate, false),
        Phase::new(warm, settings.duration, settings.rate, true),
    ];
    let (connect, progress) = (Arc::clone(connect), Arc::clone(progress));
    Ok(Plan { connect, settings, workload, phases, progress, stop: stop.clone() })
}

/// Adds up what the threads have counted.
pub(super) fn summary<C>(plan: &Plan<C>, shares: &[Tallies], now: Instant) -> Measured {
    let mut tallies = Tallies::default();
    for share in shares {
        tallies.add(share);
    }
    let measured = plan.phases.last().expect("a plan has phases");
    let elapsed = now.min(measured.end).saturating_duration_since(measured.start);
    let rate = plan.settings.rate;
    let not_sent = measured.not_sent(now);
    Measured::new(plan.workload, elapsed, (rate, not_sent), tallies)
}

/// Runs a job on each of some threads, each with a runtime of its own, and waits for all of them.
async fn spread<T, J>(
    threads: usize,
    job: impl Fn(usize) -> J + Clone + Send + 'static,
) -> io::Result<Vec<T>>
where
    T: Send + 'static,
    J: Future<Output = T>,
{
    let start = |thread| {
        let job = job.clone();
        spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            io::Result::Ok(LocalSet::new().block_on(&runtime, job(thread)))
        })
    };
    // All are started before the first is waited for.
    let started: Vec<_> = (0..threads).map(start).collect();
    let mut results = Vec::with_capacity(threads);
    for thread in started {
        results.push(thread.await.map_err(io::Error::other)??);
    }
    Ok(results)
}

/// Opens a connection of each of the first `servers` clients and closes it again: whether there is anybody to
/// talk to.
pub async fn probe<C: Connect>(
    connect: &Arc<C>,
    servers: usize,
    limit: Duration,
) -> Result<(), BenchError> {
    let connect = Arc::clone(connect);
    let probed = spread(1, move |_| {
        let connect = Arc::clone(&connect);
        async move {
            for client in 0..servers {
                let opened = timeout(limit, connect.connect(client)).await;
                opened.unwrap_or(Err(Failure::Timeout))?;
            }
            Ok(())
        }
    });
    probed.await?.into_iter().collect::<Result<(), Failure>>().map_err(BenchError::Unreachable)
}

/// Gives every key a value, several at a time. It ends early when `stop` is cancelled.
pub async fn load<C: Connect>(
    connect: &Arc<C>,
    settings: &Settings,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<(), BenchError> {
    settings.check()?;
    let loading = Arc::new(Loading {
        connect: Arc::clone(connect),
        settings: settings.clone(),
        values: Values::new(settings.value_size, settings.seed),
        step: u64::try_from((BENCH_LOAD_BYTES / settings.value_size.max(1)).clamp(1, TXN_OPS_MAX))
            .unwrap_or(1),
        next: AtomicU64::new(0),
        progress: Arc::clone(progress),
        // One loader that fails ends the others.
        stop: stop.child_token(),
    });
    let loaders = settings.clients.min(BENCH_LOADERS_MAX);
    let threads = settings.threads.min(loaders);
    let loaded = spread(threads, move |thread| {
        let loading = Arc::clone(&loading);
        async move {
            let loaders = (thread..loaders).step_by(threads);
            let all = loaders.map(|loader| loading.run_while_wanted(thread, loader));
            futures::future::join_all(all).await.into_iter().collect::<Result<(), Failure>>()
        }
    });
    loaded.await?.into_iter().collect::<Result<(), Failure>>().map_err(BenchError::Load)
}

/// Keys that are being loaded.
struct Loading<C> {
    connect: Arc<C>,
    settings: Settings,
    values: Values,
    /// How many keys one request loads.
    step: u64,
    /// The first that nobody loads yet.
    next: AtomicU64,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl<C: Connect> Loading<C> {
    async fn run_while_wanted(&self, thread: usize, loader: usize) -> Result<(), Failure> {
        let ended = self.stop.run_until_cancelled(self.run(thread, loader)).await;
        let ended = ended.unwrap_or(Ok(()));
        if ended.is_err() {
            self.stop.cancel();
        }
        ended
    }

    async fn run(&self, thread: usize, loader: usize) -> Result<(), Failure> {
        let mut connection = None;
        loop {
            let first = self.next.fetch_add(self.step, Ordering::Relaxed);
            let keys = first..self.settings.keys.min(first.saturating_add(self.step));
            if keys.is_empty() {
                return Ok(());
            }
            let mut rng = SmallRng::seed_from_u64(first);
            let prefix = &self.settings.prefix;
            let count = keys.end - keys.start;
            let item = |key| (key_name(prefix, key), self.values.draw(&mut rng));
            self.load(&mut connection, loader, &keys.map(item).collect::<Vec<_>>()).await?;
            self.progress.add_ops(thread, count);
        }
    }

    /// Loads some keys, and tries it again for a while.
    async fn load(
        &self,
        connection: &mut Option<C::Connection>,
        loader: usize,
        items: &[(String, Bytes)],
    ) -> Result<(), Failure> {
        let mut pause = BENCH_PAUSE_MIN;
        let mut tries = 0;
        loop {
            let limit = self.settings.timeout;
            let outcome = timeout(limit, self.try_once(connection, loader, items)).await;
            let Err(failure) = outcome.unwrap_or(Err(Failure::Timeout)) else { return Ok(()) };
            *connection = None;
            tries += 1;
            if tries == BENCH_LOAD_TRIES {
                return Err(failure);
            }
            sleep(pause).await;
            pause = (pause * 2).min(BENCH_PAUSE_MAX);
        }
    }

    async fn try_once(
        &self,
        connection: &mut Option<C::Connection>,
        loader: usize,
        items: &[(String, Bytes)],
    ) -> Result<(), Failure> {
        let open = match connection.take() {
            Some(open) => open,
            None => self.connect.connect(loader).await?,
        };
        connection.insert(open).load(items).await
    }
}
