//! `sage bench`: how fast a cluster is, as its clients see it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::bench::{
    Distribution, HttpConnect, OperationReport, Progress, RunReport, Settings, Workload, load,
    measure, probe,
};
use crate::cli::get::FreshArgs;
use crate::cli::output::{
    Format, end_progress, print_bytes, print_json, progress_interval, show_progress, table,
};
use crate::cli::remote::FormArgs;
use crate::cli::{Ending, flags};
use crate::client::Client;
use crate::types::kv::Consistency;
use crate::types::limits::{BENCH_THREADS_MAX, REQUEST_TIMEOUT_MAX};
use crate::types::units::{parse_bytes, parse_duration};

const EXAMPLE: &str = "\
Example: writes and reads, a YCSB mix with hot keys, and the latency at a rate the server can keep
  sage bench
  sage bench --workload ycsb-a,ycsb-b --distribution zipfian --clients 128
  sage bench --workload get --rate 5000 --duration 30s --json result.json

Without --rate it is a closed loop: each client sends its next request when it has the answer to the one before,
so that throughput is the most that so many clients can get. A server that stands still is then hardly seen in the
latencies: nobody asks while it does (coordinated omission). With --rate requests are due on a schedule,
and their latency counts from when they were due, however late a client could send them: that is what users at
that rate would see. Compare latencies at a fixed rate, below what a closed loop reaches.

ycsb-a is 50 % reads and 50 % updates, ycsb-b 95 % and 5 %, ycsb-c 100 % reads. Keys are --prefix and ten digits.
Exits with 2 if nothing succeeded at all.";

/// Measure throughput and latency of a cluster under a load of puts, gets or YCSB mixes
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
#[expect(clippy::struct_excessive_bools, reason = "two independent flags")]
pub(super) struct BenchArgs {
    /// The coordinators, or members of one group; clients are spread over them in turn
    #[arg(
        long,
        env = "SAGE_URL",
        value_name = "URL,URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:4000"
    )]
    url: Vec<String>,
    /// What to run, one after the other: put, get, ycsb-a, ycsb-b, ycsb-c
    #[arg(
        long,
        env = "SAGE_WORKLOAD",
        value_name = "NAME,NAME",
        value_delimiter = ',',
        default_value = "put,get"
    )]
    workload: Vec<Workload>,
    /// Connections, each with one request under way
    #[arg(long, env = "SAGE_CLIENTS", value_name = "N", default_value_t = 64)]
    clients: usize,
    /// Threads that they are spread over; as many as there are processors without it
    #[arg(long, env = "SAGE_THREADS", value_name = "N")]
    threads: Option<usize>,
    /// How long each workload is measured
    #[arg(long, env = "SAGE_DURATION", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long each runs before it is measured
    #[arg(long, env = "SAGE_WARMUP", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    warmup: Duration,
    /// Requests per second of all clients together, on a schedule; latency counts from when each was due
    #[arg(long, env = "SAGE_RATE", value_name = "OPS")]
    rate: Option<u64>,
    /// The size of each value, random printable text
    #[arg(long, env = "SAGE_VALUE_SIZE", value_name = "SIZE", default_value = "100", value_parser = parse_bytes)]
    value_size: u64,
    /// How many keys there are
    #[arg(long, env = "SAGE_KEYS", value_name = "N", default_value_t = 100_000)]
    keys: u64,
    /// How often each key is drawn
    #[arg(long, env = "SAGE_DISTRIBUTION", value_enum, default_value = "uniform")]
    distribution: Drawn,
    /// What all keys start with
    #[arg(long, env = "SAGE_PREFIX", default_value = "bench/")]
    prefix: String,
    /// What keys and values follow from
    #[arg(long, env = "SAGE_SEED", value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Don't give all keys a value first; without it, that is done for workloads that read
    #[arg(long, env = "SAGE_NO_LOAD", value_parser = BoolishValueParser::new())]
    no_load: bool,
    /// Delete all keys that start with the prefix at the end
    #[arg(long, env = "SAGE_CLEANUP", value_parser = BoolishValueParser::new())]
    cleanup: bool,
    /// How long one request may take
    #[arg(long, env = "SAGE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// Write all figures and settings to a file as JSON; - is stdout, as -o json
    #[arg(long, env = "SAGE_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    fresh: FreshArgs,
    #[command(flatten)]
    form: FormArgs,
}

