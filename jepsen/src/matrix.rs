//! Every workload under every nemesis, one after the other, and a table of how it went.

use anyhow::Result;
use clap::ValueEnum;

use crate::options::{Nemesis, Options, Workload, name_of};
use crate::results::Verdict;
use crate::run::{self, say};
use crate::summary::verdict;

/// Runs all pairs; the worst verdict of them.
pub(crate) async fn run(options: Options) -> Result<Verdict> {
    let mut rows = Vec::new();
    let mut worst = Verdict::Valid;
    for workload in Workload::value_variants() {
        for nemesis in Nemesis::ALL {
            let pair = Options { workload: *workload, nemesis: vec![nemesis], ..options.clone() };
            let name = format!("{:<12} {:<12}", name_of(workload), name_of(&nemesis));
            let results = run::run(pair).await?;
            let faults: u64 = results.faults.values().map(|figures| figures.installed).sum();
            rows.push(format!(
                "{name} {:>8} ok  {faults:>4} faults  longest gap {:>6} ms  {}",
                results.counts.ok,
                results.longest_gap_ms,
                verdict(&results)
            ));
            worst = worse(worst, results.verdict);
        }
    }
    say("");
    for row in rows {
        say(&row);
    }
    Ok(worst)
}

fn worse(one: Verdict, other: Verdict) -> Verdict {
    let rank = |verdict| match verdict {
        Verdict::Valid => 0,
        Verdict::Void => 1,
        Verdict::Unknown => 2,
        Verdict::Anomaly => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}
