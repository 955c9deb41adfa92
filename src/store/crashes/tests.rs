//! Histories, and what every crash in them leaves.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::store::crashes::history::{Op, Run, op};
use crate::store::crashes::{Explored, Violation, explore, explore_restarts};
use crate::store::disk::platters::{Loss, Platters};
use crate::store::disk::simulated::Simulated;

/// Every operation, several segments, a recycled one, a batch longer than a segment.
const SCRIPT: &[Op] = &[
    Op::Vote,
    Op::Append(3, 100),
    Op::Queue(2, 600),
    Op::Queue(1, 3000),
    Op::Commit,
    Op::Append(2, 6000),
    Op::Truncate(2),
    Op::Append(1, 20_000),
    Op::Vote,
    Op::Snapshot,
    Op::Append(4, 3000),
    Op::Queue(3, 3000),
    Op::Restart,
    Op::Append(3, 5000),
    Op::Snapshot,
    Op::Append(2, 100),
    Op::Install(3),
    Op::Append(4, 6000),
    Op::Truncate(2),
    Op::Queue(4, 5000),
    Op::Vote,
    Op::Install(0),
    Op::Append(1, 10),
];

fn runtime() -> Runtime {
    Runtime::new().expect("threads")
}

fn assert_none(violations: &[Violation]) {
    assert!(violations.is_empty(), "{} of them: {}", violations.len(), violations[0]);
}

#[test]
fn nothing_acknowledged_is_lost_by_a_crash_after_any_step() {
    let disk = Simulated::new();
    runtime().block_on(async {
        let model = Run::new(&disk).all(SCRIPT).await;
        let steps = disk.steps();
        let (crashes, found) = explore(&Platters::default(), &steps, &model, (6, None)).await;
        assert_none(&found);
        let (restarts, found) = explore_restarts(&steps, &model, (None, None)).await;
        assert_none(&found);
        let (twice, found) = explore_restarts(&steps, &model, (Some(Loss::Torn(7)), None)).await;
        assert_none(&found);
        for (what, explored) in
            [("crashes", &crashes), ("after restarts", &restarts), ("after crashes", &twice)]
        {
            let Explored { steps, crashes, .. } = explored;
            println!("{what}: {steps} steps, {crashes} crashes");
        }
        assert!(crashes.steps > 150 && crashes.crashes > 1500, "{crashes:?}");
        assert!(restarts.steps > 1500 && restarts.crashes > 10_000, "{restarts:?}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn no_history_loses_anything(ops in proptest::collection::vec(op(), 1..16)) {
        let disk = Simulated::new();
        runtime().block_on(async {
            let model = Run::new(&disk).all(&ops).await;
            let (_, found) = explore(&Platters::default(), &disk.steps(), &model, (2, None)).await;
            assert_none(&found);
        });
    }
}

/// How the first process ends: alone, and with the machine.
const ENDS: [Option<Loss>; 2] = [None, Some(Loss::Torn(7))];

/// Syncs whose loss by themselves loses nothing, and why they are there.
const SPARE: &[(&str, &str)] = &[
    (
        "disk::make_dir < snapshot::Snapshots::open",
        "the log is made next, and its directory has the same parent",
    ),
    (
        "wal::segment::Segment::sync < wal::segment::Segment::zero < wal::segment::Segment::clear",
        "the end of the log is synced after it, and a segment behind the end before it counts",
    ),
    (
        "wal::segment::Segment::sync < wal::segment::Segment::zero < wal::segment::Segment::create",
        "it keeps the disk from getting a whole segment at once; the header's sync covers it",
    ),
];

#[test]
#[cfg_attr(not(debug_assertions), ignore = "optimized code has no names to tell places by")]
fn no_sync_can_be_left_out() {
    let disk = Simulated::new();
    disk.name_sites();
    let mut missed = Vec::new();
    runtime().block_on(async {
        let model = Run::new(&disk).all(SCRIPT).await;
        let steps = disk.steps();
        let (mut all, found) = explore(&Platters::default(), &steps, &model, (1, None)).await;
        assert_none(&found);
        for loss in ENDS {
            let (more, found) = explore_restarts(&steps, &model, (loss, None)).await;
            assert_none(&found);
            all.add(more);
        }
        let sites = all.sites;
        println!("{} places sync: {sites:#?}", sites.len());
        assert!(sites.len() > 15, "{sites:?}");
        for (spare, _) in SPARE {
            assert!(sites.contains(*spare), "{spare} does not sync any more");
        }
        for site in sites.iter().filter(|site| !SPARE.iter().any(|(spare, _)| *spare == &***site)) {
            let left_out = Some(&**site);
            let (_, mut found) = explore(&Platters::default(), &steps, &model, (6, left_out)).await;
            for loss in ENDS {
                if found.is_empty() {
                    (_, found) = explore_restarts(&steps, &model, (loss, left_out)).await;
                }
            }
            if found.is_empty() {
                missed.push(Arc::clone(site));
            }
        }
    });
    assert!(missed.is_empty(), "nobody would miss {missed:#?}");
}
