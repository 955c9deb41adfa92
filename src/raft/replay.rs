//! Brings a replica's state from its snapshot to what its log knows to be committed, before Raft starts.
//!
//! openraft would do that, 64 entries at a time, one piece after the other. The log decodes a batch as a whole for whatever is asked of it, and
//! batches are of hundreds of entries if there were many clients.

use std::io;

use futures::{future, stream};
use openraft::storage::RaftStateMachine;

use crate::raft::state_machine::StateMachine;
use crate::raft::wire;
use crate::store::rests::Rests;
use crate::store::wal::Wal;
use crate::types::ids::Index;
use crate::types::limits::APPEND_BYTES_MAX;

/// How many entries are read at a time, if they are small; a few batches. Of large ones, as much as a batch holds.
const PIECE_ENTRIES: u64 = 2048;

/// How many of them are applied between two looks at whether to rest.
const APPLIED_TOGETHER: usize = 128;

/// Applies what is committed, as far as the log knows, a piece while the next is read.
pub(in crate::raft) async fn replay(
    machine: &mut StateMachine,
    wal: &Wal,
    mut rests: Rests,
) -> io::Result<()> {
    let end = wal.committed().map_or(0, |last| last.index + 1);
    let read = |from: Index| {
        wal.entries(from..end.min(from.saturating_add(PIECE_ENTRIES)), APPEND_BYTES_MAX)
    };
    let mut piece = read(machine.published().next_index()).await?;
    while let Some(last) = piece.last() {
        let next = last.id.index + 1;
        let applying = async {
            let mut entries = piece.into_iter();
            while !entries.as_slice().is_empty() {
                let some = entries.by_ref().take(APPLIED_TOGETHER);
                let some = some.map(|entry| Ok((wire::raft_entry(entry)?, None)));
                machine.apply(stream::iter(some)).await?;
                if let Some(rest) = rests.due() {
                    tokio::time::sleep(rest).await;
                    rests.rested();
                }
            }
            io::Result::Ok(())
        };
        // Reading is begun first, on a thread of its own.
        let (following, applied) = future::join(read(next), applying).await;
        applied?;
        piece = following?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use openraft::storage::{IOFlushed, RaftLogStorage};

    use super::*;
    use crate::raft::config::EntryOf;
    use crate::raft::log_store::LogStore;
    use crate::store::disk::Real;
    use crate::store::snapshot::Snapshots;
    use crate::store::state::State;
    use crate::store::wal::WalOptions;
    use crate::types::command::{Action, Command};
    use crate::types::ids::{LogId, NodeId};
    use crate::types::key::Key;
    use crate::types::log::{Entry, Payload};
    use crate::types::value::Value;

    const COMMITTED: Index = 2 * PIECE_ENTRIES + 500;
    /// Behind which there are entries that nobody has said are committed.
    const END: Index = COMMITTED + 11;

    fn id(index: Index) -> LogId {
        LogId { term: 1, leader: NodeId(1), index }
    }

    /// A put of a key of its own.
    fn entry(index: Index) -> EntryOf {
        let key = Key::new(format!("{index}")).expect("a key");
        let action = Action::Put { key, value: Value::text("v") };
        let payload = Payload::Command(Command { ts: 1, action });
        wire::raft_entry(Entry { id: id(index), payload }).expect("an entry")
    }

    async fn apply(machine: &mut StateMachine, entries: Range<Index>) {
        let entries = stream::iter(entries.map(|index| Ok((entry(index), None))));
        machine.apply(entries).await.expect("entries that follow one another");
    }

    #[tokio::test]
    async fn what_is_committed_is_applied_and_nothing_else_wherever_the_snapshot_ends() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let snapshots =
            Snapshots::open(Arc::new(Real), &dir.path().join("snapshot")).expect("a new directory");
        let machine = || StateMachine::new(State::default(), snapshots.clone(), 0);
        let open = || {
            let (node, wal) = (NodeId(1), dir.path().join("wal"));
            Wal::open(WalOptions { disk: Arc::new(Real), dir: wal, node, segment_bytes: 64 * 1024 })
                .expect("a log")
        };
        let wal = open();

        let mut nothing = machine();
        replay(&mut nothing, &wal, Rests::none()).await.expect("an empty log");
        assert_eq!(nothing.published().next_index(), 0);

        let mut log = LogStore::new(wal.clone());
        // In batches as they come from many clients.
        for first in (0..END).step_by(301) {
            let batch = (first..END.min(first + 301)).map(entry);
            log.append(batch, IOFlushed::noop()).await.expect("they are appended");
        }
        log.save_committed(Some(wire::raft_log_id(&id(COMMITTED)))).await.expect("it is saved");
        // So that nothing of it is in memory.
        wal.close().await.expect("the log closes");
        drop(log);
        let wal = open();
        for in_snapshot in [0, 1, PIECE_ENTRIES, COMMITTED, COMMITTED + 1, END - 1] {
            let mut replayed = machine();
            apply(&mut replayed, 0..in_snapshot).await;
            replay(&mut replayed, &wal, Rests::none()).await.expect("a whole log");
            let mut expected = machine();
            apply(&mut expected, 0..in_snapshot.max(COMMITTED + 1)).await;
            assert_eq!(replayed.published().frozen(), expected.published().frozen());
        }
        wal.close().await.expect("the log closes");
    }
}
