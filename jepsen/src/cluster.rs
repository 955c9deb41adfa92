//! The cluster under attack: real `sage` processes on free ports, with their data in one directory.
//!
//! Processes are counted through: the replicas of the first group, of the second, …, then the
//! coordinators. Whatever a nemesis does to a process goes through here, so that an end that
//! nobody caused is noticed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use sagedb::types::http::{PATH_READY, Role, ShardStatus};
use sagedb::types::ids::{NodeId, Term};
use tokio::time::timeout;

use crate::client::Server;
use crate::faketime::{Faked, PRELOAD};
use crate::node::{Node, status, url_of};
use crate::options::Options;
use crate::ports::Ports;
use crate::workload::Servers;

/// How long a request of the harness itself may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long each replica may take to say whether it leads.
const LEADER_ASK_TIMEOUT: Duration = Duration::from_millis(200);
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
    /// Which process it is.
    pub(crate) process: usize,
}

/// Where every process listens; made before any of them starts.
#[derive(Debug)]
pub(crate) struct Layout {
    groups: usize,
    replicas: usize,
    deadline: Duration,
    ports: Vec<u16>,
    _held: Ports,
}

impl Layout {
    /// Free ports for what the options ask for.
    pub(crate) fn new(options: &Options) -> Self {
        let mut held = Ports::hold();
        let count = options.groups * options.replicas + options.coordinators;
        let ports = (0..count).map(|_| held.take()).collect();
        let (groups, replicas) = (usize::from(options.groups), usize::from(options.replicas));
        Self { groups, replicas, deadline: options.deadline, ports, _held: held }
    }

    /// The port of each process.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    fn group(&self, group: usize) -> std::ops::Range<usize> {
        group * self.replicas..(group + 1) * self.replicas
    }
}

/// All servers of a run. They are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    http: reqwest::Client,
    layout: Layout,
    names: Vec<String>,
    nodes: Mutex<Vec<Node>>,
    /// What was found dead when something should be done to it.
    found_dead: Mutex<Vec<String>>,
    /// Processes that may end: they were asked to, or their disk was damaged.
    may_end: Mutex<BTreeSet<usize>>,
    /// Those with clocks of their own; dropped after `nodes`, which ends them.
    faked: Faked,
}

impl Cluster {
    /// Starts every process, with what `environment` says of each in its environment; returns
    /// before they serve.
    pub(crate) fn start(
        layout: Layout,
        (program, directory): (&Path, &Path),
        environment: impl Fn(usize, &str) -> Result<Vec<(String, String)>>,
    ) -> Result<Self> {
        let mut made: Vec<Node> = Vec::new();
        let flags = FLAGS.map(String::from);
        for group in 0..layout.groups {
            let ports = &layout.ports[layout.group(group)];
            let flags = [flags.as_slice(), &["--id".into(), group_name(group)]].concat();
            for (at, port) in ports.iter().enumerate() {
                let peers = ports.iter().filter(|peer| *peer != port);
                let peers: Vec<String> = peers.copied().map(url_of).collect();
                let name = format!("{}-r{}", group_name(group), at + 1);
                made.push(Node::shard(program, directory, (&name, *port), &peers, &flags));
            }
        }
        let all: Vec<String> = made.iter().map(|node| node.url.clone()).collect();
        for (at, port) in layout.ports[made.len()..].iter().enumerate() {
            let name = format!("coordinator-{}", at + 1);
            made.push(Node::coordinator(program, directory, (&name, *port), &all));
        }
        for (at, node) in made.iter_mut().enumerate() {
            node.launch.env = environment(at, &node.launch.name)?;
        }
        let names = made.iter().map(|node| node.launch.name.clone()).collect();
        let http = reqwest::Client::builder().no_proxy().timeout(ASK_TIMEOUT).build()?;
        let (nodes, found_dead, may_end, faked) = Default::default();
        let cluster = Self { http, layout, names, nodes, found_dead, may_end, faked };
        *cluster.lock() = made;
        cluster.start_all()?;
        Ok(cluster)
    }

    /// Lets everything run that is stopped or paused.
    pub(crate) fn start_all(&self) -> Result<()> {
        for at in 0..self.names.len() {
            self.signal(at, Signal::CONT);
            self.start_one(at)?;
        }
        Ok(())
    }

    /// Waits until every server says that requests can succeed.
    pub(crate) async fn until_ready(&self, within: Duration) -> Result<()> {
        let start = Instant::now();
        for at in 0..self.names.len() {
            self.until_one_ready(at, within.saturating_sub(start.elapsed())).await?;
        }
        Ok(())
    }

