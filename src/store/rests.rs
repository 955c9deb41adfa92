//! When work that nobody waits for makes room for work that clients wait for.
//!
//! Priorities of threads don't do it: with a low one, others still wait for a time slice now and then, and with the lowest it may never get
//! on. So it works for a fraction of such a slice and rests for a few times as long; after some seconds, when it is to get on, for as long.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::types::host;
use crate::types::limits::{REST, REST_MAX};

/// What is worth a rest of its own: less than a time slice, which is what others wait for on full processors.
const WORK_MIN: Duration = Duration::from_micros(250);
/// How much work is looked at together for how long it had to wait for a processor.
const LOOK: Duration = Duration::from_millis(5);
/// Processors are short if one part in so many of that time went by waiting.
const WAITING: u32 = 10;

/// When one piece of work rests.
///
/// Clones begin with short rests at the same time.
#[derive(Clone, Debug)]
pub struct Rests {
    began: Instant,
    /// So long after that they are short.
    long_for: Duration,
    working_since: Instant,
    /// Whether processors are short, for who rests only then.
    short: Option<Shortage>,
    /// Whether it may rest at all, for who is told.
    allowed: Option<Arc<AtomicBool>>,
}

impl Rests {
    /// Never rests.
    pub fn none() -> Self {
        Self::always(Duration::ZERO)
    }

    /// Has long rests in the next `long_for`, whoever else works, and short ones then; none at all if that is zero.
    pub fn always(long_for: Duration) -> Self {
        let now = host::now();
        // What is simulated has no other thread to let go first.
        let long_for = if host::is_simulated() { Duration::ZERO } else { long_for };
        Self { began: now, long_for, working_since: now, short: None, allowed: None }
    }

    /// The same, but only while this thread has to wait for processors, so that others wait for it. Where the system doesn't tell, it
    /// never rests.
    pub fn when_short(long_for: Duration) -> Self {
        Self { short: Some(Shortage::default()), ..Self::always(long_for) }
    }

    /// The same, which rests only while `allowed` is true.
    #[must_use]
    pub fn only_while(self, allowed: Arc<AtomicBool>) -> Self {
        Self { allowed: Some(allowed), ..self }
    }

    /// Rests, if there was work. Blocks.
    pub fn rest(&mut self) {
        if let Some(rest) = self.due() {
            #[expect(clippy::disallowed_methods, reason = "there is no condition to wait for")]
            thread::sleep(rest);
            self.rested();
        }
    }

    /// How long to rest now, if at all.
    pub fn due(&mut self) -> Option<Duration> {
        self.due_at(host::now())
    }

    fn due_at(&mut self, now: Instant) -> Option<Duration> {
        let worked = now.saturating_duration_since(self.working_since);
        if worked < WORK_MIN || self.long_for.is_zero() {
            return None;
        }
        let allowed = self.allowed.as_ref().is_none_or(|allowed| allowed.load(Ordering::Relaxed));
        let short = self.short.as_mut().is_none_or(|short| short.is_there_after(worked));
        if !allowed || !short {
            self.working_since = now;
            return None;
        }
        let are_long = now.saturating_duration_since(self.began) < self.long_for;
        Some(if are_long { rest_after(worked) } else { worked.min(REST_MAX) })
    }

    /// The rest is over.
    pub fn rested(&mut self) {
        self.working_since = host::now();
    }
}

/// How long to rest after so much work.
pub fn rest_after(worked: Duration) -> Duration {
    worked.saturating_mul(REST).min(REST_MAX)
}

/// Says whether processors are short, to who asks it again and again: the thread that asks has waited for one for a tenth of the last 5 ms or more.
pub fn shortage() -> impl FnMut() -> bool {
    let (mut shortage, mut asked) = (Shortage::default(), host::now());
    move || {
        let now = host::now();
        let before = std::mem::replace(&mut asked, now);
        shortage.is_there_after(now.saturating_duration_since(before))
    }
}

/// Whether a thread that works has to wait for a processor. Where the system doesn't tell, there is no shortage.
#[derive(Clone, Debug, Default)]
struct Shortage {
    is_there: bool,
    /// Work since the last look.
    worked: Duration,
    last: Option<(ThreadId, Duration)>,
}

