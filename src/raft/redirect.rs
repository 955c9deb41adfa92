//! Requests that come while nobody leads wait here a moment for whoever will, instead of being
//! sent round by whoever routes them: a failover is shorter than a pause between two rounds.

use openraft::async_runtime::watch::WatchReceiver;

use crate::raft::replica::Replica;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::limits::{LEADER_RECHECK, LEADER_WAIT, LEADER_WAIT_MARGIN};

impl Replica {
    /// What `call` answers; while no leader is known it waits for one, at most [`LEADER_WAIT`],
    /// and answers before the deadline, so that whoever asked hears for certain that nothing was
    /// done.
    pub(in crate::raft) async fn once_led<T, F>(
        &self,
        deadline: Deadline,
        call: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let patience = deadline.earlier_by(LEADER_WAIT_MARGIN).at_most(LEADER_WAIT);
        loop {
            let answer = call().await;
            let leaderless = matches!(answer, Err(Error::NotLeader { leader: None }));
            if !leaderless || patience.has_passed() {
                return answer;
            }
            let known = Box::pin(self.leader_known());
            let waited = tokio::time::timeout_at(patience.instant().into(), known);
            if waited.await.is_err() {
                return answer;
            }
        }
    }

    /// Waits until a leader is known: another, or this replica with a quorum behind it. Takes
    /// [`LEADER_RECHECK`] at least, so that one who asks again on it never spins.
    async fn leader_known(&self) {
        let mut server = self.raft().server_metrics();
        let mut data = self.raft().data_metrics();
        loop {
            server.borrow_and_update();
            data.borrow_and_update();
            tokio::time::sleep(LEADER_RECHECK).await;
            if self.leader().is_some() {
                return;
            }
            let changed = tokio::select! {
                biased;
                changed = server.changed() => changed.is_ok(),
                changed = data.changed() => changed.is_ok(),
            };
            if !changed {
                // Raft has ended.
                std::future::pending::<()>().await;
            }
        }
    }
}
