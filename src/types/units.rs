//! Durations and sizes as people write them: `500ms`, `2s`, `8MiB`.
//!
//! A number without a unit is refused for durations, where it could mean anything, and counts
//! bytes for sizes. Fractions and signs are refused. Never panics and never overflows silently.

use std::time::Duration;

/// The text is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No duration.
    #[error("not a duration; write a whole number and a unit, like 500ms, 2s, 1m, 6h or 7d")]
    Duration,
    /// No size.
    #[error("not a size; write a whole number of bytes, or with a unit, like 64KiB, 8MiB or 1GiB")]
    Size,
}

/// Parses `500ms`, `2s`, `1m`, `6h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Duration)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(UnitError::Duration),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or(UnitError::Duration)
}

/// Parses `4096`, `64KiB`, `8MiB`, `1GiB`; `K`, `M` and `G` mean the same powers of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Size)?;
    let unit_bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(UnitError::Size),
    };
    number.checked_mul(unit_bytes).ok_or(UnitError::Size)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_whole_number() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("6h"), Ok(Duration::from_secs(6 * 60 * 60)));
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 24 * 60 * 60)));
        for bad in ["", "2", "s", "-2s", "+2s", "1.5s", "2 s", "2w", "2S", "18446744073709551615m"]
        {
            assert_eq!(parse_duration(bad), Err(UnitError::Duration), "{bad}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64KiB"), Ok(64 * 1024));
        assert_eq!(parse_bytes("8m"), Ok(8 * 1024 * 1024));
        for bad in ["", "MiB", "8MB2", "-1", "1.5M", "8kb", "18446744073709551615G"] {
            assert_eq!(parse_bytes(bad), Err(UnitError::Size), "{bad}");
        }
    }
}
