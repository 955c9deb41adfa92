//! What is left of it: all that was found for scripts, tables and verdicts for people.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use sagedb::bench::Workload;
use serde::Serialize;

use crate::data::disk::Usage;
use crate::data::goals::{Figures, Judged, judge, log_growth, mb, per_key};
use crate::data::growth::Grown;
use crate::data::packing::Taken;
use crate::data::restart::{End, Restart, Store, Stored};
use crate::data::stalls::{CLIENTS, During, Window};
use crate::data::values::Values;
use crate::data::{DataPlan, Findings, write};
use crate::machine::Machine;
use crate::report::{put, where_it_ran};
use crate::stats::median;

/// Some of the bytes that a replica's files take.
type Of = fn(&Taken) -> u64;

/// Everything that is known in the end.
#[derive(Debug, Serialize)]
pub(super) struct Results<'a> {
    /// Whether it was ended before all was measured.
    complete: bool,
    machine: &'a Machine,
    /// Program and version.
    versions: &'a BTreeMap<&'static str, String>,
    plan: &'a DataPlan,
    found: &'a Findings,
    goals: Vec<Judged>,
}

impl<'a> Results<'a> {
    /// Sums up what was found.
    pub(super) fn new(
        complete: bool,
        (machine, versions): (&'a Machine, &'a BTreeMap<&'static str, String>),
        plan: &'a DataPlan,
        found: &'a Findings,
    ) -> Self {
        let goals = judge(&found.figures(Store::Sage), &found.figures(Store::Etcd));
        Self { complete, machine, versions, plan, found, goals }
    }

    /// Writes `data.json` and `data.md`.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        write(directory, "data.json", &(serde_json::to_string_pretty(self)? + "\n"))?;
        write(directory, "data.md", &self.markdown())
    }

    /// The tables.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::from("# SageDB with many keys\n\n");
        if !self.complete {
            text.push_str("**Ended early: not all of it was measured.**\n\n");
        }
        text.push_str(&where_it_ran(self.machine, self.versions));
        let settings = &self.plan.settings;
        put(
            &mut text,
            format_args!(
                "One group of three replicas behind a coordinator; {} keys, values of {} bytes, {} clients; medians of {} rounds.\n",
                settings.keys, settings.value_size, settings.clients, self.plan.rounds
            ),
        );
        text.push_str("\n## Goals\n\n| what | SageDB | wanted | | etcd |\n|---|--:|--:|---|--:|\n");
        for goal in &self.goals {
            put(&mut text, format_args!("{}", goal_line(goal)));
        }
        self.found.tables(&mut text);
        text
    }
}

fn goal_line(goal: &Judged) -> String {
    let figure = |figure: Option<f64>| figure.map_or("–".into(), |figure| format!("{figure:.2}"));
    let Judged { what, wanted, verdict, .. } = goal;
    let (ours, etcd) = (figure(goal.figure), figure(goal.etcd));
    format!("| {what} | {ours} | ≤ {wanted} | {} | {etcd} |\n", verdict.name())
}

impl Findings {
    fn figures(&self, store: Store) -> Figures {
        let restarts = || self.restarts.iter().filter(|one| one.store == store);
        let stored = self.stored.iter().find(|one| one.store == store);
        let of_member = Figures {
            restart_s: middle(restarts().map(|one| one.ready_s)),
            resident_mb: middle(restarts().map(|one| mb(one.resident.now))),
            disk_bytes_per_key: stored.map(|one| per_key(total(one).allocated, one.keys)),
            ..Figures::default()
        };
        if store == Store::Etcd {
            return of_member;
        }
        let json = |codec| {
            let mut packed = self.packed.iter();
            packed.find(|one| one.values == Values::Json && one.codec == codec)
        };
        Figures {
            // What it takes over several snapshots says more than where it was when all keys were there.
            disk_bytes_per_key: self.taken(|one| one.bytes).or(of_member.disk_bytes_per_key),
            lz4_percent: json("lz4").map(super::packing::Packed::percent),
            zstd_percent: json("zstd").map(super::packing::Packed::percent),
            snapshot_p99_ratio: self.p99_ratio(During::Snapshot),
            catch_up_p99_ratio: self.p99_ratio(During::CatchUp),
            put_growth: self.growth(Workload::Put),
            get_growth: self.growth(Workload::Get),
            ..of_member
        }
    }

    /// What a replica's files take of the disk, for each key, while keys are written again and again.
    fn taken(&self, of: Of) -> Option<f64> {
        let keys = self.packed.first()?.keys;
        middle(self.taken.iter().map(|one| per_key(of(one), keys)))
    }

