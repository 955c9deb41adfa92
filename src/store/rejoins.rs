//! Remembers when a replica gave up its data to rejoin its group, so that a disk or a machine that keeps
//! damaging it is not trusted for ever.
//!
//! `REJOINED` in the data directory has a line for each of the last [`REJOINS_MAX`] times, in
//! milliseconds since the epoch by this machine's clock. It is replaced as a whole, and outlives what
//! is set aside; whoever puts in another disk begins without it. The clock may be wrong: a time in
//! the future, or a line that can't be read, counts as one of just now. So a clock that jumps ahead
//! forgives too early, and none forgives what it can't date.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::store::datadir::DataDirError;
use crate::store::disk::Real;
use crate::store::note;
use crate::types::clock::TimestampMs;
use crate::types::limits::{REJOIN_WINDOW, REJOINED_BYTES_MAX, REJOINS_MAX};

const FILE: &str = "REJOINED";

/// Where a data directory says when its replica rejoined.
pub fn file(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// Whether a replica has given up its data so often of late that it must not do so by itself again.
pub fn too_often(data: &Path, now: TimestampMs) -> Result<bool, DataDirError> {
    let noted = read(data).map_err(|source| DataDirError::Io { path: file(data), source })?;
    Ok(recent(&noted, now) >= REJOINS_MAX)
}

/// Takes note that a replica gives up its data now: durable when this returns.
pub(in crate::store) fn note(data: &Path, now: TimestampMs) -> Result<(), DataDirError> {
    let text = read(data).map(|noted| with(&noted, now));
    let written = text.and_then(|text| note::write(&Real, &file(data), text.as_bytes()));
    written.map_err(|source| DataDirError::Io { path: file(data), source })
}

/// What is noted; nothing if there is no file.
fn read(data: &Path) -> io::Result<String> {
    let file = match File::open(file(data)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut noted = Vec::new();
    file.take(REJOINED_BYTES_MAX).read_to_end(&mut noted)?;
    Ok(String::from_utf8_lossy(&noted).into_owned())
}

/// How many times are noted that count at `now`.
fn recent(noted: &str, now: TimestampMs) -> usize {
    let counts = |line: &&str| match line.parse::<TimestampMs>() {
        Ok(then) => u128::from(now.saturating_sub(then)) < REJOIN_WINDOW.as_millis(),
        Err(_) => true,
    };
    noted.lines().filter(counts).count()
}

/// The newest of what is noted, and `now`.
fn with(noted: &str, now: TimestampMs) -> String {
    let older: Vec<&str> = noted.lines().collect();
    let kept = &older[older.len().saturating_sub(REJOINS_MAX - 1)..];
    kept.iter().map(|line| format!("{line}\n")).chain([format!("{now}\n")]).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: TimestampMs = 1_755_248_123_456;

    fn window_ms() -> u64 {
        u64::try_from(REJOIN_WINDOW.as_millis()).unwrap()
    }

    #[test]
    fn who_rejoins_too_often_is_told_so_until_the_window_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..REJOINS_MAX as u64 {
            assert!(!too_often(dir.path(), NOW + round).unwrap(), "{round} times");
            note(dir.path(), NOW + round).unwrap();
        }
        assert!(too_often(dir.path(), NOW + 9).unwrap());
        assert!(too_often(dir.path(), NOW + window_ms() - 1).unwrap());
        assert!(!too_often(dir.path(), NOW + window_ms()).unwrap());
        // The oldest makes room.
        note(dir.path(), NOW + window_ms()).unwrap();
        let noted = fs::read_to_string(file(dir.path())).unwrap();
        assert_eq!(noted.lines().count(), REJOINS_MAX, "{noted}");
        assert!(noted.ends_with(&format!("{}\n", NOW + window_ms())), "{noted}");
        fs::remove_file(file(dir.path())).unwrap();
        assert!(!too_often(dir.path(), NOW).unwrap(), "a person has decided");
    }

    #[test]
    fn what_can_not_be_dated_counts() {
        for undated in ["", "yesterday", "99999999999999999999999", "-5", "\u{fffd}"] {
            let noted = format!("{undated}\n").repeat(REJOINS_MAX);
            assert_eq!(recent(&noted, NOW), REJOINS_MAX, "{undated}");
            assert_eq!(recent(&with(&noted, NOW), NOW), REJOINS_MAX, "{undated}");
        }
        // The clock has gone back, or was never set.
        for now in [NOW - 1, NOW - 2 * window_ms(), 0] {
            assert_eq!(recent(&format!("{NOW}\n"), now), 1, "at {now}");
        }
    }

    #[test]
    fn a_file_that_can_not_be_read_is_no_permission() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(file(dir.path())).unwrap();
        assert!(matches!(too_often(dir.path(), NOW), Err(DataDirError::Io { .. })));
    }
}
