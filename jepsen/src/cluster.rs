//! The cluster under attack: real `sage` processes on free ports, with their data in one directory.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sagedb::types::http::{PATH_READY, Role};
use sagedb::types::ids::{NodeId, Term};

use crate::node::{Node, status, url_of};
use crate::options::Options;
use crate::ports::Ports;

/// How long a request of the harness itself may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// So little log that snapshots are taken and logs purged all the time.
const FLAGS: [&str; 4] = ["--snapshot-log-size", "262144", "--keep-log-entries", "500"];

/// A group's leader, and when it became that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Leader {
    /// Its term.
    pub(crate) term: Term,
    /// Its identity.
    pub(crate) node: NodeId,
    /// Which replica of the group it is.
    pub(crate) replica: usize,
}

/// All servers of a run. They are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    http: reqwest::Client,
    groups: Vec<Vec<String>>,
    coordinators: Vec<String>,
    /// The replicas of each group, then the coordinators.
    nodes: Mutex<Vec<Vec<Node>>>,
    /// What was found dead when it should be killed.
    found_dead: Mutex<Vec<String>>,
    _ports: Ports,
}

impl Cluster {
    /// Starts every process; returns before they serve.
    pub(crate) fn start(options: &Options, program: &Path, directory: &Path) -> Result<Self> {
        let mut ports = Ports::hold();
        let mut take = |count: u16| (0..count).map(|_| ports.take()).collect::<Vec<u16>>();
        let mut nodes = Vec::new();
        let mut groups = Vec::new();
        for group in 1..=options.groups {
            let ports = take(options.replicas);
            let urls: Vec<String> = ports.iter().copied().map(url_of).collect();
            let flags = FLAGS.map(String::from);
            let flags = [flags.as_slice(), &["--id".into(), format!("g{group}")]].concat();
            let replicas = ports.iter().enumerate().map(|(at, port)| {
                let peers: Vec<String> =
                    urls.iter().filter(|url| **url != url_of(*port)).cloned().collect();
                let name = format!("g{group}-r{}", at + 1);
                Node::shard(program, directory, (&name, *port), &peers, &flags)
            });
            nodes.push(replicas.collect());
            groups.push(urls);
        }
        let all = groups.concat();
        let routers = take(options.coordinators).into_iter().enumerate().map(|(at, port)| {
            let name = format!("coordinator-{}", at + 1);
            Node::coordinator(program, directory, (&name, port), &all)
        });
        let routers: Vec<Node> = routers.collect();
        let coordinators = routers.iter().map(|node| node.url.clone()).collect();
        nodes.push(routers);
        let http = reqwest::Client::builder().no_proxy().timeout(ASK_TIMEOUT).build()?;
        let nodes = Mutex::new(nodes);
        let found_dead = Mutex::default();
        let cluster = Self { http, groups, coordinators, nodes, found_dead, _ports: ports };
        cluster.heal()?;
        Ok(cluster)
    }

    /// Starts everything that does not run.
    pub(crate) fn heal(&self) -> Result<()> {
        for node in self.lock().iter_mut().flatten().filter(|node| node.process.is_none()) {
            node.start().with_context(|| format!("{} can't be started", node.launch.name))?;
        }
        Ok(())
    }

    /// Waits until every server says that requests can succeed.
    pub(crate) async fn until_ready(&self, within: Duration) -> Result<()> {
        let start = Instant::now();
        for url in self.groups.iter().flatten().chain(&self.coordinators) {
            while let Err(reason) = self.ready(url).await {
                if let Some(dead) = self.died().first() {
                    bail!("{dead}");
                }
                if start.elapsed() > within {
                    bail!("{url} is not ready after {within:?}: {reason}");
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    async fn ready(&self, url: &str) -> Result<()> {
        let answer = self.http.get(format!("{url}{PATH_READY}")).send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{status} {}", answer.text().await.unwrap_or_default());
        }
        Ok(())
    }

    /// The coordinators' URLs.
    pub(crate) fn coordinators(&self) -> &[String] {
        &self.coordinators
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The group's leader; of two that both believe it, the later.
    pub(crate) async fn leader(&self, group: usize) -> Option<Leader> {
        let mut leaders = Vec::new();
        for (replica, url) in self.groups[group].iter().enumerate() {
            let status = status(&self.http, url).await;
            let leading = status.filter(|status| status.role == Role::Leader);
            leaders.extend(leading.map(|one| Leader { term: one.term, node: one.node, replica }));
        }
        leaders.into_iter().max()
    }

    /// Waits for a leader that came after `old`.
    pub(crate) async fn leader_after(&self, group: usize, old: Leader) -> Leader {
        loop {
            let leader = self.leader(group).await;
            match leader.filter(|new| (new.term, new.node) > (old.term, old.node)) {
                Some(new) => return new,
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// `kill -9` of one replica.
    pub(crate) fn kill(&self, group: usize, replica: usize) {
        let node = &mut self.lock()[group][replica];
        self.found_dead().extend(obituary(node));
        node.kill();
    }

    /// Starts a replica that was killed.
    pub(crate) fn restart(&self, group: usize, replica: usize) -> Result<()> {
        Ok(self.lock()[group][replica].start()?)
    }

    /// Servers that ended although nobody killed them.
    pub(crate) fn died(&self) -> Vec<String> {
        let mut died = self.found_dead().clone();
        died.extend(self.lock().iter_mut().flatten().filter_map(obituary));
        died
    }

    fn found_dead(&self) -> MutexGuard<'_, Vec<String>> {
        self.found_dead.lock().expect("nobody panics while he looks")
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Node>>> {
        self.nodes.lock().expect("nobody panics while he starts or kills")
    }
}

/// How a server ended, if it did so by itself.
fn obituary(node: &mut Node) -> Option<String> {
    node.ended().map(|status| format!("{} ended by itself: {status}", node.launch.name))
}
