//! One server as a test or a harness run sees it: a command line that can be started, killed and
//! started again on the same port and data. Shared with `jepsen/`.

use std::io;
use std::path::Path;
use std::process::ExitStatus;

use sagedb::types::http::{PATH_STATUS, ShardStatus};

use super::process::{Launch, Process};

/// A server, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it is started with.
    pub(crate) launch: Launch,
    /// Where it is reached.
    pub(crate) url: String,
    /// What runs, if anything was started and not killed since.
    pub(crate) process: Option<Process>,
}

impl Node {
    /// One replica, not started: `peers` are the URLs of the group's other members.
    pub(crate) fn shard(
        program: &Path,
        directory: &Path,
        (name, port): (&str, u16),
        peers: &[String],
        flags: &[String],
    ) -> Self {
        let data = directory.join(name);
        let mut args = vec!["shard".into(), "--port".into(), port.to_string()];
        args.extend(["--data".into(), data.display().to_string()]);
        if !peers.is_empty() {
            args.extend(["--replicas".into(), peers.join(",")]);
        }
        args.extend_from_slice(flags);
        Self::new(program, directory, (name, port), args)
    }

    /// A coordinator, not started.
    pub(crate) fn coordinator(
        program: &Path,
        directory: &Path,
        (name, port): (&str, u16),
        shards: &[String],
    ) -> Self {
        let mut args = vec!["coordinator".into(), "--port".into(), port.to_string()];
        args.extend(["--shards".into(), shards.join(",")]);
        Self::new(program, directory, (name, port), args)
    }

    fn new(program: &Path, directory: &Path, (name, port): (&str, u16), args: Vec<String>) -> Self {
        let launch = Launch {
            name: name.into(),
            program: program.into(),
            args,
            directory: directory.into(),
            env: Vec::new(),
        };
        Self { launch, url: url_of(port), process: None }
    }

    /// Starts it, on the same port and data each time.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        assert!(!self.is_up(), "{} is running already", self.launch.name);
        self.process = Some(Process::start(&self.launch)?);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Whether it was started and has not ended since.
    pub(crate) fn is_up(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// How it ended, if it did so by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }
}

/// What the replica at `url` says of itself, if it answers.
pub(crate) async fn status(http: &reqwest::Client, url: &str) -> Option<ShardStatus> {
    let answer = http.get(format!("{url}{PATH_STATUS}")).send().await.ok()?;
    answer.json().await.ok()
}

/// The URL of a server of ours.
pub(crate) fn url_of(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
