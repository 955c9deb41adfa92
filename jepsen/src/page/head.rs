//! The top of the page: what came out, of what, and how to do it again.

use maud::{Markup, html};

use super::ops::{clip, grouped, milliseconds};
use crate::results::{FaultFigures, Results, Setup, Verdict};

/// Anomalies in the list.
const LISTED: usize = 50;
/// Characters of an anomaly, or of a reason.
pub(crate) const DETAIL_CHARS_MAX: usize = 600;

/// The page's title.
pub(crate) fn title(results: &Results) -> String {
    let word = word(results.verdict);
    format!("{word}: {} under {}", results.setup.workload, nemeses(&results.setup))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "Valid",
        Verdict::Anomaly => "Anomaly",
        Verdict::Unknown => "Unknown",
        Verdict::Void => "Void",
    }
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "Every promise was kept, and enough has happened to say so.",
        Verdict::Anomaly => "A promise was broken.",
        Verdict::Unknown => "A checker gave up before it knew.",
        Verdict::Void => "Too little has happened to say anything.",
    }
}

fn nemeses(setup: &Setup) -> String {
    if setup.nemesis.is_empty() { "no faults".into() } else { setup.nemesis.join(", ") }
}

/// Everything above the charts.
pub(crate) fn head(results: &Results) -> Markup {
    let class = word(results.verdict).to_lowercase();
    html! {
        header class=(class) {
            p.project { "SageDB fault injection" }
            h1 { (word(results.verdict)) }
            p.meaning { (meaning(results.verdict)) }
            @for reason in results.reasons.iter().take(LISTED) {
                p.reason { (clip(reason, DETAIL_CHARS_MAX)) }
            }
        }
        section.facts {
            (setup(&results.setup))
            (figures(results))
        }
        (anomalies(results))
        (faults(results))
    }
}

fn setup(setup: &Setup) -> Markup {
    html! {
        dl.setup {
            div { dt { "Workload" } dd { (setup.workload) } }
            div { dt { "Faults" } dd { (nemeses(setup)) } }
            div { dt { "Cluster" } dd {
                (setup.groups) " × " (setup.replicas) " replicas, "
                (setup.coordinators) " coordinators"
            } }
            div { dt { "Clients" } dd { (setup.clients) } }
            div { dt { "Attack" } dd { (milliseconds(setup.duration_ms)) } }
            div { dt { "Seed" } dd { (setup.seed) } }
        }
        pre.command { code { (setup.command_line()) } }
    }
}

fn figures(results: &Results) -> Markup {
    let counts = results.counts;
    let total = counts.total();
    let percent = |part: u64| {
        let tenths = u128::from(part) * 1_000 / u128::from(total.max(1));
        format!("{}.{} %", tenths / 10, tenths % 10)
    };
    let seconds = results.setup.duration_ms.max(1);
    let rate = u128::from(total) * 1_000 / u128::from(seconds);
    let rate = u64::try_from(rate).unwrap_or(u64::MAX);
    let installed = results.faults.values().map(|figures| figures.installed).sum();
    html! {
        dl.tiles {
            (tile("Operations", &grouped(total), &format!("{}/s", grouped(rate))))
            (tile("Succeeded", &percent(counts.ok), &grouped(counts.ok)))
            (tile("Failed", &percent(counts.failed), &grouped(counts.failed)))
            (tile("Of unknown fate", &percent(counts.unknown), &grouped(counts.unknown)))
            (tile("Faults", &grouped(installed), "took hold"))
            (tile("Longest gap", &milliseconds(results.longest_gap_ms), "without a success"))
            @match results.recovered_ms {
                Some(ms) => (tile("Recovered in", &milliseconds(ms), "after healing")),
                None => (tile("Recovered", "not seen", "after healing")),
            }
            @if results.patience.excused > 0 {
                (tile("Gave up", &grouped(results.patience.excused), "while a group could not serve"))
            }
            @if let Some(watched) = results.watched {
                (tile("Told", &grouped(watched.changes), "changes, to watchers"))
                (tile("Watches", &grouped(watched.watchers), &format!(
                    "{} went on elsewhere, {} began anew", watched.resumed, watched.gaps
                )))
            }
        }
    }
}

fn tile(name: &str, figure: &str, more: &str) -> Markup {
    html! { div { dt { (name) } dd { strong { (figure) } span { (more) } } } }
}

fn anomalies(results: &Results) -> Markup {
    let more = results.anomalies.len().saturating_sub(LISTED);
    html! {
        @if !results.anomalies.is_empty() {
            section {
                h2 { "Anomalies (" (grouped(results.anomalies.len() as u64)) ")" }
                ol.anomalies {
                    @for (at, anomaly) in results.anomalies.iter().take(LISTED).enumerate() {
                        li {
                            @let text = clip(&anomaly.to_string(), DETAIL_CHARS_MAX);
                            @if at < super::TIMELINES {
                                a href={ "#anomaly-" (at + 1) } { (text) }
                            } @else { (text) }
                        }
                    }
                }
                @if more > 0 { p.note { "and " (grouped(more as u64)) " more, in results.json" } }
            }
        }
    }
}

fn faults(results: &Results) -> Markup {
    html! {
        @if !results.faults.is_empty() {
            section {
                h2 { "Faults" }
                div.scroll { table.figures {
                    thead { tr {
                        th { "Kind" } th.number { "Took hold" } th.number { "Skipped" }
                        th.number { "Effect not seen" }
                        th.number { "Next leader after" } th.number { "Gap without a success" }
                    } }
                    tbody {
                        @for (kind, figures) in &results.faults { (row(kind, figures)) }
                    }
                } }
                p.note { "Times are median / longest, over all faults of a kind." }
            }
        }
    }
}

fn row(kind: &str, figures: &FaultFigures) -> Markup {
    html! {
        tr {
            th data-kind=(kind) { (kind) }
            td.number { (grouped(figures.installed)) }
            td.number { (grouped(figures.skipped)) }
            td.number { (grouped(figures.indeterminate)) }
            td.number { (spread(&figures.failovers_ms)) }
            td.number { (spread(&figures.gaps_ms)) }
        }
    }
}

/// Median and longest of sorted times.
fn spread(sorted: &[u64]) -> String {
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(longest)) => {
            format!("{} / {}", milliseconds(*median), milliseconds(*longest))
        }
        (None, _) | (_, None) => "–".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_and_longest() {
        assert_eq!(spread(&[]), "–");
        assert_eq!(spread(&[5]), "5 ms / 5 ms");
        assert_eq!(spread(&[5, 7, 12_000]), "7 ms / 12.0 s");
    }
}
