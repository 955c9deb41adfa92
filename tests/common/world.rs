//! One test's world: nothing in it is shared with another test, and nothing of it is left behind.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::group::Group;
use super::http::Http;
use super::node::Node;
use super::ports::Ports;
use super::slots::Slots;
use super::until::{SOON, until};

/// Lines of each process's output that a failed test shows.
const TAIL_LINES: usize = 40;

/// Make it the first thing of a test, so that it is the last to be dropped.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) http: Http,
    directory: TempDir,
    ports: Ports,
    coordinators: usize,
    _slots: Slots,
}

/// The binary under test.
pub(crate) fn sage() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sage"))
}

impl World {
    /// A world beside those of other tests.
    pub(crate) async fn new() -> Self {
        Self::with(Slots::one().await)
    }

    /// A world for a test that measures time or loads the machine: no other runs beside it.
    pub(crate) async fn alone() -> Self {
        Self::with(Slots::all().await)
    }

    fn with(slots: Slots) -> Self {
        Self {
            http: Http::new(),
            directory: TempDir::with_prefix("sage-test-").expect("a directory can be made"),
            ports: Ports::hold(),
            coordinators: 0,
            _slots: slots,
        }
    }

    /// Where data and output go.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A port that is free and stays this test's own.
    pub(crate) fn port(&mut self) -> u16 {
        self.ports.take()
    }

    /// A group of `replicas` that are started with `flags` and named after `name`, not started.
    pub(crate) fn group(&mut self, name: &str, replicas: usize, flags: &[&str]) -> Group {
        let ports: Vec<u16> = (0..replicas).map(|_| self.port()).collect();
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        Group::new(name, self.directory(), &ports, &flags)
    }

    /// A group that has formed and serves.
    pub(crate) async fn started(&mut self, name: &str, replicas: usize, flags: &[&str]) -> Group {
        let mut group = self.group(name, replicas, flags);
        group.start();
        group.until_ready(&self.http).await;
        group
    }

    /// A coordinator over some URLs, not started.
    pub(crate) fn coordinator(&mut self, shards: &[String]) -> Node {
        self.coordinators += 1;
        let name = format!("coordinator-{}", self.coordinators);
        let port = self.port();
        Node::coordinator(&sage(), self.directory(), (&name, port), shards)
    }

    /// A coordinator over all members of some groups that says it is ready.
    pub(crate) async fn routed(&mut self, groups: &[&Group]) -> Node {
        let shards: Vec<String> = groups.iter().flat_map(|group| group.urls()).collect();
        let mut node = self.coordinator(&shards);
        node.start().expect("the coordinator can be started");
        self.until_ready(&node.url).await;
        node
    }

    /// Waits until a server says that requests can succeed.
    pub(crate) async fn until_ready(&self, url: &str) {
        until("the server is ready", SOON, async || self.http.ready(url).await).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(self.directory.path());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what its servers printed")]
fn show(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    for log in paths.filter(|path| path.extension().is_some_and(|ext| ext == "log")) {
        eprintln!("--- the end of {}\n{}", log.display(), tail(&log, TAIL_LINES));
    }
}

/// The last lines of a file; empty if it can't be read.
fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let skipped = text.lines().count().saturating_sub(lines);
    text.lines().skip(skipped).collect::<Vec<_>>().join("\n")
}
