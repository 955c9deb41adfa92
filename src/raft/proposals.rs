//! Writes on their way into Raft: those that are there together go in together.
//!
//! Raft's task makes one append to the log, and one message to each follower, of all the writes that it finds when it
//! runs. It is woken by the first of them, though, and would run before the second was handed over. So one task hands
//! them over, once everybody who can has brought his. There is no timer in it: a write that comes alone goes on at once.

use openraft::alias::WriteResponderOf;
use tokio::sync::mpsc;

use crate::raft::config::{Raft, TypeConfig};
use crate::rpc::gather;
use crate::types::command::Command;
use crate::types::limits::PROPOSALS_MAX;

/// A command, and who hears what came of it.
pub(in crate::raft) type Proposal = (Command, WriteResponderOf<TypeConfig>);

/// Where they wait; full, it makes who comes wait, too.
pub(in crate::raft) fn queue() -> (mpsc::Sender<Proposal>, mpsc::Receiver<Proposal>) {
    mpsc::channel(PROPOSALS_MAX)
}

/// Hands them over until Raft stops. What is still there then is dropped, and so is who waits for it told.
pub(in crate::raft) async fn run(raft: Raft, mut queued: mpsc::Receiver<Proposal>) {
    while let Some(first) = queued.recv().await {
        gather(|| queued.len()).await;
        let mut next = Some(first);
        while let Some((command, responder)) = next {
            if raft.client_write_ff(command, Some(responder)).await.is_err() {
                return;
            }
            next = queued.try_recv().ok();
        }
    }
}
