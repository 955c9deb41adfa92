//! Looks at every replica's `/status` while the cluster is attacked, and says what can't be.
//!
//! A node's term never goes back, not even through a restart: its disk keeps it. And replicas of a
//! group that have applied up to the same entry have the same state.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sagedb::types::http::ShardStatus;
use sagedb::types::ids::{LogId, NodeId, StateHash, Term};
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
