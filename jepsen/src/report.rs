//! What a run says while it lasts and at its end, and what its end means.

use std::time::Duration;

use crate::history::Counts;
use crate::nemesis::{Fault, Hold};

/// Of all operations, so many must succeed for a run to prove anything, in percent.
const OK_PERCENT_MIN: u64 = 30;
/// Anomalies that are shown in full.
const SHOWN: usize = 10;

/// What a run has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing was wrong, and enough has happened to say so.
    Valid,
    /// A promise was broken.
    Anomaly,
    /// Too little has happened to say anything, for this reason.
    Void(String),
}

/// Everything that a verdict follows from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Operations while the cluster was attacked.
    pub(crate) counts: Counts,
    /// What was wrong: with data, with a server that died, with a cluster that did not recover.
    pub(crate) anomalies: Vec<String>,
    /// What was broken.
    pub(crate) faults: Vec<Fault>,
    /// Keys that could not be read at the end.
    pub(crate) unread: usize,
    /// How long it was attacked.
    pub(crate) attacked: Duration,
    /// The longest time without an acknowledged write.
    pub(crate) longest_gap: Duration,
}

impl Facts {
    /// What the run has shown.
    pub(crate) fn verdict(&self) -> Verdict {
        if !self.anomalies.is_empty() {
            return Verdict::Anomaly;
        }
        let Counts { ok, .. } = self.counts;
        let total = self.counts.total();
        if ok * 100 < total * OK_PERCENT_MIN || total == 0 {
            return Verdict::Void(format!("only {ok} of {total} operations succeeded"));
        }
        if self.unread > 0 {
            return Verdict::Void(format!("{} keys could not be read at the end", self.unread));
        }
        if self.held(Hold::Installed) == 0 {
            return Verdict::Void("no leader was replaced, so no fault took hold".into());
        }
        Verdict::Valid
    }

    fn held(&self, hold: Hold) -> usize {
        self.faults.iter().filter(|fault| fault.hold == hold).count()
    }

    /// The summary, several lines.
    pub(crate) fn summary(&self) -> String {
        let mut lines = Vec::new();
        for anomaly in self.anomalies.iter().take(SHOWN) {
            lines.push(format!("anomaly     {anomaly}"));
        }
        if self.anomalies.len() > SHOWN {
            lines.push(format!("            and {} more", self.anomalies.len() - SHOWN));
        }
        let Counts { ok, failed, unknown } = self.counts;
        let rate = self.counts.total() * 1000 / milliseconds(self.attacked).max(1);
        lines.push(format!(
            "operations  {ok} ok, {failed} failed, {unknown} of unknown fate, {rate} a second"
        ));
        let mut failovers: Vec<u64> =
            self.faults.iter().filter_map(|fault| fault.failover).map(milliseconds).collect();
        failovers.sort_unstable();
        lines.push(format!(
            "faults      {} leaders killed and replaced, {} not replaced in time, {} skipped",
            failovers.len(),
            self.held(Hold::Indeterminate),
            self.held(Hold::Skipped)
        ));
        if let (Some(longest), Some(median)) =
            (failovers.last(), failovers.get(failovers.len() / 2))
        {
            lines.push(format!(
                "            next leader after {median} ms (median), {longest} ms (longest)"
            ));
        }
        let gap = milliseconds(self.longest_gap);
        lines.push(format!("            longest time without an acknowledged write {gap} ms"));
        lines.push(match self.verdict() {
            Verdict::Valid => "verdict     valid".into(),
            Verdict::Anomaly => format!("verdict     {} ANOMALIES", self.anomalies.len()),
            Verdict::Void(reason) => format!("verdict     void: {reason}"),
        });
        lines.join("\n")
    }
}

/// One line about a run that lasts.
pub(crate) fn progress(
    elapsed: Duration,
    counts: Counts,
    before: Counts,
    fault: Option<String>,
    anomalies: usize,
) -> String {
    let rate = counts.total() - before.total();
    let percent = (counts.ok * 100).checked_div(counts.total()).unwrap_or(0);
    format!(
        "{:>4} s  {:>7} operations ({percent} % ok)  {rate:>5}/s  anomalies {anomalies}  {}",
        elapsed.as_secs(),
        counts.total(),
        fault.unwrap_or_else(|| "no fault".into())
    )
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let fault = Fault {
            what: "kill".into(),
            hold: Hold::Installed,
            failover: Some(Duration::from_millis(100)),
        };
        Facts {
            counts: Counts { ok: 70, failed: 20, unknown: 10 },
            faults: vec![fault],
            attacked: Duration::from_secs(1),
            ..Facts::default()
        }
    }

    #[test]
    fn a_run_is_valid_only_if_enough_happened() {
        assert_eq!(facts().verdict(), Verdict::Valid);
        let void = |change: fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            matches!(facts.verdict(), Verdict::Void(_))
        };
        assert!(void(|facts| facts.counts = Counts { ok: 29, failed: 71, unknown: 0 }));
        assert!(void(|facts| facts.counts = Counts::default()));
        assert!(void(|facts| facts.faults.clear()));
        assert!(void(|facts| facts.faults[0].hold = Hold::Indeterminate));
        assert!(void(|facts| facts.faults[0].hold = Hold::Skipped));
        assert!(void(|facts| facts.unread = 1));
        assert!(!void(|facts| facts.counts = Counts { ok: 30, failed: 0, unknown: 70 }));
    }

    #[test]
    fn an_anomaly_is_one_also_when_little_happened() {
        let anomalies = vec!["lost write".to_string(); 11];
        let facts = Facts { anomalies, ..Facts::default() };
        assert_eq!(facts.verdict(), Verdict::Anomaly);
        assert!(facts.summary().contains("and 1 more"), "{}", facts.summary());
    }
}
