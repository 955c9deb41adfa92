//! The report: one page that shows what a run has shown, to people.
//!
//! The page needs no network and nothing beside it: styles, data, the drawing library (Apache
//! `ECharts`, in `vendor/`) and what tells it what to draw are all inside. Its policy forbids it to
//! load anything. Keys, values and errors come from a system under attack and are hostile: in
//! HTML they are escaped by the template, for scripts they stand in one JSON block that can't be
//! left, and scripts show them as text only. Every list on the page has a bound.

mod around;
mod bands;
mod head;
mod ops;
mod points;
mod rates;
#[cfg(test)]
pub(crate) mod synthetic;
mod table;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;

use self::around::{Around, around, hits};
use self::bands::{Band, overlapping};
use self::ops::{Op, grouped, operations};
use self::points::{Points, points};
use self::rates::{Rates, rates};
use crate::checker::Anomaly;
use crate::history::Event;
use crate::nemesis::Fault;
use crate::results::Results;

/// Draws charts; Apache-2.0, see `vendor/LICENSE`.
const LIBRARY: &str = include_str!("vendor/echarts.min.js");
/// Says what is drawn.
const SCRIPTS: [&str; 2] = [include_str!("charts.js"), include_str!("timeline.js")];
const STYLE: &str = include_str!("page.css");
/// No request leaves the page.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src data:";
/// Anomalies with a timeline and a table.
const TIMELINES: usize = 5;
/// Faults in the charts.
const FAULTS_MAX: usize = 2_000;

/// What the scripts draw.
#[derive(Debug, Serialize)]
struct Data {
    /// When the last event was, in microseconds.
    end: u64,
    /// When the attack ended, in microseconds.
    attack_end: u64,
    points: Points,
    rates: Rates,
    faults: Vec<Band>,
    around: Vec<Around>,
}

/// The page, from what `results.json` and `history.jsonl` hold.
pub(crate) fn render(results: &Results, history: &[Event], faults: &[Fault]) -> String {
    let ops = operations(history);
    let last = history.iter().map(|event| event.time).max().unwrap_or(0);
    let shown = &results.anomalies[..results.anomalies.len().min(TIMELINES)];
    let hits: Vec<Vec<usize>> = shown.iter().map(|anomaly| hits(anomaly, &ops)).collect();
    let data = Data {
        end: last / 1_000,
        attack_end: results.setup.duration_ms.saturating_mul(1_000),
        points: points(&ops, last),
        rates: rates(&ops, last),
        faults: overlapping(faults, 0, u64::MAX, FAULTS_MAX),
        around: shown
            .iter()
            .zip(&hits)
            .map(|(anomaly, hits)| around(anomaly, hits, &ops, faults, last))
            .collect(),
    };
    let body = html! {
        (head::head(results))
        (charts(&data.points))
        @for (at, anomaly) in shown.iter().enumerate() {
            (evidence(at, anomaly, &hits[at], &ops, data.around[at].omitted))
        }
    };
    document(results, &body, &data).into_string()
}

fn document(results: &Results, body: &Markup, data: &Data) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (head::title(results)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main { (body) }
                footer {
                    "Drawn with Apache ECharts 6.1.0, Apache License 2.0, "
                    "© 2017–2026 The Apache Software Foundation."
                }
                script id="data" type="application/json" { (PreEscaped(inert(data))) }
                script { (PreEscaped(LIBRARY)) }
                @for script in SCRIPTS {
                    script { (PreEscaped(script)) }
                }
            }
        }
    }
}

fn charts(points: &Points) -> Markup {
    html! {
        section {
            h2 { "Over time" }
            p.note {
                "Every point is an operation: when it began, how long it took. "
                @if points.shown < points.total {
                    (grouped(points.shown as u64)) " of " (grouped(points.total as u64))
                    " operations are shown: of ordinary ones an even choice, of slow, failed "
                    "and unknown ones as many as fit. "
                }
                "Drag the slider, or scroll with Ctrl, to look closer; click a name to hide it."
            }
            div #overview .chart {}
        }
    }
}

fn evidence(
    at: usize,
    anomaly: &Anomaly,
    hits: &[usize],
    ops: &[Op<'_>],
    omitted: usize,
) -> Markup {
    html! {
        section id={ "anomaly-" (at + 1) } {
            h2 { "Anomaly " (at + 1) }
            p.claim { (ops::clip(&anomaly.to_string(), head::DETAIL_CHARS_MAX)) }
            @if hits.is_empty() {
                p.note { "The checker names no operations. The last ones of the key are drawn." }
            }
            div.legend data-legend {}
            div.scroll { div.timeline data-around=(at) {} }
            p.note {
                "Operations on this key, from their beginning to their end; those that show the "
                "anomaly are framed, and a dashed line means that it may take effect at any time "
                "later. Not to scale; a long one goes on to the right. "
                @if omitted > 0 { (grouped(omitted as u64)) " more are not shown. " }
            }
            @if !hits.is_empty() { (table::table(hits, ops)) }
        }
    }
}

/// JSON that no HTML parser takes for an end of its script.
fn inert(data: &Data) -> String {
    let json = serde_json::to_string(data).expect("numbers and texts are JSON");
    json.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests;
