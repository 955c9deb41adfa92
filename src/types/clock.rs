//! The only door through which wall-clock time enters.
//!
//! The leader stamps each command with [`Clock::now_ms`]; `apply` never looks at a clock. Timeouts
//! use monotonic `Instant`s and never this.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub type TimestampMs = u64;

/// Tells the wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// The current time in milliseconds since the epoch; may jump either way.
    fn now_ms(&self) -> TimestampMs;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn now_ms(&self) -> TimestampMs {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clock for Arc<dyn Clock> {
    fn now_ms(&self) -> TimestampMs {
        self.as_ref().now_ms()
    }
}
