//! openraft's log storage over `store::wal`: each method converts, calls once, converts back.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use futures::Stream;
use futures::stream;
use openraft::alias::{WatchReceiverOf, WatchSenderOf};
use openraft::async_runtime::watch::WatchSender;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{OptionalSend, RaftLogReader};

use crate::raft::config::{EntryOf, LogIdOf, TypeConfig, VoteOf};
use crate::raft::wire;
use crate::store::wal::Wal;
use crate::types::ids::Index;
use crate::types::limits::APPEND_BYTES_MAX;

/// Hears of the index of the entry that was appended last, which may have been cut off since.
pub(in crate::raft) type Appended = WatchReceiverOf<TypeConfig, Option<Index>>;

/// The log of one replica.
#[derive(Clone)]
pub(in crate::raft) struct LogStore {
    wal: Wal,
    appended: WatchSenderOf<TypeConfig, Option<Index>>,
}

impl LogStore {
    pub(in crate::raft) fn new(wal: Wal) -> Self {
        let (appended, _) = TypeConfig::watch_channel(wal.last().map(|last| last.index));
        Self { wal, appended }
    }

    /// Says what is appended from now on.
    pub(in crate::raft) fn appended(&self) -> Appended {
        self.appended.subscribe()
    }

    async fn read(&self, range: Range<Index>, bytes_max: usize) -> io::Result<Vec<EntryOf>> {
        let entries = self.wal.entries(range, bytes_max).await?;
        entries.into_iter().map(wire::raft_entry).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<EntryOf>> {
        self.read(indexes(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<EntryOf>> {
        self.read(start..end, APPEND_BYTES_MAX).await
    }

    /// What is to be applied, read piece by piece: never a whole log in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<EntryOf>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let store = self.clone();
        let pieces = stream::unfold(Some(indexes(&range)), move |rest| {
            let store = store.clone();
            async move {
                let rest = rest.filter(|rest| !rest.is_empty())?;
                match store.read(rest.clone(), APPEND_BYTES_MAX).await {
                    // The end of the log. `apply` asserts that nothing before it was left out.
                    Ok(entries) if entries.is_empty() => None,
                    Ok(entries) => {
                        let next = rest.start + entries.len() as u64;
                        Some((
                            entries.into_iter().map(Ok).collect::<Vec<_>>(),
                            Some(next..rest.end),
                        ))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        Box::pin(futures::StreamExt::flat_map(pieces, stream::iter))
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf>> {
        Ok(self.wal.vote().as_ref().map(wire::raft_vote))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        Ok(LogState {
            last_purged_log_id: self.wal.purged().as_ref().map(wire::raft_log_id),
            last_log_id: self.wal.last().as_ref().map(wire::raft_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf) -> io::Result<()> {
        self.wal.save_vote(wire::vote(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf>) -> io::Result<()> {
        self.wal.save_committed(committed.as_ref().map(wire::log_id)).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf>> {
        Ok(self.wal.committed().as_ref().map(wire::raft_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().map(wire::entry).collect();
        let last = entries.last().map(|last| last.id.index);
        self.wal.append(entries, Box::new(|result| callback.io_completed(result))).await?;
        // Not the greatest: a log that was cut grows again from there.
        self.appended.send_if_modified(|appended| {
            let changed = last.is_some();
            *appended = last.or(*appended);
            changed
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf>) -> io::Result<()> {
        self.wal.truncate_after(last.as_ref().map(wire::log_id)).await
    }

    async fn purge(&mut self, upto: LogIdOf) -> io::Result<()> {
        self.wal.purge(wire::log_id(&upto)).await
    }
}

fn indexes(range: &impl RangeBounds<u64>) -> Range<Index> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => Index::MAX,
    };
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use openraft::StorageError;
    use openraft::async_runtime::watch::WatchReceiver;
    use openraft::entry::RaftEntry;
    use openraft::testing::log::{StoreBuilder, Suite};
    use tempfile::TempDir;

    use super::*;
    use crate::raft::state_machine::StateMachine;
    use crate::store::disk::Real;
    use crate::store::snapshot::Snapshots;
    use crate::store::state::State;
    use crate::store::wal::WalOptions;
    use crate::types::ids::{LogId, NodeId};

    /// A log in this directory.
    fn open(dir: &TempDir) -> LogStore {
        let dir = dir.path().join("wal");
        let options =
            WalOptions { disk: Arc::new(Real), dir, node: NodeId(1), segment_bytes: 64 * 1024 };
        LogStore::new(Wal::open(options).expect("a log"))
    }

    struct OnDisk;

    impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
        async fn build(
            &self,
        ) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let snapshots = Snapshots::open(Arc::new(Real), &dir.path().join("snapshot"))
                .expect("a new directory");
            let mut machine = StateMachine::new(State::default(), snapshots, 0);
            machine.leaves_entries_out = true;
            let log = open(&dir);
            Ok((dir, log, machine))
        }
    }

    #[tokio::test]
    async fn it_says_what_is_appended_also_after_a_cut_and_a_restart() {
        let id = |index| wire::raft_log_id(&LogId { term: 1, leader: NodeId(1), index });
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut log = open(&dir);
        let mut appended = log.appended();
        assert_eq!(*appended.borrow_watched(), None);
        for (from, to, cut) in [(0, 4, Some(2)), (3, 4, Some(0)), (1, 2, None)] {
            let entries = (from..to).map(|index| EntryOf::new_blank(id(index)));
            log.append(entries, IOFlushed::noop()).await.expect("an append");
            assert!(appended.changed().now_or_never().is_some_and(|changed| changed.is_ok()));
            assert_eq!(*appended.borrow_watched(), Some(to - 1));
            if let Some(last) = cut {
                log.truncate_after(Some(id(last))).await.expect("a cut");
            }
        }
        log.append([], IOFlushed::noop()).await.expect("nothing to append");
        assert!(appended.changed().now_or_never().is_none());
        log.wal.close().await.expect("the log closes");
        drop(log);
        assert_eq!(*open(&dir).appended().borrow_watched(), Some(1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn openraft_is_content_with_the_store_on_disk() {
        Suite::test_all(OnDisk).await.expect("the suite passes");
    }
}
