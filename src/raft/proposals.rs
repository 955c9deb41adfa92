//! Writes on their way into Raft: those that are there together go in together.
//!
//! Raft's task makes one append to the log, and one message to each follower, of all the writes that it finds when it
//! runs. It is woken by the first of them, though, and would run before the second was handed over. So one task hands
//! them over, once everybody who can has brought his. A write that comes alone goes on at once.
//!
//! Where processors are short it waits a little for most of those that are likely to come: see [`Siblings`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openraft::alias::WriteResponderOf;
use tokio::sync::mpsc;
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};

use crate::raft::config::TypeConfig;
use crate::rpc::gather;
use crate::store::rests::Shortage;
use crate::types::command::Command;
use crate::types::host;
use crate::types::limits::PROPOSALS_MAX;

/// So few writes are never waited for.
const FEW: usize = 8;
/// The longest that writes wait for others.
const WAIT_MAX: Duration = Duration::from_millis(3);
/// For so many batches after a wait that was in vain, those under way are not waited for.
const VAIN_BATCHES: u32 = 64;

/// Who hears what came of a write.
type Responder = WriteResponderOf<TypeConfig>;
/// A command, and who hears what came of it.
pub(in crate::raft) type Proposal = (Command, Responder);

/// Where they wait; full, it makes who comes wait, too.
pub(in crate::raft) fn queue() -> (mpsc::Sender<Proposal>, mpsc::Receiver<Proposal>) {
    mpsc::channel(PROPOSALS_MAX)
}

/// Hands them over until that fails, for Raft has stopped then. What is left is dropped, and so is told whoever waits
/// for it; one that nobody waits for any more is not handed over. `is_short` says whether processors are.
pub(in crate::raft) async fn run<F>(
    mut queued: mpsc::Receiver<Proposal>,
    mut is_short: impl FnMut() -> bool,
    hand_over: impl Fn(Command, Responder) -> F,
) where
    F: Future<Output = bool>,
{
    let mut siblings = Siblings::default();
    let mut batch = Vec::new();
    while let Some(first) = queued.recv().await {
        batch.push(first);
        siblings.gather(&mut queued, &mut batch, &mut is_short).await;
        for (command, mut responder) in batch.drain(..) {
            if responder.is_awaited() {
                responder.count(&siblings.under_way);
                // tokio would have this task pause at each 128th, and Raft's run before the others are there.
                if !unconstrained(hand_over(command, responder)).await {
                    return;
                }
            }
        }
    }
}

/// Says whether processors are short, to who asks it again and again.
pub(in crate::raft) fn shortage() -> impl FnMut() -> bool {
    let (mut shortage, mut asked) = (Shortage::default(), host::now());
    move || {
        let now = host::now();
        let before = std::mem::replace(&mut asked, now);
        shortage.is_there_after(now.saturating_duration_since(before))
    }
}

/// How many writes there are at a time, to hand most of them over together where processors are short.
///
/// Each batch costs its syncs, messages and wake-ups, however many writes it has. Clients who wait for their answers before they write
/// again form two crowds, whose writes are under way in turns, and each batch has less than half of what it might.
/// So a batch waits for three quarters of the writes that were there lately, under way ones included, and the crowds become one.
/// `commit_delay` and `commit_siblings` of `PostgreSQL` do the same by hand.
///
/// With processors to spare that would make writes wait for nothing, so then it doesn't. Nor for those under way where they take longer
/// than the wait: after one in vain only what a batch had lately is expected for a while.
#[derive(Default)]
struct Siblings {
    /// Those that were handed over and are not answered.
    under_way: Arc<AtomicUsize>,
    /// How many waited or were under way, at most; by an eighth less from one batch to the next.
    most: usize,
    /// For so many batches those under way are not counted.
    vain: u32,
}

impl Siblings {
    /// Adds what is queued to a batch that was begun, and what will soon be if `is_short` says that processors are.
    async fn gather(
        &mut self,
        queued: &mut mpsc::Receiver<Proposal>,
        batch: &mut Vec<Proposal>,
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
    use std::sync::Mutex;

    use tokio::time::sleep;

    use super::*;
    use crate::raft::writes::Answer;
    use crate::types::command::Action;

    fn proposal(ts: u64) -> Proposal {
        // Nobody will hear of it.
        (Command { ts, action: Action::Expire }, Answer::new(None).0)
    }

    /// Clients who write again once they are answered.
    struct Clients {
        siblings: Siblings,
        to: mpsc::Sender<Proposal>,
        queued: mpsc::Receiver<Proposal>,
    }

    impl Clients {
        fn new() -> Self {
            let (to, queued) = queue();
            Self { siblings: Siblings::default(), to, queued }
        }

        /// A batch that so many begin and so many more join after a while; how long it was waited for.
        async fn batch(
            &mut self,
            begin: u64,
            join: u64,
            after: Duration,
            is_short: bool,
        ) -> (Vec<Proposal>, Duration) {
            let put = async |count, to: &mpsc::Sender<Proposal>| {
                for ts in 0..count {
                    to.send(proposal(ts)).await.expect("there is room");
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
            for (_, answer) in &mut batch {
                answer.count(&self.siblings.under_way);
            }
            (batch, waited)
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

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_handed_over_in_one_go_and_is_under_way_then() {
        let (proposals, queued) = queue();
        let (handed, mut over) = mpsc::channel(PROPOSALS_MAX);
        let running = tokio::spawn(run(
            queued,
            || true,
            move |_, answer| {
                let handed = handed.clone();
                async move { handed.send(answer).await.is_ok() }
            },
        ));
        let mut kept = Vec::new();
        let mut propose = async |count| {
            for _ in 0..count {
                let (answer, hears) = Answer::new(None);
                kept.push(hears);
                let command = Command { ts: 0, action: Action::Expire };
                proposals.send((command, answer)).await.expect("there is room");
            }
        };
        let start = Instant::now();
        let mut under_way = Vec::new();
        let reasons = ["nobody else was there", "the first might come back", "those were few"];
        for ((count, waited), why) in
            [(8, Duration::ZERO), (8, WAIT_MAX), (300, WAIT_MAX)].into_iter().zip(reasons)
        {
            propose(count).await;
            under_way.push(over.recv().await.expect("it is handed over"));
            assert_eq!((over.len() + 1, start.elapsed()), (count, waited), "{why}");
            under_way.extend(std::iter::from_fn(|| over.try_recv().ok()));
        }
        running.abort();
    }

    #[tokio::test]
    async fn they_go_in_the_order_of_their_coming_but_for_those_that_nobody_awaits() {
        let (proposals, queued) = queue();
        let mut awaited = Vec::new();
        for ts in 0..5 {
            let (answer, heard) = Answer::new(None);
            proposals.send((Command { ts, action: Action::Expire }, answer)).await.expect("room");
            if ts != 2 {
                awaited.push(heard);
            }
        }
        drop(proposals);
        let handed_over = Mutex::new(Vec::new());
        run(
            queued,
            || false,
            |command, _| {
                let mut handed_over = handed_over.lock().expect("no panic under the lock");
                handed_over.push(command.ts);
                let goes_on = command.ts != 3;
                async move { goes_on }
            },
        )
        .await;
        assert_eq!(
            *handed_over.lock().expect("no panic under the lock"),
            [0, 1, 3],
            "until it fails"
        );
        for heard in awaited {
            assert!(heard.await.is_err(), "whoever waits is told");
        }
    }
}
