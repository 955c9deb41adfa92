//! Verifies a data directory without starting a replica on it: every byte of log and snapshots is
//! read and checked, nothing is changed.
//!
//! What is called a problem here is what a replica refuses to start on. For a replica that is alone
//! this also tells what would be lost by going on without what is damaged (see `repair`).

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::store::datadir::{self, DataDirError};
use crate::store::disk::Real;
use crate::store::meta::{Meta, Unreadable};
use crate::store::snapshot::{self, SnapshotError};
use crate::store::wal::{self, Record, Wal, WalError};
use crate::types::ids::{GroupId, Index, LogId, NodeId, Vote};
use crate::types::log::{Membership, Payload};

/// Why a data directory can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The directory can't be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no data of a replica in it.
    #[error("{0} holds no data of a replica: neither wal/ nor snapshot/ nor meta/")]
    Empty(PathBuf),
    /// The log can't be read at all.
    #[error("log: {0}")]
    Wal(#[from] WalError),
    /// The snapshots can't be read at all.
    #[error("snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
}

/// What a data directory holds, and whether a replica can start on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Whether a replica can start on it.
    pub ok: bool,
    /// The data directory.
    pub dir: PathBuf,
    /// Whose it is.
    pub node: Option<NodeId>,
    /// The group that it belongs to.
    pub group: Option<GroupId>,
    /// That group's name.
    pub name: Option<String>,
    /// The URLs of the group's members, as far as the data tells.
    pub members: Vec<String>,
    /// The log.
    pub log: LogReport,
    /// The snapshots, the newest last.
    pub snapshots: Vec<SnapshotReport>,
    /// Why a replica can't start on it.
    pub problems: Vec<String>,
    /// What is worth knowing and does no harm.
    pub notes: Vec<String>,
    /// What is lost if nobody else has it; only with problems.
    pub loss: Option<Loss>,
}

/// What a log holds, up to the damage if there is any.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LogReport {
    /// How many segments there are.
    pub segments: usize,
    /// Bytes of their files.
    pub bytes: u64,
    /// The first entry's index.
    pub first: Option<Index>,
    /// The last entry, purged or not.
    pub last: Option<LogId>,
    /// The last entry purged.
    pub purged: Option<LogId>,
    /// The last commit position saved.
    pub committed: Option<LogId>,
    /// The last vote.
    pub vote: Option<Vote>,
}

/// A snapshot file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SnapshotReport {
    /// The file.
    pub file: PathBuf,
    /// Whether every byte of it is right.
    pub ok: bool,
    /// The last entry in it.
    pub last: Option<LogId>,
    /// How many keys it holds.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// What damage takes away from a replica that is alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Loss {
    /// The last entry up to which all can be had again; nothing can without it.
    pub keep: Option<Index>,
    /// The last entry that is known to have been there.
    pub known_last: Option<Index>,
    /// Entries that can be read and yet are lost, since some before them can't.
    pub readable: Vec<Range<Index>>,
}

/// Checks everything in `dir`. Refuses a directory that a process uses. Takes as long as reading it.
pub fn check(dir: &Path) -> Result<Report, CheckError> {
    let _unused = datadir::unused(dir)?;
    let mut gathered = Gathered::read(dir)?;
    gathered.judge(dir);
    if let Some(reason) = datadir::condemned(dir)? {
        let report = &mut gathered.report;
        report.problems.push(format!("it was condemned by its group: {reason}"));
        (report.ok, report.loss) = (false, None);
    }
    Ok(gathered.report)
}

/// The report in the making, and what it is made of.
struct Gathered {
    report: Report,
    log: wal::Inspection,
    /// The newest snapshot, if there is one: whether it is whole.
    newest: Option<Result<Option<LogId>, SnapshotError>>,
    /// Identity and group of the metadata.
    meta: (Option<NodeId>, Option<GroupId>),
}

