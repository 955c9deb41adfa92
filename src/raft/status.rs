//! What a replica says of itself: to peers, to coordinators and to people.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use crate::raft::replica::{Replica, lock};
use crate::types::error::Error;
use crate::types::http::{MemberStatus, ReadyBody, Role, ShardStatus};
use crate::types::peer::Identity;

impl Replica {
    /// Who this replica is and which group it belongs to, as far as it knows.
    pub fn identity(&self) -> Identity {
        let state = self.published().frozen();
        let name = state.group.as_ref().map(|(_, name)| name.to_string());
        Identity {
            member: self.member().clone(),
            group: self.group(),
            name: name.or_else(|| self.options().name.clone()),
            fresh: self.fresh(),
            seeds: lock(self.formation()).seeds.clone(),
            members: self.members(),
            leader: self.leader(),
            claim: state.claim.as_deref().cloned(),
            confirmed: state.confirmed,
        }
    }

    /// Why this replica can't take requests yet, if it can't.
    pub(in crate::raft) fn formed(&self) -> Result<(), Error> {
        self.trusted()?;
        if self.published().name().is_some() {
            return Ok(());
        }
        let waiting = lock(self.formation()).waiting.clone();
        let reason = waiting.unwrap_or_else(|| "waiting for the first leader".into());
        Err(Error::unavailable(format!("the group has not formed yet: {reason}")))
    }

    /// Whether requests can succeed here: the group has formed, its log is replayed, a leader is
    /// known.
    pub fn ready(&self) -> ReadyBody {
        let reason = match self.formed() {
            Err(error) => Some(error.to_string()),
            Ok(()) if self.leader().is_none() => Some("no leader is known".into()),
            Ok(()) => self.replaying(),
        };
        ReadyBody { ready: reason.is_none(), reason }
    }

    /// openraft knows what is committed, after a restart, only from a leader of this time.
    fn replaying(&self) -> Option<String> {
        let metrics = self.raft().data_metrics();
        let metrics = metrics.borrow_watched();
        let Some(committed) = metrics.cluster_committed.map(|id| id.index) else {
            return Some("what is committed is not known yet".into());
        };
        let applied = metrics.last_applied.map_or(0, |id| id.index);
        let recovered = self.recovered_index().min(committed);
        (applied < recovered).then(|| format!("replaying the log: at {applied} of {recovered}"))
    }

    /// Everything about this replica that people and programs ask for.
    pub fn status(&self) -> ShardStatus {
        let state = self.published().frozen();
        let lag_ms = self.lag_ms();
        let quorum = self.quorum();
        let leader = self.leader();
        let members = self.member_status();
        let snapshot = self.snapshots().newest();
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        ShardStatus {
            node: self.member().node,
            url: self.member().url.clone(),
            group: self.group(),
            name: state.group.as_ref().map(|(_, name)| name.to_string()),
            role: if state.group.is_none() { Role::Forming } else { role(metrics.state) },
            // Raft's figures are empty until it has read what the log already knows.
            term: metrics.current_term.max(self.wal().vote().map_or(0, |vote| vote.term)),
            leader: metrics.current_leader,
            leader_url: leader.map(|leader| leader.url),
            last_index: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index),
            applied: state.applied,
            hash: state.hash(),
            compared: self.comparison().compared(),
            differs: self.comparison().differs(),
            lag_ms,
            members,
            quorum,
            keys: state.map.len() as u64,
            bytes: state.bytes,
            memory: state.memory(),
            max_memory: self.options().max_memory,
            disk_full: self.disk_room().is_full(),
            cluster: state.claim.as_ref().map(|claim| claim.topology.cluster),
            epoch: state.claim.as_ref().map_or(0, |claim| claim.topology.epoch),
            wal_bytes: self.wal().bytes(),
            snapshot_bytes: snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes),
            snapshot_index: snapshot.and_then(|snapshot| snapshot.last).map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
        }
    }

    fn member_status(&self) -> Vec<MemberStatus> {
        let voters = self.voters();
        let members = self.members();
        let metrics = self.raft().data_metrics();
        let metrics = metrics.borrow_watched();
        let matched = |node| {
            let matched = metrics.replication.as_ref()?.get(&node)?.as_ref()?;
            Some(matched.index)
        };
        members
            .into_iter()
            .map(|member| MemberStatus {
                voter: voters.contains(&member.node),
                matched: matched(member.node),
                node: member.node,
                url: member.url,
            })
            .collect()
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner | ServerState::Shutdown => Role::Learner,
    }
}