/// How often each key is drawn.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Drawn {
    /// All alike
    Uniform,
    /// A few hot, most hardly ever, by Zipf's law with YCSB's exponent 0.99
    Zipfian,
}

/// What is to be done, checked.
#[derive(Debug)]
struct Options {
    urls: Vec<String>,
    workloads: Vec<Workload>,
    consistency: Consistency,
    settings: Settings,
}

/// Everything that is known in the end.
#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    urls: &'a [String],
    consistency: &'static str,
    settings: &'a Settings,
    runs: &'a [RunReport],
}

impl BenchArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let options = self.options()?;
        let file = match &self.json {
            // Made now: nobody wants to measure for an hour what can't be written.
            Some(path) if path != Path::new("-") => {
                Some(File::create(path).with_context(|| path.display().to_string())?)
            }
            Some(_) | None => None,
        };
        let stop = CancellationToken::new();
        let runs = tokio::select! {
            runs = options.measure(!self.no_load, &stop) => runs,
            error = interrupted(&stop) => return Err(error),
        };
        // Whatever became of the run, and before anything can fail that only tells of it.
        if self.cleanup {
            tokio::select! {
                cleaned = options.clean_up() => cleaned?,
                pressed = tokio::signal::ctrl_c() => {
                    pressed?;
                    bail!("interrupted while keys were being deleted; some are left");
                }
            }
        }
        let runs = runs?;
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            urls: &options.urls,
            consistency: options.consistency.name(),
            settings: &options.settings,
            runs: &runs,
        };
        if let Some(mut file) = file {
            serde_json::to_writer(&file, &report)?;
            file.write_all(b"\n")?;
        }
        let to_stdout = self.json.as_deref() == Some(Path::new("-"));
        match self.form.output {
            Format::Text if !to_stdout => print_bytes(show(&runs).as_bytes())?,
            Format::Text | Format::Json => print_json(&report)?,
        }
        if stop.is_cancelled() || runs.iter().any(|run| run.total.ops > 0) {
            return Ok(Ending::Done);
        }
        let first = runs.iter().find_map(|run| run.first_error.as_deref());
        bail!("nothing succeeded: {}", first.unwrap_or("no request was answered in the time"));
    }

    fn options(&self) -> anyhow::Result<Options> {
        let urls = flags::urls("--url", &self.url)?;
        ensure!(!urls.is_empty(), "--url must name a server");
        ensure!(
            !(self.cleanup && self.prefix.is_empty()),
            "--cleanup with an empty --prefix would delete every key; give a prefix"
        );
        let threads = self.threads.unwrap_or_else(|| flags::processors().min(BENCH_THREADS_MAX));
        let settings = Settings {
            clients: self.clients,
            threads,
            duration: self.duration,
            warmup: self.warmup,
            timeout: self.timeout,
            rate: self.rate,
            keys: self.keys,
            prefix: self.prefix.clone(),
            value_size: usize::try_from(self.value_size).unwrap_or(usize::MAX),
            distribution: match self.distribution {
                Drawn::Uniform => Distribution::Uniform,
                Drawn::Zipfian => Distribution::Zipfian,
            },
            seed: self.seed,
        };
        settings.check()?;
        let consistency = self.fresh.consistency.into();
        Ok(Options { urls, workloads: self.workload.clone(), consistency, settings })
    }
}

/// Turns Ctrl-C into a stop; ends only if that can't be waited for.
async fn interrupted(stop: &CancellationToken) -> anyhow::Error {
    if let Err(error) = tokio::signal::ctrl_c().await {
        return error.into();
    }
    stop.cancel();
    std::future::pending().await
}

