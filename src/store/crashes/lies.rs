//! A disk that fails, or says that it wrote and did not, at each step in turn.
//!
//! A failed step ends the log, and nothing that it acknowledged is lost. A write that was dropped or
//! went elsewhere is damage: it is found when the log is opened or read, and never served.

use std::io::ErrorKind;
use std::path::Path;

use crate::store::crashes::history::{NODE, SNAPSHOTS, Store, entry, try_open};
use crate::store::disk::Disk as _;
use crate::store::disk::platters::{Loss, Platters, Step};
use crate::store::disk::simulated::{Fault, Simulated};
use crate::store::state::State;
use crate::types::ids::{Index, Term, Vote};

/// Enough for three segments.
const ENTRIES: Index = 24;

/// What was acknowledged before the disk failed, or until the end.
#[derive(Default)]
struct Acknowledged {
    entries: Index,
    term: Option<Term>,
    failed: bool,
}

async fn append(store: &Store, index: Index) -> std::io::Result<()> {
    let (done, wait) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| drop(done.send(result)));
    store.0.append(vec![entry(1, index, 1500)], done).await?;
    wait.await.expect("it is told")
}

/// Works until the first error.
async fn work(disk: &Simulated) -> Acknowledged {
    let mut acknowledged = Acknowledged { failed: true, ..Acknowledged::default() };
    let Ok(store) = try_open(disk) else { return acknowledged };
    for index in 0..ENTRIES {
        if let Err(error) = append(&store, index).await {
            let again = append(&store, index).await.expect_err("a log that failed takes no more");
            assert_eq!(again.to_string(), error.to_string());
            return acknowledged;
        }
        acknowledged.entries = index + 1;
        if index % 8 == 7 {
            let term = 1 + index / 8;
            let vote = Vote { term, node: NODE, committed: false };
            if store.0.save_vote(vote).await.is_err() {
                return acknowledged;
            }
            acknowledged.term = Some(term);
        }
    }
    acknowledged.failed = store.0.close().await.is_err();
    acknowledged
}

/// How many steps it takes when nothing goes wrong; the keeper may be behind with a few.
async fn steps() -> usize {
    let disk = Simulated::new();
    assert!(!work(&disk).await.failed);
    disk.steps().len()
}

fn platters(disk: &Simulated) -> Platters {
    let mut platters = Platters::default();
    disk.steps().iter().for_each(|step| platters.take(step));
    platters
}

