//! `sage status`: groups, leaders and replicas, as a table.

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::{Format, print_bytes, print_json, show_bytes, table};
use crate::cli::remote::RemoteArgs;
use crate::client::ClientError;
use crate::types::http::{ClusterBody, Role, ShardStatus};

const EXAMPLE: &str = "\
Example: the cluster, and one replica's own view
  sage status
  sage status --url http://127.0.0.1:4101 -o json";

const COLUMNS: [&str; 9] =
    ["GROUP", "REPLICA", "ROLE", "TERM", "APPLIED", "LAG", "KEYS", "BYTES", "MEMORY"];

/// Show groups, leaders, terms, lag, keys and bytes; of a coordinator or of one replica
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

impl StatusArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let client = self.remote.client()?;
        match (client.cluster().await, self.remote.form.output) {
            (Ok(cluster), Format::Json) => print_json(&cluster)?,
            (Ok(cluster), Format::Text) => print_bytes(show_cluster(&cluster).as_bytes())?,
            // A shard knows no /cluster.
            (Err(ClientError::Api { status: 404, .. }), format) => {
                let status = client.status().await?;
                match format {
                    Format::Json => print_json(&status)?,
                    Format::Text => print_bytes(show_replica(&status).as_bytes())?,
                }
            }
            (Err(error), _) => return Err(error.into()),
        }
        Ok(Ending::Done)
    }
}

fn show_cluster(body: &ClusterBody) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for group in &body.groups {
        rows.extend(group.replicas.iter().map(|replica| row(&group.name, replica)));
        rows.extend(group.unreachable.iter().map(|member| {
            let state = format!("unreachable: {}", member.reason);
            vec![group.name.clone(), member.url.clone(), state]
        }));
        if group.leader.is_none() {
            rows.push(vec![group.name.clone(), "-".into(), "no leader known".into()]);
        }
    }
    let groups = body.groups.len();
    let differing: String =
        body.groups.iter().flat_map(|group| &group.replicas).map(differing).collect();
    let ring = format!("cluster {}, epoch {}, {groups} groups", body.cluster, body.epoch);
    format!("{ring}, {} vnodes each\n\n{}{differing}", body.vnodes, table(&rows))
}

fn show_replica(status: &ShardStatus) -> String {
    let name = status.name.as_deref().unwrap_or("-");
    let own = [COLUMNS.map(str::to_owned).to_vec(), row(name, status)];
    let mut members = vec![["MEMBER", "NODE", "VOTES", "MATCHED"].map(str::to_owned).to_vec()];
    members.extend(status.members.iter().map(|member| {
        let votes = if member.voter { "yes" } else { "no" };
        vec![member.url.clone(), member.node.to_string(), votes.into(), show(member.matched)]
    }));
    format!("{}\n{}{}", table(&own), table(&members), differing(status))
}

/// A line about what must never be, if it is.
fn differing(replica: &ShardStatus) -> String {
    replica.differs.map_or_else(String::new, |index| {
        format!(
            "{} HAS ANOTHER STATE THAN ANOTHER REPLICA since index {index}; see its log\n",
            replica.url
        )
    })
}

fn row(group: &str, replica: &ShardStatus) -> Vec<String> {
    let role = match replica.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Forming => "forming",
    };
    vec![
        group.to_owned(),
        replica.url.clone(),
        role.into(),
        replica.term.to_string(),
        show(replica.applied.map(|id| id.index)),
        replica.lag_ms.map_or_else(|| "-".into(), |lag_ms| format!("{lag_ms} ms")),
        replica.keys.to_string(),
        show_bytes(replica.bytes),
        show_memory(replica),
    ]
}

/// What the keys take in memory, and how much that is of what they may.
fn show_memory(replica: &ShardStatus) -> String {
    let memory = show_bytes(replica.memory);
    match replica.max_memory {
        Some(max) => format!("{memory} ({}% of {})", replica.memory * 100 / max, show_bytes(max)),
        None => memory,
    }
}

fn show(number: Option<u64>) -> String {
    number.map_or_else(|| "-".into(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use crate::types::http::{GroupBody, MemberStatus, Unreachable};
    use crate::types::ids::{ClusterId, GroupId, LogId, NodeId, StateHash};

    use super::*;

    fn replica(role: Role, lag_ms: Option<u64>) -> ShardStatus {
        let url = "http://127.0.0.1:4101".to_owned();
        let member =
            MemberStatus { node: NodeId(1), url: url.clone(), voter: true, matched: Some(12) };
        ShardStatus {
            node: NodeId(1),
            url,
            group: Some(GroupId(2)),
            name: Some("shard-4101".into()),
            role,
            term: 3,
            leader: None,
            leader_url: None,
            last_index: Some(12),
            committed: Some(12),
            applied: Some(LogId { term: 3, leader: NodeId(1), index: 12 }),
            hash: StateHash(0),
            compared: None,
            differs: None,
            lag_ms,
            members: vec![member],
            quorum: 1,
            keys: 40,
            bytes: 1536,
            memory: 11776,
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

    #[test]
    fn a_cluster_is_a_table_for_eyes() {
        let group = GroupBody {
            id: GroupId(2),
            name: "shard-4101".into(),
            share: 1.0,
            leader: None,
            members: Vec::new(),
            replicas: vec![
                ShardStatus { max_memory: Some(1 << 20), ..replica(Role::Leader, Some(0)) },
                ShardStatus { differs: Some(512), ..replica(Role::Forming, None) },
            ],
            unreachable: vec![Unreachable { url: "http://a:1".into(), reason: "refused".into() }],
        };
        let body =
            ClusterBody { cluster: ClusterId(7), epoch: 1, vnodes: 100, groups: vec![group] };
        let expected = "\
cluster c0000000000000007, epoch 1, 1 groups, 100 vnodes each

GROUP       REPLICA                ROLE                  TERM  APPLIED  LAG   KEYS  BYTES    MEMORY
shard-4101  http://127.0.0.1:4101  leader                3     12       0 ms  40    1.5 KiB  11.5 KiB (1% of 1.0 MiB)
shard-4101  http://127.0.0.1:4101  forming               3     12       -     40    1.5 KiB  11.5 KiB
shard-4101  http://a:1             unreachable: refused
shard-4101  -                      no leader known
http://127.0.0.1:4101 HAS ANOTHER STATE THAN ANOTHER REPLICA since index 512; see its log
";
        assert_eq!(show_cluster(&body), expected);
    }

    #[test]
    fn a_replica_shows_itself_and_its_members() {
        let expected = "\
GROUP       REPLICA                ROLE    TERM  APPLIED  LAG   KEYS  BYTES    MEMORY
shard-4101  http://127.0.0.1:4101  leader  3     12       0 ms  40    1.5 KiB  11.5 KiB

MEMBER                 NODE               VOTES  MATCHED
http://127.0.0.1:4101  n0000000000000001  yes    12
";
        assert_eq!(show_replica(&replica(Role::Leader, Some(0))), expected);
    }
}