    /// The p99 of each window, divided by that of the one without before it.
    fn p99_ratio(&self, during: During) -> Option<f64> {
        let pairs = self.windows.windows(2).filter(|pair| pair[1].during == during);
        middle(pairs.map(|pair| pair[1].report.total.p99_us / pair[0].report.total.p99_us))
    }

    fn runs_with(&self, keys: u64, workload: Workload) -> impl Iterator<Item = &Grown> {
        let runs = self.grown.iter();
        runs.filter(move |one| one.keys == keys && one.workload == workload)
    }

    fn cpu(&self, keys: u64, workload: Workload) -> Option<f64> {
        middle(self.runs_with(keys, workload).map(|one| one.cpu_us_per_op))
    }

    /// The numbers of keys that were measured, rising.
    fn sizes(&self) -> Vec<u64> {
        let mut sizes: Vec<u64> = self.grown.iter().map(|one| one.keys).collect();
        sizes.dedup();
        sizes
    }

    /// By what an operation costs more with so many keys than with the fewest.
    fn growth_to(&self, keys: u64, workload: Workload) -> Option<f64> {
        let first = *self.sizes().first()?;
        Some(self.cpu(keys, workload)? / self.cpu(first, workload)?)
    }

    /// The growth of what an operation costs, divided by that of the logarithm, at the size where that is most.
    fn growth(&self, workload: Workload) -> Option<f64> {
        let sizes = self.sizes();
        let (first, more) = sizes.split_first()?;
        let against_log =
            |keys: &u64| Some(self.growth_to(*keys, workload)? / log_growth(*first, *keys));
        more.iter().filter_map(against_log).reduce(f64::max)
    }

    fn tables(&self, text: &mut String) {
        self.restart_table(text);
        self.disk_table(text);
        self.packed_table(text);
        self.taken_table(text);
        self.window_table(text);
        self.growth_table(text);
    }

    fn restart_table(&self, text: &mut String) {
        if self.restarts.is_empty() {
            return;
        }
        text.push_str("\n## Restart of one replica\n\n");
        text.push_str("| store | ended by | until ready, s | lowest to highest | ends in, s | resident, MB | at most, MB |\n");
        text.push_str("|---|---|--:|--:|--:|--:|--:|\n");
        for store in [Store::Sage, Store::Etcd] {
            for end in End::ALL {
                let of_both = |one: &&Restart| one.store == store && one.ended_by == end;
                let all: Vec<&Restart> = self.restarts.iter().filter(of_both).collect();
                let of = |figure: fn(&Restart) -> f64| middle(all.iter().map(|one| figure(one)));
                let Some(ready) = of(|one| one.ready_s) else { continue };
                let times = || all.iter().map(|one| one.ready_s);
                put(
                    text,
                    format_args!(
                        "| {} | {} | {ready:.2} | {:.2} to {:.2} | {:.2} | {:.0} | {:.0} |\n",
                        store.name(),
                        end.name(),
                        times().fold(f64::INFINITY, f64::min),
                        times().fold(0.0, f64::max),
                        of(|one| one.ending_s).unwrap_or_default(),
                        of(|one| mb(one.resident.now)).unwrap_or_default(),
                        of(|one| mb(one.resident.peak)).unwrap_or_default()
                    ),
                );
            }
        }
        for stored in &self.stored {
            let (name, resident) = (stored.store.name(), mb(stored.resident.now));
            put(
                text,
                format_args!(
                    "\nBefore the first of them, with all keys just written, {name} had {resident:.0} MB resident.\n"
                ),
            );
        }
    }

    fn disk_table(&self, text: &mut String) {
        if self.stored.is_empty() {
            return;
        }
        text.push_str("\n## Disk, of one replica, when all keys were written once\n\n");
        text.push_str("| store | files in | bytes per key, as long as they are | as the disk counts them |\n|---|---|--:|--:|\n");
        for stored in &self.stored {
            let of_all = ("all".to_owned(), total(stored));
            let files = stored.files.iter().map(|(name, usage)| (name.clone(), *usage));
            for (name, usage) in files.chain([of_all]) {
                let (store, name) =
                    (stored.store.name(), if name.is_empty() { "./" } else { &name });
                let [apparent, allocated] =
                    [usage.apparent, usage.allocated].map(|bytes| per_key(bytes, stored.keys));
                put(text, format_args!("| {store} | {name} | {apparent:.1} | {allocated:.1} |\n"));
            }
        }
    }

