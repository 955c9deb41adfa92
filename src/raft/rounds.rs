//! `ReadIndex` rounds (Raft thesis §6.4), shared: all reads that come while one runs are served by the next.
//!
//! A round that begins after a read has come confirms that read, whoever asked for it. One at a time is enough: it costs a
//! message to each follower and back, however many wait for it. A read that comes alone starts one at once.

use openraft::ReadPolicy;
use tokio::sync::{mpsc, oneshot};

use crate::raft::replica::Replica;
use crate::rpc::gather;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::limits::REQUESTS_IN_FLIGHT_MAX;

/// Who waits for a round, and until when.
pub(in crate::raft) struct Waiter {
    deadline: Deadline,
    confirmed: oneshot::Sender<Result<(), Error>>,
}

/// Where they wait.
pub(in crate::raft) fn queue() -> (mpsc::Sender<Waiter>, mpsc::Receiver<Waiter>) {
    mpsc::channel(REQUESTS_IN_FLIGHT_MAX)
}

/// Carries out rounds while anybody waits for one.
pub(in crate::raft) async fn run(replica: Replica, mut queued: mpsc::Receiver<Waiter>) {
    let mut waiting = Vec::new();
    while let Some(first) = queued.recv().await {
        gather(|| queued.len()).await;
        waiting.push(first);
        while let Ok(waiter) = queued.try_recv() {
            waiting.push(waiter);
        }
        waiting.retain(|waiter| !waiter.confirmed.is_closed());
        let Some(last) = waiting.iter().map(|waiter| waiter.deadline).max() else { continue };
        let confirmed = replica.confirm(ReadPolicy::ReadIndex, last).await;
        for waiter in waiting.drain(..) {
            // Whoever waited may have gone when his time was over.
            drop(waiter.confirmed.send(confirmed.clone()));
        }
    }
}

impl Replica {
    /// Returns once the published state holds everything that was committed when this was called.
    pub(in crate::raft) async fn confirm_in_a_round(
        &self,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let stopped = || Error::unavailable("the replica is stopping");
        let round = async {
            let (confirmed, answered) = oneshot::channel();
            self.rounds().send(Waiter { deadline, confirmed }).await.map_err(|_| stopped())?;
            answered.await.map_err(|_| stopped())?
        };
        let late = || Error::unavailable("no quorum confirmed the leader in time");
        tokio::time::timeout_at(deadline.instant().into(), round).await.map_err(|_| late())?
    }
}