impl Gathered {
    fn read(dir: &Path) -> Result<Self, CheckError> {
        let [wal, snapshots, meta] = ["wal", "snapshot", "meta"].map(|name| dir.join(name));
        if ![&wal, &snapshots, &meta].iter().any(|part| part.is_dir()) {
            return Err(CheckError::Empty(dir.into()));
        }
        let mut notes = Vec::new();
        let mut problems = Vec::new();
        let meta = Meta::peek(&meta).unwrap_or_else(|unreadable| {
            match unreadable {
                Unreadable::Damaged(reason) => notes.push(format!(
                    "the metadata is damaged: {reason}; a start finds what was in it again"
                )),
                Unreadable::Other(reason) => problems.push(format!("metadata: {reason}")),
            }
            (None, None)
        });
        let (mut group, mut name) = (meta.1, None);
        let (mut membership, mut newest, mut reports) = (Membership::default(), None, Vec::new());
        for snapshot::Inspection { path, head } in snapshot::inspect(&Real, &snapshots)? {
            let head = head.inspect(|head| {
                membership = head.membership.membership.clone();
                group = head.group.as_ref().map(|(group, _)| *group).or(group);
                name = head.group.as_ref().map(|(_, name)| name.to_string());
            });
            reports.push(SnapshotReport {
                file: path,
                ok: head.is_ok(),
                last: head.as_ref().ok().and_then(|head| head.last),
                keys: head.as_ref().map_or(0, |head| head.keys),
                bytes: head.as_ref().map_or(0, |head| head.bytes),
            });
            newest = Some(head.map(|head| head.last));
        }
        let log = Wal::inspect(&Real, &wal, |record| {
            let Record::Entry(entry) = record else { return };
            match entry.payload {
                Payload::Membership(newer) => membership = newer,
                Payload::Command(command) => {
                    if let Some((founded, named)) = command.founds() {
                        group = group.or(Some(founded));
                        name.get_or_insert_with(|| named.to_owned());
                    }
                }
                Payload::Blank => {}
            }
        })?;
        let report = Report {
            ok: true,
            dir: dir.into(),
            node: meta.0.or(log.node),
            group,
            name,
            members: membership.urls.into_values().collect(),
            log: LogReport {
                segments: log.segments,
                bytes: log.bytes,
                first: (!log.entries.is_empty()).then_some(log.entries.start),
                last: log.last,
                purged: log.purged,
                committed: log.committed,
                vote: log.vote,
            },
            snapshots: reports,
            problems,
            notes,
            loss: None,
        };
        Ok(Self { report, log, newest, meta })
    }

    /// The same questions as at a start, in the same order.
    fn judge(&mut self, dir: &Path) {
        let snapshot = self.snapshot().map(|last| last.index);
        let problems = &mut self.report.problems;
        if let Some(Err(error)) = &self.newest {
            problems.push(format!("snapshot: {error}"));
        }
        if let Some(error) = &self.log.damage {
            problems.push(format!("log: {error}"));
        }
        let belongs = self.meta.1.is_some() || self.newest.is_some();
        if self.log.segments == 0 && belongs {
            problems.push("the log is missing, and with it the vote".into());
        }
        if let (Some(meta), Some(log)) = (self.meta.0, self.log.node)
            && meta != log
        {
            problems.push(format!("the metadata is of {meta}, the log of {log}"));
        }
        if let Some(purged) = self.log.purged
            && snapshot.is_none_or(|snapshot| snapshot < purged.index)
            && self.newest.as_ref().is_none_or(Result::is_ok)
        {
            problems.push(format!("the log begins after entry {purged}, and no snapshot is there"));
        }
        let used = self.log.last.is_some() || self.log.vote.is_some();
        if self.report.group.is_none() && used && problems.is_empty() {
            problems.push("it has a vote, and nothing says in which group".into());
        }
        if self.log.torn {
            let note = "a batch at the end of the log was being written when the process or the \
                        machine ended; it was never acknowledged and will be cut";
            self.report.notes.push(note.into());
        }
        for name in set_aside(dir) {
            self.report.notes.push(format!("{name} holds damaged data that was set aside"));
        }
        self.report.ok = self.report.problems.is_empty();
        if !self.report.ok && self.is_damage() {
            self.report.loss = Some(self.loss());
        }
    }

