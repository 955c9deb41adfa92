//! `sage-simulated --seeds 1..1000`: runs seed after seed until one breaks a promise.
//!
//! Exit 0: none did; 1: one did, and the last lines say which and how to see it again; 2: it was
//! asked for nonsense. `cargo run --release -p jepsen -- simulate` builds and starts it.

use std::process::ExitCode;
use std::time::Instant;

use sagedb::sim::{Options, Report, run};

/// How many lines of a failed run are shown; all of it with `--trace`.
const LINES_SHOWN: usize = 40;

/// What was asked for.
struct Asked {
    seeds: std::ops::Range<u64>,
    options: Options,
    go_on: bool,
}

fn main() -> ExitCode {
    let asked = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(reason) => {
            say(&format!(
                "error: {reason}; e.g. --seeds 1..1000 [--faults-ms N] [--trace] [--go-on]"
            ));
            return ExitCode::from(2);
        }
    };
    if let Err(reason) = sagedb::planted::plant() {
        say(&format!("error: {reason}"));
        return ExitCode::from(2);
    }
    let (start, mut total, mut failed) = (Instant::now(), Total::default(), 0_u64);
    let first = asked.seeds.start;
    for seed in asked.seeds {
        let report = run(seed, asked.options);
        total.add(&report);
        if (seed + 1 - first).is_multiple_of(50) {
            say(&total.line(seed + 1 - first, start));
        }
        if asked.options.keep_trace || !report.violations.is_empty() {
            show(seed, asked.options, report);
        }
        if total.violations > failed {
            failed = total.violations;
            if !asked.go_on {
                break;
            }
        }
    }
    say(&total.line(total.runs, start));
    if failed > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

/// What all runs came to.
#[derive(Default)]
struct Total {
    runs: u64,
    violations: u64,
    virtual_ms: u64,
    answered: u64,
    requests: u64,
    faults: u64,
    elected: u64,
    compared: u64,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.violations += u64::from(!report.violations.is_empty());
        self.virtual_ms += report.virtual_ms;
        self.requests += report.requests.0;
        self.answered += report.requests.1;
        self.faults += report.faults;
        self.elected += report.elected;
        self.compared += report.compared;
    }

    fn line(&self, runs: u64, start: Instant) -> String {
        format!(
            "{runs} seeds in {:.1} s ({} virtual): {} of {} requests answered, {} faults, \
             {} leaders, {} states compared, {} seeds failed",
            start.elapsed().as_secs_f32(),
            minutes(self.virtual_ms),
            self.answered,
            self.requests,
            self.faults,
            self.elected,
            self.compared,
            self.violations,
        )
    }
}

fn minutes(ms: u64) -> String {
    format!("{} min", ms / 60_000)
}

fn show(seed: u64, options: Options, report: Report) {
    let Report { hash, events, violations, cluster, requests, faults, virtual_ms, .. } = report;
    // Only what has failed is worth running twice.
    let trace = if options.keep_trace {
        report.trace
    } else {
        let again = run(seed, Options { keep_trace: true, ..options });
        if again.hash != hash {
            say(&format!("seed {seed}: NOT THE SAME AGAIN: {hash:016x}, then {:016x}", again.hash));
        }
        let from = again.trace.len().saturating_sub(LINES_SHOWN);
        again.trace[from..].to_vec()
    };
    for line in trace {
        say(&line);
    }
    say(&format!(
        "seed {seed}: hash {hash:016x}, {events} events, {cluster}, {virtual_ms} ms, \
         {} of {} requests answered, {faults} faults",
        requests.1, requests.0
    ));
    for violation in &violations {
        say(&format!("seed {seed}: VIOLATION: {violation}"));
    }
    if !violations.is_empty() {
        say(&format!(
            "again: cargo run --release -p jepsen -- simulate --seeds {seed}..{} --faults-ms {} --trace",
            seed + 1,
            options.faults_ms
        ));
    }
}

fn asked(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked { seeds: 1..201, options: Options::default(), go_on: false };
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--seeds" => asked.seeds = seeds(&value()?)?,
            "--faults-ms" => {
                asked.options.faults_ms =
                    value()?.parse().map_err(|error| format!("--faults-ms: {error}"))?;
            }
            "--trace" => asked.options.keep_trace = true,
            "--go-on" => asked.go_on = true,
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(asked)
}

fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parse = |number: &str| number.parse().map_err(|error| format!("--seeds {text}: {error}"));
    match text.split_once("..") {
        Some((first, end)) => Ok(parse(first)?..parse(end)?),
        None => parse(text).map(|seed| seed..seed + 1),
    }
}

#[expect(clippy::print_stdout, reason = "it speaks to people")]
fn say(line: &str) {
    println!("{line}");
}
