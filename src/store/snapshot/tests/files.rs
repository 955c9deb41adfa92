//! Snapshot files over time: which one counts, which ones go, and what a crash leaves.

use std::io::Read;

use std::fs;

use super::*;
use crate::store::disk::Real;
use tempfile::TempDir;

fn names(dir: &TempDir) -> Vec<String> {
    let paths = list(&Real, dir.path()).unwrap();
    let mut names: Vec<_> =
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn opened() -> (TempDir, Snapshots) {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(Arc::new(Real), dir.path()).unwrap();
    (dir, snapshots)
}

fn file_of(snapshot: &Snapshot) -> Vec<u8> {
    let bytes = fs::read(&snapshot.path).unwrap();
    assert_eq!(bytes.len() as u64, snapshot.bytes);
    bytes
}

/// Sends a file in chunks, as another replica does.
fn send(to: &Snapshots, file: &[u8]) -> Result<Received, SnapshotError> {
    let mut incoming = to.receive(file.len() as u64)?;
    for chunk in file.chunks(1000) {
        incoming.write(chunk)?;
    }
    incoming.finish(Rests::none())
}

#[test]
fn the_newest_snapshot_is_found_again_and_older_ones_are_gone() {
    let (dir, snapshots) = opened();
    assert_eq!(snapshots.newest(), None);
    snapshots.write(&state_at(9, 5, 10)).unwrap();
    let state = state_at(10, 6, 10);
    let written = snapshots.write(&state).unwrap();
    assert_eq!((written.last, &written.membership), (state.applied, &state.membership));
    assert_eq!(names(&dir), ["00000000000000000010-1.snap"]);

    let again = Snapshots::open(Arc::new(Real), dir.path()).unwrap();
    assert_eq!(again.newest(), Some(written.clone()));
    assert_eq!(again.read(&written).unwrap(), state);
}

#[test]
fn a_state_without_entries_has_a_snapshot_older_than_any_other() {
    let (dir, snapshots) = opened();
    let empty = snapshots.write(&State::default()).unwrap();
    assert_eq!(
        Snapshots::open(Arc::new(Real), dir.path()).unwrap().read(&empty).unwrap(),
        State::default()
    );
    snapshots.write(&state_at(0, 0, 0)).unwrap();
    assert_eq!(names(&dir), ["00000000000000000000-1.snap"]);
}

#[test]
fn a_reader_keeps_the_bytes_of_a_snapshot_that_was_replaced() {
    let (_dir, snapshots) = opened();
    let old = snapshots.write(&state_at(1, 100, 100)).unwrap();
    let bytes = file_of(&old);
    let (found, open) = snapshots.open_newest().unwrap().unwrap();
    assert_eq!(found, old);
    let new = snapshots.write(&state_at(2, 1, 1)).unwrap();
    assert!(!old.path.exists());
    assert_eq!(snapshots.open_newest().unwrap().unwrap().0, new);
    let mut read = vec![];
    FileStream::new(open).read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes);
}

#[test]
fn unfinished_files_are_removed_and_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["0.tmp", "17.tmp", "notes.txt", "7-1.snap"] {
        fs::write(dir.path().join(name), "text").unwrap();
    }
    let snapshots = Snapshots::open(Arc::new(Real), dir.path()).unwrap();
    assert_eq!(snapshots.newest(), None);
    assert_eq!(names(&dir), ["7-1.snap", "notes.txt"]);
    snapshots.write(&state_at(0, 1, 1)).unwrap();
    assert_eq!(names(&dir), ["00000000000000000000-1.snap", "7-1.snap", "notes.txt"]);
}

#[test]
fn a_crash_between_rename_and_removal_leaves_the_newer_one_in_force() {
    let (dir, snapshots) = opened();
    let old = snapshots.write(&state_at(1, 1, 1)).unwrap();
    let bytes = file_of(&old);
    let new = snapshots.write(&state_at(2, 2, 2)).unwrap();
    fs::write(&old.path, bytes).unwrap();
    let snapshots = Snapshots::open(Arc::new(Real), dir.path()).unwrap();
    assert_eq!(snapshots.newest(), Some(new));
    snapshots.write(&state_at(3, 3, 3)).unwrap();
    assert_eq!(names(&dir), ["00000000000000000003-1.snap"]);
}

