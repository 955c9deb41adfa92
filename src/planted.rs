//! Bugs that can be switched on: they show that a test harness finds what it says it finds.
//!
//! A checker that has never failed proves nothing. With the cargo feature `planted-bugs` (never on
//! by default, never in a release) the environment variable `SAGE_BUG=<name>` breaks the server in
//! one place, the way a real mistake would, and a run of the harness must then end with an
//! anomaly. Each variant of [`Bug`] says what it breaks, which promise falls, and how that shows.
//!
//! Without the feature [`bug`] is `false` at compile time, so that the optimizer leaves nothing of
//! it, and the variable means nothing. With it, [`plant`] reads the variable once, at the start of
//! the process; this is the one piece of global state in the program, for a bug has no place of
//! its own. Each hook is one condition; what a bug needs beside it stands here.

use std::io;
#[cfg(feature = "planted-bugs")]
use std::sync::OnceLock;
use std::time::Duration;

use crate::types::host;

/// The environment variable.
pub const VARIABLE: &str = "SAGE_BUG";

/// How long [`Bug::AckBeforeSync`] keeps what it has acknowledged in memory.
pub const WRITE_LAG: Duration = Duration::from_millis(100);
/// How long each write of the log takes with [`Bug::SlowDisk`].
pub const SLOW_WRITE: Duration = Duration::from_millis(400);
/// How long a leader with [`Bug::AckMinority`] waits for its followers.
pub const PATIENCE: Duration = Duration::from_millis(300);

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
        /// Something that is broken on purpose.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Bug { $($(#[$doc])* $bug,)* }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// What the environment variable calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => $name,)* }
            }
        }
    };
}

bugs! {
    /// The log acknowledges entries when they are queued and writes them 100 ms later. Breaks: an
    /// acknowledged write is on disk. Shows when all replicas of a group, or a group of one, are
    /// killed at once: the newest acknowledged writes are gone.
    AckBeforeSync = "ack-before-sync",
    /// Votes and terms are not written to disk, neither when they are given nor when the log is
    /// purged. Breaks: a replica votes once in a term, and its term never goes back. Shows as the
    /// `term` in `/status` of a replica that goes back over a restart, and as two leaders of one
    /// term, or servers that end by themselves, when whole groups are restarted.
    ForgetVote = "forget-vote",
    /// A leader answers linearizable reads from its own state, asking nobody. Breaks
    /// linearizability. Shows as stale reads from a leader that was paused or cut off and has been
    /// replaced, and from a new one that has not yet applied what was committed.
    SkipReadIndex = "skip-read-index",
    /// A replica answers an append that it refused, because the leader's term is over, with
    /// success. Breaks: no leader of an older term gets anything acknowledged. Shows when a leader
    /// that was paused or cut off comes back: its acknowledged writes vanish and its reads are
    /// stale, until it hears from the new one.
    SkipTermCheck = "skip-term-check",
    /// One of a hundred commands is applied twice, on each replica others. Breaks: replicas that
    /// apply the same log have the same state, and a write takes effect once. Shows as different
    /// hashes at the same `applied`, as versions that go back when the leader changes, and as
    /// deletes of a key that was there answered with `existed:false`.
    ApplyTwice = "apply-twice",
    /// A snapshot leaves out its last key, and its counts agree. Breaks: a snapshot stands for all
    /// of the log up to it. Shows on a replica that has loaded one, at a restart or from its
    /// leader: another hash at the same `applied`, and, once it leads, a lost key.
    ShortSnapshot = "short-snapshot",
    /// A group serves and applies whatever it is asked. Breaks: a key is only ever in the group
    /// that owns it. Shows when a replica is asked for a foreign key: `200` or `404`, not `421`.
    IgnoreOwnership = "ignore-ownership",
    /// A coordinator gives its writes no names, and sends one again whose fate is unknown, as if it had
    /// been refused. Breaks:
    /// a write takes effect once, and one that was refused never does. Shows when connections
    /// break or leaders die under load: where a key has several writers, it goes back to an older
    /// value; a conditional write answers `412` and has taken effect; so does, when the time is up
    /// meanwhile, a `503`.
    RetryUnknown = "retry-unknown",
    /// A leader's lease never ends. Breaks what lease reads promise while clocks are right. Shows
    /// as stale lease reads from a leader that was paused or cut off and has been replaced.
    StaleLease = "stale-lease",
    /// A leader whose followers do not answer within 300 ms answers a write as if it were
    /// committed. Breaks: an acknowledged write is on a majority. Shows when a leader is cut off
    /// under load and replaced: acknowledged writes are gone.
    AckMinority = "ack-minority",
    /// Half of the times, what was applied is not shown to readers before something else is. Breaks
    /// linearizability, even in calm weather. Shows as a read that misses a write that was
    /// acknowledged just before it: within milliseconds under load, for ever on a quiet group.
    LatePublish = "late-publish",
    /// Each replica stamps writes with its own clock as it applies them. Breaks: replicas that
    /// apply the same log have the same state. Shows as different hashes at the same `applied`,
    /// and as a `ts` that changes when the leader does or the group restarts.
    OwnClock = "own-clock",
    /// A delete does not raise the version floor, so the next write of that key starts again at an
    /// old version. Breaks: the version of a key never goes back, on which conditional writes
    /// rely. Shows as a version seen twice.
    ForgetFloor = "forget-floor",
    /// Each sync takes 400 ms. Breaks nothing: a leader with such a disk hands leadership over.
    SlowDisk = "slow-disk",
    /// The two-hundredth sync of the log fails, and what it wrote may be on disk or not. Breaks
    /// nothing: the process ends at once, acknowledges nothing of it, and the group goes on.
    FailingSync = "failing-sync",
    /// One of a hundred values is applied with one bit of its last digit flipped, in memory only: the log
    /// is right. For one replica of a group, not for all. Breaks: replicas that apply the same log have
    /// the same state. Shows as another hash at the same `applied`, until the others have this replica
    /// condemn itself, and as `differs` in the `/status` of theirs; and as a value that was never
    /// written, from this replica's stale reads and while it leads.
    FlipBit = "flip-bit",
    /// The transaction in each hundredth entry is applied without its last operation, on every replica
    /// alike, and answered as if it had been. Breaks: a transaction happens as a whole or not at all.
    /// Replicas agree, and each key for itself has a history that is right; it shows only where the
    /// keys of a transaction are read together: in a bank as money that is made or lost.
    TornTxn = "torn-txn",
    /// One of a hundred changes is not noted for watchers, on each replica others. Breaks: who watches a key
    /// is told every change. What is stored is right; it shows only where what was told is held against what was
    /// acknowledged.
    LostEvent = "lost-event",
    /// A coordinator answers `504` as soon as the answer to a write is lost, although the write has a name
    /// under which it may be sent again. Breaks: a `504` means that the deadline has passed. Shows when a
    /// leader dies or a connection breaks under load: as a `504` long before the deadline.
    Impatient = "impatient",
}