    fn packed_table(&self, text: &mut String) {
        if self.packed.is_empty() {
            return;
        }
        text.push_str("\n## Snapshots\n\n");
        text.push_str("| values | codec | keys | raw, MB | snapshot, MB | % of raw | written at a time | in, s | CPU of each, s |\n");
        text.push_str("|---|---|--:|--:|--:|--:|--:|--:|--:|\n");
        for one in &self.packed {
            let values = match one.values {
                Values::Json => "JSON".to_owned(),
                Values::Text(size) => format!("random text of {size} bytes"),
            };
            put(
                text,
                format_args!(
                    "| {values} | {} | {} | {:.1} | {:.1} | {:.1} | {} | {:.2} | {:.2} |\n",
                    one.codec,
                    one.keys,
                    mb(one.raw_bytes),
                    mb(one.snapshot_bytes),
                    one.percent(),
                    one.writers,
                    one.writing_s,
                    one.cpu_s
                ),
            );
        }
    }

    fn taken_table(&self, text: &mut String) {
        let Some(keys) = self.packed.first().map(|one| one.keys) else { return };
        if self.taken.is_empty() {
            return;
        }
        text.push_str("\n## Disk, of one replica, over several snapshots\n\n");
        text.push_str("| files | bytes per key, median | lowest | highest |\n|---|--:|--:|--:|\n");
        let kinds: [(&str, Of); 3] = [
            ("snapshot", |one| one.snapshot_bytes),
            ("log", |one| one.wal_bytes),
            ("all", |one| one.bytes),
        ];
        for (name, of) in kinds {
            let all = || self.taken.iter().map(|one| per_key(of(one), keys));
            let median = self.taken(of).unwrap_or_default();
            let (lowest, highest) =
                (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
            put(text, format_args!("| {name} | {median:.1} | {lowest:.1} | {highest:.1} |\n"));
        }
    }

    fn window_table(&self, text: &mut String) {
        let Some(rate) = self.rate.filter(|_| !self.windows.is_empty()) else { return };
        put(
            text,
            format_args!("\n## Latency of puts, {rate} a second over {CLIENTS} connections\n\n"),
        );
        text.push_str("| during | windows | replicas that wrote | seconds | p50 µs | p99 µs | lowest to highest | × the one before | CPUs | errors | not sent |\n");
        text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
        for during in [During::Nothing, During::Snapshot, During::CatchUp] {
            let all: Vec<&Window> =
                self.windows.iter().filter(|one| one.during == during).collect();
            let of = |figure: fn(&Window) -> f64| middle(all.iter().map(|one| figure(one)));
            let Some(p99) = of(|one| one.report.total.p99_us) else { continue };
            let ratio = match during {
                During::Nothing => 1.0,
                During::Snapshot | During::CatchUp => self.p99_ratio(during).unwrap_or_default(),
            };
            let p99s = || all.iter().map(|one| one.report.total.p99_us);
            put(
                text,
                format_args!(
                    "| {} | {} | {} | {:.2} | {:.0} | {p99:.0} | {:.0} to {:.0} | {:.2} | {:.2} | {} | {} |\n",
                    during.name(),
                    all.len(),
                    writers(&all),
                    of(|one| one.report.elapsed_s).unwrap_or_default(),
                    of(|one| one.report.total.p50_us).unwrap_or_default(),
                    p99s().fold(f64::INFINITY, f64::min),
                    p99s().fold(0.0, f64::max),
                    ratio,
                    of(|one| one.cpu_s / one.report.elapsed_s).unwrap_or_default(),
                    all.iter().map(|one| one.report.total.errors).sum::<u64>(),
                    all.iter().map(|one| one.report.not_sent).sum::<u64>()
                ),
            );
        }
    }

    fn growth_table(&self, text: &mut String) {
        let sizes = self.sizes();
        let Some(first) = sizes.first() else { return };
        text.push_str("\n## CPU per operation, more and more keys\n\n");
        text.push_str("| keys | log n, × | put µs | × | get µs | × | puts/s | gets/s | resident, MB | bytes per key |\n");
        text.push_str("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
        for &keys in &sizes {
            put(text, format_args!("| {keys} | {:.2} |", log_growth(*first, keys)));
            for workload in [Workload::Put, Workload::Get] {
                let cpu = self.cpu(keys, workload).unwrap_or_default();
                let growth = self.growth_to(keys, workload).unwrap_or_default();
                put(text, format_args!(" {cpu:.1} | {growth:.2} |"));
            }
            for workload in [Workload::Put, Workload::Get] {
                let rate = middle(self.runs_with(keys, workload).map(|one| one.ops_per_s));
                put(text, format_args!(" {:.0} |", rate.unwrap_or_default()));
            }
            let resident = self.runs_with(keys, Workload::Get).map(|one| one.resident_bytes).max();
            let resident = resident.unwrap_or_default();
            put(text, format_args!(" {:.0} | {:.0} |\n", mb(resident), per_key(resident, keys)));
        }
    }
}

/// How many replicas wrote snapshots in each of these windows, at least and at most.
fn writers(windows: &[&Window]) -> String {
    let writers = || windows.iter().map(|window| window.writers);
    match (writers().min(), writers().max()) {
        (Some(least), Some(most)) if most > 0 => format!("{least} to {most}"),
        (_, _) => "–".into(),
    }
}

/// The median, if there is any.
fn middle(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let figures: Vec<f64> = figures.collect();
    (!figures.is_empty()).then(|| median(figures))
}

fn total(stored: &Stored) -> Usage {
    let add = |sum: Usage, one: &Usage| Usage {
        apparent: sum.apparent + one.apparent,
        allocated: sum.allocated + one.allocated,
    };
    stored.files.values().fold(Usage::default(), add)
}

#[cfg(test)]
mod tests {
    use sagedb::bench::{OperationReport, RunReport};

    use super::*;
    use crate::procfs::Resident;

    fn window(during: During, p99_us: f64) -> Window {
        let total = OperationReport {
            operation: "all",
            ops: 1000,
            late_ops: 0,
            ops_per_s: 1000.0,
            not_found: 0,
            errors: 0,
            errors_by_kind: BTreeMap::new(),
            mean_us: p99_us,
            p50_us: p99_us,
            p95_us: p99_us,
            p99_us,
            p999_us: p99_us,
            max_us: p99_us,
        };
        let report = RunReport {
            workload: Workload::Put,
            elapsed_s: 1.0,
            target_ops_per_s: Some(1000),
            not_sent: 0,
            connect_errors: BTreeMap::new(),
            first_error: None,
            operations: Vec::new(),
            total,
        };
        Window { round: 1, during, writers: 0, cpu_s: 1.0, report }
    }

    fn grown(keys: u64, cpu_us_per_op: f64) -> Grown {
        let (workload, ops_per_s, resident_bytes) = (Workload::Put, 1.0, 1);
        Grown { keys, workload, round: 1, ops_per_s, cpu_us_per_op, resident_bytes }
    }

    fn restart(store: Store, ready_s: f64) -> Restart {
        let resident = Resident { now: 250_000_000, peak: 260_000_000 };
        Restart { store, round: 1, ended_by: End::Sigterm, ending_s: 0.1, ready_s, resident }
    }

    fn near(found: Option<f64>, wanted: f64) {
        let found = found.expect("it was measured");
        assert!((found - wanted).abs() < 1e-9, "{found}, not {wanted}");
    }

    #[test]
    fn a_window_is_held_against_the_one_before_it() {
        let windows = [
            window(During::Nothing, 10.0),
            window(During::Snapshot, 30.0),
            window(During::Nothing, 100.0),
            window(During::Snapshot, 400.0),
            window(During::Nothing, 50.0),
            window(During::CatchUp, 60.0),
        ];
        let found = Findings { windows: windows.into(), rate: Some(1), ..Findings::default() };
        near(found.p99_ratio(During::Snapshot), 3.5);
        near(found.p99_ratio(During::CatchUp), 1.2);
        assert_eq!(Findings::default().p99_ratio(During::Snapshot), None);
        let mut text = String::new();
        found.tables(&mut text);
        assert!(
            text.contains("| a snapshot | 2 | – | 1.00 | 215 | 215 | 30 to 400 | 3.50 |"),
            "{text}"
        );
    }

    #[test]
    fn growth_is_that_at_the_size_where_it_is_most() {
        let found = [grown(1000, 10.0), grown(10_000, 20.0), grown(1_000_000, 22.0)];
        let found = Findings { grown: found.into(), ..Findings::default() };
        near(found.growth(Workload::Put), 1.5);
        assert_eq!(found.growth(Workload::Get), None);
        let only = Findings { grown: vec![grown(1000, 10.0)], ..Findings::default() };
        assert_eq!(only.growth(Workload::Put), None, "nothing has grown");
    }

    #[test]
    fn restarts_are_medians_of_each_store() {
        let restarts = [1.0, 3.0, 2.0].map(|ready_s| restart(Store::Sage, ready_s));
        let mut found = Findings { restarts: restarts.into(), ..Findings::default() };
        found.restarts.push(restart(Store::Etcd, 9.0));
        near(found.figures(Store::Sage).restart_s, 2.0);
        near(found.figures(Store::Sage).resident_mb, 250.0);
        near(found.figures(Store::Etcd).restart_s, 9.0);
        let mut text = String::new();
        found.tables(&mut text);
        let row = "| sage | SIGTERM | 2.00 | 1.00 to 3.00 | 0.10 | 250 | 260 |";
        assert!(text.contains(row), "{text}");
    }
}
