//! Compares this replica's state with the others', in the background, and takes it out of service
//! when a majority says that it is wrong.
//!
//! Once a second, if there is a new checkpoint, it sends its checkpoints to every member and gets
//! theirs: two kilobytes each way at most. Both sides look, so that whoever is told of a difference
//! knows of it even if the other is gone a moment later. What a majority of all voters has the same,
//! at one index, is right; a replica that has something else there condemns **itself**, never another.
//! Without such a majority nobody is condemned: the difference is an error in the log, and stands in
//! `/status`.
//!
//! A condemned replica serves nothing from that moment on, and a note in its data directory says so,
//! synced, before anything else is done: a crash does not bring it back. Its process then has it
//! rejoin as a new member, the way that damaged data takes ([`raft::spared`](super::spared)). See
//! `docs/decisions/011-comparison.md`.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::raft::checkpoints::{Compared, Difference, Record, compare, judge};
use crate::raft::replica::{Replica, lock};
use crate::rpc::{Caller, Dialer, Target};
use crate::store::blocking::blocking;
use crate::store::datadir;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::ids::{Index, NodeId};
use crate::types::limits::{COMPARE_INTERVAL, COMPARE_TIMEOUT};
use crate::types::peer::{Checkpoint, Checkpoints, Reply, Request};
use crate::types::topology::Member;

/// What a replica knows of its state and that of the others.
#[derive(Debug)]
pub(in crate::raft) struct Comparison {
    record: Record,
    dialer: Dialer,
    seen: Mutex<Seen>,
    /// Why this replica is condemned: set once, never taken back.
    verdict: OnceLock<String>,
    /// Cancelled when that is on disk.
    condemned: CancellationToken,
}

#[derive(Debug, Default)]
struct Seen {
    /// The newest index at which a majority agreed with this replica.
    agreed: Option<Index>,
    /// Members whose state differed when they were last compared, and where.
    differing: BTreeMap<NodeId, Difference>,
}

impl Comparison {
    /// Compares what `record` holds.
    pub(in crate::raft) fn new(record: Record, dialer: Dialer) -> Self {
        let (verdict, condemned) = (OnceLock::new(), CancellationToken::new());
        Self { record, dialer, seen: Mutex::default(), verdict, condemned }
    }

    /// See [`ShardStatus`](crate::types::http::ShardStatus).
    pub(in crate::raft) fn compared(&self) -> Option<Index> {
        lock(&self.seen).agreed
    }

    /// See [`ShardStatus`](crate::types::http::ShardStatus).
    pub(in crate::raft) fn differs(&self) -> Option<Index> {
        lock(&self.seen).differing.values().map(|found| found.mine.id.index).max()
    }

    /// Takes note of another's checkpoints; whether it agrees, as far as that can be told.
    fn note(&self, node: NodeId, mine: &Checkpoints, theirs: &Checkpoints) -> Compared {
        let compared = compare(mine, theirs);
        match compared {
            Compared::Nothing => {}
            Compared::Same => {
                if lock(&self.seen).differing.remove(&node).is_some() {
                    tracing::warn!(%node, "a replica's state is as this one's again");
                }
            }
            Compared::Differ(found) => {
                if lock(&self.seen).differing.insert(node, found).is_none() {
                    tracing::error!(
                        %node,
                        index = found.mine.id.index,
                        mine = %found.mine.hash,
                        theirs = %found.theirs.hash,
                        "TWO REPLICAS DIFFER: another's state is not as this one's after {} and {}",
                        found.mine.id,
                        found.theirs.id,
                    );
                }
            }
        }
        compared
    }

    /// Forgets who is no member any more.
    fn keep(&self, members: &[Member]) {
        let is_member = |node: &NodeId| members.iter().any(|member| member.node == *node);
        lock(&self.seen).differing.retain(|node, _| is_member(node));
    }
}

/// What was compared last, with whom, when all of them agreed: there is nothing to ask again.
type Settled = (Checkpoint, Vec<Member>);

