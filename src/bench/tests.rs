//! The engine on virtual time, over a server that does what a test says: what is counted, and from when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bench::clients::run_share;
use crate::bench::run::{plan, summary};
use crate::bench::schedule::tests::pace_virtually;
use crate::bench::settings::tests::settings;
use crate::bench::{
    Connect, Connection, Failure, Measured, Operation, Outcome, Progress, Settings, Workload,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A server that takes a millisecond for everything, but for a while after `stall_after`, and fails as `fault` says.
#[derive(Debug)]
struct Fake {
    start: Instant,
    stall_after: Duration,
    stall: Duration,
    fault: Fault,
    operations: AtomicU64,
    connections: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// It never has a value.
    NotFound,
    /// It refuses every tenth operation.
    Refuse,
    /// It breaks the connection at every tenth operation.
    Break,
    /// It does not answer every hundredth operation.
    Silent,
    /// Nobody can connect.
    Closed,
}

#[derive(Debug)]
struct FakeConnection(Arc<Fake>);

#[derive(Debug)]
struct FakeConnect(Arc<Fake>);

impl Connect for FakeConnect {
    type Connection = FakeConnection;

    async fn connect(&self, _client: usize) -> Result<FakeConnection, Failure> {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        match self.0.fault {
            Fault::Closed => Err(Failure::Broken("refused".into())),
            _ => Ok(FakeConnection(Arc::clone(&self.0))),
        }
    }
}

impl Connection for FakeConnection {
    async fn run(&mut self, _operation: &Operation) -> Result<Outcome, Failure> {
        let fake = &self.0;
        let nth = fake.operations.fetch_add(1, Ordering::Relaxed) + 1;
        let stalled = fake.start + fake.stall_after;
        let now = Instant::now();
        if now >= stalled && now < stalled + fake.stall {
            sleep_until(stalled + fake.stall).await;
        }
        sleep(MILLISECOND).await;
        match fake.fault {
            Fault::NotFound => Ok(Outcome::NotFound),
            Fault::Refuse if nth.is_multiple_of(10) => {
                Err(Failure::Refused { status: 503, text: "busy".into() })
            }
            Fault::Break if nth.is_multiple_of(10) => Err(Failure::Broken("reset".into())),
            Fault::Silent if nth.is_multiple_of(100) => std::future::pending().await,
            Fault::None | Fault::Refuse | Fault::Break | Fault::Silent | Fault::Closed => {
                Ok(Outcome::Done)
            }
        }
    }
}

fn fake(fault: Fault) -> Arc<Fake> {
    let (operations, connections) = (AtomicU64::new(0), AtomicU64::new(0));
    let (start, stall_after, stall) = (Instant::now(), Duration::MAX / 4, Duration::ZERO);
    let stall_after = stall_after.min(Duration::from_secs(86_400));
    Arc::new(Fake { start, stall_after, stall, fault, operations, connections })
}

/// A server that stands still once, for a second.
fn stalling() -> Arc<Fake> {
    let Ok(fake) = Arc::try_unwrap(fake(Fault::None)) else { panic!("it is ours alone") };
    Arc::new(Fake { stall_after: 5 * SECOND, stall: SECOND, ..fake })
}

async fn run(server: &Arc<Fake>, settings: Settings, stop: CancellationToken) -> Measured {
    let connect = Arc::new(FakeConnect(Arc::clone(server)));
    let progress = Arc::new(Progress::new(1));
    let plan = plan(&connect, &settings, Workload::Get, &progress, &stop).expect("valid");
    let plan = Arc::new(plan);
    let clients = LocalSet::new();
    let share = clients.run_until(async {
        let (share, ()) =
            tokio::join!(run_share(Arc::clone(&plan), 0), pace_virtually(&plan.phases));
        share
    });
    let share = share.await;
    summary(&plan, &[share], Instant::now())
}

async fn to_the_end(server: &Arc<Fake>, settings: Settings) -> Measured {
    run(server, settings, CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn a_schedule_charges_a_stall_to_all_who_wait_and_a_closed_loop_does_not() {
    let ten_seconds = || Settings { duration: 10 * SECOND, ..settings() };
    let closed = to_the_end(&stalling(), ten_seconds()).await.report().total;
    assert!(closed.p99_us < 3_000.0, "one in 10,000 has seen the stall of each client: {closed:?}");
    assert!(closed.max_us > 1_000_000.0, "{closed:?}");

    let open = Settings { rate: Some(1_000), ..ten_seconds() };
    let open = to_the_end(&stalling(), open).await.report();
    let total = &open.total;
    assert!(total.p50_us < 3_000.0, "{total:?}");
    assert!(
        total.p95_us > 400_000.0,
        "one in ten was due in that second or just behind: {total:?}"
    );
    assert!(total.p99_us > 850_000.0 && total.p99_us < 1_050_000.0, "near a second: {total:?}");
    assert!((9_990..=10_000).contains(&total.ops) && !open.is_behind(), "{open:?}");
}

#[tokio::test(start_paused = true)]
async fn who_can_not_keep_up_is_shown_at_its_own_rate() {
    // Ten clients, a millisecond each: 10,000 a second at most, but the virtual timer makes it less.
    let settings = Settings { rate: Some(20_000), duration: 2 * SECOND, ..settings() };
    let report = to_the_end(&fake(Fault::None), settings).await.report();
    assert!(report.is_behind(), "{report:?}");
    assert!(report.total.ops_per_s <= 10_000.0 && report.total.ops > 8_000, "{report:?}");
    assert!(report.total.max_us > 900_000.0, "the last were due long ago: {report:?}");
    let known = report.not_sent + report.total.ops;
    assert!((39_980..=40_000).contains(&known), "{known}: {report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_warm_up_is_not_counted() {
    let server = fake(Fault::None);
    let measured = to_the_end(&server, Settings { warmup: SECOND, ..settings() }).await;
    let (ops, all) = (measured.total().ops(), server.operations.load(Ordering::Relaxed));
    assert!(ops * 2 <= all + 10 && ops * 2 + 40 >= all, "{ops} of {all}");
    assert!((measured.report().elapsed_s - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_the_end_counts_as_latency_and_not_as_throughput() {
    let settings = Settings { duration: 5 * SECOND + SECOND / 2, ..settings() };
    let total = to_the_end(&stalling(), settings).await.report().total;
    assert_eq!(total.late_ops, 10, "each client waits for the stall to end: {total:?}");
    assert!(total.max_us > 1_000_000.0, "{total:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_run_with_what_was_measured_until_then() {
    let stop = CancellationToken::new();
    let (server, hour) = (fake(Fault::None), Duration::from_secs(3600));
    let stopping = async {
        sleep(SECOND).await;
        stop.cancel();
    };
    let running = run(&server, Settings { duration: hour, ..settings() }, stop.clone());
    let (measured, ()) = tokio::join!(running, stopping);
    let report = measured.report();
    assert!((report.elapsed_s - 1.0).abs() < 0.01 && report.total.ops > 1_000, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_by_kind_and_are_in_no_latency() {
    let refused = to_the_end(&fake(Fault::Refuse), settings()).await.report();
    let busy = refused.total.errors_by_kind["status 503"];
    assert!(busy > 0 && refused.total.errors == busy, "{refused:?}");
    assert_eq!(refused.first_error.as_deref(), Some("busy"));

    let server = fake(Fault::Break);
    let broken = to_the_end(&server, settings()).await.report();
    let breaks = broken.total.errors_by_kind["connection"];
    let connections = server.connections.load(Ordering::Relaxed);
    assert!(breaks > 0 && broken.total.ops > 0, "{broken:?}");
    assert!(connections > 10 && connections <= breaks + 10, "{connections}: {broken:?}");
    assert!(broken.total.max_us < 3_000.0, "{broken:?}");

    let silent = Settings { timeout: 100 * MILLISECOND, ..settings() };
    let silent = to_the_end(&fake(Fault::Silent), silent).await.report();
    assert!(silent.total.errors_by_kind["timeout"] > 0, "{silent:?}");
    assert!(silent.total.max_us < 3_000.0, "{silent:?}");

    let empty = to_the_end(&fake(Fault::NotFound), settings()).await.report();
    assert_eq!((empty.total.not_found, empty.total.errors), (empty.total.ops, 0));
}

#[tokio::test(start_paused = true)]
async fn who_can_not_connect_tries_again_less_and_less_often() {
    let server = fake(Fault::Closed);
    let report =
        to_the_end(&server, Settings { duration: 10 * SECOND, ..settings() }).await.report();
    let tries = server.connections.load(Ordering::Relaxed);
    assert!((300..1_000).contains(&tries), "{tries}");
    assert_eq!(report.connect_errors["connection"], tries);
    assert_eq!((report.total.ops, report.total.errors), (0, 0));
}