    /// Whether all that is wrong is damage, and not data of another version or another replica.
    fn is_damage(&self) -> bool {
        let metadata = |problem: &String| problem.starts_with("metadata: ");
        if self.report.problems.iter().any(metadata) {
            return false;
        }
        let log = self.log.damage.as_ref();
        log.is_none_or(|error| matches!(error, WalError::Damaged { .. }))
            && match &self.newest {
                Some(Err(error)) => matches!(error, SnapshotError::Damaged { .. }),
                Some(Ok(_)) | None => true,
            }
            && (self.meta.0.is_none() || self.log.node.is_none() || self.meta.0 == self.log.node)
    }

    /// The last entry in the newest snapshot, if that is whole.
    fn snapshot(&self) -> Option<LogId> {
        self.newest.as_ref()?.as_ref().ok().copied().flatten()
    }

    fn loss(&self) -> Loss {
        let (entries, snapshot) = (&self.log.entries, self.snapshot().map(|last| last.index));
        let follows = match snapshot {
            Some(snapshot) => entries.start <= snapshot + 1,
            None => self.log.purged.is_none() && entries.start == 0,
        };
        let last = (!entries.is_empty()).then(|| entries.end - 1);
        let keep = if follows { snapshot.max(last) } else { snapshot };
        let readable = self.log.behind.iter().chain((!follows).then_some(entries));
        let readable: Vec<Range<Index>> = readable
            .map(|range| range.start.max(keep.map_or(0, |keep| keep + 1))..range.end)
            .filter(|range| !range.is_empty())
            .collect();
        let marks = [self.log.committed, self.log.purged].map(|mark| mark.map(|mark| mark.index));
        let ends = readable.iter().map(|range| Some(range.end - 1));
        let known_last = ends.chain(marks).chain([keep, last]).max().flatten();
        Loss { keep, known_last, readable }
    }
}

impl Report {
    /// Whether this replica is the only member of its group, so that nobody else has its data.
    pub fn is_alone(&self) -> bool {
        self.members.len() == 1
    }

    /// What is lost, and what can be done about it.
    pub fn cure(&self) -> String {
        let dir = self.dir.display();
        let Some(loss) = &self.loss else {
            return "that is no damage that could be repaired: see what the problem says".into();
        };
        if self.members.len() > 1 {
            let members = self.members.len();
            return format!(
                "its group has {members} members: start it with --replicas, and it gets everything \
                 again from the others"
            );
        }
        match loss.keep.filter(|_| self.is_alone()) {
            Some(keep) => format!(
                "{}; restore {dir} from a copy, or go on without them: sage repair {dir} \
                 --lose-after {keep}",
                loss.sentence()
            ),
            None => format!(
                "nothing can be had again from {dir}; restore it from a copy, see with sage dump \
                 what can still be read, or remove it to begin anew"
            ),
        }
    }
}

impl Loss {
    fn sentence(&self) -> String {
        let first = self.keep.map_or(0, |keep| keep + 1);
        let lost = match self.known_last {
            Some(last) if last >= first => format!("entries {first} to {last} at least are lost"),
            Some(_) | None => format!("entries from {first} on are lost, if there were any"),
        };
        let readable: Vec<String> = self
            .readable
            .iter()
            .map(|range| format!("{} to {}", range.start, range.end - 1))
            .collect();
        if readable.is_empty() {
            return lost;
        }
        format!("{lost} ({} can be read, but not used without the others)", readable.join(", "))
    }
}

/// The names of what was moved aside in a data directory.
fn set_aside(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.contains(".damaged-")).collect();
    names.sort();
    names
}
