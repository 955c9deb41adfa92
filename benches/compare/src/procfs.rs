//! What the kernel says of processes: their time on the processor, and their memory.
//!
//! The text of `/proc` comes from outside: what does not parse is an error that shows it.

use anyhow::{Context, Result};
use serde::Serialize;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// Microseconds that these processes have been on a processor so far, in user and system mode, all
/// threads together, those that have ended included.
pub(crate) fn cpu_us(pids: &[u32]) -> Result<u64> {
    let ticks = pids.iter().map(|pid| ticks(&read(*pid, "stat")?)).sum::<Result<u64>>()?;
    Ok(ticks * MICROS_PER_SECOND / rustix::param::clock_ticks_per_second().max(1))
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Resident {
    /// What it has just now: `VmRSS`.
    #[serde(rename = "bytes")]
    pub(crate) now: u64,
    /// The most that it ever had: `VmHWM`.
    #[serde(rename = "peak_bytes")]
    pub(crate) peak: u64,
}

/// The memory of a process that is resident.
pub(crate) fn resident(pid: u32) -> Result<Resident> {
    let status = read(pid, "status")?;
    Ok(Resident { now: bytes_of(&status, "VmRSS")?, peak: bytes_of(&status, "VmHWM")? })
}

/// The value of a line `name: 123 kB` of `/proc/<pid>/status`.
fn bytes_of(status: &str, name: &str) -> Result<u64> {
    let mut pairs = status.lines().filter_map(|line| line.split_once(':'));
    let value = pairs.find(|(found, _)| *found == name).map(|(_, value)| value.trim());
    let kib = value.and_then(|value| value.strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let kib = kib.with_context(|| format!("no {name} in {status:?}"))?;
    kib.checked_mul(1024).with_context(|| format!("more memory than there is in {status:?}"))
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    // The name of a program may be any bytes.
    let bytes = std::fs::read(&path).context(path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `utime` and `stime` of `/proc/<pid>/stat`: fields 14 and 15 of proc(5). The second is the name of the program in parentheses,
/// which may have blanks and parentheses in it, so fields are counted from the last parenthesis.
fn ticks(stat: &str) -> Result<u64> {
    let (_, behind) = stat.rsplit_once(')').with_context(|| format!("no name in {stat:?}"))?;
    let mut fields = behind.split_ascii_whitespace().skip(11);
    let mut field = || -> Result<u64> {
        let field = fields.next().with_context(|| format!("too few fields in {stat:?}"))?;
        field.parse().with_context(|| format!("{field:?} in {stat:?}"))
    };
    let (user, system) = (field()?, field()?);
    user.checked_add(system).with_context(|| format!("more time than there is in {stat:?}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn user_and_system_time_are_added_whatever_the_program_is_called() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 250 50 7 8 20 0";
        for name in ["sage", "a b", "x) S 9 9 9", ")", "("] {
            let stat = format!("4242 ({name}) {fields}\n");
            assert_eq!(ticks(&stat).expect(name), 300, "{name}");
        }
    }

    #[test]
    fn what_is_no_stat_is_refused() {
        let most = u64::MAX;
        let odd = [
            String::new(),
            "1 (a".into(),
            "1 (a) S 1 2 3".into(),
            "1 (a) S 1 2 3 4 5 6 7 8 9 10 x 50".into(),
            "1 (a) S 1 2 3 4 5 6 7 8 9 10 -1 50".into(),
            format!("1 (a) S 1 2 3 4 5 6 7 8 9 10 {most} {most}"),
        ];
        for stat in odd {
            assert!(ticks(&stat).is_err(), "{stat}");
        }
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        let status = "Name:\tsage\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(bytes_of(status, "VmRSS").expect("it is there"), 1024 * 1024);
        assert_eq!(bytes_of(status, "VmHWM").expect("it is there"), 2048 * 1024);
        let most = u64::MAX;
        for odd in ["", "VmRSS: x kB", "VmRSS: 1", "VmRSS: -1 kB", &format!("VmRSS: {most} kB")] {
            assert!(bytes_of(odd, "VmRSS").is_err(), "{odd}");
        }
    }

    #[test]
    fn this_process_can_be_asked_for_its_time_and_memory() {
        let me = std::process::id();
        let resident = resident(me).expect("it runs");
        assert!(resident.now > 0 && resident.peak > 0, "{resident:?}");
        cpu_us(&[me, me]).expect("it runs");
        // No process has it: it is above the most that Linux gives.
        assert!(cpu_us(&[u32::MAX]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            drop(ticks(&text));
            drop(bytes_of(&text, "VmRSS"));
        }
    }
}
