//! How long the disk has been slow: the time spent in slow syncs, one after the other.
//!
//! An idle log says nothing of its disk, so time between syncs does not count. One sync that is
//! quick enough ends it.

use std::time::{Duration, Instant};

use crate::types::limits::SLOW_SYNC;

/// What is known of a log's syncs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Spent in the slow syncs since the last quick one.
    slow: Duration,
    /// When the sync under way began.
    began: Option<Instant>,
}

impl Pace {
    /// A sync begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.began = Some(now);
    }

    /// The sync has ended.
    pub(super) fn end(&mut self, now: Instant) {
        let slow = self.under_way(now).is_some_and(|took| took >= SLOW_SYNC);
        self.slow = if slow { self.slow_for(now) } else { Duration::ZERO };
        self.began = None;
    }

    /// How long the disk has been slow, the sync under way included once it is slow, too.
    pub(super) fn slow_for(&self, now: Instant) -> Duration {
        self.slow + self.under_way(now).filter(|took| *took >= SLOW_SYNC).unwrap_or_default()
    }

    fn under_way(&self, now: Instant) -> Option<Duration> {
        self.began.map(|began| now.saturating_duration_since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slow_syncs_in_a_row_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let slow_ms = |pace: &Pace, ms| pace.slow_for(at(ms)).as_millis();
        let mut pace = Pace::default();
        assert_eq!(slow_ms(&pace, 9000), 0);
        pace.begin(at(10_000));
        assert_eq!(slow_ms(&pace, 10_100), 0, "it may yet be quick");
        assert_eq!(slow_ms(&pace, 10_400), 400);
        pace.end(at(10_500));
        assert_eq!(slow_ms(&pace, 60_000), 500, "nothing is known of a disk at rest");
        pace.begin(at(60_000));
        assert_eq!(slow_ms(&pace, 60_100), 500, "it may yet be slow");
        assert_eq!(slow_ms(&pace, 60_300), 800);
        pace.end(at(60_300));
        pace.begin(at(60_301));
        pace.end(at(60_302));
        assert_eq!(slow_ms(&pace, 60_400), 0, "a quick one ends it");
    }
}
