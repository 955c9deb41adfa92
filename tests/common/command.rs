//! Runs `sage` to its end, and ends a running one politely.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::node::Node;
use super::process::Launch;
use super::until::{SOON, until};
use super::world::sage;

/// How a command ended and what it printed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Fails unless the command refused to work as users are promised: exit 2, and one clear line
    /// on stderr, which has these words in it.
    #[track_caller]
    pub(crate) fn refused(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:?}");
        let lines = self.stderr.lines().filter(|line| line.starts_with("error"));
        let errors: Vec<&str> = lines.collect();
        assert_eq!(errors.len(), 1, "one line says what is wrong: {self:?}");
        for word in words {
            assert!(errors[0].contains(word), "{word} is not in: {}", errors[0]);
        }
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

/// Runs `sage` with these arguments in `directory` and waits for its end; it must come soon.
pub(crate) async fn run(directory: &Path, args: &[&str]) -> Ended {
    run_with(directory, args, &[]).await
}

/// As [`run`], with these environment variables.
pub(crate) async fn run_with(directory: &Path, args: &[&str], env: &[(&str, &str)]) -> Ended {
    end_of(Launch {
        name: "command".into(),
        program: sage(),
        args: args.iter().map(ToString::to_string).collect(),
        directory: directory.into(),
        env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    })
    .await
}

/// Runs a command and waits for its end; it must come soon.
pub(crate) async fn end_of(launch: Launch) -> Ended {
    let mut command = tokio::process::Command::from(launch.command());
    command.kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it can be started");
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{launch:?} does not end"));
    let output = output.expect("its output can be read");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Asks a server to end and waits until it has.
pub(crate) async fn stop(node: &mut Node, signal: Signal) -> ExitStatus {
    if let Some(process) = node.process.as_mut() {
        process.signal(signal);
    }
    exit(node, Duration::from_secs(20)).await
}

/// Waits until a server has ended by itself.
pub(crate) async fn exit(node: &mut Node, within: Duration) -> ExitStatus {
    let name = node.launch.name.clone();
    until(&format!("{name} ends"), within, async || node.ended().ok_or("it runs".into())).await
}
