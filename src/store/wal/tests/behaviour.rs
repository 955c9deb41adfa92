//! What a log does while nothing goes wrong, and when the disk fails.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;

use super::*;
use crate::types::limits::WAL_QUEUE_BYTES_MAX;

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    assert_eq!((wal.vote(), wal.committed(), wal.purged(), wal.last()), (None, None, None, None));
    append(&wal, 1, 0..5, 100).await;
    wal.save_vote(vote(2)).await.unwrap();
    append(&wal, 2, 5..9, 100).await;
    wal.truncate_after(Some(id(2, 6))).await.unwrap();
    append(&wal, 3, 7..10, 100).await;
    wal.save_committed(Some(id(2, 6))).await.unwrap();
    wal.purge(id(1, 1)).await.unwrap();
    wal.close().await.unwrap();

    let wal = open(dir.path()).unwrap();
    assert_eq!(wal.vote(), Some(vote(2)));
    assert_eq!(wal.committed(), Some(id(2, 6)));
    assert_eq!(wal.purged(), Some(id(1, 1)));
    assert_eq!(wal.last(), Some(id(3, 9)));
    let terms = [(1, 2), (1, 3), (1, 4), (2, 5), (2, 6), (3, 7), (3, 8), (3, 9)];
    assert_eq!(ids(&wal).await, terms.map(|(term, index)| id(term, index)));
    wal.close().await.unwrap();
}

#[tokio::test]
async fn entries_can_be_read_before_they_are_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    let (done, written) = oneshot::channel();
    let done = Box::new(|result| drop(done.send(result)));
    wal.append((1..50).map(|index| entry(1, index, 100)).collect(), done).await.unwrap();
    assert_eq!(ids(&wal).await.len(), 49);
    written.await.unwrap().unwrap();
    let stored = batches(dir.path());
    assert_eq!(stored.len(), 1, "done is called after the batch is written");
    wal.close().await.unwrap();
}

#[tokio::test]
async fn entries_that_left_memory_come_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    for first in (1..200).step_by(10) {
        append(&wal, 1, first..first + 10, 300).await;
    }
    let cached_from = wal.handle.shared.lock().view.cached_from();
    assert!(cached_from > 195, "memory is bounded, but begins at {cached_from}");
    let read = wal.entries(5..199, usize::MAX).await.unwrap();
    let expected: Vec<_> = (5..199).map(|index| entry(1, index, 300)).collect();
    assert_eq!(read, expected);

    let one = wal.entries(17..30, 0).await.unwrap();
    assert_eq!(one, [entry(1, 17, 300)], "at least one");
    let some = wal.entries(17..30, 3 * 330).await.unwrap();
    assert_eq!(some.last().map(|entry| entry.id.index), Some(19));
    assert_eq!(wal.entries(300..400, 100).await.unwrap(), []);
    #[expect(clippy::reversed_empty_ranges, reason = "callers may ask that")]
    let backwards = wal.entries(9..3, 100).await.unwrap();
    assert_eq!(backwards, []);
    wal.close().await.unwrap();
}

#[tokio::test]
async fn a_start_keeps_no_entry_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 1..3, 10).await;
    wal.close().await.unwrap();

    let wal = open(dir.path()).unwrap();
    let cached_from = |wal: &Wal| wal.handle.shared.lock().view.cached_from();
    assert_eq!(cached_from(&wal), 3);
    append(&wal, 1, 3..5, 10).await;
    assert_eq!(cached_from(&wal), 3, "what comes later is kept");
    let expected: Vec<_> = (1..5).map(|index| entry(1, index, 10)).collect();
    assert_eq!(wal.entries(1..5, usize::MAX).await.unwrap(), expected, "from disk and memory");
    assert_eq!(wal.entries_from(2).unwrap(), expected[1..], "and on one thread");
    wal.close().await.unwrap();
}

#[tokio::test]
async fn an_entry_that_went_bad_on_disk_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    for index in 1..20 {
        append(&wal, 1, index..index + 1, 300).await;
    }
    batches(dir.path())[4].flip(60);
    assert_eq!(wal.entries(1..5, usize::MAX).await.unwrap().len(), 4);
    let error = wal.entries(1..9, usize::MAX).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("is damaged"), "{error}");
    wal.close().await.unwrap();
}

