//! The comparison as its users start it, with real servers and hardly any load: whether each target has its runs in the
//! results, and whether nothing is left when it is interrupted.
//!
//! Ignored by default, since `sage` is built for it unless `COMPARE_SAGE` names one.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A comparison in a directory on a disk.
struct Comparison {
    directory: TempDir,
    child: Child,
}

impl Comparison {
    fn start(line: &str) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
        command.args(line.split_ascii_whitespace());
        for (flag, name) in [("--data", "data"), ("--out", "out")] {
            command.arg(flag).arg(directory.path().join(name));
        }
        if let Some(sage) = std::env::var_os("COMPARE_SAGE") {
            command.arg("--sage").arg(sage);
        }
        let child = command.stdout(Stdio::null()).spawn().expect("it starts");
        Self { directory, child }
    }

    fn results(&self, name: &str) -> Value {
        let path = self.directory.path().join("out").join(name);
        let text = std::fs::read_to_string(&path).expect("results are written");
        serde_json::from_str(&text).expect("results are JSON")
    }

    /// The processes that it has started and that have not ended.
    fn children(&self) -> Vec<u32> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = Path::new(&tasks).read_dir().into_iter().flatten().flatten();
        let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")));
        let children: String = children.map(Result::unwrap_or_default).collect();
        children.split_ascii_whitespace().map(|pid| pid.parse().expect("a number")).collect()
    }

    /// Interrupts it when it has started so many servers, and waits until it has ended.
    async fn interrupt(&mut self, servers: usize) {
        let start = Instant::now();
        let children = loop {
            let children = self.children();
            if children.len() >= servers {
                break children;
            }
            assert!(self.child.try_wait().expect("it is ours").is_none(), "it ended by itself");
            assert!(start.elapsed() < PATIENCE, "only {children:?} have started");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(!status.success(), "{status}");
        for pid in children {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left");
        }
        let data = self.directory.path().join("data").read_dir().expect("it was made");
        let left: Vec<_> = data.flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        // It may have ended; then there is nobody to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
#[ignore = "starts servers, and builds sage unless COMPARE_SAGE names one"]
async fn each_target_has_a_run_of_each_workload() {
    let mut comparison = Comparison::start(
        "--targets sage,axum --workloads put,get --clients 2 --rounds 1 --duration 300ms --warmup 100ms --keys 100",
    );
    assert!(comparison.child.wait().expect("it is ours").success());
    let results = comparison.results("results.json");
    assert_eq!(results["complete"], true);
    let runs = results["runs"].as_array().expect("a list");
    let ran = |target: &str, workload: &str| {
        let of_both =
            |run: &&Value| run["target"] == target && run["report"]["workload"] == workload;
        runs.iter().filter(of_both).count()
    };
    for target in ["sage", "axum"] {
        for workload in ["put", "get"] {
            assert_eq!(ran(target, workload), 1, "{target} {workload}: {results}");
        }
    }
}

#[tokio::test]
#[ignore = "starts servers, and builds sage unless COMPARE_SAGE names one"]
async fn nothing_is_left_when_it_is_interrupted() {
    let mut comparison = Comparison::start("--targets sage --clients 2 --duration 10m");
    comparison.interrupt(4).await;
    assert_eq!(comparison.results("results.json")["complete"], false);
    let mut data = Comparison::start("data --keys 1000000 --duration 10m");
    data.interrupt(4).await;
    assert_eq!(data.results("data.json")["complete"], false);
}
