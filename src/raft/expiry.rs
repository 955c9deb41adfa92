//! Moves the group's time on when a value is over: readers see its end only once the log tells of it.
//!
//! Only a leader does. Its clock decides when, and the entry that it proposes decides what: so the end of
//! a value has its place among all writes, is the same on every replica, and stays, whoever leads
//! next and whatever his clock says. A value may be read for as long past its end as such an entry
//! takes, or as nobody leads.

use std::time::Duration;

use crate::raft::replica::Replica;
use crate::types::command::Action;
use crate::types::deadline::Deadline;
use crate::types::limits::{EXPIRY_LOOK_INTERVAL, EXPIRY_PATIENCE};

/// Looks for values that are over for as long as the replica runs.
pub(in crate::raft) async fn run(replica: Replica) {
    loop {
        tokio::time::sleep(replica.expire().await).await;
    }
}

impl Replica {
    /// Removes some of what is over, if this replica leads. Returns when to look again.
    async fn expire(&self) -> Duration {
        if !self.leads() {
            return EXPIRY_LOOK_INTERVAL;
        }
        let now = self.clock().now_ms();
        let left = self.published().read(|state| {
            let (expires, _) = state.first_over()?;
            Some(expires.saturating_sub(now.max(state.clock)))
        });
        let Some(left) = left else { return EXPIRY_LOOK_INTERVAL };
        if left > 0 {
            return Duration::from_millis(left).min(EXPIRY_LOOK_INTERVAL);
        }
        let deadline = Deadline::after(EXPIRY_PATIENCE);
        match self.propose(Action::Expire, None, deadline).await {
            Ok(_) => Duration::ZERO,
            // Whoever leads by now does it.
            Err(_) => EXPIRY_LOOK_INTERVAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::raft::replica::tests::alone;
    use crate::types::clock::{Clock, TimestampMs};
    use crate::types::command::{KeyWrite, Write};
    use crate::types::key::Key;
    use crate::types::kv::{Consistency, KvReply, KvRequest};
    use crate::types::value::Value;

    /// A clock that a test sets.
    struct Set(AtomicU64);

    impl Clock for Set {
        fn now_ms(&self) -> TimestampMs {
            self.0.load(Ordering::Relaxed)
        }
    }

    async fn open(data: &Path, now: u64) -> (Replica, Arc<Set>) {
        let clock = Arc::new(Set(AtomicU64::new(now)));
        let replica = Replica::open(alone(data), Arc::clone(&clock) as Arc<dyn Clock>).await;
        let replica = replica.expect("it opens");
        replica.form().await.expect("it forms");
        (replica, clock)
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    async fn put_for(replica: &Replica, key: &str, ttl_ms: u64) -> TimestampMs {
        let write = Write::PutFor { value: Value::text("v"), ttl_ms };
        let key = Key::new(key).expect("a key");
        let write = KeyWrite { key, condition: None, write };
        let KvReply::Written(written) = call(replica, write.into()).await else { panic!("a read") };
        written.expires.expect("it ends")
    }

    async fn call(replica: &Replica, request: KvRequest) -> KvReply {
        loop {
            match replica.call(request.clone(), soon()).await {
                Ok(reply) => return reply,
                // It has just been opened.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn has(replica: &Replica, key: &str) -> bool {
        let key = Key::new(key).expect("a key");
        match call(replica, KvRequest::get(key, Consistency::Linearizable)).await {
            KvReply::Read(read) => read.item.is_some(),
            KvReply::Written(_) | KvReply::Txn(_) => panic!("not a read"),
        }
    }

    async fn until_gone(replica: &Replica, key: &str) {
        let begun = Instant::now();
        while has(replica, key).await {
            assert!(begun.elapsed() < Duration::from_secs(30), "{key} never ends");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Also when the next leader's clock is behind by an hour.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_found_to_be_over_is_never_read_again() {
        const HOUR: u64 = 3_600_000;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (replica, clock) = open(dir.path(), 10 * HOUR).await;
        assert_eq!(put_for(&replica, "a", 1000).await, 10 * HOUR + 1000);
        put_for(&replica, "b", 5000).await;
        assert!(has(&replica, "a").await);
        clock.0.store(10 * HOUR + 1000, Ordering::Relaxed);
        until_gone(&replica, "a").await;
        assert!(has(&replica, "b").await);
        replica.shutdown().await;

        let (replica, clock) = open(dir.path(), 9 * HOUR).await;
        assert!(!has(&replica, "a").await && has(&replica, "b").await);
        // The group's time stands still until this clock has come to it, and nothing ends early.
        assert_eq!(put_for(&replica, "c", 1000).await, 10 * HOUR + 2000);
        clock.0.store(10 * HOUR + 1999, Ordering::Relaxed);
        put_for(&replica, "d", HOUR).await;
        assert!(has(&replica, "c").await);
        clock.0.store(10 * HOUR + 2000, Ordering::Relaxed);
        until_gone(&replica, "c").await;
        clock.0.store(20 * HOUR, Ordering::Relaxed);
        for key in ["b", "d"] {
            until_gone(&replica, key).await;
        }
        assert_eq!(replica.status().keys, 0, "what is over is removed");
        replica.shutdown().await;
    }

    /// Without a value that ends nothing is proposed.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_group_without_values_that_end_is_left_in_peace() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (replica, _clock) = open(dir.path(), 1000).await;
        call(&replica, KeyWrite::put(Key::new("k").expect("a key"), Value::text("v")).into()).await;
        let before = replica.status().last_index;
        assert_eq!(replica.expire().await, EXPIRY_LOOK_INTERVAL);
        assert_eq!(replica.status().last_index, before);
        replica.shutdown().await;
    }
}
