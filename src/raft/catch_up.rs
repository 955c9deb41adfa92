//! When a leader makes room for others while it works for a follower that is far behind.
//!
//! That follower's work and the leader's for it are a burst on processors and disks that clients wait for, too. So the leader rests in between, as long as
//! others write: if nobody does, there is nobody to make room for, or the group can't commit without this follower. And only while
//! it gains on those writes, as far as a message or two tell, and for some seconds; then it rests shortly while it sends a snapshot, and no more while it sends
//! entries: a follower that can catch up must.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, sleep, sleep_until};

use crate::raft::log_store::Appended;
use crate::raft::replica::lock;
use crate::store::rests::{Rests, rest_after};
use crate::types::ids::{Index, NodeId};
use crate::types::limits::{APPEND_ENTRIES_MAX, CATCH_UP_RESTING_MAX, CATCH_UP_RESTING_SHARE};

/// How many committed entries a follower lacks that is far behind.
const FAR_BEHIND: u64 = 16 * NEARLY_THERE;
/// How many it may lack when it no longer is: one message.
const NEARLY_THERE: u64 = APPEND_ENTRIES_MAX as u64;

/// How far a follower is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gap {
    /// Not far.
    Near,
    /// Far.
    Far,
    /// Far, and others write, but less than it gets: there is time for a rest.
    Closing,
}

/// What an answer takes longer than that is not work, but a way.
const TOOK_MAX: Duration = Duration::from_millis(10);

/// A leader's entries to one follower.
#[derive(Debug)]
pub(in crate::raft) struct CatchUp {
    gap: Gap,
    /// Where commits were when the last entries were sent.
    committed: Index,
    /// When it was near last; some time after that there are no more rests, so that what is measured here by a message or two is never all that counts.
    near: Instant,
    resting_until: Instant,
}

impl CatchUp {
    /// One that begins.
    pub(in crate::raft) fn new() -> Self {
        let now = Instant::now();
        Self { gap: Gap::Near, committed: 0, near: now, resting_until: now }
    }

    /// So many entries were sent, the last of them at `upto`, while it was committed up to `committed`.
    pub(in crate::raft) fn sent(&mut self, entries: usize, upto: Index, committed: Index) {
        let lacks = committed.saturating_sub(upto);
        let came = committed.saturating_sub(mem::replace(&mut self.committed, committed));
        let far = lacks > if self.gap == Gap::Near { FAR_BEHIND } else { NEARLY_THERE };
        self.gap = match self.gap {
            _ if !far => Gap::Near,
            // What came meanwhile is known from the second message on.
            Gap::Far | Gap::Closing
                if (1..=entries as u64 / 2).contains(&came)
                    && self.near.elapsed() < CATCH_UP_RESTING_MAX =>
            {
                Gap::Closing
            }
            Gap::Near | Gap::Far | Gap::Closing => Gap::Far,
        };
        if self.gap == Gap::Near {
            self.near = Instant::now();
        }
    }

    /// Whether another message may go while so many are under way.
    pub(in crate::raft) fn may_send(&self, under_way: usize) -> bool {
        self.gap != Gap::Closing || under_way == 0
    }

    /// What was sent last was answered, after this time.
    pub(in crate::raft) fn answered(&mut self, took: Duration) {
        if self.gap == Gap::Closing {
            let until = Instant::now() + rest_after(took.min(TOOK_MAX));
            self.resting_until = self.resting_until.max(until);
        }
    }

    /// Waits until the rest is over.
    pub(in crate::raft) async fn rest(&self) {
        if self.gap == Gap::Closing {
            sleep_until(self.resting_until).await;
        }
    }
}

/// How long after a snapshot another one for the same follower means that the first came too late.
const SOON: Duration = Duration::from_secs(60);

/// How long one works on a snapshot with long rests, of these, if work on the one before it for the same follower was begun or done at this time. Who needs
/// another so soon was too late for the log behind that one: now there is no time for rests.
pub(in crate::raft) fn resting(before: Option<Instant>, long_for: Duration) -> Duration {
    match before {
        Some(before) if before.elapsed() < SOON => Duration::ZERO,
        Some(_) | None => long_for,
    }
}

/// When a leader began to send its last snapshot to each follower.
#[derive(Clone)]
pub(in crate::raft) struct Sends {
    last: Arc<Mutex<BTreeMap<NodeId, Instant>>>,
    /// How many entries may come while it rests for one.
    entries_max: u64,
}

impl Sends {
    /// Those of a leader that keeps so many entries behind a snapshot.
    pub(in crate::raft) fn new(keep_log_entries: u64) -> Self {
        let entries_max = keep_log_entries / CATCH_UP_RESTING_SHARE;
        Self { last: Arc::default(), entries_max }
    }

    /// Another one begins; `log` says what is written meanwhile.
    pub(in crate::raft) fn begin(&self, follower: NodeId, log: Appended) -> Sending {
        let before = lock(&self.last).insert(follower, Instant::now());
        let rests = Rests::always(resting(before, CATCH_UP_RESTING_MAX));
        let began = *log.borrow_watched();
        Sending { rests, entries_max: self.entries_max, log, began, last: began }
    }
}