/// Whether this bug is planted.
#[cfg(not(feature = "planted-bugs"))]
#[inline]
pub const fn bug(_: Bug) -> bool {
    false
}

/// Reads the environment; without the feature there is nothing to read.
#[cfg(not(feature = "planted-bugs"))]
pub const fn plant() -> Result<(), String> {
    Ok(())
}

#[cfg(feature = "planted-bugs")]
static PLANTED: OnceLock<Bug> = OnceLock::new();

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
pub fn bug(bug: Bug) -> bool {
    PLANTED.get() == Some(&bug)
}

/// Plants what [`VARIABLE`] names, for the whole process, with a warning in the log. A name that
/// no bug has is refused with a sentence.
#[cfg(feature = "planted-bugs")]
pub fn plant() -> Result<(), String> {
    let Some(name) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let bug = parse(&name.to_string_lossy())?;
    let planted = *PLANTED.get_or_init(|| bug);
    tracing::warn!(
        bug = planted.name(),
        "THIS SERVER IS BROKEN ON PURPOSE: {VARIABLE} is set; trust it with nothing"
    );
    Ok(())
}

#[cfg(feature = "planted-bugs")]
fn parse(name: &str) -> Result<Bug, String> {
    let known = Bug::ALL.iter().find(|bug| bug.name() == name);
    known.copied().ok_or_else(|| {
        let names: Vec<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("{VARIABLE}={name} is no planted bug; there are {}", names.join(", "))
    })
}

/// True one of so many times, on each replica at other times.
pub fn one_of(times: u32) -> bool {
    host::random().is_multiple_of(u64::from(times))
}

/// For [`Bug::FlipBit`]: the same bytes but for the lowest bit of the last digit, so that text is still
/// text and JSON still JSON; without a digit the same.
pub fn flip(bytes: &[u8]) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    if let Some(digit) = flipped.iter_mut().rfind(|byte| byte.is_ascii_digit()) {
        *digit ^= 1;
    }
    flipped
}

/// For [`Bug::TornTxn`]: whether it strikes the entry with this index, the same on every replica.
pub const fn tears(index: u64) -> bool {
    index.is_multiple_of(100)
}

/// Keeps the thread that writes the log from it for a while.
#[expect(clippy::disallowed_methods, reason = "what it waits for is that time passes")]
pub fn lag() {
    std::thread::sleep(WRITE_LAG);
}

/// The error of a sync that fails, when it is time for it.
pub fn failing_sync(batches: u64) -> io::Result<()> {
    const FAILING: u64 = 200;
    if batches < FAILING { Ok(()) } else { Err(io::Error::other("Input/output error (planted)")) }
}

/// Keeps the thread that writes the log busy as a slow disk does.
#[expect(clippy::disallowed_methods, reason = "what it waits for is that time passes")]
pub fn slow_disk() {
    std::thread::sleep(SLOW_WRITE);
}

#[cfg(all(test, feature = "planted-bugs"))]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        for bug in Bug::ALL {
            assert_eq!(parse(bug.name()), Ok(*bug));
        }
        let refused = parse("no-such-bug").expect_err("there is none");
        assert!(refused.contains("ack-before-sync") && refused.contains("own-clock"), "{refused}");
        assert!(parse("").is_err());
    }

    #[test]
    fn a_flipped_bit_is_one_bit_of_a_digit() {
        assert_eq!(flip(b"value of 18."), b"value of 19.");
        assert_eq!(flip(b"[1,2,10]"), b"[1,2,11]");
        assert_eq!((flip(b"none"), flip(b"")), (b"none".to_vec(), Vec::new()));
    }

    #[test]
    fn nothing_is_planted_unless_it_is_asked_for() {
        assert!(Bug::ALL.iter().all(|planted| !bug(*planted)));
    }
}
