//! Writes on their way into Raft: those that are there together go in together.
//!
//! Raft's task makes one append to the log, and one message to each follower, of all the writes that it finds when it
//! runs. It is woken by the first of them, though, and would run before the second was handed over. So one task hands
//! them over, once everybody who can has brought his. There is no timer in it: a write that comes alone goes on at once.

use openraft::alias::WriteResponderOf;
use tokio::sync::mpsc;

use crate::raft::config::TypeConfig;
use crate::rpc::gather;
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
/// for it; one that nobody waits for any more is not handed over.
pub(in crate::raft) async fn run<F>(
    mut queued: mpsc::Receiver<Proposal>,
    hand_over: impl Fn(Command, Responder) -> F,
) where
    F: Future<Output = bool>,
{
    while let Some(first) = queued.recv().await {
        gather(|| queued.len()).await;
        let mut next = Some(first);
        while let Some((command, responder)) = next {
            if responder.is_awaited() && !hand_over(command, responder).await {
                return;
            }
            next = queued.try_recv().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::raft::writes::Answer;
    use crate::types::command::Action;

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
        run(queued, |command, _| {
            let mut handed_over = handed_over.lock().expect("no panic under the lock");
            handed_over.push(command.ts);
            let goes_on = command.ts != 3;
            async move { goes_on }
        })
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
