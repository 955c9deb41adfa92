//! Starts and ends one real process, and keeps what it prints.
//!
//! A process never outlives its [`Process`]: it is killed when that is dropped, also in a panic.
//! Everything it prints goes to a file, so that it can never block on a full pipe. Shared with
//! `jepsen/`.

use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// What must not leak from the caller's environment into a server.
const FOREIGN: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// What to start, and where.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// For people, and for the names of the output files.
    pub(crate) name: String,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Its working directory, which also takes its output.
    pub(crate) directory: PathBuf,
    /// What its environment has beside the caller's.
    pub(crate) env: Vec<(String, String)>,
}

impl Launch {
    /// The command, with an environment that has nothing of ours or of a proxy in it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let foreign = FOREIGN.contains(&text.to_lowercase().as_str());
            if foreign || text.starts_with("SAGE_") {
                command.env_remove(&name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args(&self.args).current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    /// The file that takes everything that processes of this name print.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }
}

/// A running or ended process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it. Output is appended to the launch's log, after a line that says what was started.
    pub(crate) fn start(launch: &Launch) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(launch.log())?;
        writeln!(file, "--- {} {}", launch.program.display(), launch.args.join(" "))?;
        let child = launch.command().stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { child, ended: None })
    }

    /// Sends a signal, if the process has not ended. After `STOP` it stands still.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = Pid::from_child(&self.child);
            // It may end at any moment: then there is nobody left to tell.
            kill_process(pid, signal).ok();
            if signal == Signal::STOP {
                // One thread takes the signal, when it is its turn; the others run until then.
                let seen = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                waitid(WaitId::Pid(pid), seen).ok();
            }
        }
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended = self.ended.or_else(|| self.child.wait().ok());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
