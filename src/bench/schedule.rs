//! When operations are to begin: at once after the one before, or on a schedule that waits for nobody.
//!
//! On a schedule of `R` operations per second number `n` is to begin `n / R` seconds after the start, and its
//! latency counts from there, however late it is sent. A server that stands still for a second then has made
//! `R` operations late, as it would have with real users; a closed loop would have seen one, because it
//! politely stops asking. That mistake is called coordinated omission: Gil Tene, "How NOT to Measure
//! Latency"; his wrk2 measures in this way.
//!
//! Operations that are due wait in one queue for the next client that has nothing to do. They are released by a thread
//! of its own, because the timers of the runtime tick in milliseconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A part of a run: the warm-up, or what is measured.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) start: Instant,
    pub(super) end: Instant,
    /// Without one, clients send as fast as they are answered.
    schedule: Option<Schedule>,
    /// Whether what happens is counted.
    pub(super) counts: bool,
}

/// A fixed rate.
#[derive(Debug)]
struct Schedule {
    rate: u64,
    /// One for each operation that is due and that nobody has taken.
    due: Semaphore,
    released: AtomicU64,
    taken: AtomicU64,
}

impl Phase {
    pub(super) fn new(start: Instant, duration: Duration, rate: Option<u64>, counts: bool) -> Self {
        let schedule = rate.map(|rate| Schedule {
            rate,
            due: Semaphore::new(0),
            released: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        });
        Self { start, end: start + duration, schedule, counts }
    }

    /// Waits for the next operation to be due, and says when it is or was to begin; `None` when the phase is
    /// over.
    pub(super) async fn next(&self) -> Option<Instant> {
        let Some(schedule) = &self.schedule else {
            let now = Instant::now();
            return (now < self.end).then_some(now);
        };
        schedule.due.acquire().await.ok()?.forget();
        Some(self.intended(schedule, schedule.taken.fetch_add(1, Ordering::Relaxed)))
    }

    /// How many operations of the schedule nobody had time to send.
    pub(super) fn not_sent(&self, until: Instant) -> u64 {
        let Some(schedule) = &self.schedule else { return 0 };
        let planned = self.planned(schedule, until.min(self.end));
        planned.saturating_sub(schedule.taken.load(Ordering::Relaxed))
    }

    /// When operation number `nth` is to begin.
    fn intended(&self, schedule: &Schedule, nth: u64) -> Instant {
        let nanos = u128::from(nth) * NANOS_PER_SECOND / u128::from(schedule.rate);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many are to begin before `until`.
    fn planned(&self, schedule: &Schedule, until: Instant) -> u64 {
        let nanos = until.saturating_duration_since(self.start).as_nanos();
        u64::try_from((nanos * u128::from(schedule.rate)).div_ceil(NANOS_PER_SECOND))
            .unwrap_or(u64::MAX)
    }

    /// Releases what is due now, and says when to come again; `None` when there is nothing more to do.
    pub(super) fn release(&self, now: Instant) -> Option<Instant> {
        let schedule = self.schedule.as_ref()?;
        if now >= self.end {
            schedule.due.close();
            return None;
        }
        let planned = self.planned(schedule, now + Duration::from_nanos(1));
        let before = schedule.released.swap(planned, Ordering::Relaxed);
        let fresh = usize::try_from(planned.saturating_sub(before)).unwrap_or(usize::MAX);
        schedule.due.add_permits(fresh);
        Some(self.intended(schedule, planned).min(self.end))
    }
}

/// Releases the operations of all phases in time, until the other end of `over` is dropped.
pub(super) fn pace(phases: &[Phase], over: &Receiver<()>) {
    for phase in phases {
        while let Some(next) = phase.release(Instant::now()) {
            match over.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => (),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As [`pace`], on virtual time.
    pub(in crate::bench) async fn pace_virtually(phases: &[Phase]) {
        for phase in phases {
            while let Some(next) = phase.release(Instant::now()) {
                tokio::time::sleep_until(next).await;
            }
        }
    }

    /// The next operation; fails instead of waiting for one that never comes.
    async fn taken(phase: &Phase) -> Option<Instant> {
        let next = tokio::time::timeout(Duration::from_secs(60), phase.next()).await;
        next.expect("something is due, or the phase is over")
    }

    #[tokio::test(start_paused = true)]
    async fn operations_are_due_at_their_rate_however_late_they_are_taken() {
        let start = Instant::now();
        let phase = Phase::new(start, Duration::from_secs(2), Some(4), true);
        assert_eq!(phase.release(start), Some(start + Duration::from_millis(250)));
        assert_eq!(taken(&phase).await, Some(start));
        let later = start + Duration::from_millis(900);
        assert_eq!(phase.release(later), Some(start + Duration::from_secs(1)));
        assert_eq!(phase.not_sent(later), 3);
        for millis in [250, 500, 750] {
            assert_eq!(taken(&phase).await, Some(start + Duration::from_millis(millis)));
        }
        assert_eq!(phase.release(start + Duration::from_secs(2)), None);
        assert_eq!(taken(&phase).await, None);
        assert_eq!(phase.not_sent(start + Duration::from_secs(9)), 4);
    }

    #[test]
    fn the_thread_releases_all_that_is_planned_and_ends() {
        let start = Instant::now();
        let phases = [
            Phase::new(start, Duration::from_millis(20), Some(10_000), false),
            Phase::new(start + Duration::from_millis(20), Duration::from_millis(20), None, true),
        ];
        let (_running, over) = std::sync::mpsc::sync_channel(1);
        pace(&phases, &over);
        let released = phases[0].schedule.as_ref().map(|one| one.released.load(Ordering::Relaxed));
        assert!(released > Some(0) && released <= Some(200), "{released:?}");
        assert!(Instant::now() >= start + Duration::from_millis(20));
    }
}
