//! Faults of disks: a replica's is deleted, or bytes on it are damaged.
//!
//! One at a time, only in groups of three and more, and only while every other replica of the group
//! is there and knows a leader: a disk is one of the copies that the promises count on, and the next
//! fault waits until the replica is a voter again that has everything.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use sagedb::types::http::ShardStatus;

use crate::checker::{Anomaly, Kind};
use crate::nemesis::process::until;
use crate::nemesis::{Context, FaultKind, Hold};

/// Replicas of a group that has a majority without one of them.
const SPARING_MIN: usize = 3;
/// How long a replica may take to have everything again.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// How long the rest of the group may take to be whole before the fault.
const WHOLE_MAX: Duration = Duration::from_secs(20);
/// How long a server that refuses its disk may take to say so.
const REFUSAL_MAX: Duration = Duration::from_secs(5);
/// Between two looks at a replica.
const LOOK: Duration = Duration::from_millis(50);

/// Deletes the disk of one replica and starts it again: it has to join as a new member.
pub(super) async fn wipe(context: &Context, mut rng: StdRng) -> Result<()> {
    let (victim, what) = drawn(context, &mut rng, "wipe").await;
    let group = context.cluster.group_of(victim);
    if let Some(reason) = can_spare_none(context, group).await {
        if !context.stopped() {
            context.skip(FaultKind::Wipe, Some(group), format!("{what}: {reason}"));
        }
        return Ok(());
    }
    let fault = context.begin(FaultKind::Wipe, Some(group), what);
    context.cluster.kill(victim);
    delete(&context.cluster.data(victim))?;
    context.cluster.start_one(victim)?;
    let back = caught_up(context, victim).await;
    let hold = if back { Hold::Installed } else { Hold::Indeterminate };
    context.end(fault, context.recorder.now(), hold);
    Ok(())
}

/// Stops one replica, damages its log or its newest snapshot, and starts it again. It may repair
/// itself, or refuse its disk with exit 2: then the disk is deleted, as the refusal asks for.
/// Anything else is an anomaly: it must never serve what is damaged.
pub(super) async fn corrupt(context: &Context, mut rng: StdRng) -> Result<()> {
    let (victim, what) = drawn(context, &mut rng, "corrupt").await;
    let group = context.cluster.group_of(victim);
    if let Some(reason) = can_spare_none(context, group).await {
        if !context.stopped() {
            context.skip(FaultKind::Corrupt, Some(group), format!("{what}: {reason}"));
        }
        return Ok(());
    }
    let cluster = &context.cluster;
    let mut fault = context.begin(FaultKind::Corrupt, Some(group), what.clone());
    cluster.kill(victim);
    let damage = damage(&cluster.data(victim), &mut rng)?;
    let Some(damage) = damage else {
        cluster.start_one(victim)?;
        caught_up(context, victim).await;
        // Nothing was damaged, but it was killed.
        context.end(fault, context.recorder.now(), Hold::Indeterminate);
        return Ok(());
    };
    // As an operator does who has looked at the disk: otherwise a replica refuses it the fourth time.
    forget_rejoins(&cluster.data(victim))?;
    context.rename(&mut fault, format!("{what}: {damage}"));
    cluster.may_end(victim, true);
    cluster.start_one(victim)?;
    let mut back = false;
    let refused = tokio::select! {
        refused = until(REFUSAL_MAX.max(CATCH_UP_MAX), || cluster.ended(victim)) => refused,
        caught = caught_up(context, victim) => { back = caught; None }
    };
    if let Some(status) = refused {
        if status.code() != Some(2) {
            let detail = format!("{damage}: it ended with {status} instead of refusing its disk");
            let key = cluster.name(victim).into();
            let kind = Kind::ServerDied;
            context.recorder.saw(Anomaly { kind, key, detail, events: Vec::new() });
        }
        delete(&cluster.data(victim))?;
        cluster.start_one(victim)?;
        back = caught_up(context, victim).await;
    }
    cluster.may_end(victim, false);
    let hold = if back { Hold::Installed } else { Hold::Indeterminate };
    context.end(fault, context.recorder.now(), hold);
    Ok(())
}

