//! The processes of one target: started in one directory on free ports, waited for, and ended.
//!
//! They are killed when it is dropped, however that comes about, and then their directory is removed. No
//! process but these is ever touched.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports::Ports;
use crate::process::{Launch, Process};
use crate::procfs;

/// How long a target may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a process may take to end when it is told to.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// How much of what a process printed is shown when it has ended.
const TAIL_BYTES: usize = 2000;

/// A target's processes.
pub(crate) struct Fleet {
    // Dropped in this order: who writes into the directory goes first.
    processes: Vec<Server>,
    ports: Ports,
    directory: TempDir,
}

struct Server {
    launch: Launch,
    process: Process,
    /// Whether it was told to end, and nobody shall wonder that it has.
    away: bool,
}

impl Fleet {
    /// Nobody yet, in a new directory below `data`.
    pub(crate) fn new(data: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("compare-").tempdir_in(data);
        let directory = directory.with_context(|| data.display().to_string())?;
        Ok(Self { processes: Vec::new(), ports: Ports::hold(), directory })
    }

    /// A port that nobody uses.
    pub(crate) fn port(&mut self) -> u16 {
        self.ports.take()
    }

    /// A directory of this name, made.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Starts a process, and says which it is.
    pub(crate) fn start(&mut self, name: &str, program: &Path, args: Vec<String>) -> Result<usize> {
        let launch = Launch {
            name: name.to_owned(),
            program: program.to_owned(),
            args,
            directory: self.directory.path().to_owned(),
            env: Vec::new(),
        };
        let process = begin(&launch)?;
        self.processes.push(Server { launch, process, away: false });
        Ok(self.processes.len() - 1)
    }

    /// Sends a signal to one and waits until it has ended.
    pub(crate) async fn end(&mut self, at: usize, signal: Signal) -> Result<()> {
        let Server { launch, process, away } = &mut self.processes[at];
        *away = true;
        process.signal(signal);
        let start = Instant::now();
        while process.ended().is_none() {
            if start.elapsed() > END_TIMEOUT {
                bail!("{} does not end in {END_TIMEOUT:?}", launch.name);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Starts one that has ended again, as it was started.
    pub(crate) fn start_again(&mut self, at: usize) -> Result<()> {
        let Server { launch, process, away } = &mut self.processes[at];
        *process = begin(launch)?;
        *away = false;
        Ok(())
    }

    /// Whether one was not told to end.
    pub(crate) fn is_running(&self, at: usize) -> bool {
        !self.processes[at].away
    }

    /// The identifier of one process.
    pub(crate) fn pid(&self, at: usize) -> u32 {
        self.processes[at].process.child.id()
    }

    /// The identifiers of those that were not told to end.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let running = self.processes.iter().filter(|server| !server.away);
        running.map(|server| server.process.child.id()).collect()
    }

    /// Microseconds that all of them have been on a processor so far.
    pub(crate) fn cpu_us(&self) -> Result<u64> {
        procfs::cpu_us(&self.pids())
    }

    /// Fails if one has ended, with the last that it said.
    pub(crate) fn check(&mut self) -> Result<()> {
        for Server { launch, process, away } in &mut self.processes {
            if let Some(status) = process.ended().filter(|_| !*away) {
                let said = std::fs::read(launch.log()).unwrap_or_default();
                let said = &said[said.len().saturating_sub(TAIL_BYTES)..];
                let said = String::from_utf8_lossy(said).into_owned();
                bail!("{} ended by itself: {status}\n{said}", launch.name);
            }
        }
        Ok(())
    }

    /// Waits until `ask` succeeds, a process ends, or it takes too long.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        ask: impl AsyncFn() -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            let reason = match tokio::time::timeout(START_TIMEOUT, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(reason)) => reason,
                Err(late) => late.into(),
            };
            self.check()?;
            if start.elapsed() > START_TIMEOUT {
                bail!("{what} does not come in {START_TIMEOUT:?}: {reason:#}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn begin(launch: &Launch) -> Result<Process> {
    let started = Process::start(launch);
    started.with_context(|| format!("{} can't be started", launch.program.display()))
}