/// Compares for as long as the replica runs, or until it is condemned.
pub(in crate::raft) async fn run(replica: Replica) {
    let mut ticks = tokio::time::interval(COMPARE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut callers = BTreeMap::new();
    let mut settled: Option<Settled> = None;
    loop {
        ticks.tick().await;
        let mut members = replica.members();
        replica.comparison().keep(&members);
        members.retain(|member| member.node != replica.member().node);
        let mine = replica.comparison().record.checkpoints();
        let Some(newest) = mine.taken.last() else { continue };
        if settled.as_ref().is_some_and(|(at, with)| at == newest && *with == members) {
            continue;
        }
        let answers = replica.ask_for_checkpoints(&mine, &members, &mut callers).await;
        settled = all_agree(newest, &members, &answers).then_some((*newest, members));
        // Those that were taken while the others answered are among theirs.
        let mine = replica.comparison().record.checkpoints();
        if let Some(found) = replica.judge(&mine, &answers) {
            return replica.condemn(&found).await;
        }
    }
}

/// Whether every other member has this checkpoint, too.
fn all_agree(
    newest: &Checkpoint,
    members: &[Member],
    answers: &BTreeMap<NodeId, Checkpoints>,
) -> bool {
    members
        .iter()
        .all(|member| answers.get(&member.node).is_some_and(|theirs| theirs.taken.contains(newest)))
}

impl Replica {
    /// Why this replica serves nothing any more, if it is condemned.
    pub(in crate::raft) fn verdict(&self) -> Option<&str> {
        self.comparison().verdict.get().map(String::as_str)
    }

    /// Refuses everything once this replica is condemned.
    pub(in crate::raft) fn trusted(&self) -> Result<(), Error> {
        match self.verdict() {
            None => Ok(()),
            Some(reason) => Err(Error::unavailable(format!("this replica is condemned: {reason}"))),
        }
    }

    /// Whether what this replica has may be wrong, as far as comparing tells: no other may get it
    /// then. A difference at an index behind which a majority agreed is another's.
    pub(in crate::raft) fn is_in_doubt(&self) -> bool {
        let comparison = self.comparison();
        self.is_condemned()
            || comparison.differs().is_some_and(|at| Some(at) > comparison.compared())
    }

    /// Waits until this replica is condemned, and says why. It serves nothing then; it is to be shut
    /// down, its data set aside, and opened again as a new member.
    pub async fn condemned(&self) -> String {
        self.comparison().condemned.cancelled().await;
        self.verdict().unwrap_or_default().to_owned()
    }

    /// Whether it is, so that nobody waits for what it would answer later.
    pub fn is_condemned(&self) -> bool {
        self.verdict().is_some()
    }

    /// The answer to another's checkpoints.
    pub(in crate::raft) fn be_compared(&self, node: NodeId, theirs: &Checkpoints) -> Checkpoints {
        let mine = self.comparison().record.checkpoints();
        if self.members().iter().any(|member| member.node == node) {
            self.comparison().note(node, &mine, theirs);
        }
        mine
    }

    async fn ask_for_checkpoints(
        &self,
        mine: &Checkpoints,
        members: &[Member],
        callers: &mut BTreeMap<Member, Caller>,
    ) -> BTreeMap<NodeId, Checkpoints> {
        callers.retain(|member, _| members.contains(member));
        for member in members {
            let open = || {
                let (url, node) = (member.url.clone(), Some(member.node));
                let target = Target { url, node, group: self.group() };
                Caller::new(self.comparison().dialer.clone(), target)
            };
            callers.entry(member.clone()).or_insert_with(open);
        }
        let request = Request::Compare(mine.clone());
        let asked = callers.iter().map(async |(member, caller)| {
            let deadline = Deadline::after(COMPARE_TIMEOUT);
            match caller.call(&request, deadline).await {
                Ok(Reply::Compared(theirs)) => Some((member.node, theirs)),
                Ok(other) => {
                    tracing::debug!(node = %member.node, ?other, "no checkpoints");
                    None
                }
                Err(error) => {
                    tracing::debug!(node = %member.node, %error, "no checkpoints");
                    None
                }
            }
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Takes note of what the others have answered; what this replica is condemned for, if it is.
    fn judge(
        &self,
        mine: &Checkpoints,
        answers: &BTreeMap<NodeId, Checkpoints>,
    ) -> Option<Difference> {
        for (node, theirs) in answers {
            self.comparison().note(*node, mine, theirs);
        }
        let judgement = judge((self.member().node, mine), answers, &self.voter_sets());
        let mut seen = lock(&self.comparison().seen);
        seen.agreed = seen.agreed.max(judgement.agreed);
        judgement.condemned
    }

    /// Takes this replica out of service, and has that survive a crash.
    async fn condemn(&self, found: &Difference) {
        let reason = format!("a majority of the voters agrees on another state: {found}");
        let comparison = self.comparison();
        if comparison.verdict.set(reason.clone()).is_err() {
            return;
        }
        tracing::error!(
            node = %self.member().node,
            index = found.mine.id.index,
            mine = %found.mine.hash,
            theirs = %found.theirs.hash,
            "THIS REPLICA IS WRONG: {reason}; it serves nothing any more, and rejoins as a new member"
        );
        // Until it is on disk a crash would bring this replica back; and without it nothing can be set
        // aside either. It serves nothing meanwhile.
        while let Err(error) = self.note_condemned(reason.clone()).await {
            tracing::error!(%error, "can't write down that this replica is condemned; trying again");
            tokio::time::sleep(COMPARE_INTERVAL).await;
        }
        comparison.condemned.cancel();
    }

    async fn note_condemned(&self, reason: String) -> Result<(), String> {
        let Some(directory) = self.directory() else { return Ok(()) };
        let noted = blocking(move || datadir::condemn(&directory, &reason)).await;
        noted.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::raft::replica::tests::{alone, open};
    use crate::store::apply::apply;
    use crate::store::state::State;
    use crate::types::clock::SystemClock;
    use crate::types::command::KeyWrite;
    use crate::types::ids::{LogId, StateHash};
    use crate::types::key::Key;
    use crate::types::limits::CHECKPOINT_ENTRIES;
    use crate::types::value::Value;

    const WRITES: u64 = 2 * CHECKPOINT_ENTRIES + 100;

    async fn put(replica: &Replica, number: u64) -> Result<(), Error> {
        let key = Key::new(format!("key-{number}")).expect("it is short");
        let request = KeyWrite::put(key, Value::text("value")).into();
        replica.call(request, Deadline::after(Duration::from_secs(30))).await.map(|_| ())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_checkpoint_is_exact_however_many_entries_are_applied_at_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let replica = open(alone(dir.path())).await;
        replica.form().await.expect("it forms");
        let writes = (0..WRITES).map(|number| put(&replica, number));
        for written in futures::future::join_all(writes).await {
            written.expect("it is written");
        }
        let taken = replica.comparison().record.checkpoints().taken;
        let applied = replica.published().applied_index().expect("it has applied something");
        let entries = replica.wal().entries(0..applied + 1, usize::MAX).await.expect("it is there");
        let mut state = State::default();
        let expected = entries.iter().filter_map(|entry| {
            apply(&mut state, entry);
            let due = entry.id.index % CHECKPOINT_ENTRIES == 0;
            due.then(|| Checkpoint { id: entry.id, hash: state.hash() })
        });
        assert_eq!(taken, expected.collect::<Vec<_>>());
        assert_eq!(taken.len(), 3);
        replica.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_condemned_replica_serves_nothing_and_its_directory_says_why() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let replica = open(alone(dir.path())).await;
        replica.form().await.expect("it forms");
        put(&replica, 1).await.expect("it is written");
        let mine = replica.comparison().record.checkpoints().taken[0];
        let found = Difference { mine, theirs: Checkpoint { hash: StateHash(1), ..mine } };
        replica.condemn(&found).await;
        let reason = replica.condemned().await;
        assert!(reason.contains(&mine.hash.to_string()), "{reason}");
        let refused = put(&replica, 2).await.expect_err("it serves nothing");
        assert!(matches!(&refused, Error::Unavailable { reason } if reason.contains("condemned")));
        assert!(!replica.ready().ready);
        replica.shutdown().await;
        // The directory is free although the replica is still there.
        let refused = Replica::open(alone(dir.path()), Arc::new(SystemClock));
        let refused = refused.await.err().expect("it is not served from");
        assert!(refused.is_damage() && refused.to_string().contains(&reason), "{refused}");
    }

    #[test]
    fn a_difference_is_shown_until_it_is_over_or_the_other_is_gone() {
        let comparison = Comparison::new(Record::default(), Dialer::new(None));
        let of = |hash| {
            let id = LogId { term: 1, leader: NodeId(1), index: 512 };
            Checkpoints { digest: 1, taken: vec![Checkpoint { id, hash: StateHash(hash) }] }
        };
        comparison.note(NodeId(2), &of(1), &of(2));
        comparison.note(NodeId(3), &of(1), &of(1));
        assert_eq!(comparison.differs(), Some(512));
        comparison.note(NodeId(2), &of(1), &Checkpoints { digest: 1, taken: Vec::new() });
        assert_eq!(comparison.differs(), Some(512), "nothing new is known");
        comparison.note(NodeId(2), &of(1), &of(1));
        assert_eq!(comparison.differs(), None);
        comparison.note(NodeId(2), &of(1), &of(2));
        let member = |node| Member { node: NodeId(node), url: String::new() };
        comparison.keep(&[member(1), member(2)]);
        assert_eq!(comparison.differs(), Some(512));
        comparison.keep(&[member(1), member(3)]);
        assert_eq!(comparison.differs(), None);
    }
}
