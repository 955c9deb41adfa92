//! Judges a stored history once more, with the checkers of today.
//!
//! Only what the clients saw is judged: what was seen beside it (a server that died, replicas that
//! differed) is not in the history.

use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::judge::{self, Evidence};
use crate::options::Workload;
use crate::results::Verdict;
use crate::run::say;
use crate::summary::summary;
use crate::{checker, stored};

/// Reads a history, judges it, and says how it went.
pub(crate) fn run(history: &Path) -> Result<Verdict> {
    let (setup, events, faults) = stored::load(history)?;
    let workload = Workload::from_str(&setup.workload, false)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{}: its workload", history.display()))?;
    let checked = checker::check(workload, &events);
    let attacked = std::time::Duration::from_millis(setup.duration_ms);
    let evidence = Evidence { attacked, ..Evidence::default() };
    let results = judge::judge(setup, evidence, checked, &events, &faults);
    say(&summary(&results));
    Ok(results.verdict)
}
