//! Writes on their way into Raft: those that are there together go in together.
//!
//! Raft's task makes one append to the log, and one message to each follower, of all the writes that it finds when it
//! runs. It is woken by the first of them, though, and would run before the second was handed over. So one task hands
//! them over, once everybody who can has brought his. A write that comes alone goes on at once.
//!
//! Where processors are short it waits a little for most of those that are likely to come ([`Siblings`]).

use openraft::alias::WriteResponderOf;
use tokio::sync::mpsc;
use tokio::task::unconstrained;

use crate::raft::config::TypeConfig;
use crate::raft::siblings::Siblings;
use crate::types::command::Command;
use crate::types::limits::PROPOSALS_MAX;

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
                responder.count(siblings.begin());
                // tokio would have this task pause at each 128th, and Raft's run before the others are there.
                if !unconstrained(hand_over(command, responder)).await {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::raft::siblings::WAIT_MAX;
    use crate::raft::writes::Answer;
    use crate::types::command::Action;

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
