//! When a request must have ended.
//!
//! A deadline is monotonic inside a process and travels between processes as the time that is
//! left, so that clocks never need to agree.

use std::time::{Duration, Instant};

use crate::types::host;

/// The instant by which an answer is owed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline `timeout` from now.
    pub fn after(timeout: Duration) -> Self {
        Self(host::now() + timeout)
    }

    /// The instant itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// The time that is left; zero once it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(host::now())
    }

    /// The time that is left in whole milliseconds, as it travels to another process.
    pub fn left_ms(self) -> u32 {
        u32::try_from(self.left().as_millis()).unwrap_or(u32::MAX)
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.left().is_zero()
    }

    /// This deadline less `margin`, time kept for what comes after: but not more than a tenth of what is
    /// left, so that whoever has little time has most of it.
    #[must_use]
    pub fn earlier_by(self, margin: Duration) -> Self {
        let margin = margin.min(self.left() / 10);
        self.0.checked_sub(margin).map_or(self, Self)
    }

    /// The earlier of this deadline and `timeout` from now.
    #[must_use]
    pub fn at_most(self, timeout: Duration) -> Self {
        self.min(Self::after(timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_is_a_tenth_of_what_is_left_at_most() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let margin = Duration::from_secs(2);
        assert_eq!(deadline.instant() - deadline.earlier_by(margin).instant(), margin);
        let tight = Deadline::after(Duration::from_millis(100));
        assert!(tight.earlier_by(margin).left() > Duration::from_millis(50));
        let passed = Deadline(host::now());
        assert_eq!(passed.earlier_by(margin), passed, "nothing is left to take from");
    }
}
