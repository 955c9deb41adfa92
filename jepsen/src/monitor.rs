//! Looks at every replica's `/status` while the cluster is attacked, and says what can't be.
//!
//! A node's term never goes back, not even through a restart: its disk keeps it. And replicas of a
//! group that have applied up to the same entry have the same state. Replicas compare that themselves,
//! and one that is wrong goes and comes back right; so what they say they saw counts, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sagedb::types::http::ShardStatus;
use sagedb::types::ids::{Index, LogId, NodeId, StateHash, Term};
use tokio::sync::watch;

use crate::checker::{Anomaly, Kind};
use crate::cluster::Cluster;
use crate::history::Recorder;

/// Between two looks at all replicas.
const LOOK: Duration = Duration::from_millis(100);
/// States of a group that are remembered for comparison.
const STATES_MAX: usize = 100_000;

/// What is known of the replicas.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    terms: HashMap<NodeId, Term>,
    /// The state of a group, by its name, after an entry, and who said so.
    states: HashMap<(String, LogId), (StateHash, String)>,
    /// Where nodes have said that another's state is not as their own.
    differed: HashMap<NodeId, Index>,
}

impl Monitor {
    /// Compares what the replica called `name` says of itself with what was said before.
    pub(crate) fn observe(&mut self, name: &str, status: &ShardStatus) -> Vec<Anomaly> {
        let mut anomalies = Vec::new();
        let mut report = |kind, detail| {
            anomalies.push(Anomaly { kind, key: name.into(), detail, events: Vec::new() });
        };
        let term = self.terms.entry(status.node).or_insert(status.term);
        if status.term < *term {
            let detail = format!("its term went from {term} to {}", status.term);
            report(Kind::StateWentBack, detail);
        }
        *term = status.term;
        if let Some(index) = status.differs
            && self.differed.insert(status.node, index).is_none()
        {
            let detail =
                format!("it has seen that another's state is not as its own after {index}");
            report(Kind::ReplicasDiffer, detail);
        }
        if let (Some(group), Some(applied)) = (&status.name, status.applied) {
            let hash = status.hash;
            if self.states.len() >= STATES_MAX {
                self.states.clear();
            }
            let state = (hash, name.to_string());
            let (other, by) = self.states.entry((group.clone(), applied)).or_insert(state);
            if *other != hash {
                let detail =
                    format!("after {applied} its state is {hash}, that of {by} was {other}");
                report(Kind::ReplicasDiffer, detail);
            }
        }
        anomalies
    }
}

/// Looks at all replicas until it is told to stop.
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    recorder: Arc<Recorder>,
    stop: watch::Receiver<bool>,
) {
    let mut monitor = Monitor::default();
    while !*stop.borrow() {
        let looks = cluster.replicas().map(|at| {
            let cluster = Arc::clone(&cluster);
            async move { (at, cluster.status(at).await) }
        });
        for (at, status) in futures::future::join_all(looks).await {
            let Some(status) = status else { continue };
            for anomaly in monitor.observe(cluster.name(at), &status) {
                recorder.saw(anomaly);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use sagedb::types::http::Role;

    use super::*;

    fn status(node: u64, index: Index, hash: u64) -> ShardStatus {
        let applied = LogId { term: 1, leader: NodeId(1), index };
        ShardStatus {
            node: NodeId(node),
            url: String::new(),
            group: None,
            name: Some("g1".into()),
            role: Role::Follower,
            term: 1,
            leader: None,
            leader_url: None,
            last_index: None,
            committed: None,
            applied: Some(applied),
            hash: StateHash(hash),
            compared: None,
            differs: None,
            lag_ms: None,
            members: Vec::new(),
            quorum: 1,
            keys: 0,
            bytes: 0,
            memory: 0,
            max_memory: None,
            disk_full: false,
            cluster: None,
            epoch: 0,
            wal_bytes: 0,
            snapshot_bytes: 0,
            snapshot_index: None,
            purged: None,
        }
    }

    fn kinds(monitor: &mut Monitor, status: &ShardStatus) -> Vec<Kind> {
        monitor.observe("g1-r1", status).into_iter().map(|anomaly| anomaly.kind).collect()
    }

    #[test]
    fn states_that_differ_are_seen_and_so_is_what_replicas_have_seen() {
        let mut monitor = Monitor::default();
        assert_eq!(kinds(&mut monitor, &status(1, 7, 1)), []);
        assert_eq!(kinds(&mut monitor, &status(2, 7, 1)), []);
        assert_eq!(kinds(&mut monitor, &status(2, 8, 2)), []);
        assert_eq!(kinds(&mut monitor, &status(3, 7, 2)), [Kind::ReplicasDiffer]);
        // The one that is wrong is gone already.
        let told = ShardStatus { differs: Some(512), ..status(1, 9, 3) };
        assert_eq!(kinds(&mut monitor, &told), [Kind::ReplicasDiffer]);
        assert_eq!(kinds(&mut monitor, &told), [], "once");
    }

    #[test]
    fn a_term_that_goes_back_is_seen() {
        let mut monitor = Monitor::default();
        let later = ShardStatus { term: 2, ..status(1, 7, 1) };
        assert_eq!(kinds(&mut monitor, &later), []);
        assert_eq!(kinds(&mut monitor, &status(1, 7, 1)), [Kind::StateWentBack]);
    }
}
