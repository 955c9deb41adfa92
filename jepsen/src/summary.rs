//! What a run says on the terminal: a line a second while it lasts, a table at its end.

use std::time::Duration;

use crate::history::Counts;
use crate::results::{Results, Verdict, Watched};

/// Anomalies that are shown in full.
const SHOWN: usize = 10;

/// Several lines about a run that is over.
pub(crate) fn summary(results: &Results) -> String {
    let mut lines = Vec::new();
    for anomaly in results.anomalies.iter().take(SHOWN) {
        lines.push(format!("anomaly     {anomaly}"));
    }
    if results.anomalies.len() > SHOWN {
        lines.push(format!("            and {} more", results.anomalies.len() - SHOWN));
    }
    let Counts { ok, failed, unknown } = results.counts;
    let rate = results.counts.total() * 1000 / results.setup.duration_ms.max(1);
    lines.push(format!(
        "operations  {ok} ok, {failed} failed, {unknown} of unknown fate, {rate} a second"
    ));
    for (kind, figures) in &results.faults {
        lines.push(format!(
            "{kind:<11} {} took hold, {} skipped, {} indeterminate",
            figures.installed, figures.skipped, figures.indeterminate
        ));
        if let Some((median, longest)) = median_and_longest(&figures.gaps_ms) {
            lines.push(format!(
                "            without a write {median} ms (median), {longest} ms (longest)"
            ));
        }
        if let Some((median, longest)) = median_and_longest(&figures.failovers_ms) {
            lines.push(format!(
                "            {} leaders replaced after {median} ms (median), {longest} ms (longest)",
                figures.failovers_ms.len()
            ));
        }
        if let Some((median, longest)) = median_and_longest(&figures.leader_gaps_ms) {
            lines.push(format!(
                "            without a write at these: {median} ms (median), {longest} ms (longest)"
            ));
        }
    }
    lines.push(format!("longest gap {} ms without an acknowledged write", results.longest_gap_ms));
    if let Some(recovered) = results.recovered_ms {
        lines.push(format!("healed      every write succeeded after {recovered} ms"));
    }
    let excused = results.patience.excused;
    if excused > 0 {
        lines.push(format!("gave up     {excused} times, each while a group could not serve"));
    }
    if let Some(Watched { watchers, changes, resumed, gaps }) = results.watched {
        lines.push(format!(
            "watched     {watchers} watchers were told {changes} changes, went on elsewhere {resumed} times and \
             began anew {gaps} times"
        ));
    }
    lines.push(format!("verdict     {}", verdict(results)));
    lines.join("\n")
}

/// The verdict in a few words.
pub(crate) fn verdict(results: &Results) -> String {
    let reasons = results.reasons.join("; ");
    match results.verdict {
        Verdict::Valid => "valid".into(),
        Verdict::Anomaly => format!("{} ANOMALIES", results.anomalies.len()),
        Verdict::Unknown => format!("unknown: {reasons}"),
        Verdict::Void => format!("void: {reasons}"),
    }
}

/// Of sorted figures.
fn median_and_longest(sorted: &[u64]) -> Option<(u64, u64)> {
    Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
}

/// One line about a run that lasts.
pub(crate) fn progress(
    elapsed: Duration,
    counts: Counts,
    before: Counts,
    fault: &str,
    anomalies: usize,
) -> String {
    let rate = counts.total() - before.total();
    let percent = (counts.ok * 100).checked_div(counts.total()).unwrap_or(0);
    format!(
        "{:>4} s  {:>7} operations ({percent} % ok)  {rate:>5}/s  anomalies {anomalies}  {}",
        elapsed.as_secs(),
        counts.total(),
        if fault.is_empty() { "no fault" } else { fault }
    )
}
