//! Faults of clocks, by libfaketime, which stands between a process and the system's clocks.
//!
//! Every other replica has a wall clock that jumps while it runs, by up to a minute, as when
//! somebody sets it. The others are started with clocks, the monotonic one too, that go up to a
//! tenth too fast or too slow: far more than a real clock drifts. A monotonic clock never jumps.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::faketime::PRELOAD;
use crate::nemesis::{Context, FaultKind, Hold};

/// Where distributions put the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];
/// A clock that is right.
const RIGHT: &str = "+0";
/// How long a clock is wrong.
const WRONG: std::ops::Range<Duration> = Duration::from_secs(2)..Duration::from_secs(6);

/// The files that set the clocks.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    library: PathBuf,
    directory: PathBuf,
}

impl Clocks {
    /// Clocks that are set through files in `directory`; `None` if the library is not installed.
    pub(crate) fn find(directory: &Path) -> Option<Self> {
        let library = LIBRARIES.iter().map(PathBuf::from).find(|library| library.is_file())?;
        Some(Self { library, directory: directory.into() })
    }

    /// What a replica needs in its environment to go by these clocks.
    pub(crate) fn environment(&self, at: usize, name: &str) -> Result<Vec<(String, String)>> {
        self.set(name, RIGHT)?;
        let file = self.file(name).display().to_string();
        let mut environment = vec![
            (PRELOAD.to_string(), self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE".to_string(), file),
            // How often the file is looked at, in seconds.
            ("FAKETIME_CACHE_DURATION".to_string(), "1".to_string()),
        ];
        if jumps(at) {
            environment.push(("FAKETIME_DONT_FAKE_MONOTONIC".to_string(), "1".to_string()));
        }
        Ok(environment)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.clock"))
    }

    fn set(&self, name: &str, clock: &str) -> Result<()> {
        fs::write(self.file(name), clock).context("setting a clock")
    }
}

/// Whether this replica's wall clock jumps; otherwise all its clocks go at another rate.
fn jumps(at: usize) -> bool {
    at.is_multiple_of(2)
}

/// Makes the clock of one replica wrong for a while.
pub(super) async fn skew(context: &Context, mut rng: StdRng) -> Result<()> {
    let cluster = &context.cluster;
    let victim = rng.random_range(cluster.replicas());
    let name = cluster.name(victim);
    let time = rng.random_range(WRONG);
    let ahead = rng.random_bool(0.5);
    let seconds: u32 = rng.random_range(2..=60);
    let percent: u32 = rng.random_range(1..=10);
    let percent = if ahead { 100 + percent } else { 100 - percent };
    let group = cluster.group_of(victim);
    let Some(clocks) = &context.clocks else {
        let what = "no clock can be set: libfaketime is not installed";
        context.skip(FaultKind::Clock, Some(group), what.into());
        return Ok(());
    };
    let _held = context.hold(&[victim]).await;
    if context.stopped() {
        return Ok(());
    }
    let fault = if jumps(victim) {
        let jump = format!("{}{seconds}", if ahead { '+' } else { '-' });
        let what = format!("clock of {name} jumps by {jump} s");
        let fault = context.begin(FaultKind::Clock, Some(group), what);
        clocks.set(name, &jump)?;
        fault
    } else {
        let what = format!("{name} started again with clocks at {percent} %");
        let fault = context.begin(FaultKind::Clock, Some(group), what);
        cluster.kill(victim);
        let (whole, part) = (percent / 100, percent % 100);
        clocks.set(name, &format!("+0 x{whole}.{part:02}"))?;
        cluster.start_one(victim)?;
        fault
    };
    context.stopped_within(time).await;
    let took = cluster.has_loaded(victim, "libfaketime");
    if jumps(victim) {
        clocks.set(name, RIGHT)?;
    } else {
        cluster.kill(victim);
        clocks.set(name, RIGHT)?;
        cluster.start_one(victim)?;
    }
    // One that was started again was killed, whatever its clocks say.
    let hold = match (took, jumps(victim)) {
        (true, _) => Hold::Installed,
        (false, true) => Hold::Skipped,
        (false, false) => Hold::Indeterminate,
    };
    context.end(fault, context.recorder.now(), hold);
    Ok(())
}
