//! What `SageDB` is to be with a million keys, and whether it is.

use serde::Serialize;

use crate::goals::Verdict;

/// What was found, as far as goals are about it: medians.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Figures {
    pub(super) restart_s: Option<f64>,
    pub(super) resident_mb: Option<f64>,
    pub(super) disk_bytes_per_key: Option<f64>,
    pub(super) lz4_percent: Option<f64>,
    pub(super) zstd_percent: Option<f64>,
    pub(super) snapshot_p99_ratio: Option<f64>,
    pub(super) catch_up_p99_ratio: Option<f64>,
    pub(super) put_growth: Option<f64>,
    pub(super) get_growth: Option<f64>,
}

/// A goal and what came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Judged {
    pub(super) what: &'static str,
    pub(super) figure: Option<f64>,
    /// It is to be at most this.
    pub(super) wanted: f64,
    /// The same of etcd, for comparison.
    pub(super) etcd: Option<f64>,
    pub(super) verdict: Verdict,
}

/// Which figure it is about.
type Of = fn(&Figures) -> Option<f64>;

/// Every goal, with etcd's figures beside them.
pub(super) fn judge(sage: &Figures, etcd: &Figures) -> Vec<Judged> {
    let goals: [(&'static str, f64, Of); 9] = [
        ("restart until ready, s", 2.0, |it| it.restart_s),
        ("resident memory after it, MB", 300.0, |it| it.resident_mb),
        ("bytes on disk per key", 180.0, |it| it.disk_bytes_per_key),
        ("snapshot of JSON, % of raw, LZ4", 42.0, |it| it.lz4_percent),
        ("snapshot of JSON, % of raw, zstd-1", 25.0, |it| it.zstd_percent),
        ("p99 of puts during snapshots, × without", 2.0, |it| it.snapshot_p99_ratio),
        ("p99 of puts during a catch-up, × without", 2.0, |it| it.catch_up_p99_ratio),
        ("CPU of a put, growth ÷ growth of log n", 1.0, |it| it.put_growth),
        ("CPU of a get, growth ÷ growth of log n", 1.0, |it| it.get_growth),
    ];
    let judged = goals.map(|(what, wanted, of)| {
        let (figure, etcd) = (of(sage), of(etcd));
        let verdict = match figure {
            Some(figure) if figure <= wanted => Verdict::Reached,
            Some(_) => Verdict::NotReached,
            None => Verdict::NotMeasured,
        };
        Judged { what, figure, wanted, etcd, verdict }
    });
    judged.into()
}

/// How many percent one number of bytes is of another; nothing is 0 % of nothing.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// Bytes for each key.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) fn per_key(bytes: u64, keys: u64) -> f64 {
    bytes as f64 / keys.max(1) as f64
}

/// Megabytes of bytes.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1_000_000.0
}

/// By what the logarithm of a number of keys has grown.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) fn log_growth(first: u64, keys: u64) -> f64 {
    (keys as f64).ln() / (first.max(2) as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_exactly_at_its_bound() {
        let figures = Figures {
            restart_s: Some(2.0),
            resident_mb: Some(300.1),
            put_growth: Some(f64::NAN),
            ..Figures::default()
        };
        let etcd = Figures { restart_s: Some(5.0), ..Figures::default() };
        let judged = judge(&figures, &etcd);
        assert_eq!(judged.len(), 9);
        assert_eq!((judged[0].verdict, judged[0].etcd), (Verdict::Reached, Some(5.0)));
        assert_eq!((judged[1].verdict, judged[1].etcd), (Verdict::NotReached, None));
        assert_eq!(judged[2].verdict, Verdict::NotMeasured);
        assert_eq!(judged[7].verdict, Verdict::NotReached, "what is no number reaches nothing");
    }

    #[test]
    fn figures_are_those_of_school() {
        let near = |one: f64, other: f64| assert!((one - other).abs() < 1e-9, "{one}, not {other}");
        near(percent(42, 100), 42.0);
        near(percent(0, 0), 0.0);
        near(per_key(180_000, 1000), 180.0);
        near(per_key(0, 0), 0.0);
        near(mb(1_500_000), 1.5);
        near(log_growth(1000, 1000), 1.0);
        near(log_growth(1000, 1_000_000), 2.0);
        near(log_growth(1, 4), 2.0);
    }
}
