//! One group of replicas, and what a test waits for in it.

use std::path::{Path, PathBuf};

use sagedb::types::http::{Role, ShardStatus};

use super::http::Http;
use super::node::{Node, status, url_of};
use super::until::{SOON, until};
use super::world::sage;

/// The replicas of one group, running or not.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) nodes: Vec<Node>,
}

impl Group {
    pub(crate) fn new(name: &str, directory: &Path, ports: &[u16], flags: &[String]) -> Self {
        let node = |(at, port): (usize, &u16)| {
            let others = ports.iter().filter(|other| *other != port);
            let peers: Vec<String> = others.map(|other| url_of(*other)).collect();
            Node::shard(&sage(), directory, (&format!("{name}-{at}"), *port), &peers, flags)
        };
        Self { nodes: ports.iter().enumerate().map(node).collect() }
    }

    /// The URLs of all members.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// The URL of the first member.
    pub(crate) fn url(&self) -> &str {
        &self.nodes[0].url
    }

    /// The data directory of one replica.
    pub(crate) fn data(&self, at: usize) -> PathBuf {
        let launch = &self.nodes[at].launch;
        launch.directory.join(&launch.name)
    }

    /// Starts every replica that is not running.
    pub(crate) fn start(&mut self) {
        for node in &mut self.nodes {
            if !node.is_up() {
                node.start().expect("a replica can be started");
            }
        }
    }

    /// `kill -9` of all replicas.
    pub(crate) fn kill(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
    }

    /// Kills a replica, deletes all its data and starts it again.
    pub(crate) fn wipe(&mut self, at: usize) {
        self.nodes[at].kill();
        std::fs::remove_dir_all(self.data(at)).expect("there was data to delete");
        self.nodes[at].start().expect("a replica can be started");
    }

    /// What one replica says of itself, if it answers.
    pub(crate) async fn status(&self, http: &Http, at: usize) -> Result<ShardStatus, String> {
        let url = &self.nodes[at].url;
        status(&http.client, url).await.ok_or_else(|| format!("{url} does not answer"))
    }

    /// Waits until every replica says that requests can succeed.
    pub(crate) async fn until_ready(&self, http: &Http) {
        for node in &self.nodes {
            until("the replica is ready", SOON, async || http.ready(&node.url).await).await;
        }
    }

    /// Waits until a replica leads, and says which; of two that both believe it, the later.
    pub(crate) async fn leader(&self, http: &Http) -> usize {
        until("the group has a leader", SOON, async || {
            let mut leaders = Vec::new();
            for at in 0..self.nodes.len() {
                let status = self.status(http, at).await.ok();
                let leading = status.filter(|status| status.role == Role::Leader);
                leaders.extend(leading.map(|status| (status.term, status.node, at)));
            }
            leaders.into_iter().max().map(|(_, _, at)| at).ok_or("no leader".into())
        })
        .await
    }

    /// A replica that runs and does not lead.
    pub(crate) async fn follower(&mut self, http: &Http) -> usize {
        let leader = self.leader(http).await;
        let mut others = (0..self.nodes.len()).filter(|at| *at != leader);
        others.find(|at| self.nodes[*at].is_up()).expect("a follower runs")
    }

    /// Waits until a replica has applied what the leader had applied when it was asked.
    pub(crate) async fn until_caught_up(&self, http: &Http, at: usize) -> ShardStatus {
        let leader = self.leader(http).await;
        let goal = self.status(http, leader).await.expect("the leader answers").applied;
        until("the replica has caught up", SOON, async || {
            let status = self.status(http, at).await?;
            let index = |applied: Option<sagedb::types::ids::LogId>| applied.map(|id| id.index);
            if index(status.applied) >= index(goal) && goal.is_some() {
                return Ok(status);
            }
            Err(format!("it is at {:?}, the leader at {goal:?}", status.applied))
        })
        .await
    }

    /// The replicas' states, once all have applied the same entry.
    #[cfg(feature = "planted-bugs")]
    pub(crate) async fn settled(&self, http: &Http) -> Vec<ShardStatus> {
        until("all replicas have applied the same", SOON, async || {
            let mut seen = Vec::new();
            for at in 0..self.nodes.len() {
                seen.push(self.status(http, at).await?);
            }
            let same = seen.iter().all(|status| status.applied == seen[0].applied);
            if same { Ok(seen) } else { Err(format!("{seen:?}")) }
        })
        .await
    }

    /// Waits until every replica answers, all agree on who votes, and these are `voters`.
    pub(crate) async fn until_voters(&self, http: &Http, voters: usize) -> Vec<ShardStatus> {
        until("all replicas vote, and agree on it", SOON, async || {
            let mut statuses = Vec::new();
            for at in 0..self.nodes.len() {
                statuses.push(self.status(http, at).await?);
            }
            let first = voting(&statuses[0]);
            let agreed = statuses.iter().all(|status| voting(status) == first);
            let inside = statuses.iter().all(|status| first.contains(&status.node.to_string()));
            if agreed && inside && first.len() == voters {
                return Ok(statuses);
            }
            Err(format!("{:?}", statuses.iter().map(voting).collect::<Vec<_>>()))
        })
        .await
    }
}

/// Who votes, as one replica sees it.
fn voting(status: &ShardStatus) -> Vec<String> {
    let voters = status.members.iter().filter(|member| member.voter);
    let mut names: Vec<String> = voters.map(|member| member.node.to_string()).collect();
    names.sort();
    names
}