impl Options {
    async fn measure(
        &self,
        may_load: bool,
        stop: &CancellationToken,
    ) -> anyhow::Result<Vec<RunReport>> {
        let settings = &self.settings;
        let connect = HttpConnect::new(&self.urls, self.consistency, settings.timeout)?;
        let connect = Arc::new(connect);
        probe(&connect, self.urls.len(), settings.timeout).await?;
        if may_load && self.workloads.iter().any(|workload| workload.needs_keys()) {
            let progress = Arc::new(Progress::new(settings.threads));
            let keys = settings.keys;
            let line = |_| format!("loading: {} of {keys} keys", progress.ops());
            shown(line, load(&connect, settings, &progress, stop)).await?;
        }
        let mut runs = Vec::new();
        for workload in &self.workloads {
            if stop.is_cancelled() {
                break;
            }
            let progress = Arc::new(Progress::new(settings.threads));
            let mut before = (Duration::ZERO, 0);
            let line = |passed: Duration| {
                let (ops, errors) = (progress.ops(), progress.errors());
                let millis = passed.saturating_sub(before.0).as_millis().max(1);
                let rate = u128::from(ops - before.1) * 1000 / millis;
                before = (passed, ops);
                let measured = passed.saturating_sub(settings.warmup).as_secs();
                let state = if passed < settings.warmup {
                    "warming up".to_owned()
                } else {
                    format!("{measured}s of {}s", settings.duration.as_secs())
                };
                format!("{workload}: {state}, {rate} ops/s, {errors} errors")
            };
            let measured = measure(&connect, settings, *workload, &progress, stop);
            runs.push(shown(line, measured).await?.report());
        }
        Ok(runs)
    }

    /// Deletes what was written, however often that has to be asked for: keys that start with what the first
    /// and the last have in common, so that `user` with ten digits is not all that starts with `user`.
    async fn clean_up(&self) -> anyhow::Result<()> {
        let client = Client::new(&self.urls)?.with_timeout(REQUEST_TIMEOUT_MAX);
        let prefix = self.settings.common_prefix();
        show_progress(&format!("deleting the keys that start with {prefix}"));
        let deleted = client.delete_prefix(&prefix).await;
        end_progress();
        deleted.context("--cleanup")?;
        Ok(())
    }
}

/// Waits for `work`, and shows how far it is from time to time.
async fn shown<T>(mut line: impl FnMut(Duration) -> String, work: impl Future<Output = T>) -> T {
    let (start, every) = (Instant::now(), progress_interval());
    let mut ticks = interval_at(start + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                end_progress();
                return done;
            }
            _ = ticks.tick() => show_progress(&line(start.elapsed())),
        }
    }
}

/// A row for each workload and kind of operation, and what else should be known.
fn show(runs: &[RunReport]) -> String {
    let head = [
        "workload",
        "operation",
        "ops/s",
        "errors",
        "not found",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    for run in runs {
        let all = (run.operations.len() > 1).then_some(&run.total);
        for operation in run.operations.iter().chain(all) {
            rows.push(row(run, operation));
        }
    }
    let mut text = table(&rows);
    for run in runs {
        for note in notes(run) {
            writeln!(text, "{}: {note}", run.workload).expect("a string takes it");
        }
    }
    text
}

fn row(run: &RunReport, operation: &OperationReport) -> Vec<String> {
    let ms = |us: f64| format!("{:.3}", us / 1000.0);
    vec![
        run.workload.to_string(),
        operation.operation.to_owned(),
        format!("{:.0}", operation.ops_per_s),
        operation.errors.to_string(),
        operation.not_found.to_string(),
        ms(operation.p50_us),
        ms(operation.p95_us),
        ms(operation.p99_us),
        ms(operation.p999_us),
        ms(operation.max_us),
    ]
}

/// What the figures of a run don't say.
fn notes(run: &RunReport) -> Vec<String> {
    let counted = |kinds: &std::collections::BTreeMap<String, u64>| {
        let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        kinds.join(", ")
    };
    let mut notes = Vec::new();
    for operation in &run.operations {
        if operation.errors > 0 {
            let kinds = counted(&operation.errors_by_kind);
            notes.push(format!("{}s failed: {kinds}", operation.operation));
        }
    }
    if !run.connect_errors.is_empty() {
        notes.push(format!("connections were not opened: {}", counted(&run.connect_errors)));
    }
    if let Some(first) = &run.first_error {
        notes.push(format!("the first failure: {first}"));
    }
    if let (true, Some(rate)) = (run.is_behind(), run.target_ops_per_s) {
        let (done, left) = (run.total.ops_per_s, run.not_sent);
        notes.push(format!(
            "{done:.0} of {rate} ops/s were done; {left} requests were due and not sent before the time was over, and are \
             in no latency"
        ));
    }
    notes
}
