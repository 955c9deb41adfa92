//! Judges a stored history once more, with the checkers of today.
//!
//! What was seen beside it (a server that died, replicas that differed) is in the history's last line,
//! and counts as it did.

use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::options::Workload;
use crate::results::Verdict;
use crate::run::say;
use crate::stored::Stored;
use crate::summary::summary;
use crate::{checker, judge, stored};

/// Reads a history, judges it, and says how it went.
pub(crate) fn run(history: &Path) -> Result<Verdict> {
    let Stored { setup, events, faults, evidence } = stored::load(history)?;
    let workload = Workload::from_str(&setup.workload, false)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{}: its workload", history.display()))?;
    let checked = checker::check(workload, &events);
    let results = judge::judge(setup, evidence, checked, &events, &faults);
    say(&summary(&results));
    Ok(results.verdict)
}
