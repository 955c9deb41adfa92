//! The operations that show an anomaly, as a table.

use maud::{Markup, html};

use super::ops::{Op, action, clip, full, grouped};
use crate::history::Value;

/// Rows of a table.
const ROWS_MAX: usize = 200;
/// Characters of a value or an error.
const CELL_CHARS_MAX: usize = 1_000;

/// One row for each of these operations.
pub(crate) fn table(hits: &[usize], ops: &[Op<'_>]) -> Markup {
    let more = hits.len().saturating_sub(ROWS_MAX);
    html! {
        h3 { "The operations that no order explains" }
        div.scroll { table.operations {
            thead { tr {
                th.number { "Began" } th.number { "Took" } th.number { "Process" } th { "Node" }
                th { "Operation" } th { "Value" } th { "Outcome" } th.number { "Version" }
                th { "Error" }
            } }
            tbody { @for at in hits.iter().take(ROWS_MAX) { (row(&ops[*at])) } }
        } }
        @if more > 0 { p.note { "and " (grouped(more as u64)) " more" } }
    }
}

fn row(op: &Op<'_>) -> Markup {
    let word = op.last_word();
    let outcome = op.outcome().name();
    html! {
        tr {
            td.number { (seconds(op.begin.time)) }
            td.number {
                @match op.end {
                    Some((_, end)) => (took(end.time.saturating_sub(op.begin.time))),
                    None => "no end",
                }
            }
            td.number { (op.begin.process) }
            td { (clip(&word.node, CELL_CHARS_MAX)) }
            td { (action(op.begin.f)) }
            td.value {
                @if op.value() == &Value::None { "–" }
                @else { (clip(&full(op.value()), CELL_CHARS_MAX)) }
            }
            td class=(outcome) { (outcome) }
            td.number { @if let Some(version) = word.version { (version) } }
            td.error {
                @if let Some(error) = &word.error { (clip(error, CELL_CHARS_MAX)) }
                @if let Some(lag) = word.lag_ms { " lag " (lag) " ms" }
            }
        }
    }
}

/// Seconds and microseconds.
fn seconds(time: u64) -> String {
    format!("{}.{:06} s", time / 1_000_000_000, time / 1_000 % 1_000_000)
}

/// Milliseconds and microseconds.
fn took(nanoseconds: u64) -> String {
    format!("{}.{:03} ms", nanoseconds / 1_000_000, nanoseconds / 1_000 % 1_000)
}
