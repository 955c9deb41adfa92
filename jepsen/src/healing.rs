//! When everything is healed: the cluster must serve again soon, every key is read once more, and
//! the replicas of each group must come to the same state under one leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sagedb::types::http::{Role, ShardStatus};
use tokio::task::JoinSet;

use crate::checker::{Anomaly, Kind};
use crate::client::txn::Answered;
use crate::client::{Body, Client, Condition, Freshness, Server, Unread, Written};
use crate::cluster::{Cluster, group_name};
use crate::history::{Action, Event, Recorder, Stage, Value};
use crate::workload::actor::bad_answer;
use crate::workload::value::{list_of, number_of};
use crate::workload::{self, Servers, bank};

/// How long a healed cluster may take until every write succeeds.
const SERVES_MAX: Duration = Duration::from_secs(5);
/// How long everything else is waited for.
const WHOLE_MAX: Duration = Duration::from_secs(30);
/// Keys for each group that are written to see whether the cluster serves: enough to meet every
/// group, but for once in a million times.
const PROBES: usize = 20;
/// Clients that read everything at the end.
const READERS: u32 = 32;
/// How long a key is tried to be read in a cluster that serves.
const READ_MAX: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// How the cluster healed.
#[derive(Debug, Default)]
pub(crate) struct Healing {
    /// How long it took until writes succeeded everywhere, if they did.
    pub(crate) served: Option<Duration>,
    /// What was wrong.
    pub(crate) anomalies: Vec<Anomaly>,
}

/// Waits for what must come true now that nothing is broken any more.
pub(crate) async fn look(
    cluster: &Cluster,
    servers: &Servers,
    recorder: &Arc<Recorder>,
) -> Result<Healing> {
    let mut healing = Healing::default();
    let start = Instant::now();
    let probes = PROBES * cluster.groups();
    let served = tokio::time::timeout(WHOLE_MAX, until_served(servers, probes)).await;
    match served {
        Ok(served) => {
            served?;
            healing.served = Some(start.elapsed());
        }
        Err(_) => healing.not_recovered("writes do not succeed after half a minute"),
    }
    if let Some(served) = healing.served.filter(|served| *served > SERVES_MAX) {
        healing.not_recovered(&format!("writes succeed only after {served:?}"));
    }
    if let Err(error) = cluster.until_ready(WHOLE_MAX).await {
        healing.not_recovered(&format!("{error:#}"));
        return Ok(healing);
    }
    let keys = recorder.keys();
    let last = workload::watch::write_last(&keys, servers, recorder);
    match tokio::time::timeout(WHOLE_MAX, last).await {
        Ok(written) => written?,
        Err(_) => healing.not_recovered("a last write of each key does not succeed"),
    }
    let unread = read_everything(servers, recorder).await?;
    if let [(key, reason), ..] = &unread[..] {
        let many = unread.len();
        healing.not_recovered(&format!("{many} keys can't be read, such as {key}: {reason}"));
    }
    for group in 0..cluster.groups() {
        let converged = converged(cluster, group).await;
        healing.anomalies.extend(converged.err());
    }
    Ok(healing)
}

impl Healing {
    fn not_recovered(&mut self, detail: &str) {
        self.anomalies.push(Anomaly {
            kind: Kind::NotRecovered,
            key: "cluster".into(),
            detail: detail.into(),
            events: Vec::new(),
        });
    }
}

/// Writes through every coordinator until all of it succeeds.
async fn until_served(servers: &Servers, probes: usize) -> Result<()> {
    let client = Client::new(servers.deadline)?;
    let probes = servers.coordinators.iter().flat_map(|server| {
        let probe = |probe| until_written(&client, server, format!("probe-{probe}"));
        (0..probes).map(probe).collect::<Vec<_>>()
    });
    futures::future::join_all(probes).await;
    Ok(())
}

