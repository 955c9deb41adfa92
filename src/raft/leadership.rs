//! Who leads and who votes, as one replica sees it, and how it lets another lead.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use crate::raft::replica::Replica;
use crate::raft::wire;
use crate::types::ids::NodeId;
use crate::types::topology::Member;

impl Replica {
    /// Asks the voter that is the furthest to lead in this replica's place, if it leads, and waits
    /// a moment for it.
    pub async fn hand_over(&self) {
        if !self.leads() {
            return;
        }
        let heir = {
            let metrics = self.raft().data_metrics();
            let metrics = metrics.borrow_watched();
            let voters = self.voters();
            let others = metrics.replication.iter().flatten();
            let others =
                others.filter(|(node, _)| **node != self.member().node && voters.contains(node));
            others.max_by_key(|(_, matched)| **matched).map(|(node, _)| *node)
        };
        let Some(heir) = heir else { return };
        tracing::info!(%heir, "handing leadership over");
        if self.raft().trigger().transfer_leader(heir).await.is_err() {
            return;
        }
        let mut metrics = self.raft().server_metrics();
        let handed_over = async {
            while metrics.borrow_and_update().current_leader == Some(self.member().node) {
                if metrics.changed().await.is_err() {
                    break;
                }
            }
        };
        let patience = self.options().timing.election_timeout_max;
        if tokio::time::timeout(patience, handed_over).await.is_err() {
            tracing::warn!(%heir, "nobody took leadership over in time");
        }
    }

    /// Whether this replica leads its group, as far as it knows.
    pub fn leads(&self) -> bool {
        self.raft().server_metrics().borrow_watched().current_leader == Some(self.member().node)
    }

    /// The leader that this replica knows: itself while a quorum follows, else one that it has
    /// heard from lately.
    pub fn leader(&self) -> Option<Member> {
        let silence = if self.leads() {
            match self.voters().len() {
                0 | 1 => Some(Duration::ZERO),
                _ => self.as_of().age(),
            }
        } else {
            self.freshness().silence()
        };
        if silence.is_none_or(|silence| silence > self.options().timing.election_timeout_max) {
            return None;
        }
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        if self.lease().has_departed(&wire::vote(&metrics.vote)) {
            return None;
        }
        let node = metrics.current_leader?;
        let url = metrics.membership_config.get_node(&node)?.addr.clone();
        Some(Member { node, url })
    }

    /// Waits until something changes about who leads or votes; for ever once Raft has ended.
    pub async fn leadership_changed(&self) {
        let mut metrics = self.raft().server_metrics();
        // openraft's receivers are copies of one that has seen nothing yet.
        metrics.borrow_and_update();
        if metrics.changed().await.is_err() {
            // Raft has ended. Who waits for a leader must not ask again at once, and for ever.
            std::future::pending::<()>().await;
        }
    }

    /// The voters of the newest configuration.
    pub(in crate::raft) fn voters(&self) -> Vec<NodeId> {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let config = metrics.membership_config.get_joint_config();
        config.last().map(|voters| voters.iter().copied().collect()).unwrap_or_default()
    }

    /// The voters of the configuration in force: two sets during a joint change.
    pub(in crate::raft) fn voter_sets(&self) -> Vec<BTreeSet<NodeId>> {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let config = metrics.membership_config.get_joint_config();
        config.iter().map(|voters| voters.iter().copied().collect()).collect()
    }

    /// The members of the group as this replica knows them, by URL.
    pub(in crate::raft) fn members(&self) -> Vec<Member> {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.nodes();
        let mut members: Vec<Member> =
            members.map(|(node, at)| Member { node: *node, url: at.addr.clone() }).collect();
        members.sort_by(|a, b| a.url.cmp(&b.url));
        members
    }
}