/// What a store that was opened again holds, in order and as it was written.
async fn held(store: &Store) -> Result<(Index, Option<Term>), String> {
    let entries = store.0.entries(0..Index::MAX, usize::MAX).await;
    let entries = entries.map_err(|error| error.to_string())?;
    for (index, found) in (0..).zip(&entries) {
        assert!(*found == entry(1, index, 1500), "entry {index} is another one");
    }
    Ok((entries.len() as Index, store.0.vote().map(|vote| vote.term)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_ends_the_log_and_takes_nothing_with_it() {
    let mut failed = 0;
    for step in 0..steps().await {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            let disk = Simulated::new();
            disk.plan(step, Fault::Fail(kind));
            let acknowledged = work(&disk).await;
            failed += u32::from(acknowledged.failed);
            // A failed sync says nothing: the pages may be lost although they could be read.
            for loss in [Loss::Everything, Loss::Nothing] {
                let disk = Simulated::on(&platters(&disk).after_crash(loss));
                let store = try_open(&disk).unwrap_or_else(|error| panic!("step {step}: {error}"));
                let (entries, term) = held(&store).await.expect("a good disk");
                assert!(entries >= acknowledged.entries, "step {step}: {entries} entries");
                assert!(term >= acknowledged.term, "step {step}: voted in {term:?}");
                store.0.close().await.expect("a good disk");
            }
        }
    }
    assert!(failed > 50, "only {failed} steps failed");
}

/// After a failed sync the pages can be read and look clean: a later sync succeeds and writes
/// nothing. What the next process shows from them must be on disk all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_trust_what_a_failed_sync_left_readable() {
    let mut phantoms = 0;
    for step in 0..steps().await {
        let disk = Simulated::new();
        disk.plan(step, Fault::Fail(ErrorKind::Other));
        let acknowledged = work(&disk).await;
        if !disk.steps().iter().any(|step| matches!(step, Step::FailedSync(_))) {
            continue;
        }
        let left = platters(&disk);
        let second = Simulated::on(&left);
        let store = try_open(&second).unwrap_or_else(|error| panic!("step {step}: {error}"));
        let shown = held(&store).await.expect("it can be read");
        phantoms += u32::from(shown.0 > acknowledged.entries);
        append(&store, shown.0).await.expect("the disk works again");
        store.0.close().await.expect("the disk works again");
        let mut left = left;
        for step in second.steps() {
            left.take(&step);
        }
        let third = Simulated::on(&left.after_crash(Loss::Everything));
        let store = try_open(&third).unwrap_or_else(|error| panic!("step {step}: {error}"));
        let held = held(&store).await.expect("a good disk");
        assert_eq!(held, (shown.0 + 1, shown.1), "step {step}");
        store.0.close().await.expect("a good disk");
    }
    assert!(phantoms > 3, "only {phantoms} restarts saw what was not on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_never_was_or_went_elsewhere_is_noticed() {
    let (mut noticed, mut harmless) = (0, 0);
    for step in 0..steps().await {
        for fault in [Fault::Drop, Fault::Misdirect(512), Fault::Misdirect(5000)] {
            let disk = Simulated::new();
            disk.plan(step, fault);
            let acknowledged = work(&disk).await;
            assert!(!acknowledged.failed, "the disk says that all is well");
            let disk = Simulated::on(&platters(&disk).after_crash(Loss::Nothing));
            let Ok(store) = try_open(&disk) else {
                noticed += 1;
                continue;
            };
            match held(&store).await {
                Err(_) => noticed += 1,
                Ok((entries, term)) => {
                    let all = (acknowledged.entries, acknowledged.term);
                    assert_eq!((entries, term), all, "step {step}, {fault:?}");
                    harmless += 1;
                }
            }
            store.0.close().await.expect("the disk works again");
        }
    }
    println!("{noticed} noticed, {harmless} harmless");
    assert!(noticed > 50, "only {noticed} were noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_is_noticed_or_harmless() {
    let disk = Simulated::new();
    let acknowledged = work(&disk).await;
    let whole = platters(&disk).after_crash(Loss::Nothing);
    let (mut noticed, mut flips) = (0, 0);
    for (path, bytes) in whole.contents() {
        // Every byte that was written, and every 61st of the zeros that fill files up.
        let written =
            |at: &usize| bytes[at.saturating_sub(8)..].iter().take(16).any(|byte| *byte != 0);
        for offset in (0..bytes.len()).filter(|at| at % 61 == 0 || written(at)) {
            let mut flipped = whole.clone();
            flipped.flip(&path, offset);
            flips += 1;
            let Ok(store) = try_open(&Simulated::on(&flipped)) else {
                noticed += 1;
                continue;
            };
            let held = held(&store).await.expect("what can be opened can be read");
            let all = (acknowledged.entries, acknowledged.term);
            assert_eq!(held, all, "byte {offset} of {}", path.display());
            store.0.close().await.expect("a good disk");
        }
    }
    println!("{flips} flipped, {noticed} noticed");
    assert!(noticed > 500 && noticed < flips, "{noticed} of {flips} were noticed");
}

/// The mark that told it from a torn tail was not synced before.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_was_found_is_found_again_after_a_loss_of_power() {
    let (long, short) = (Simulated::new(), Simulated::new());
    work(&long).await;
    // In its first segment not even the name of the mark is durable.
    let store = try_open(&short).expect("a good disk");
    append(&store, 0).await.expect("a good disk");
    store.0.close().await.expect("a good disk");
    for (disk, least) in [(long, 500), (short, 5)] {
        found_again(&platters(&disk), least);
    }
}

/// Damages what is durable, byte by byte; at least so many times it must be found.
fn found_again(left: &Platters, least: usize) {
    let mut found = 0;
    for (path, bytes) in left.contents() {
        for offset in (0..bytes.len()).filter(|at| bytes[*at] != 0).step_by(7) {
            let mut damaged = left.clone();
            damaged.flip(&path, offset);
            let disk = Simulated::on(&damaged);
            if try_open(&disk).is_ok() {
                continue;
            }
            found += 1;
            disk.steps().iter().for_each(|step| damaged.take(step));
            let after = Simulated::on(&damaged.after_crash(Loss::Everything));
            let opened = try_open(&after).is_ok();
            assert!(!opened, "byte {offset} of {} was damaged, and is forgotten", path.display());
        }
    }
    assert!(found > least, "only {found} were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_does_not_fit_leaves_the_one_before() {
    let disk = Simulated::new();
    let (wal, snapshots) = try_open(&disk).expect("a good disk");
    let mut state = State { applied: Some(entry(1, 7, 0).id), ..State::default() };
    let old = snapshots.write(&state).expect("there is room");
    state.applied = Some(entry(1, 9, 0).id);
    disk.limit(Some(disk.used() + 10));
    assert!(snapshots.write(&state).is_err());
    assert_eq!(snapshots.newest(), Some(old.clone()));
    disk.limit(None);
    let new = snapshots.write(&state).expect("there is room again");
    assert_eq!(snapshots.newest(), Some(new));
    let files = disk.list(Path::new(SNAPSHOTS)).expect("a directory");
    assert_eq!(files.len(), 1, "nothing unfinished stays: {files:?}");
    wal.close().await.expect("a good disk");
}
