//! The only door through which monotonic time and randomness enter, and the one place that says
//! whether this thread runs a simulated process.
//!
//! In production it opens on the machine: [`now`] is the machine's monotonic clock, [`random`] the
//! operating system's randomness, and [`is_simulated`] is `false` at compile time, so that nothing
//! of the rest is left. A simulation (`crate::sim`, in tests and behind the cargo feature
//! `simulation`) puts a `Host` in its place for as long as the thread does the work of one
//! simulated process: then time is virtual, all randomness comes from one seed, and no work goes to
//! another thread.

use std::time::Instant;

/// What a simulated process runs on.
#[cfg(any(test, feature = "simulation"))]
pub trait Host {
    /// Its monotonic clock.
    fn now(&self) -> Instant;
    /// Its randomness.
    fn random(&self) -> u64;
    /// How long its disk takes for the next batch of the log.
    fn disk_lag(&self) -> std::time::Duration;
}

/// The monotonic clock: for deadlines and ages, never for what is shown or kept.
#[inline]
pub fn now() -> Instant {
    #[cfg(any(test, feature = "simulation"))]
    if let Some(now) = simulated::with(|host| host.now()) {
        return now;
    }
    Instant::now()
}

/// 64 random bits, from the operating system: for identities, which must never be drawn twice.
///
/// # Panics
/// If the operating system has none, which is no state to go on in.
pub fn random() -> u64 {
    #[cfg(any(test, feature = "simulation"))]
    if let Some(bits) = simulated::with(|host| host.random()) {
        return bits;
    }
    getrandom::u64().expect("the operating system has randomness")
}

/// Between 0 and 1: for what shall not happen everywhere at the same moment.
pub fn jitter() -> f64 {
    #[cfg(any(test, feature = "simulation"))]
    if let Some(bits) = simulated::with(|host| host.random()) {
        let bits = u32::try_from(bits >> 32).unwrap_or(u32::MAX);
        return f64::from(bits) / (f64::from(u32::MAX) + 1.0);
    }
    rand::random()
}

/// Whether this thread does the work of a simulated process, which has no other threads.
#[cfg(not(any(test, feature = "simulation")))]
#[inline]
pub const fn is_simulated() -> bool {
    false
}

#[cfg(any(test, feature = "simulation"))]
pub use simulated::{Entered, disk_lag, enter, is_simulated};

#[cfg(any(test, feature = "simulation"))]
mod simulated {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::Host;

    thread_local! {
        static HOST: RefCell<Option<Rc<dyn Host>>> = const { RefCell::new(None) };
    }

    pub(super) fn with<T>(ask: impl FnOnce(&dyn Host) -> T) -> Option<T> {
        let host = HOST.with_borrow(Option::clone);
        host.map(|host| ask(&*host))
    }

    /// Whether this thread does the work of a simulated process, which has no other threads.
    pub fn is_simulated() -> bool {
        HOST.with_borrow(Option::is_some)
    }

    /// How long the simulated disk takes for the next batch of the log.
    pub fn disk_lag() -> Duration {
        with(|host| host.disk_lag()).unwrap_or_default()
    }

    /// Has this thread do the work of the process on `host` until what this returns is dropped.
    pub fn enter(host: Rc<dyn Host>) -> Entered {
        Entered { before: HOST.replace(Some(host)) }
    }

    /// Ends it.
    #[must_use]
    pub struct Entered {
        before: Option<Rc<dyn Host>>,
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            HOST.set(self.before.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;

    struct Fixed(Instant);

    impl Host for Fixed {
        fn now(&self) -> Instant {
            self.0
        }

        fn random(&self) -> u64 {
            1 << 63
        }

        fn disk_lag(&self) -> Duration {
            Duration::from_millis(5)
        }
    }

    #[test]
    fn a_thread_has_its_host_for_as_long_as_it_has_entered_it() {
        let at = Instant::now();
        assert!(!is_simulated());
        let entered = enter(Rc::new(Fixed(at)));
        assert_eq!((now(), random(), disk_lag()), (at, 1 << 63, Duration::from_millis(5)));
        assert!((jitter() - 0.5).abs() < f64::EPSILON);
        drop(entered);
        assert!(!is_simulated() && now() >= at && random() != random());
    }
}
