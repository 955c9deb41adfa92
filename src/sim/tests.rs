//! A few seeds, and the proof that a seed is a run.

use super::*;

const SHORT: Options = Options { faults_ms: 5_000, keep_trace: true };

#[test]
fn the_same_seed_is_the_same_run() {
    let mut clusters = Vec::new();
    for seed in [3, 4, 8] {
        let (one, other) = (run(seed, SHORT), run(seed, SHORT));
        let differs = one.trace.iter().zip(&other.trace).position(|(one, other)| one != other);
        if let Some(at) = differs {
            panic!("seed {seed}: line {at} is {:?}, then {:?}", one.trace[at], other.trace[at]);
        }
        assert_eq!(one.hash, other.hash, "seed {seed}: the bytes differ, not the lines");
        assert!(one.requests.1 > 0, "seed {seed}: something was answered");
        clusters.push(one.cluster);
    }
    let both = ["groups of [3], 0 coordinators", "groups of [1, 3, 1], 2 coordinators"];
    assert!(both.iter().all(|of| clusters.iter().any(|one| one == of)), "{clusters:?}");
}

#[test]
fn no_seed_breaks_a_promise() {
    for seed in 1000..1008 {
        let report = run(seed, Options { keep_trace: false, ..SHORT });
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}: {report:?}");
    }
}