/// A leader's snapshot to one follower.
pub(in crate::raft) struct Sending {
    rests: Rests,
    /// How many entries may come while it rests.
    entries_max: u64,
    log: Appended,
    /// Where the log ended when it began, and at the last rest.
    began: Option<Index>,
    last: Option<Index>,
}

impl Sending {
    /// Rests between two pieces, if it is time to.
    pub(in crate::raft) async fn rest(&mut self) {
        let Some(rest) = self.rests.due() else { return };
        let end = *self.log.borrow_watched();
        let came = end.unwrap_or(0).saturating_sub(self.began.unwrap_or(0));
        if mem::replace(&mut self.last, end) != end && came <= self.entries_max {
            sleep(rest).await;
        }
        self.rests.rested();
    }
}

#[cfg(test)]
mod tests {
    use openraft::async_runtime::watch::WatchSender;
    use openraft::type_config::TypeConfigExt;

    use super::*;
    use crate::raft::config::TypeConfig;

    const TOOK: Duration = Duration::from_millis(5);

    /// How long the leader rests when what it sent has been answered.
    async fn rest(catch_up: &mut CatchUp) -> Duration {
        catch_up.answered(TOOK);
        let answered = Instant::now();
        catch_up.rest().await;
        answered.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_rests_while_others_write_and_the_follower_gains_on_them() {
        let mut catch_up = CatchUp::new();
        let (mut upto, mut committed) = (1000, 100_000);
        let mut send = |catch_up: &mut CatchUp, came| {
            upto += 100;
            committed += came;
            catch_up.sent(100, upto, committed);
        };
        send(&mut catch_up, 0);
        assert!(catch_up.may_send(64) && rest(&mut catch_up).await.is_zero(), "it has just begun");
        for (came, rests) in [(1, true), (50, true), (0, false), (51, false), (7, true)] {
            send(&mut catch_up, came);
            assert_eq!(catch_up.may_send(1), !rests, "{came}");
            assert!(catch_up.may_send(0));
            assert_eq!(rest(&mut catch_up).await, if rests { 3 * TOOK } else { Duration::ZERO });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_rests_for_a_follower_that_is_nearly_there() {
        let mut catch_up = CatchUp::new();
        let mut committed = 100_000;
        let mut send = |catch_up: &mut CatchUp, lacks| {
            committed += 1;
            catch_up.sent(100, committed - lacks, committed);
            !catch_up.may_send(1)
        };
        assert!(!send(&mut catch_up, FAR_BEHIND) && !send(&mut catch_up, FAR_BEHIND));
        assert!(!send(&mut catch_up, FAR_BEHIND + 1) && send(&mut catch_up, FAR_BEHIND));
        assert!(send(&mut catch_up, NEARLY_THERE + 1) && !send(&mut catch_up, NEARLY_THERE));
        assert!(!send(&mut catch_up, FAR_BEHIND));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_rests_for_long() {
        let mut catch_up = CatchUp::new();
        let mut rests = 0;
        let began = Instant::now();
        for message in 0..10_000 {
            catch_up.sent(100, message, 100_000 + message);
            rests += u32::from(!catch_up.may_send(1));
            let before = Instant::now();
            // As over a long way.
            catch_up.answered(Duration::from_millis(300));
            catch_up.rest().await;
            assert!(before.elapsed() <= 3 * TOOK_MAX);
        }
        assert!(rests > 100 && began.elapsed() <= CATCH_UP_RESTING_MAX + 3 * TOOK_MAX, "{rests}");
    }

    /// Works for a millisecond or more, and says how long the rest is.
    async fn work(sending: &mut Sending) -> Duration {
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        let worked = Instant::now();
        sending.rest().await;
        worked.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn another_snapshot_soon_is_sent_without_rests() {
        let (log, appended) = TypeConfig::watch_channel(Some(7));
        let sends = Sends::new(100);
        let rests = async |follower| {
            let mut sending = sends.begin(NodeId(follower), appended.clone());
            let end = appended.borrow_watched().unwrap_or(0);
            log.send(Some(end + 1)).expect("it is heard");
            !work(&mut sending).await.is_zero()
        };
        assert!(rests(2).await && !rests(2).await);
        assert!(rests(3).await, "nothing was sent to that one");
        sleep(SOON / 2).await;
        assert!(!rests(2).await);
        sleep(SOON).await;
        assert!(rests(2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_is_sent_with_rests_until_much_has_come() {
        let (log, appended) = TypeConfig::watch_channel(Some(7));
        let entries_max = 100;
        let sends = Sends::new(entries_max * CATCH_UP_RESTING_SHARE);
        let mut sending = sends.begin(NodeId(2), appended);
        let mut work = async || work(&mut sending).await;
        assert!(work().await.is_zero(), "nobody writes");
        log.send(Some(8)).expect("it is heard");
        assert!(!work().await.is_zero());
        assert!(work().await.is_zero(), "nobody has written since");
        log.send(Some(7 + entries_max)).expect("it is heard");
        assert!(!work().await.is_zero());
        log.send(Some(8 + entries_max)).expect("it is heard");
        assert!(work().await.is_zero(), "the log behind it is not to be lost");
    }
}