#[test]
fn a_damaged_newest_snapshot_is_never_replaced_by_an_older_one() {
    let (dir, snapshots) = opened();
    let old = snapshots.write(&state_at(1, 1, 1)).unwrap();
    let old_bytes = file_of(&old);
    let new = snapshots.write(&state_at(2, 5, 20)).unwrap();
    fs::write(&old.path, &old_bytes).unwrap();
    let new_bytes = file_of(&new);
    for at in 0..new_bytes.len() {
        let mut bent = new_bytes.clone();
        bent[at] ^= 0x10;
        fs::write(&new.path, &bent).unwrap();
        let read = Snapshots::open(Arc::new(Real), dir.path()).and_then(|snapshots| {
            let newest = snapshots.newest().unwrap();
            snapshots.read(&newest)
        });
        match read {
            Err(SnapshotError::Damaged { path, .. }) => assert_eq!(path, new.path),
            other => panic!("byte {at}: {other:?}"),
        }
    }
    // A whole file under another's name is not what it says either.
    fs::write(&new.path, &old_bytes).unwrap();
    assert!(matches!(
        Snapshots::open(Arc::new(Real), dir.path()),
        Err(SnapshotError::Damaged { .. })
    ));
}

#[test]
fn a_received_snapshot_counts_only_once_it_is_installed() {
    let (_from_dir, from) = opened();
    let state = state_at(20, 300, 100);
    let bytes = file_of(&from.write(&state).unwrap());
    let (dir, to) = opened();
    let received = send(&to, &bytes).unwrap();
    assert_eq!(received.state, state);
    assert_eq!(to.newest(), None);
    assert!(matches!(&names(&dir)[..], [only] if only.contains(".tmp")), "{:?}", names(&dir));

    let (snapshot, installed) = received.install(&to).unwrap();
    assert_eq!((&installed, snapshot.last), (&state, state.applied));
    assert_eq!(to.newest(), Some(snapshot.clone()));
    assert_eq!(file_of(&snapshot), bytes);
    assert_eq!(names(&dir), ["00000000000000000020-1.snap"]);
    assert_eq!(to.read(&snapshot).unwrap(), state);
}

#[test]
fn what_is_written_after_the_end_becomes_no_snapshot() {
    let (dir, snapshots) = opened();
    let old = snapshots.write(&state_at(20, 3, 10)).unwrap();
    let received = send(&snapshots, &file_of(&old)).unwrap();
    snapshots.close();
    assert!(snapshots.write(&state_at(30, 3, 10)).is_err());
    assert!(received.install(&snapshots).is_err());
    assert!(snapshots.read(&old).is_err() && snapshots.open_newest().is_err());
    assert_eq!(names(&dir).len(), 2, "not even the temporary file goes: {:?}", names(&dir));
    let next = Snapshots::open(Arc::new(Real), dir.path()).unwrap();
    assert_eq!(next.newest(), Some(old));
    assert_eq!(names(&dir), ["00000000000000000020-1.snap"]);
}

#[test]
fn what_is_received_badly_leaves_nothing_behind() {
    let (dir, to) = opened();
    let state = state_at(20, 30, 100);
    let bytes = encoded(&state, Codec::Lz4);

    drop(send(&to, &bytes).unwrap());
    assert_eq!(names(&dir), [""; 0], "dropped before it was installed");

    let mut unfinished = to.receive(bytes.len() as u64).unwrap();
    unfinished.write(&bytes[..100]).unwrap();
    drop(unfinished);
    assert_eq!(names(&dir), [""; 0], "dropped unfinished");

    let mut short = to.receive(bytes.len() as u64).unwrap();
    short.write(&bytes[1..]).unwrap();
    assert!(short.finish(Rests::none()).unwrap_err().to_string().contains("1 of"));
    assert_eq!(names(&dir), [""; 0], "finished too early");

    let mut long = to.receive(bytes.len() as u64 - 1).unwrap();
    assert!(matches!(long.write(&bytes), Err(SnapshotError::Damaged { .. })));
    drop(long);
    assert_eq!(names(&dir), [""; 0], "more than announced");

    let mut bent = bytes.clone();
    bent[bytes.len() / 2] ^= 1;
    assert!(matches!(send(&to, &bent), Err(SnapshotError::Damaged { .. })));
    assert_eq!(names(&dir), [""; 0], "damaged on the way");
    assert_eq!(to.newest(), None);
}

