//! `--quorum` above the majority: a write waits until enough voters have it on disk.
//!
//! Raft commits with a majority; openraft reports how far each member's log is known to be on
//! disk. That report is watched by each waiting write through one shared channel, and costs
//! nothing when the majority is enough.

use std::collections::BTreeMap;

use openraft::async_runtime::watch::WatchReceiver;

use crate::raft::config::LogIdOf;
use crate::raft::replica::Replica;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::{Index, NodeId};

/// How many voters have an entry on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::raft) struct Acknowledged {
    /// So many are known to.
    pub(in crate::raft) acks: u32,
    /// So many had to.
    pub(in crate::raft) quorum: u32,
}

impl Replica {
    /// Voters that must have a write on disk before it is answered.
    pub fn quorum(&self) -> u32 {
        majority(self.voters().len()).max(self.options().quorum)
    }

    /// Waits until enough voters have the committed entry at `index`.
    pub(in crate::raft) async fn acknowledged(
        &self,
        index: Index,
        deadline: Deadline,
    ) -> Result<Acknowledged, Error> {
        let mut metrics = self.raft().data_metrics();
        loop {
            // They may change while it waits.
            let voters = self.voters();
            let majority = majority(voters.len());
            let quorum = majority.max(self.options().quorum);
            let known = {
                let metrics = metrics.borrow_and_update();
                metrics
                    .replication
                    .as_ref()
                    .map_or(0, |matched| acknowledgements(matched, &voters, index))
            };
            // It is committed, so a majority has it, whatever the report says by now.
            let acks = known.max(majority);
            if acks >= quorum {
                return Ok(Acknowledged { acks, quorum });
            }
            let changed = metrics.changed();
            match tokio::time::timeout_at(deadline.instant().into(), changed).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::outcome_unknown("the replica stopped meanwhile")),
                Err(_) => {
                    return Err(Error::outcome_unknown(format!(
                        "{acks} of {quorum} replicas acknowledged it in time"
                    )));
                }
            }
        }
    }
}

pub(in crate::raft) fn majority(voters: usize) -> u32 {
    u32::try_from(voters / 2 + 1).unwrap_or(u32::MAX)
}

fn acknowledgements(
    matched: &BTreeMap<NodeId, Option<LogIdOf>>,
    voters: &[NodeId],
    index: Index,
) -> u32 {
    let has = |node: &&NodeId| {
        matched.get(node).and_then(Option::as_ref).is_some_and(|id| id.index >= index)
    };
    u32::try_from(voters.iter().filter(has).count()).unwrap_or(u32::MAX)
}
