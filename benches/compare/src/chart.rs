//! Charts: one line for each target against the number of clients, puts on the left and gets on the right.
//!
//! The numbers of clients are places in a row and not to scale: 1, 64 and 256 would leave two points in a corner. Text is
//! left to the viewer's fonts.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use sagedb::bench::Workload;

use crate::stats::{Case, Figures};
use crate::target::Target;

const SIZE: (u32, u32) = (1200, 480);
/// Colours that those who see few can tell apart (Okabe and Ito), as many as there are targets.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
];

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Clients and the figure, for each target.
type Lines = BTreeMap<Target, Vec<(usize, f64)>>;

/// One figure as an SVG.
pub(crate) fn draw(
    figures: &BTreeMap<Case, Figures>,
    title: &str,
    of: fn(&Figures) -> f64,
) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(odd)?;
        let panels = root.split_evenly((1, 2));
        for (panel, workload) in panels.iter().zip([Workload::Put, Workload::Get]) {
            let mut lines = Lines::new();
            for (case, figures) in
                figures.iter().filter(|(case, _)| case.workload == workload.name())
            {
                lines.entry(case.target).or_default().push((case.clients, of(figures)));
            }
            if !lines.is_empty() {
                draw_panel(panel, &format!("{workload}: {title}"), &lines)?;
            }
        }
        root.present().map_err(odd)?;
    }
    Ok(svg)
}

fn draw_panel(panel: &Panel<'_>, title: &str, lines: &Lines) -> Result<()> {
    let mut clients: Vec<usize> = lines.values().flatten().map(|(clients, _)| *clients).collect();
    clients.sort_unstable();
    clients.dedup();
    let place = |wanted: usize| clients.iter().position(|one| *one == wanted).unwrap_or_default();
    let highest = lines.values().flatten().map(|(_, figure)| *figure).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(70)
        .build_cartesian_2d((0..clients.len() - 1).into_segmented(), 0.0..highest * 1.1)
        .map_err(odd)?;
    let label = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(at) => clients.get(*at).map(usize::to_string).unwrap_or_default(),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(clients.len())
        .x_label_formatter(&label)
        .x_desc("clients")
        .y_label_formatter(&|figure| format!("{figure:.0}"))
        .draw()
        .map_err(odd)?;
    for (target, points) in lines {
        let colour = COLOURS[*target as usize % COLOURS.len()];
        let point =
            |&(clients, figure): &(usize, f64)| (SegmentValue::CenterOf(place(clients)), figure);
        let line = LineSeries::new(points.iter().map(point), colour.stroke_width(2));
        chart
            .draw_series(line.point_size(3))
            .map_err(odd)?
            .label(target.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 2), (x + 18, y + 2)], colour.filled()));
    }
    let mut labels = chart.configure_series_labels();
    let labels = labels.position(SeriesLabelPosition::UpperLeft);
    labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw().map_err(odd)
}

/// The library's error, which borrows what it is about.
fn odd(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a chart can't be drawn: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(ops_per_s: f64) -> Figures {
        Figures { ops_per_s, p99_us: 2.0, ..Figures::default() }
    }

    #[test]
    fn each_target_that_was_run_has_a_line() {
        let mut all = BTreeMap::new();
        for target in [Target::Sage, Target::Redis] {
            for clients in [1, 256] {
                all.insert(Case::new(target, Workload::Put, clients), figures(1000.0));
            }
        }
        let svg = draw(&all, "ops/s", |figures| figures.ops_per_s).expect("it can be drawn");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        let words = ["put: ops/s", "redis", "sage", "256", "clients"];
        assert!(words.iter().all(|word| svg.contains(word)), "{svg}");
        assert!(!svg.contains("etcd") && !svg.contains("get:"), "{svg}");
    }

    #[test]
    fn nothing_and_a_single_number_of_clients_can_be_drawn() {
        draw(&BTreeMap::new(), "nothing", |figures| figures.p99_us).expect("an empty chart");
        let one = BTreeMap::from([(Case::new(Target::Axum, Workload::Get, 64), figures(0.0))]);
        let svg = draw(&one, "p99", |figures| figures.p99_us).expect("it can be drawn");
        assert!(svg.contains("axum"), "{svg}");
    }
}