    /// Waits until one server says that requests can succeed.
    pub(crate) async fn until_one_ready(&self, at: usize, within: Duration) -> Result<()> {
        let start = Instant::now();
        while let Err(reason) = self.ready(at).await {
            if let Some(dead) = self.died().first() {
                bail!("{dead}");
            }
            if start.elapsed() > within {
                bail!("{} is not ready after {within:?}: {reason}", self.names[at]);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn ready(&self, at: usize) -> Result<()> {
        let answer = self.http.get(format!("{}{PATH_READY}", self.url(at))).send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{status} {}", answer.text().await.unwrap_or_default());
        }
        Ok(())
    }

    /// What clients ask.
    pub(crate) fn servers(&self) -> Servers {
        let server = |at: usize| Server::new(&self.names[at], &self.url(at));
        let all = self.replicas();
        Servers {
            coordinators: self.coordinators().map(server).collect(),
            replicas: all.map(server).collect(),
            deadline: self.layout.deadline,
        }
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> usize {
        self.layout.groups
    }

    /// The replicas of one group.
    pub(crate) fn group(&self, group: usize) -> std::ops::Range<usize> {
        self.layout.group(group)
    }

    /// Which group a replica belongs to.
    pub(crate) fn group_of(&self, at: usize) -> usize {
        at / self.layout.replicas
    }

    /// All replicas.
    pub(crate) fn replicas(&self) -> std::ops::Range<usize> {
        0..self.layout.groups * self.layout.replicas
    }

    /// All coordinators.
    pub(crate) fn coordinators(&self) -> std::ops::Range<usize> {
        self.replicas().end..self.names.len()
    }

    /// What a process is called.
    pub(crate) fn name(&self, at: usize) -> &str {
        &self.names[at]
    }

    fn url(&self, at: usize) -> String {
        url_of(self.layout.ports[at])
    }

    /// What a replica says of itself, if it answers.
    pub(crate) async fn status(&self, at: usize) -> Option<ShardStatus> {
        status(&self.http, &self.url(at)).await
    }

    /// The group's leader; of two that both believe it, the later.
    pub(crate) async fn leader(&self, group: usize) -> Option<Leader> {
        let asked = self.group(group).map(|process| async move {
            // A paused process must not keep the others' answers waiting.
            let status = timeout(LEADER_ASK_TIMEOUT, self.status(process)).await.ok()??;
            let Role::Leader = status.role else { return None };
            Some(Leader { term: status.term, node: status.node, process })
        });
        futures::future::join_all(asked).await.into_iter().flatten().max()
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

    /// `kill -9` of one process; whether there was one to kill.
    pub(crate) fn kill(&self, at: usize) -> bool {
        let dead = self.obituary(at);
        self.found_dead().extend(dead);
        let node = &mut self.lock()[at];
        let up = node.process.is_some();
        node.kill();
        up
    }

    /// Starts a process, if it does not run.
    pub(crate) fn start_one(&self, at: usize) -> Result<()> {
        let node = &mut self.lock()[at];
        if node.process.is_none() {
            node.start().with_context(|| format!("{} can't be started", self.names[at]))?;
            let faked = node.launch.env.iter().any(|(name, _)| name == PRELOAD);
            if let Some(process) = node.process.as_ref().filter(|_| faked) {
                self.faked.add(process.child.id());
            }
        }
        Ok(())
    }

    /// Sends a signal to a process; whether there was one.
    pub(crate) fn signal(&self, at: usize, signal: Signal) -> bool {
        let node = &mut self.lock()[at];
        if let Some(process) = &mut node.process {
            process.signal(signal);
        }
        node.is_up()
    }

    /// Says whether a process may end without being killed.
    pub(crate) fn may_end(&self, at: usize, may: bool) {
        let mut may_end = self.may_end.lock().expect("nobody panics while he looks");
        if may {
            may_end.insert(at);
        } else {
            may_end.remove(&at);
        }
    }

    /// How a process ended, and forgets that it ran; `None` while it does.
    pub(crate) fn ended(&self, at: usize) -> Option<ExitStatus> {
        let node = &mut self.lock()[at];
        let ended = node.ended()?;
        node.process = None;
        Some(ended)
    }

    /// Whether a process has loaded a library of that name.
    pub(crate) fn has_loaded(&self, at: usize, library: &str) -> bool {
        let nodes = self.lock();
        let Some(process) = &nodes[at].process else { return false };
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.child.id()));
        maps.is_ok_and(|maps| maps.contains(library))
    }

    /// The data directory of a replica.
    pub(crate) fn data(&self, at: usize) -> PathBuf {
        self.lock()[at].launch.directory.join(&self.names[at])
    }

    /// Servers that ended although nobody ended them.
    pub(crate) fn died(&self) -> Vec<String> {
        let mut died = self.found_dead().clone();
        died.extend((0..self.names.len()).filter_map(|at| self.obituary(at)));
        died
    }

    /// How a server ended, if it did so by itself.
    fn obituary(&self, at: usize) -> Option<String> {
        if self.may_end.lock().expect("nobody panics while he looks").contains(&at) {
            return None;
        }
        let status = self.lock()[at].ended()?;
        Some(format!("{} ended by itself: {status}", self.names[at]))
    }

    fn found_dead(&self) -> MutexGuard<'_, Vec<String>> {
        self.found_dead.lock().expect("nobody panics while he looks")
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Node>> {
        self.nodes.lock().expect("nobody panics while he starts or kills")
    }
}

/// What the `group`-th group is called, counted from 0.
pub(crate) fn group_name(group: usize) -> String {
    format!("g{}", group + 1)
}
