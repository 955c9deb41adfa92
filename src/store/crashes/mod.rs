//! Crashes after every step that the store does on its disk.
//!
//! A history of appends, votes, truncations, purges, snapshots and restarts runs once on a
//! simulated disk, which takes down each step. Then, for every step and every [`Loss`], the store
//! is opened over what a crash just then may have left, and must hold what it promised:
//!
//! - everything acknowledged is there, in order, without a hole, and nothing that was not written;
//! - the vote never goes back;
//! - the newest snapshot is whole, is not older than the newest acknowledged, and covers what was
//!   purged.
//!
//! The same once more for a process that ends and starts over what is not synced yet, before the
//! machine ends too. What fails here fails in the way of Pillai et al., "All File Systems Are Not
//! Created Equal", OSDI '14, whose ALICE enumerates crash states in the same way.

mod history;
mod lies;
mod notes;
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::store::crashes::history::{Model, NODE, Op, Run, SEGMENT_BYTES, WAL};
use crate::store::disk::Disk;
use crate::store::disk::platters::{Loss, Note, Platters, Step};
use crate::store::disk::simulated::Simulated;
use crate::store::snapshot::Snapshots;
use crate::store::wal::WalOptions;
use crate::types::ids::Index;

/// What a crash may take: the plain cases, and so many torn ones.
fn losses(torn: u64) -> impl Iterator<Item = Loss> {
    use Loss::{AllButNewest, Data, Everything, Names, Newest, Nothing};
    let plain = [Nothing, Everything, Data, Names, AllButNewest, Newest];
    plain.into_iter().chain((0..torn).map(Loss::Torn))
}

/// A promise that was broken, and when.
struct Violation {
    step: usize,
    loss: Loss,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, loss, what } = self;
        write!(f, "after step {step}, losing {loss:?}: {what}")
    }
}

/// How far an exploration went.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Explored {
    steps: usize,
    crashes: usize,
    /// The places that synced.
    sites: BTreeSet<Arc<str>>,
}

impl Explored {
    fn add(&mut self, further: Self) {
        self.steps += further.steps;
        self.crashes += further.crashes;
        self.sites.extend(further.sites);
    }
}

/// Opens the store after a crash at each step, for each loss; the syncs of `left_out` do nothing.
async fn explore(
    start: &Platters,
    steps: &[Step],
    model: &Model,
    (torn, left_out): (u64, Option<&str>),
) -> (Explored, Vec<Violation>) {
    let (mut platters, mut note) = (start.clone(), Note::default());
    let (mut explored, mut violations) = (Explored::default(), Vec::new());
    for (at, step) in steps.iter().enumerate() {
        if let Step::Noted(newer) = step {
            note = *newer;
            continue;
        }
        let ignored = left_out.is_some() && step.site().map(|site| &**site) == left_out;
        if !ignored {
            platters.take(step);
        }
        explored.steps += 1;
        explored.sites.extend(step.site().cloned());
        for loss in losses(torn) {
            explored.crashes += 1;
            let left = platters.after_crash(loss);
            if let Err(what) = check(&Simulated::on(&left), model, note).await {
                violations.push(Violation { step: at, loss, what });
                if left_out.is_some() {
                    return (explored, violations);
                }
            }
        }
    }
    (explored, violations)
}

/// As [`explore`], but it is the second end: another process goes on over what the first has left,
/// which ended before each sync: alone, or, with a `loss`, together with the machine.
async fn explore_restarts(
    steps: &[Step],
    model: &Model,
    (loss, left_out): (Option<Loss>, Option<&str>),
) -> (Explored, Vec<Violation>) {
    let named = steps.iter().filter_map(Step::site).any(|site| !site.is_empty());
    let (mut platters, mut note) = (Platters::default(), Note::default());
    let (mut explored, mut violations) = (Explored::default(), Vec::new());
    for (at, step) in steps.iter().enumerate() {
        if let Step::Noted(newer) = step {
            note = *newer;
            continue;
        }
        if left_out.is_none() || step.site().map(|site| &**site) != left_out {
            platters.take(step);
        }
        if steps.get(at + 1).and_then(Step::site).is_none() {
            continue;
        }
        let left = loss.map_or_else(|| platters.clone(), |loss| platters.after_crash(loss));
        let disk = Simulated::on(&left);
        if named {
            disk.name_sites();
        }
        disk.note(|noted| *noted = note);
        let second = match go_on(&disk, model, note).await {
            Ok(second) => second,
            Err(what) => {
                violations.push(Violation { step: at, loss: Loss::Nothing, what });
                return (explored, violations);
            }
        };
        let (further, found) = explore(&left, &disk.steps(), &second, (1, left_out)).await;
        explored.add(further);
        violations.extend(found);
        if left_out.is_some() && !violations.is_empty() {
            break;
        }
    }
    (explored, violations)
}

/// Opens the store again and works on. What it shows then counts as acknowledged.
async fn go_on(disk: &Simulated, model: &Model, note: Note) -> Result<Model, String> {
    let store = history::try_open(disk)?;
    let upto = model.matching(&store.0, note).await?;
    let snapshot = store.1.newest().and_then(|newest| Some(newest.last?.index));
    disk.note(|note| *note = Note { submitted: upto, acknowledged: upto, snapshot });
    let run = Run::over(disk, store, model, upto);
    Ok(run.all(&[Op::Append(2, 100), Op::Vote, Op::Queue(1, 9000), Op::Snapshot]).await)
}

/// Opens the store and compares it with what it must hold.
async fn check(disk: &Simulated, model: &Model, note: Note) -> Result<(), String> {
    let (wal, snapshots) = history::try_open(disk)?;
    let covered = check_snapshot(&snapshots, model, note)?;
    let found = model.matching(&wal, note).await;
    if let Some(purged) = wal.purged()
        && covered.is_none_or(|covered| covered < purged.index)
    {
        return Err(format!("purged up to {purged}, but the snapshot ends at {covered:?}"));
    }
    wal.close().await.map_err(|error| format!("closing: {error}"))?;
    found.map(drop)
}

/// The last entry in the newest snapshot.
fn check_snapshot(
    snapshots: &Snapshots,
    model: &Model,
    note: Note,
) -> Result<Option<Index>, String> {
    let Some(newest) = snapshots.newest() else {
        return match note.snapshot {
            None => Ok(None),
            Some(index) => Err(format!("the snapshot of {index} is gone")),
        };
    };
    let state = snapshots.read(&newest).map_err(|error| format!("snapshot: {error}"))?;
    let index = newest.last.map(|last| last.index);
    if index < note.snapshot {
        return Err(format!("the snapshot ends at {index:?}, before {:?}", note.snapshot));
    }
    if index.and_then(|index| model.states.get(&index)) != Some(&state) {
        return Err(format!("the snapshot of {index:?} holds another state"));
    }
    Ok(index)
}

fn options(disk: Arc<dyn Disk>) -> WalOptions {
    WalOptions { disk, dir: WAL.into(), node: NODE, segment_bytes: SEGMENT_BYTES }
}
