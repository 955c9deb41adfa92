//! What is left of a comparison: every single run for scripts, tables and verdicts for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::chart;
use crate::goals::{Judged, judge};
use crate::machine::Machine;
use crate::run::{Plan, Run};
use crate::stats::{Case, Figures, summarize};
use crate::target::Target;

/// Everything that is known in the end.
#[derive(Debug, Serialize)]
pub(crate) struct Results<'a> {
    /// Whether it was ended before all rounds were over.
    pub(crate) complete: bool,
    pub(crate) machine: &'a Machine,
    /// Program and version.
    pub(crate) versions: &'a BTreeMap<&'static str, String>,
    pub(crate) plan: &'a Plan,
    pub(crate) runs: &'a [Run],
    medians: Vec<Row>,
    goals: Vec<Judged>,
}

#[derive(Debug, Serialize)]
struct Row {
    target: Target,
    workload: &'static str,
    clients: usize,
    #[serde(flatten)]
    figures: Figures,
}

impl<'a> Results<'a> {
    /// Sums up what was run.
    pub(crate) fn new(
        complete: bool,
        (machine, versions): (&'a Machine, &'a BTreeMap<&'static str, String>),
        plan: &'a Plan,
        runs: &'a [Run],
    ) -> Self {
        let figures = summarize(runs);
        let goals = judge(&figures);
        let row = |(case, figures): (Case, Figures)| {
            let Case { target, workload, clients } = case;
            Row { target, workload, clients, figures }
        };
        let medians = figures.into_iter().map(row).collect();
        Self { complete, machine, versions, plan, runs, medians, goals }
    }

    /// Writes `results.json`, `results.md`, `throughput.svg` and `p99.svg`.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        write(directory, "results.json", &(serde_json::to_string_pretty(self)? + "\n"))?;
        write(directory, "results.md", &self.markdown())?;
        let figures = summarize(self.runs);
        let throughput = chart::draw(&figures, "operations per second", |one| one.ops_per_s)?;
        write(directory, "throughput.svg", &throughput)?;
        write(directory, "p99.svg", &chart::draw(&figures, "p99 in µs", |one| one.p99_us)?)
    }

    /// The tables.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.head();
        for &workload in &self.plan.workloads {
            for &clients in &self.plan.clients {
                let of_case =
                    |row: &&Row| row.workload == workload.name() && row.clients == clients;
                let rows: Vec<&Row> = self.medians.iter().filter(of_case).collect();
                let plural = if clients == 1 { "client" } else { "clients" };
                put(&mut text, format_args!("\n## {workload}, {clients} {plural}\n\n"));
                text.push_str("| target | ops/s | lowest to highest | p50 µs | p99 µs | CPU µs/op | load µs/op | errors |\n");
                text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|\n");
                for row in rows {
                    text.push_str(&row.line());
                }
            }
        }
        text.push_str("\n## Goals\n\n");
        text.push_str("| what | SageDB | | other | | ratio | wanted | |\n");
        text.push_str("|---|---|--:|---|--:|--:|--:|---|\n");
        for goal in &self.goals {
            text.push_str(&goal_line(goal));
        }
        text
    }

    fn head(&self) -> String {
        let Self { machine, plan, .. } = self;
        let mut text = String::from("# SageDB beside others\n\n");
        if !self.complete {
            text.push_str("**Ended early: not all rounds are in it.**\n\n");
        }
        text.push_str(&where_it_ran(machine, self.versions));
        put(
            &mut text,
            format_args!(
                "Medians of {} rounds of {:?} after {:?}; {} keys, values of {} bytes. CPU is that of all of the \
                 target's processes, beside it that of the load. Redis' reads are not linearizable.\n",
                plan.rounds,
                plan.settings.duration,
                plan.settings.warmup,
                plan.settings.keys,
                plan.settings.value_size
            ),
        );
        text
    }
}

impl Row {
    fn line(&self) -> String {
        let Figures { ops_per_s, ops_per_s_range: (lowest, highest), p50_us, p99_us, .. } =
            self.figures;
        format!(
            "| {} | {ops_per_s:.0} | {lowest:.0} to {highest:.0} | {p50_us:.0} | {p99_us:.0} | {:.1} | {:.1} | {} |\n",
            self.target.name(),
            self.figures.cpu_us_per_op,
            self.figures.load_us_per_op,
            self.figures.errors
        )
    }
}

fn goal_line(goal: &Judged) -> String {
    let figure = |figure: Option<f64>| figure.map_or("–".into(), |figure| format!("{figure:.1}"));
    let ratio = goal.ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"));
    let (ours, other) = (figure(goal.our_figure), figure(goal.other_figure));
    let Judged { what, ours: us, other: them, wanted, verdict, .. } = goal;
    format!(
        "| {what} | {us} | {ours} | {them} | {other} | {ratio} | {wanted} | {} |\n",
        verdict.name()
    )
}

/// The machine and the versions, as a paragraph.
pub(crate) fn where_it_ran(machine: &Machine, versions: &BTreeMap<&'static str, String>) -> String {
    let versions = versions.iter().map(|(name, version)| format!("{name}: {version}"));
    format!("{machine}. {}.\n\n", versions.collect::<Vec<_>>().join("; "))
}

/// Adds to a text.
pub(crate) fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes everything");
}

/// Writes a file of the results.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}