/// Why no disk of the group can be taken now; `None` if one can.
async fn can_spare_none(context: &Context, group: usize) -> Option<&'static str> {
    if context.cluster.group(group).len() < SPARING_MIN {
        return Some("its group needs every disk");
    }
    if whole(context, group).await { None } else { Some("its group is not whole") }
}

async fn drawn(context: &Context, rng: &mut StdRng, verb: &str) -> (usize, String) {
    let group = rng.random_range(0..context.cluster.groups());
    let (victim, leader) = context.victim(group, rng).await;
    let mark = if leader.is_some() { " (leader)" } else { "" };
    (victim, format!("{verb} {}{mark}", context.cluster.name(victim)))
}

fn forget_rejoins(data: &Path) -> Result<()> {
    let note = data.join("REJOINED");
    match std::fs::remove_file(&note) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} can't be deleted", note.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn delete(data: &Path) -> Result<()> {
    std::fs::remove_dir_all(data).with_context(|| format!("{} can't be deleted", data.display()))
}

/// The group's leader and what it says, if every replica follows or is it.
async fn leader_of_whole(context: &Context, group: usize) -> Option<ShardStatus> {
    let leader = context.cluster.leader(group).await?;
    for at in context.cluster.group(group) {
        let status = context.cluster.status(at).await?;
        if status.leader != Some(leader.node) {
            return None;
        }
    }
    context.cluster.status(leader.process).await
}

/// Waits until every replica of the group votes, follows the same leader and is close to it; false
/// if that takes too long.
pub(super) async fn whole(context: &Context, group: usize) -> bool {
    let within = tokio::time::timeout(WHOLE_MAX, until_whole(context, group)).await;
    within.is_ok() && !context.stopped()
}

async fn until_whole(context: &Context, group: usize) {
    let cluster = &context.cluster;
    let mut goal = None;
    loop {
        if let Some(leader) = leader_of_whole(context, group).await {
            // Everything that was in the leader's log when all followed it for the first time.
            let goal = *goal.get_or_insert(leader.last_index);
            let voters = leader.members.iter().filter(|member| member.voter);
            let close =
                voters.filter(|member| member.node == leader.node || member.matched >= goal);
            if close.count() == cluster.group(group).len() {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the victim is a voter that has everything; false if that takes too long, or the
/// attack is over.
async fn caught_up(context: &Context, victim: usize) -> bool {
    let whole = until_whole(context, context.cluster.group_of(victim));
    tokio::time::timeout(CATCH_UP_MAX, whole).await.is_ok()
}

/// Damages one place of the log or of the newest snapshot; says which, or `None` if there is
/// nothing.
fn damage(data: &Path, rng: &mut StdRng) -> Result<Option<String>> {
    let wal = newest(&data.join("wal"), "log")?;
    let snapshot = newest(&data.join("snapshot"), "snap")?;
    let of_log = rng.random_bool(0.6) || snapshot.is_none();
    let Some(file) = (if of_log { wal } else { snapshot }) else { return Ok(None) };
    let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
    // A log is made ahead of what is written: its tail is zeros.
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if written == 0 {
        return Ok(None);
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let place = if of_log { "log" } else { "snapshot" };
    let mut open = OpenOptions::new().read(true).write(true).open(&file)?;
    if rng.random_bool(0.3) {
        let keep = rng.random_range(0..written);
        open.set_len(u64::try_from(keep)?)?;
        return Ok(Some(format!("{place} {name} cut at {keep} of {written}")));
    }
    let at = rng.random_range(0..written);
    let bit = rng.random_range(0..8);
    let offset = u64::try_from(at)?;
    open.seek(SeekFrom::Start(offset))?;
    let mut byte = [0];
    open.read_exact(&mut byte)?;
    byte[0] ^= 1 << bit;
    open.seek(SeekFrom::Start(offset))?;
    open.write_all(&byte)?;
    Ok(Some(format!("{place} {name} bit {bit} of byte {at} of {written} flipped")))
}

/// The file with this extension that comes last by name; `None` if there is none.
fn newest(directory: &Path, extension: &str) -> Result<Option<PathBuf>> {
    let Ok(files) = std::fs::read_dir(directory) else { return Ok(None) };
    let mut files: Vec<PathBuf> =
        files.map(|file| file.map(|file| file.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files.pop())
}
