//! What a log says when its files are not as it left them.

use std::fs;

use super::*;
use crate::store::wal::record::{BatchBuilder, HeaderError, RecordRef};
use crate::store::wal::recovery::{Damage, Recovery, Why};

/// A log of several segments; its directory.
async fn several_segments() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    wal.save_vote(vote(4)).await.unwrap();
    for index in 1..9 {
        append(&wal, 1, index..index + 1, 2500).await;
    }
    append(&wal, 2, 9..11, 30).await;
    wal.close().await.unwrap();
    assert!(segments(dir.path()).len() > 3);
    dir
}

/// What pure recovery says of these files.
fn recover(files: &[Vec<u8>]) -> Result<Option<LogId>, Damage> {
    let mut recovery = Recovery::new(usize::MAX);
    for (number, bytes) in (1..).zip(files) {
        recovery.segment(number, SegmentHeader::decode(bytes).ok().as_ref(), bytes)?;
    }
    Ok(recovery.finish(None)?.view.last())
}

#[tokio::test]
async fn a_batch_torn_at_any_byte_is_cut_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 1..4, 20).await;
    wal.save_vote(vote(5)).await.unwrap();
    append(&wal, 1, 4..6, 20).await;
    wal.close().await.unwrap();
    let len = batches(dir.path()).pop().unwrap().range.len();
    let kinds: [fn(&OnDisk, usize); 3] = [
        |last, at| last.cut(at),
        |last, at| last.write(&vec![0; last.range.len() - at], at),
        |last, at| last.write(&vec![0xa5; last.range.len() - at + 100], at),
    ];
    for (kind, at) in (0..3).flat_map(|kind| (0..len).map(move |at| (kind, at))) {
        let torn = copy(dir.path());
        let last = batches(torn.path()).pop().unwrap();
        let whole = last.bytes();
        kinds[kind](&last, at);
        let cut = at < whole.len() - whole.iter().rev().take_while(|byte| **byte == 0).count();
        let cut = cut || kind != 1;
        let wal = open(torn.path()).unwrap();
        let expected = id(1, if cut { 3 } else { 5 });
        assert_eq!(wal.last(), Some(expected), "kind {kind}, byte {at}");
        assert_eq!(wal.vote(), Some(vote(5)), "kind {kind}, byte {at}");
        // What comes next takes its place, and stays.
        let next = expected.index + 1;
        append(&wal, 2, next..next + 1, 5).await;
        wal.close().await.unwrap();
        let wal = open(torn.path()).unwrap();
        assert_eq!(wal.last(), Some(id(2, next)), "kind {kind}, byte {at}");
        assert_eq!(ids(&wal).await.len() as u64, next);
        wal.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_remains_of_a_torn_batch_are_wiped() {
    let dir = several_segments().await;
    let last = batches(dir.path()).pop().unwrap();
    last.flip(50);
    open(dir.path()).unwrap().close().await.unwrap();
    assert_eq!(last.bytes(), vec![0; last.range.len()]);
}

#[tokio::test]
async fn pages_of_a_torn_batch_may_be_on_disk_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 1..2, 20).await;
    append(&wal, 1, 2..3, 30_000).await;
    wal.close().await.unwrap();
    let pages = batches(dir.path()).pop().unwrap().range.len() / 4096;
    for present in 0..pages {
        let torn = copy(dir.path());
        let last = batches(torn.path()).pop().unwrap();
        let bytes = last.bytes();
        let mut remains = vec![0; bytes.len()];
        let page = present * 4096..(present + 1) * 4096;
        remains[page.clone()].copy_from_slice(&bytes[page]);
        last.write(&remains, 0);
        let wal = open(torn.path()).unwrap();
        assert_eq!(wal.last(), Some(id(1, 1)), "page {present}");
        wal.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_flipped_bit_before_the_last_batch_is_damage_wherever_it_is() {
    let dir = several_segments().await;
    let all = batches(dir.path());
    let last = all.last().unwrap();
    let files: Vec<_> = segments(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(recover(&files), Ok(Some(id(2, 10))));
    for batch in &all[..all.len() - 1] {
        // Every bit of what surrounds the entry's long value, and one of each byte of that.
        let bits = batch.range.clone().flat_map(|at| {
            let outside = at - batch.range.start < 64 || batch.range.end - at < 16;
            (0..if outside { 8 } else { 1 }).map(move |bit| (at, bit))
        });
        let segment = usize::try_from(batch.segment).unwrap() - 1;
        for (at, bit) in bits {
            let mut bad = files.clone();
            bad[segment][at] ^= 1 << bit;
            let damage = recover(&bad).unwrap_err();
            assert_eq!(damage.sequence, batch.sequence, "byte {at}, bit {bit}");
            assert_eq!(damage.segment, batch.segment, "byte {at}, bit {bit}");
            assert_eq!(damage.offset, batch.range.start as u64, "byte {at}, bit {bit}");
        }
    }
    for bit in 0..last.range.len() * 8 {
        let mut bad = files.clone();
        let segment = usize::try_from(last.segment).unwrap() - 1;
        bad[segment][last.range.start + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(recover(&bad), Ok(Some(id(1, 8))), "bit {bit} of the last batch");
    }
}

/// Nothing in it tells that there was something, and what follows can be read.
#[tokio::test]
async fn a_first_segment_without_its_batches_is_damage() {
    let dir = several_segments().await;
    let files: Vec<_> = segments(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    for left in [64, SEGMENT_START - 1, SEGMENT_START, SEGMENT_START + 20] {
        let mut bad = files.clone();
        bad[0].truncate(left);
        let damage = recover(&bad).unwrap_err();
        let found = (damage.segment, damage.offset, damage.sequence);
        assert_eq!(found, (1, SEGMENT_START as u64, 1), "{left} bytes are left: {damage:?}");
        assert!(matches!(damage.why, Why::Followed { .. }), "{left} bytes are left: {damage:?}");
    }
}

#[tokio::test]
async fn damage_is_reported_and_nothing_is_touched() {
    let dir = several_segments().await;
    let batch = batches(dir.path())[3].clone();
    batch.flip(1000);
    let before = contents(dir.path());
    for _ in 0..2 {
        let error = open(dir.path()).unwrap_err();
        let expected = format!(
            "{} is damaged at byte {}, batch 4: it can't be read, but batch 5 can; the log is good \
             up to entry 1/n0000000000000001@2",
            batch.path.display(),
            batch.range.start,
        );
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(contents(dir.path()), before);
}

#[tokio::test]
async fn a_damaged_or_missing_segment_is_damage() {
    let dir = several_segments().await;
    let paths = segments(dir.path());
    let damage = |spoil: fn(&Path), number: usize| {
        let spoiled = copy(dir.path());
        spoil(&spoiled.path().join("wal").join(paths[number - 1].file_name().unwrap()));
        match open(spoiled.path()).unwrap_err() {
            WalError::Damaged { why, .. } => why.to_string(),
            other => other.to_string(),
        }
    };
    let flip: fn(&Path) = |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[40] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let header = "the segment's header can't be read";
    assert_eq!(damage(flip, 1), header);
    assert_eq!(damage(flip, 3), header);
    assert_eq!(damage(flip, paths.len()), header, "even of the newest");
    let empty: fn(&Path) = |path| fs::write(path, b"").unwrap();
    assert_eq!(damage(empty, 2), header);
    let remove: fn(&Path) = |path| fs::remove_file(path).unwrap();
    assert_eq!(damage(remove, 2), "segment 2 is missing");
    assert_eq!(damage(remove, 1), "the log does not begin where it was purged to");
    let renumber: fn(&Path) = |path| {
        let first = path.with_file_name("00000000000000000001.log");
        fs::copy(first, path).unwrap();
    };
    assert_eq!(damage(renumber, 2), "the segment says it is number 1");
}

#[tokio::test]
async fn a_log_that_starts_after_its_purge_is_damaged() {
    let dir = several_segments().await;
    let wal = open(dir.path()).unwrap();
    wal.purge(id(1, 4)).await.unwrap();
    wal.close().await.unwrap();
    let copied = copy(dir.path());
    open(copied.path()).unwrap().close().await.unwrap();
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, WalError::Damaged { why: Why::StartMissing, .. }), "{error}");
}

#[tokio::test]
async fn another_version_is_not_damage() {
    let dir = several_segments().await;
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, WalError::Version { found: 9, .. }), "{error}");
}

#[tokio::test]
async fn a_batch_of_another_segment_is_never_taken_for_one() {
    let dir = several_segments().await;
    let mut files: Vec<_> =
        segments(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    let last = batches(dir.path()).pop().unwrap();
    // The right bytes, sequence number and checksum included, in a segment of another identity.
    let mut bytes = files[usize::try_from(last.segment).unwrap() - 1].clone();
    bytes[..SEGMENT_START].copy_from_slice(
        &SegmentHeader { number: last.segment, node: NODE, identity: 77 }.encode(),
    );
    files.truncate(usize::try_from(last.segment).unwrap() - 1);
    let before = recover(&files);
    files.push(bytes);
    assert_eq!(recover(&files), before);
}

#[tokio::test]
async fn what_a_purge_had_freed_may_come_back_after_a_crash() {
    let dir = several_segments().await;
    let before = copy(dir.path());
    let wal = open(dir.path()).unwrap();
    wal.purge(id(1, 6)).await.unwrap();
    wal.save_vote(vote(5)).await.unwrap();
    wal.close().await.unwrap();
    let left = segments(dir.path());
    for (name, bytes) in contents(before.path()) {
        let path = dir.path().join("wal").join(name);
        if !path.exists() {
            fs::write(path, bytes).unwrap();
        }
    }
    assert!(segments(dir.path()).len() > left.len());
    let wal = open(dir.path()).unwrap();
    assert_eq!(segments(dir.path()), left);
    assert_eq!((wal.purged(), wal.vote()), (Some(id(1, 6)), Some(vote(5))));
    assert_eq!(ids(&wal).await, [id(1, 7), id(1, 8), id(2, 9), id(2, 10)]);
    wal.close().await.unwrap();
}

#[tokio::test]
async fn unfinished_files_mean_nothing() {
    let dir = several_segments().await;
    let stray = dir.path().join("wal/00000000000000000099.tmp");
    fs::write(&stray, b"half a segment").unwrap();
    open(dir.path()).unwrap().close().await.unwrap();
    assert!(!stray.exists());
}

/// The last batch was acknowledged: whatever is wrong with it now, it is damage, not a torn tail.
#[tokio::test]
async fn damage_to_the_last_batch_is_told_by_the_mark() {
    let dir = TempDir::new().unwrap();
    let wal = open(dir.path()).unwrap();
    append(&wal, 1, 1..4, 10).await;
    wal.save_vote(vote(2)).await.unwrap();
    append(&wal, 2, 4..6, 10).await;
    wal.close().await.unwrap();
    let mark_path = crate::store::wal::mark::path(&dir.path().join("wal"));
    let mark = fs::read(&mark_path).unwrap();
    let all = batches(dir.path());
    let last = all.last().unwrap();
    let file = fs::read(&last.path).unwrap();
    let damages: [fn(&OnDisk, usize); 3] = [
        |last, at| last.flip(at),
        |last, at| last.cut(at),
        |last, at| last.write(&vec![0; last.range.len() - at], at),
    ];
    for damage in damages {
        for at in 0..last.range.len() {
            damage(last, at);
            fs::write(&mark_path, &mark).unwrap();
            if fs::read(&last.path).unwrap() == file {
                continue; // Zeros where there were zeros.
            }
            let error = open(dir.path()).expect_err("the end is missing");
            let missing = Why::EndMissing { synced: last.sequence };
            assert!(
                matches!(&error, WalError::Damaged { why, .. } if *why == missing),
                "byte {at}: {error}"
            );
            fs::write(&last.path, &file).unwrap();
        }
    }
    // A cut that takes more than the last batch, and the whole of the log.
    all[1].cut(3);
    fs::write(&mark_path, &mark).unwrap();
    assert!(open(dir.path()).is_err());
    fs::remove_file(&last.path).unwrap();
    assert!(open(dir.path()).is_err());

    // A mark that is behind, or can't be read, claims nothing.
    for mark in [&b""[..], b"sagemark", &mark[..19]] {
        fs::write(&last.path, &file).unwrap();
        fs::write(&mark_path, mark).unwrap();
        let wal = open(dir.path()).unwrap();
        assert_eq!(wal.last().map(|id| id.index), Some(5));
        wal.close().await.unwrap();
    }
}

/// A segment of one batch with one entry, all checksums right.
fn forged(header: SegmentHeader, sequence: u64, index: Index) -> Vec<u8> {
    let mut records = Vec::new();
    RecordRef::Entry(&entry(1, index, 3)).encode(&mut records);
    let mut batch = BatchBuilder::new();
    batch.push(&records);
    [&header.encode()[..], batch.seal(sequence, header.identity)].concat()
}

#[test]
fn numbers_that_no_log_reaches_are_damage_and_nothing_overflows() {
    let header = |number, identity| SegmentHeader { number, node: NODE, identity };
    let shown = |header: SegmentHeader, sequence, index| {
        let mut recovery = Recovery::new(usize::MAX);
        let file = forged(header, sequence, index);
        recovery.segment(header.number, Some(&header), &file)?;
        recovery.finish(None)
    };
    assert!(shown(header(1, 9), 1, 5).is_ok());
    for (sequence, index) in [(u64::MAX, 5), (COUNTER_MAX + 1, 5), (7, u64::MAX), (7, u64::MAX - 1)]
    {
        let damage = shown(header(2, 9), sequence, index).unwrap_err();
        assert!(matches!(damage.why, Why::Malformed(_)), "{sequence}, {index}: {damage:?}");
    }
    // Before a segment's header is believed.
    for bad in [header(u64::MAX, 9), header(COUNTER_MAX + 1, 9), header(1, 0)] {
        assert_eq!(SegmentHeader::decode(&bad.encode()), Err(HeaderError::Bad), "{bad:?}");
    }
    let damage = Recovery::new(0).segment(u64::MAX, None, &[]).unwrap_err();
    assert_eq!(damage.why, Why::Header);
}