#[test]
fn an_older_snapshot_never_takes_the_place_of_a_newer_one() {
    let (dir, snapshots) = opened();
    let newest = snapshots.write(&state_at(10, 3, 3)).unwrap();
    let older = send(&snapshots, &encoded(&state_at(9, 2, 2), Codec::Lz4)).unwrap();
    let refused = older.install(&snapshots).unwrap_err();
    assert!(matches!(refused, SnapshotError::Outdated { .. }), "{refused}");
    // One that was being written while the newer one was installed.
    assert_eq!(snapshots.write(&state_at(8, 1, 1)).unwrap(), newest);
    assert_eq!(snapshots.newest(), Some(newest.clone()));
    assert_eq!(names(&dir), ["00000000000000000010-1.snap"]);
    // The same entry again is the same state again.
    let same = send(&snapshots, &file_of(&newest)).unwrap();
    assert_eq!(same.install(&snapshots).unwrap().0, newest);
}

#[test]
fn two_at_a_time_do_not_disturb_each_other() {
    let (dir, snapshots) = opened();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let snapshots = &snapshots;
            scope.spawn(move || snapshots.write(&state_at(index, 200, 50)).unwrap());
        }
    });
    let newest = snapshots.newest().unwrap();
    assert_eq!(newest.last.map(|last| last.index), Some(7));
    assert_eq!(snapshots.read(&newest).unwrap(), state_at(7, 200, 50));
    assert_eq!(names(&dir), ["00000000000000000007-1.snap"]);
}

#[test]
fn snapshots_of_every_format_are_read_for_ever() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/snapshot/tests/fixtures");
    let read = |name: &str| fs::read(fixtures.join(name)).unwrap();
    // The first knew neither the time nor writes that may be sent again.
    let first = fixture();
    assert_eq!(decoded(&read("v1-none.snap")).unwrap(), first);
    assert_eq!(decoded(&read("v1-lz4.snap")).unwrap(), first);
    // Nor did the second know of values that end.
    let second = with_answers(&[]);
    assert_eq!(decoded(&read("v2-none.snap")).unwrap(), second);
    assert_eq!(decoded(&read("v2-lz4.snap")).unwrap(), second);
    let third = with_answers(&["put c passing for 1000", "once 9.0.1 touch b 2000"]);
    for (name, codec) in
        [("v3-none.snap", Codec::None), ("v3-lz4.snap", Codec::Lz4), ("v3-zstd.snap", Codec::Zstd)]
    {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(fixtures.join(name), encoded(&third, codec)).unwrap();
        }
        assert_eq!(decoded(&read(name)).unwrap(), third);
    }
    let plain = read("v3-none.snap");
    assert_eq!(encoded(&third, Codec::None), plain, "the format changed: raise its number");
}

/// What the fixtures of the second format hold, and what came to it later.
fn with_answers(later: &[&str]) -> State {
    let mut script = SCRIPT.to_vec();
    script.extend(["open 9", "once 9.3.1 put b four", "once key=8e03978e if absent put b five"]);
    script.extend(later);
    crate::store::apply::script::state_after(&script)
}

/// What the fixtures of the first format hold.
fn fixture() -> State {
    crate::store::apply::script::state_after(&SCRIPT)
}

const SCRIPT: [&str; 8] = [
    "found 7 users",
    "members 1,2,3",
    "put a one",
    "put b two",
    "put b three",
    "delete a",
    "claim 5 2 all",
    "confirm 5",
];