#[tokio::test]
async fn a_batch_larger_than_a_segment_gets_one_of_its_own_size() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 1..3, 100).await;
    append(&wal, 1, 3..4, 100_000).await;
    append(&wal, 1, 4..6, 100).await;
    wal.close().await.unwrap();
    let sizes: Vec<_> =
        segments(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert_eq!(sizes.iter().filter(|size| **size > 100_000).count(), 1, "{sizes:?}");
    let wal = open(dir.path()).unwrap();
    let read = wal.entries(1..9, usize::MAX).await.unwrap();
    let bytes = |index| if index == 3 { 100_000 } else { 100 };
    assert_eq!(read, (1..6).map(|index| entry(1, index, bytes(index))).collect::<Vec<_>>());
    wal.close().await.unwrap();
}

#[tokio::test]
async fn one_append_may_fill_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 0..100, 1000).await;
    assert!(batches(dir.path()).len() > 10);
    wal.close().await.unwrap();
    let wal = open(dir.path()).unwrap();
    assert_eq!(ids(&wal).await.len(), 100);
    wal.close().await.unwrap();
}

#[tokio::test]
async fn saving_the_commit_position_writes_nothing_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 1..9, 10).await;
    for index in 1..5 {
        wal.save_committed(Some(id(1, index))).await.unwrap();
    }
    append(&wal, 1, 9..10, 10).await;
    assert_eq!(batches(dir.path()).len(), 2, "it rides along");
    for index in 5..9 {
        wal.save_committed(Some(id(1, index))).await.unwrap();
    }
    wal.close().await.unwrap();
    assert_eq!(batches(dir.path()).len(), 3, "and is written at the end");
    let wal = open(dir.path()).unwrap();
    assert_eq!(wal.committed(), Some(id(1, 8)));
    wal.close().await.unwrap();
}

#[tokio::test]
async fn concurrent_appends_are_all_told() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    let next = Arc::new(Mutex::new(1));
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let (wal, next) = (wal.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            for _ in 0..20 {
                let (done, written) = oneshot::channel();
                {
                    let mut next = next.lock().await;
                    let done = Box::new(|result| drop(done.send(result)));
                    wal.append(vec![entry(1, *next, 50)], done).await.unwrap();
                    *next += 1;
                }
                written.await.unwrap().unwrap();
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(ids(&wal).await.len(), 320);
    let written = batches(dir.path()).len();
    assert!(written < 320, "appends share syncs, but there were {written}");
    wal.close().await.unwrap();
}

#[tokio::test]
async fn more_than_the_queue_holds_gets_through() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    let half = WAL_QUEUE_BYTES_MAX / 2 + 1;
    let mut dones = Vec::new();
    for index in 0..4 {
        let (done, written) = oneshot::channel();
        let done = Box::new(|result| drop(done.send(result)));
        wal.append(vec![entry(1, index, half)], done).await.unwrap();
        dones.push(written);
    }
    for written in dones {
        written.await.unwrap().unwrap();
    }
    wal.close().await.unwrap();
    assert_eq!(open(dir.path()).unwrap().last(), Some(id(1, 3)));
}

#[tokio::test]
async fn purging_gives_back_whole_segments() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    wal.save_vote(vote(3)).await.unwrap();
    for index in 1..100 {
        append(&wal, 3, index..index + 1, 1000).await;
    }
    wal.save_committed(Some(id(3, 99))).await.unwrap();
    let before = wal.bytes();
    wal.purge(id(3, 90)).await.unwrap();
    assert!(wal.bytes() < before / 5, "{} of {before} bytes are left", wal.bytes());
    wal.purge(id(3, 80)).await.unwrap();
    assert_eq!(wal.purged(), Some(id(3, 90)), "a purge never goes back");
    wal.close().await.unwrap();
    assert!(segments(dir.path()).len() < 6);

    let wal = open(dir.path()).unwrap();
    assert_eq!((wal.vote(), wal.committed()), (Some(vote(3)), Some(id(3, 99))));
    assert_eq!(ids(&wal).await, (91..100).map(|index| id(3, index)).collect::<Vec<_>>());
    wal.purge(id(4, 1000)).await.unwrap();
    assert_eq!((wal.last(), ids(&wal).await), (Some(id(4, 1000)), vec![]));
    append(&wal, 4, 1001..1003, 10).await;
    wal.close().await.unwrap();
    let wal = open(dir.path()).unwrap();
    assert_eq!((wal.vote(), wal.committed()), (Some(vote(3)), Some(id(3, 99))));
    assert_eq!(ids(&wal).await, [id(4, 1001), id(4, 1002)]);
    wal.close().await.unwrap();
}