impl Shortage {
    /// Whether there is one, after the thread has worked for so long since it was asked before.
    fn is_there_after(&mut self, worked: Duration) -> bool {
        // What is simulated must not depend on the machine.
        if host::is_simulated() {
            return false;
        }
        self.worked += worked;
        if self.worked >= LOOK || self.last.is_none() {
            self.look(thread::current().id(), waited().ok());
        }
        self.is_there
    }

    /// Judges by how long this thread has waited in its life.
    fn look(&mut self, thread: ThreadId, waited: Option<Duration>) {
        let now = waited.map(|waited| (thread, waited));
        // Work that goes on in another thread is looked at anew.
        if let (Some((thread, waited)), Some((before, waited_before))) = (now, self.last)
            && thread == before
        {
            self.is_there = waited.saturating_sub(waited_before) * WAITING >= self.worked;
        }
        (self.last, self.worked) = (now, Duration::ZERO);
    }
}

/// How long this thread has waited for a processor in its life, by the second figure of Linux' `schedstat` (Documentation/scheduler/sched-stats).
fn waited() -> io::Result<Duration> {
    let mut text = String::new();
    File::open("/proc/thread-self/schedstat")?.take(256).read_to_string(&mut text)?;
    let ns = text.split_ascii_whitespace().nth(1).and_then(|waited| waited.parse().ok());
    ns.map(Duration::from_nanos).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FOR_LONG: Duration = Duration::from_secs(10);

    /// What `rests` says after so much work, `since` its beginning.
    fn due(rests: Rests, worked: Duration, since: Duration) -> Option<Duration> {
        let now = Instant::now();
        let ago = |time| now.checked_sub(time).expect("the machine runs for longer");
        Rests { began: ago(since), working_since: ago(worked), ..rests }.due_at(now)
    }

    #[test]
    fn who_works_rests_for_longer_than_that_and_later_for_as_long() {
        let rests = Rests::always(FOR_LONG);
        assert_eq!(due(rests.clone(), WORK_MIN / 2, MS), None, "not yet");
        assert_eq!(due(rests.clone(), 2 * MS, MS), Some(2 * MS * REST));
        assert_eq!(due(rests.clone(), 900 * MS, MS), Some(REST_MAX), "held up is not work");
        assert_eq!(due(rests.clone(), 2 * MS, FOR_LONG + MS), Some(2 * MS), "it is to get on");
        assert_eq!(due(rests, 900 * MS, FOR_LONG + MS), Some(REST_MAX));
        assert_eq!(due(Rests::none(), 900 * MS, Duration::ZERO), None);
    }

    #[test]
    fn who_must_not_rest_does_not() {
        let allowed = Arc::new(AtomicBool::new(false));
        let rests = Rests::always(FOR_LONG).only_while(Arc::clone(&allowed));
        assert_eq!(due(rests.clone(), 2 * MS, MS), None);
        allowed.store(true, Ordering::Relaxed);
        assert_eq!(due(rests, 2 * MS, MS), Some(2 * MS * REST));
    }

    #[test]
    fn processors_are_short_when_a_good_part_of_work_is_waiting_for_them() {
        let (this, other) = (thread::current().id(), thread::spawn(|| ()).thread().id());
        let mut short = Shortage::default();
        let mut look = |thread, waited: Option<Duration>| {
            short.worked = LOOK;
            short.look(thread, waited);
            short.is_there
        };
        assert!(!look(this, Some(FOR_LONG)), "it is not known over what time");
        assert!(look(this, Some(FOR_LONG + LOOK / WAITING)));
        assert!(look(other, Some(Duration::ZERO)), "nothing is known of that thread");
        assert!(!look(other, Some(LOOK / WAITING * 9 / 10)));
        assert!(!look(other, None), "the system doesn't tell");
        assert!(!look(other, Some(FOR_LONG)));
    }

    /// More threads work than there are processors, until this one has had to wait for one, and to rest.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_rests_when_others_have_no_processor_left() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let (done, before) = (AtomicBool::new(false), waited().expect("Linux tells"));
        thread::scope(|scope| {
            for _ in 0..2 * processors {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let mut rests = Rests::when_short(FOR_LONG);
            while rests.due().is_none() && rests.began.elapsed() < FOR_LONG {
                std::hint::spin_loop();
            }
            done.store(true, Ordering::Relaxed);
            assert!(rests.began.elapsed() < FOR_LONG, "it never had to rest");
        });
        assert!(waited().expect("Linux tells") > before);
    }
}
