//! Waiting for what should come true, instead of for time.

use std::time::{Duration, Instant};

/// How long anything may take that should come true: far longer than it needs, for slow machines.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `probe` finds what it wants, and fails with what it last saw instead if that takes
/// longer than `within`.
#[track_caller]
pub(crate) fn until<T>(
    what: &str,
    within: Duration,
    probe: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    look(what, within, probe, caller)
}

async fn look<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
    caller: &std::panic::Location<'_>,
) -> T {
    let start = Instant::now();
    loop {
        let seen = match probe().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(
            start.elapsed() < within,
            "{caller}: not within {within:?}: {what}; the last look showed: {seen}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}
