//! What ran where: the machine and the versions, for the reader of the results.

use std::fmt;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// The file systems that have no disk below them.
const MEMORY_FILE_SYSTEMS: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's model.
    pub(crate) cpu: String,
    /// Processors that this program may use.
    pub(crate) cores: usize,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// How busy it was before anything was started: processes that wanted to run, over one, five and 15 minutes.
    pub(crate) load_before: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let load = read("/proc/loadavg");
        let load: Vec<&str> = load.split_ascii_whitespace().take(3).collect();
        Self {
            cpu: value_of(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
            cores: cores(),
            memory_mib: memory_mib(&read("/proc/meminfo"), "MemTotal"),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            load_before: load.join(" "),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_mib, kernel, load_before } = self;
        write!(
            f,
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load before: {load_before}"
        )
    }
}

/// Memory in MiB that processes can have without driving others out.
pub(crate) fn available_mib() -> u64 {
    memory_mib(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable")
}

/// Processors that this program may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The value of the first line `name : value`.
fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

fn memory_mib(meminfo: &str, name: &str) -> u64 {
    let kib = value_of(meminfo, name).and_then(|value| value.strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

/// Refuses a directory that is in memory: a sync would cost nothing there.
pub(crate) fn check_disk(directory: &Path) -> Result<()> {
    let found = rustix::fs::statfs(directory).with_context(|| directory.display().to_string())?;
    let kind = u64::try_from(found.f_type).unwrap_or_default();
    let memory = MEMORY_FILE_SYSTEMS.iter().find(|(magic, _)| *magic == kind);
    ensure!(
        memory.is_none(),
        "{} is in memory ({}), where a sync costs nothing; name a directory on a disk with --data",
        directory.display(),
        memory.map_or("", |(_, name)| name)
    );
    Ok(())
}

/// The first line that a program prints; `None` if there is no such program.
pub(crate) fn first_line(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_the_kernel_are_read_as_far_as_they_go() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2: fast\nmodel name\t: another\n";
        assert_eq!(value_of(text, "model name"), Some("A CPU @ 2: fast"));
        assert_eq!(value_of("", "model name"), None);
        assert_eq!(memory_mib("MemTotal:       16384 kB\n", "MemTotal"), 16);
        for odd in ["", "MemTotal:", "MemTotal: x kB", "MemTotal: -1 kB"] {
            assert_eq!(memory_mib(odd, "MemTotal"), 0);
        }
        assert!(Machine::here().cores > 0);
    }

    #[test]
    fn a_directory_in_memory_is_refused() {
        // Where there is none, there is nothing to refuse.
        if let Err(error) = check_disk(Path::new("/dev/shm")) {
            assert!(error.to_string().contains("/dev/shm"), "{error}");
        }
        assert!(check_disk(Path::new("/no such directory")).is_err());
    }
}