async fn until_written(client: &Client, server: &Server, key: String) {
    let what = Body::Text("probe".into());
    while !matches!(client.write(server, &key, &what, Condition::Always).await, Written::Ok(_)) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Reads every key that was written to, through all coordinators; the keys that could not be read,
/// and why.
async fn read_everything(
    servers: &Servers,
    recorder: &Arc<Recorder>,
) -> Result<Vec<(Arc<str>, String)>> {
    let keys = Arc::new(recorder.keys());
    let mut readers = JoinSet::new();
    for (reader, server) in (0..READERS).zip(servers.coordinators.iter().cycle()) {
        let (client, server) = (Client::new(servers.deadline)?, server.clone());
        let (keys, recorder) = (Arc::clone(&keys), Arc::clone(recorder));
        readers.spawn(async move {
            // Above every process that a client ever was.
            let process = u32::MAX - reader;
            let mut unread = Vec::new();
            for key in keys.iter().skip(reader as usize).step_by(READERS as usize) {
                let start = Instant::now();
                while let Err(reason) =
                    final_read(&client, &server, &recorder, (process, key)).await
                {
                    if start.elapsed() > READ_MAX {
                        unread.push((Arc::clone(key), reason));
                        break;
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
            unread
        });
    }
    let mut unread = Vec::new();
    while let Some(ended) = readers.join_next().await {
        unread.extend(ended.context("a final reader panicked")?);
    }
    Ok(unread)
}

async fn final_read(
    client: &Client,
    server: &Server,
    recorder: &Recorder,
    (process, key): (u32, &Arc<str>),
) -> Result<(), String> {
    let mut event = Event {
        time: 0,
        process,
        stage: Stage::Invoke,
        f: Action::FinalRead,
        key: Arc::clone(key),
        value: Value::None,
        node: Arc::clone(&server.name),
        version: None,
        existed: None,
        group: None,
        lag_ms: None,
        error: None,
    };
    recorder.record(event.clone());
    if bank::is_bank(key) {
        let answered = client.txn(server, &bank::look_at(key)).await;
        if let Answered::Bad(reason) = &answered {
            recorder.saw(bad_answer(server, key, reason));
        }
        event.ended(answered, bank::accounts_of);
        recorder.record(event.clone());
        return event.error.map_or(Ok(()), Err);
    }
    let read = client.read(server, key, Freshness::Linearizable).await;
    if let Err(Unread::Bad(reason)) = &read {
        recorder.saw(bad_answer(server, key, reason));
    }
    let ended = match read {
        Ok(found) => {
            event.stage = Stage::Ok;
            event.version = found.version;
            event.group = found.group;
            let json = found.json.as_deref();
            let list = key.starts_with("list-");
            event.value = if list { list_of(json) } else { number_of(key, json) };
            Ok(())
        }
        Err(Unread::Refused(reason) | Unread::Bad(reason)) => {
            event.stage = Stage::Fail;
            event.error = Some(reason.clone());
            Err(reason)
        }
    };
    recorder.record(event);
    ended
}

/// Waits until all replicas of a group have applied the same entry, and follow one of them as
/// voters.
async fn converged(cluster: &Cluster, group: usize) -> Result<(), Anomaly> {
    let mut seen = String::new();
    let looking = async {
        loop {
            let asked = cluster.group(group).map(|at| cluster.status(at));
            let statuses = futures::future::join_all(asked).await;
            match compare(&statuses) {
                Compared::Same => return None,
                Compared::Differ(detail) => return Some(detail),
                Compared::NotYet(detail) => seen = detail,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let ended = tokio::time::timeout(WHOLE_MAX, looking).await;
    let anomaly =
        |kind, detail| Anomaly { kind, key: group_name(group).into(), detail, events: Vec::new() };
    match ended {
        Ok(None) => Ok(()),
        Ok(Some(detail)) => Err(anomaly(Kind::ReplicasDiffer, detail)),
        Err(_) => Err(anomaly(Kind::NotRecovered, format!("after half a minute still {seen}"))),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Compared {
    Same,
    Differ(String),
    NotYet(String),
}

fn compare(statuses: &[Option<ShardStatus>]) -> Compared {
    let present: Vec<&ShardStatus> = statuses.iter().flatten().collect();
    let states: Vec<String> = present
        .iter()
        .map(|status| {
            let applied = status.applied.map_or_else(|| "nothing".into(), |id| id.to_string());
            let hash = &status.hash;
            format!("{} {:?} applied {applied} hash {hash}", status.url, status.role)
        })
        .collect();
    let states = states.join("; ");
    let applied: BTreeSet<_> = present.iter().map(|status| status.applied).collect();
    let hashes: BTreeSet<_> = present.iter().map(|status| &status.hash).collect();
    if present.len() < statuses.len() || applied.len() > 1 || !follow_one(&present) {
        return Compared::NotYet(states);
    }
    if hashes.len() > 1 { Compared::Differ(states) } else { Compared::Same }
}

/// Whether one of them leads, all the others follow it, and all of them vote.
fn follow_one(statuses: &[&ShardStatus]) -> bool {
    let mut leaders = statuses.iter().filter(|status| status.role == Role::Leader);
    let (Some(leader), None) = (leaders.next(), leaders.next()) else { return false };
    let voters = leader.members.iter().filter(|member| member.voter);
    let voters: BTreeSet<_> = voters.map(|member| member.node).collect();
    let nodes: BTreeSet<_> = statuses.iter().map(|status| status.node).collect();
    voters == nodes && statuses.iter().all(|status| status.leader == Some(leader.node))
}
