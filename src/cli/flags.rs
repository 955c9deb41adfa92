//! Checks that several commands share; each failure is one sentence with its cure.

use anyhow::{Context, bail, ensure};

use crate::types::limits::{GROUP_NAME_BYTES_MAX, MEMORY_BUDGET_BYTES_MIN, VALUE_BYTES_MAX};
use crate::types::url::base_url;

/// The URLs of a list flag in their one form, without duplicates. A flag set to nothing, as an
/// empty environment variable does, is an empty list.
pub(super) fn urls(flag: &str, given: &[String]) -> anyhow::Result<Vec<String>> {
    if matches!(given, [only] if only.trim().is_empty()) {
        return Ok(Vec::new());
    }
    let mut urls = Vec::with_capacity(given.len());
    for text in given {
        let url = url(flag, text)?;
        ensure!(!urls.contains(&url), "{flag} lists {url} twice; list each URL once");
        urls.push(url);
    }
    Ok(urls)
}

/// One URL in its one form.
pub(super) fn url(flag: &str, given: &str) -> anyhow::Result<String> {
    base_url(given).with_context(|| flag.to_owned())
}

/// A bound for values.
pub(super) fn max_value_bytes(given: u64) -> anyhow::Result<usize> {
    match usize::try_from(given) {
        Ok(bytes) if (1..=VALUE_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => bail!(
            "--max-value-size must be from 1 byte to {} MiB, not {given} bytes",
            VALUE_BYTES_MAX / (1024 * 1024)
        ),
    }
}

/// A bound for memory; 0 is none, as with Redis.
pub(super) fn max_memory(given: u64) -> anyhow::Result<Option<u64>> {
    ensure!(
        given == 0 || given >= MEMORY_BUDGET_BYTES_MIN,
        "--max-memory must be at least {} MiB, or 0 for no limit, not {given} bytes",
        MEMORY_BUDGET_BYTES_MIN / (1024 * 1024)
    );
    Ok((given > 0).then_some(given))
}

/// The most worker threads.
pub(super) const THREADS_MAX: i64 = 1024;

/// How many worker threads a server has: half as many as there are processors, if it was not told. The others are for the
/// log's thread, the system's part of the network, and whoever else runs here; threads that wait for each other's
/// processor cost more than they do (`docs/performance.md`).
pub(super) fn threads(given: Option<u16>) -> usize {
    given.map_or_else(|| (processors() / 2).max(1), usize::from)
}

/// How many processors this process may use.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A group's name: it stands in headers, logs and tables.
pub(super) fn group_name(given: &str) -> anyhow::Result<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    ensure!(
        !given.is_empty() && given.len() <= GROUP_NAME_BYTES_MAX && given.bytes().all(fits),
        "--id must be 1 to {GROUP_NAME_BYTES_MAX} letters, digits, dots, dashes or underscores"
    );
    Ok(given.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(given: &[&str]) -> Result<Vec<String>, String> {
        let given: Vec<String> = given.iter().map(|&url| url.to_owned()).collect();
        urls("--shards", &given).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_list_of_urls_is_checked_and_put_in_one_form() {
        let urls = list(&["http://A:1/", "http://b:2"]).expect("valid");
        assert_eq!(urls, ["http://a:1", "http://b:2"]);
        assert_eq!(list(&[""]), Ok(Vec::new()));
        assert_eq!(list(&[]), Ok(Vec::new()));
    }

    #[test]
    fn a_bad_list_says_which_flag_and_why() {
        let twice = list(&["http://a:1", "http://A:1/"]).expect_err("twice");
        assert_eq!(twice, "--shards lists http://a:1 twice; list each URL once");
        let https = list(&["https://a:1"]).expect_err("https");
        assert!(https.starts_with("--shards: https://a:1 asks for https"), "{https}");
        let comma = list(&["http://a:1", ""]).expect_err("comma");
        assert_eq!(comma, "--shards: an empty URL; check for a comma too many");
    }

    #[test]
    fn a_server_leaves_processors_to_others_unless_it_is_told() {
        assert_eq!(threads(Some(3)), 3);
        assert_eq!(threads(None), (processors() / 2).max(1));
    }

    #[test]
    fn sizes_and_names_have_bounds() {
        assert_eq!(max_value_bytes(8 << 20).expect("valid"), 8 << 20);
        assert!(max_value_bytes(0).is_err() && max_value_bytes(65 << 20).is_err());
        assert_eq!(group_name("eu-1_a.b").expect("valid"), "eu-1_a.b");
        for bad in ["", "a b", "a:1", "a\n", "\u{e9}", &"x".repeat(129)] {
            assert!(group_name(bad).is_err(), "{bad:?}");
        }
    }
}
