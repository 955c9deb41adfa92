//! `ReadIndex` rounds (Raft thesis §6.4), shared: all reads that come while one runs are served by the next.
//!
//! A round that begins after a read has come confirms that read, whoever asked for it. One at a time is enough: it costs a
//! message to each follower and back, however many wait for it. A read that comes alone starts one at once; where processors
//! are short, one of several waits a little for most of the others ([`Siblings`]). What a round gives is the index that must
//! be applied here; each read waits for that by itself, so that none waits for another's.

use std::time::Duration;

use openraft::ReadPolicy;
use tokio::sync::{mpsc, oneshot};

use crate::raft::replica::Replica;
use crate::raft::siblings::Siblings;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::Index;
use crate::types::limits::REQUESTS_IN_FLIGHT_MAX;

/// Who waits for a round, and until when.
#[derive(Debug)]
pub(in crate::raft) struct Waiter {
    deadline: Deadline,
    confirmed: oneshot::Sender<Result<Index, Error>>,
}

/// Where they wait.
pub(in crate::raft) fn queue() -> (mpsc::Sender<Waiter>, mpsc::Receiver<Waiter>) {
    mpsc::channel(REQUESTS_IN_FLIGHT_MAX)
}

/// Carries out rounds while anybody waits for one; none lasts longer than `patience`. `is_short` says whether processors are.
pub(in crate::raft) async fn run<F>(
    mut queued: mpsc::Receiver<Waiter>,
    patience: Duration,
    mut is_short: impl FnMut() -> bool,
    round: impl Fn(Deadline) -> F,
) where
    F: Future<Output = Result<Index, Error>>,
{
    let mut siblings = Siblings::default();
    let mut waiting = Vec::new();
    while let Some(first) = queued.recv().await {
        waiting.push(first);
        siblings.gather(&mut queued, &mut waiting, &mut is_short).await;
        waiting.retain(|waiter| !waiter.confirmed.is_closed());
        let Some(last) = waiting.iter().map(|waiter| waiter.deadline).max() else { continue };
        let confirmed = round(last.at_most(patience)).await;
        siblings.there_are(waiting.len() + queued.len());
        for waiter in waiting.drain(..) {
            // Whoever waited may have gone when his time was over.
            drop(waiter.confirmed.send(confirmed.clone()));
        }
    }
}

/// Waits for the next round in `rounds`, and for its answer.
async fn next_round(rounds: &mpsc::Sender<Waiter>, deadline: Deadline) -> Result<Index, Error> {
    let stopped = || Error::unavailable("the replica is stopping");
    let answered = async {
        let (confirmed, answer) = oneshot::channel();
        rounds.send(Waiter { deadline, confirmed }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    };
    let late = || Error::unavailable("no quorum confirmed the leader in time");
    tokio::time::timeout_at(deadline.instant().into(), answered).await.map_err(|_| late())?
}

impl Replica {
    /// Returns once the published state holds everything that was committed when this was called.
    pub(in crate::raft) async fn confirm_in_a_round(
        &self,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let index = next_round(self.rounds(), deadline).await?;
        self.until_applied(index, deadline).await
    }

    /// One round.
    pub(in crate::raft) async fn round(self, deadline: Deadline) -> Result<Index, Error> {
        self.read_log_index(ReadPolicy::ReadIndex, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    /// Rounds that end when they are told to, and give their number.
    fn by_hand(is_short: bool) -> (mpsc::Sender<Waiter>, mpsc::Sender<()>, mpsc::Receiver<()>) {
        let (rounds, queued) = queue();
        let (end, ends) = mpsc::channel(8);
        let (begun, begins) = mpsc::channel(8);
        let state = std::sync::Arc::new((tokio::sync::Mutex::new(ends), Mutex::new(0)));
        let round = move |_| {
            let (state, begun) = (std::sync::Arc::clone(&state), begun.clone());
            async move {
                begun.send(()).await.expect("the test runs");
                state.0.lock().await.recv().await.expect("the test runs");
                let mut number = state.1.lock().expect("no panic under the lock");
                *number += 1;
                Ok(*number)
            }
        };
        tokio::spawn(run(queued, Duration::from_secs(10), move || is_short, round));
        (rounds, end, begins)
    }

    #[tokio::test]
    async fn a_read_that_comes_during_a_round_is_served_by_the_next() {
        let (rounds, end, mut begins) = by_hand(false);
        let read = || {
            let rounds = rounds.clone();
            tokio::spawn(async move { next_round(&rounds, soon()).await })
        };
        let first: Vec<_> = (0..3).map(|_| read()).collect();
        begins.recv().await.expect("a first round begins");
        let second: Vec<_> = (0..3).map(|_| read()).collect();
        while rounds.capacity() != REQUESTS_IN_FLIGHT_MAX - second.len() {
            yield_now().await;
        }
        end.send(()).await.expect("it runs");
        for read in first {
            assert_eq!(read.await.expect("it ends"), Ok(1));
        }
        begins.recv().await.expect("a second round begins");
        assert!(second.iter().all(|read| !read.is_finished()));
        end.send(()).await.expect("it runs");
        for read in second {
            assert_eq!(read.await.expect("it ends"), Ok(2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_processors_are_short_a_round_waits_for_most_of_those_who_were_there() {
        let (rounds, end, mut begins) = by_hand(true);
        let read = |count| {
            for _ in 0..count {
                let rounds = rounds.clone();
                tokio::spawn(async move { next_round(&rounds, soon()).await });
            }
        };
        let ms = Duration::from_millis(1);
        read(20);
        begins.recv().await.expect("nobody else was ever there");
        read(16);
        tokio::time::sleep(ms).await;
        end.send(()).await.expect("it runs");
        assert!(timeout(ms, begins.recv()).await.is_err(), "the first twenty might come back");
        read(12);
        assert!(timeout(ms, begins.recv()).await.is_ok(), "that is three quarters");
        assert_eq!(rounds.capacity(), REQUESTS_IN_FLIGHT_MAX);
    }

    #[tokio::test]
    async fn nobody_has_a_round_for_who_has_gone_and_who_is_left_is_told() {
        let (rounds, queued) = queue();
        let (confirmed, gone) = oneshot::channel();
        drop(gone);
        rounds.send(Waiter { deadline: soon(), confirmed }).await.expect("room");
        let never = |_| async { panic!("a round for nobody") };
        let ended = tokio::spawn(run(queued, Duration::from_secs(10), || false, never));
        yield_now().await;
        drop(rounds);
        ended.await.expect("it ends with the queue");

        let (rounds, queued) = queue();
        let read = tokio::spawn({
            let rounds = rounds.clone();
            async move { next_round(&rounds, soon()).await }
        });
        yield_now().await;
        drop(queued);
        assert_eq!(
            read.await.expect("it ends"),
            Err(Error::unavailable("the replica is stopping"))
        );
    }
}
