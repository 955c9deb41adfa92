//! How many requests of one kind there are at a time, to serve most of them together where processors are short.
//!
//! What is served together costs its messages, its syncs and its wake-ups once, however many it is. Clients who wait for
//! their answers before they ask again form two crowds, whose requests are under way in turns, and less than half of them
//! are served together. So who serves them waits for three quarters of those that were there lately, under way ones
//! included, and the crowds become one. `commit_delay` and `commit_siblings` of `PostgreSQL` do the same by hand.
//!
//! With processors to spare that would make requests wait for nothing, so then it doesn't. Nor for those under way where
//! they take longer than the wait: after one in vain only what was served together lately is expected for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::rpc::gather;

/// So few are never waited for.
const FEW: usize = 8;
/// The longest that some wait for others.
pub(in crate::raft) const WAIT_MAX: Duration = Duration::from_millis(3);
/// For so many batches after a wait that was in vain, those under way are not waited for.
const VAIN_BATCHES: u32 = 64;

/// How many there were lately.
#[derive(Default)]
pub(in crate::raft) struct Siblings {
    /// Those that were taken and are not answered.
    under_way: Arc<AtomicUsize>,
    /// How many waited or were under way, at most; by an eighth less from one batch to the next.
    most: usize,
    /// For so many batches those under way are not counted.
    vain: u32,
}

/// Counts one request for as long as it is under way.
pub(in crate::raft) struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Siblings {
    /// One of them is under way until this is dropped.
    pub(in crate::raft) fn begin(&self) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.under_way))
    }

    /// So many wait or are under way at this moment, for who serves one batch after the other.
    pub(in crate::raft) fn there_are(&mut self, count: usize) {
        if self.vain == 0 {
            self.most = self.most.max(count);
        }
    }

    /// Adds what is queued to a batch that was begun, and what will soon be if `is_short` says that processors are.
    pub(in crate::raft) async fn gather<T>(
        &mut self,
        queued: &mut mpsc::Receiver<T>,
        batch: &mut Vec<T>,
        mut is_short: impl FnMut() -> bool,
    ) {
        let mut end = None;
        loop {
            gather(|| queued.len()).await;
            while let Ok(next) = queued.try_recv() {
                batch.push(next);
            }
            let under_way = self.under_way.load(Ordering::Relaxed);
            let expected = if self.vain == 0 { batch.len() + under_way } else { batch.len() };
            self.most = self.most.max(expected);
            let enough = self.most - self.most / 4;
            if enough <= FEW || batch.len() >= enough || !is_short() {
                break;
            }
            let end = *end.get_or_insert_with(|| Instant::now() + WAIT_MAX);
            match timeout_at(end, queued.recv()).await {
                Ok(Some(next)) => batch.push(next),
                Ok(None) => break,
                Err(_) => {
                    (self.most, self.vain) = (batch.len(), VAIN_BATCHES + 1);
                    break;
                }
            }
        }
        self.vain = self.vain.saturating_sub(1);
        self.most -= self.most / 8;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Clients who ask again once they are answered.
    struct Clients {
        siblings: Siblings,
        to: mpsc::Sender<()>,
        queued: mpsc::Receiver<()>,
    }

    impl Clients {
        fn new() -> Self {
            let (to, queued) = mpsc::channel(64);
            Self { siblings: Siblings::default(), to, queued }
        }

        /// A batch that so many begin and so many more join after a while; how long it was waited for.
        async fn batch(
            &mut self,
            begin: u64,
            join: u64,
            after: Duration,
            is_short: bool,
        ) -> (Vec<UnderWay>, Duration) {
            let put = async |count, to: &mpsc::Sender<()>| {
                for _ in 0..count {
                    to.send(()).await.expect("there is room");
                }
            };
            put(begin, &self.to).await;
            let to = self.to.clone();
            let joins = tokio::spawn(async move {
                sleep(after).await;
                put(join, &to).await;
            });
            let before = Instant::now();
            let mut batch = vec![self.queued.recv().await.expect("one at least")];
            self.siblings.gather(&mut self.queued, &mut batch, || is_short).await;
            let waited = before.elapsed();
            joins.await.expect("no panic");
            (batch.iter().map(|()| self.siblings.begin()).collect(), waited)
        }

        /// Takes away what came too late for a batch.
        fn late(&mut self) -> usize {
            std::iter::from_fn(|| self.queued.try_recv().ok()).count()
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn where_processors_are_short_a_batch_waits_for_most_of_those_who_were_there() {
        let mut clients = Clients::new();
        let (first, waited) = clients.batch(32, 0, MS, true).await;
        assert_eq!((first.len(), waited), (32, Duration::ZERO), "nobody else was ever there");
        drop(first);
        let (second, waited) = clients.batch(20, 12, 2 * MS, true).await;
        assert_eq!((second.len(), waited), (32, 2 * MS), "they are back");
        let (third, waited) = clients.batch(32, 0, MS, true).await;
        assert_eq!((third.len(), waited), (32, WAIT_MAX), "so may those be who are under way");
        drop((second, third));
        let (fourth, waited) = clients.batch(20, 44, MS, false).await;
        assert_eq!((fourth.len(), waited), (20, Duration::ZERO), "there are processors to spare");
        assert_eq!(clients.late(), 44);
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_wait_for_few_nor_for_those_who_have_gone() {
        let mut clients = Clients::new();
        let (first, _) = clients.batch(64, 0, MS, true).await;
        drop(first);
        let (second, waited) = clients.batch(12, 30, 5 * MS, true).await;
        assert_eq!((second.len(), waited), (12, WAIT_MAX));
        assert_eq!(clients.late(), 30);
        drop(second);
        let (third, waited) = clients.batch(9, 4, MS, true).await;
        assert_eq!((third.len(), waited), (9, Duration::ZERO), "that is most of the last twelve");
        assert_eq!(clients.late(), 4);
        drop(third);
        let (fourth, waited) = clients.batch(1, 10, MS, true).await;
        assert_eq!((fourth.len(), waited), (1, Duration::ZERO), "they are too few");
    }

    #[tokio::test(start_paused = true)]
    async fn who_serves_one_batch_after_the_other_waits_for_those_he_has_served() {
        let mut clients = Clients::new();
        let mut batch = async |begin, there_are| {
            let (batch, waited) = clients.batch(begin, 0, MS, true).await;
            drop(batch);
            clients.siblings.there_are(there_are);
            waited
        };
        assert_eq!(batch(20, 64).await, Duration::ZERO);
        assert_eq!(batch(20, 64).await, WAIT_MAX, "there were 64");
        assert_eq!(
            batch(20, 64).await,
            Duration::ZERO,
            "it was in vain, so only those in a batch count"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn those_under_way_are_not_waited_for_again_and_again() {
        let mut clients = Clients::new();
        // They take for ever.
        let (slow, _) = clients.batch(64, 0, MS, true).await;
        let (first, waited) = clients.batch(20, 0, MS, true).await;
        assert_eq!((first.len(), waited), (20, WAIT_MAX));
        drop(first);
        for _ in 0..VAIN_BATCHES {
            let (next, waited) = clients.batch(20, 0, MS, true).await;
            assert_eq!((next.len(), waited), (20, Duration::ZERO));
        }
        let (last, waited) = clients.batch(20, 0, MS, true).await;
        assert_eq!((last.len(), waited), (20, WAIT_MAX), "it is tried now and then");
        drop(slow);
    }
}
