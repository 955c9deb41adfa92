//! A replica as a simulation sees it: from inside, at any moment, without asking it.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use crate::raft::replica::Replica;
use crate::raft::wire;
use crate::types::ids::{Index, LogId, NodeId, StateHash, Vote};
use crate::types::log::Entry;

/// What one replica is and has.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each with its name")]
#[derive(Clone, Debug)]
pub(crate) struct Inspection {
    pub(crate) node: NodeId,
    /// Whether it believes that it leads.
    pub(crate) leads: bool,
    /// Its last vote, on disk.
    pub(crate) vote: Vote,
    /// What it knows to be committed.
    pub(crate) committed: Option<LogId>,
    pub(crate) applied: Option<LogId>,
    /// The hash of what it has applied.
    pub(crate) hash: StateHash,
    pub(crate) last: Option<LogId>,
    /// Whether it is a voter by the last configuration that it has applied, which is not a joint one and
    /// the newest that it has.
    pub(crate) voter: bool,
    /// Where that configuration stands.
    pub(crate) membership: Option<LogId>,
    /// Counts what was cut from its log at either end.
    pub(crate) cuts: u64,
}

impl Replica {
    /// What this replica is and has now. The hash is that of `before` if nothing was applied since.
    pub(crate) fn inspect(&self, before: Option<&Inspection>) -> Inspection {
        let state = self.published().frozen();
        let node = self.member().node;
        let hashed = before.filter(|before| before.node == node && before.applied == state.applied);
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let newest = metrics.membership_config.log_id().as_ref().map(wire::log_id);
        let membership = &state.membership;
        let settled = newest == membership.id && membership.membership.voters.len() == 1;
        Inspection {
            node,
            leads: metrics.state == ServerState::Leader,
            vote: wire::vote(&metrics.vote),
            committed: metrics.local_committed.as_ref().map(wire::log_id),
            applied: state.applied,
            hash: hashed.map_or_else(|| state.hash(), |hashed| hashed.hash),
            last: self.wal().last(),
            voter: settled && membership.membership.is_voter(node),
            membership: membership.id,
            cuts: self.wal().cuts(),
        }
    }

    /// The entries of its log from `index` on; none if they can't be read, as where the simulation has damaged the disk.
    pub(crate) fn entries_from(&self, index: Index) -> Vec<Entry> {
        self.wal().entries_from(index).unwrap_or_default()
    }
}