#[tokio::test]
async fn a_reused_segment_holds_no_ghosts() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    for index in 1..40 {
        append(&wal, 1, index..index + 1, 1000).await;
    }
    wal.purge(id(1, 39)).await.unwrap();
    // Entries whose segments were freed still stand in some file, behind what is valid there.
    let old = (1..29).map(|index| crate::types::codec::encode(&entry(1, index, 1000)));
    let old: Vec<_> = old.map(|bytes| bytes[bytes.len() - 900..].to_vec()).collect();
    let ghost =
        |file: &Vec<u8>| file.windows(900).any(|window| old.iter().any(|old| old == window));
    // One that is taken away at this moment has none.
    let read = |path: &PathBuf| fs::read(path).unwrap_or_default();
    let is_reused = || segments(dir.path()).iter().any(|path| ghost(&read(path)));
    let taken_away = async {
        while is_reused() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), taken_away).await;
    in_time.expect("what was purged is taken away");
    let mut end = 40;
    while !is_reused() {
        assert!(end < 60, "nothing was reused, this test tests nothing");
        append(&wal, 2, end..end + 1, 1000).await;
        end += 1;
    }
    wal.close().await.unwrap();
    assert!(is_reused());
    assert!(batches(dir.path()).pop().unwrap().sequence > 39);

    let wal = open(dir.path()).unwrap();
    assert_eq!(ids(&wal).await, (40..end).map(|index| id(2, index)).collect::<Vec<_>>());
    wal.close().await.unwrap();
}

#[tokio::test]
async fn a_segment_that_somebody_reads_is_not_reused() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    for index in 1..40 {
        append(&wal, 1, index..index + 1, 1000).await;
    }
    let held = wal.handle.shared.lock().segments[&1].clone();
    let before = held.segment.read_batch(SEGMENT_START as u64).unwrap();
    wal.purge(id(1, 39)).await.unwrap();
    for index in 40..80 {
        append(&wal, 2, index..index + 1, 1000).await;
    }
    wal.close().await.unwrap();
    assert_eq!(held.segment.read_batch(SEGMENT_START as u64).unwrap(), before);
}

#[tokio::test]
async fn a_failed_disk_ends_the_log_for_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 1..2, 10).await;
    // No new segment can be made.
    fs::remove_dir_all(dir.path().join("wal")).unwrap();
    let mut index = 2;
    let error = loop {
        let (done, written) = oneshot::channel();
        let done = Box::new(|result| drop(done.send(result)));
        match wal.append(vec![entry(1, index, 3000)], done).await {
            Ok(()) => match written.await.unwrap() {
                Ok(()) => index += 1,
                Err(error) => break error,
            },
            Err(error) => break error,
        }
        assert!(index < 100, "the disk never failed");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let first = wal.failed().await.to_string();
    assert_eq!(error.to_string(), first);
    let done = Box::new(|result| panic!("called with {result:?}"));
    let later = [
        wal.append(vec![entry(1, index + 1, 10)], done).await,
        wal.save_vote(vote(9)).await,
        wal.save_committed(None).await,
        wal.truncate_after(None).await,
        wal.purge(id(1, 1)).await,
        wal.entries(1..2, 1).await.map(drop),
        wal.close().await,
    ];
    for result in later {
        assert_eq!(result.unwrap_err().to_string(), first);
    }
}

#[tokio::test]
async fn a_closed_log_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 1..3, 10).await;
    wal.close().await.unwrap();
    wal.close().await.unwrap();
    let error = wal.save_vote(vote(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "the log is closed");
    assert_eq!(ids(&wal).await.len(), 2);
}

#[tokio::test]
#[should_panic(expected = "hole in log: Some(1/n0000000000000001@2) then 1/n0000000000000001@4")]
async fn appending_with_a_hole_is_a_bug() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 1..3, 10).await;
    append(&wal, 1, 4..5, 10).await;
}

#[tokio::test]
#[should_panic(expected = "vote goes back from term 3")]
async fn voting_in_an_earlier_term_is_a_bug() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    wal.save_vote(vote(3)).await.unwrap();
    let error = wal.save_vote(vote(2)).await;
    drop(error);
}

#[tokio::test]
async fn a_log_knows_who_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    assert_eq!(Wal::written_by(&Real, &path).unwrap(), None);
    open(dir.path()).unwrap().close().await.unwrap();
    assert_eq!(Wal::written_by(&Real, &path).unwrap(), Some(NODE));
    let other = WalOptions {
        disk: Arc::new(Real),
        dir: path,
        node: NodeId(0xb),
        segment_bytes: SEGMENT_BYTES,
    };
    let error = Wal::open(other).unwrap_err();
    assert!(matches!(error, WalError::OtherNode { found: NODE, .. }), "{error}");
}
