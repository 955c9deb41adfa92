//! The whole cluster at a glance: every replica of every group is asked at once.

use std::time::Duration;

use crate::coordinator::inner::Inner;
use crate::coordinator::peers::Peers;
use crate::rpc::Target;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::hash::Token;
use crate::types::http::{ClusterBody, GroupBody, ReadyBody, RouteBody, Unreachable};
use crate::types::key::Key;
use crate::types::peer::{Reply, Request};
use crate::types::topology::Group;

/// How long one replica may take to tell its state.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

impl<P: Peers> Inner<P> {
    /// Where a key lives.
    pub(in crate::coordinator) fn route(&self, key: &Key) -> Result<RouteBody, Error> {
        let group = self.owner(key)?;
        let replicas = self.groups().urls(group.id);
        let leader = self.groups().leader(group.id).map(|leader| leader.url);
        let epoch = self.serving().map_or(0, |serving| serving.topology.epoch);
        Ok(RouteBody {
            key: key.to_string(),
            shard: group.name,
            url: leader.or_else(|| replicas.first().cloned()).unwrap_or_default(),
            replicas,
            hash: format!("{:016x}", Token::of_key(key).0),
            epoch,
        })
    }

    /// Whether requests can succeed: there is a ring, and a leader at least somewhere.
    pub(in crate::coordinator) fn ready(&self) -> ReadyBody {
        let Some(serving) = self.serving() else {
            return ReadyBody { ready: false, reason: Some(self.waiting()) };
        };
        let groups = &serving.topology.groups;
        let leaderless: Vec<&str> = groups
            .iter()
            .filter(|group| self.groups().leader(group.id).is_none())
            .map(|group| group.name.as_str())
            .collect();
        let ready = leaderless.len() < groups.len();
        let reason = format!("no leader is known of shards {}", leaderless.join(", "));
        ReadyBody { ready, reason: (!leaderless.is_empty()).then_some(reason) }
    }

    /// The topology, and what every replica says of itself.
    pub(in crate::coordinator) async fn cluster(
        &self,
        deadline: Deadline,
    ) -> Result<ClusterBody, Error> {
        let Some(serving) = self.serving() else {
            return Err(Error::unavailable(format!("no ring to serve by yet: {}", self.waiting())));
        };
        let deadline = deadline.at_most(STATUS_PATIENCE);
        let groups = serving.topology.groups.iter().enumerate();
        let groups = groups.map(|(at, group)| self.group(group, serving.ring.share(at), deadline));
        Ok(ClusterBody {
            cluster: serving.topology.cluster,
            epoch: serving.topology.epoch,
            vnodes: serving.topology.vnodes,
            groups: futures::future::join_all(groups).await,
        })
    }

    async fn group(&self, group: &Group, share: f64, deadline: Deadline) -> GroupBody {
        let members = self.groups().urls(group.id);
        let asked = members.iter().map(async |url| {
            let target = Target { url: url.clone(), node: None, group: Some(group.id) };
            let answer = self.peers().call(&target, &Request::Status, deadline).await;
            match answer {
                Ok(Reply::Status(status)) => Ok(*status),
                Ok(other) => Err((url.clone(), format!("unexpected answer {other:?}"))),
                Err(error) => Err((url.clone(), error.to_string())),
            }
        });
        let mut replicas = Vec::new();
        let mut unreachable = Vec::new();
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(status) => replicas.push(status),
                Err((url, reason)) => unreachable.push(Unreachable { url, reason }),
            }
        }
        let leader = self.groups().leader(group.id).map(|leader| leader.url);
        let (id, name) = (group.id, group.name.clone());
        let share = (share * 1e6).round() / 1e6;
        GroupBody { id, name, share, leader, members, replicas, unreachable }
    }
}
