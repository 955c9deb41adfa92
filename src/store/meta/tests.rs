//! Metadata over whole and over bent files. `sled` really panics in some of these.

use tempfile::TempDir;

use std::fs;

use super::*;

const NODE_ID: NodeId = NodeId(0x1234_5678_9abc_def0);
const GROUP_ID: GroupId = GroupId(0x0fed_cba9_8765_4321);
const SET: Facts = Facts { node: Some(NODE_ID), group: Some(GROUP_ID) };

/// The files of a database in which both facts are set, to be bent and put back again.
struct Files {
    dir: TempDir,
    whole: Vec<(PathBuf, Vec<u8>)>,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(&dir.path().join("meta")).unwrap();
        meta.set_node(NODE_ID).unwrap();
        meta.set_group(GROUP_ID).unwrap();
        // `wait_until_closed` holds on until no thread of `sled` writes to them any more.
        wait_until_closed(&dir.path().join("meta")).unwrap();
        let entries = fs::read_dir(dir.path().join("meta")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let whole: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        assert!(whole.len() >= 2, "a database and its configuration");
        Self { dir, whole }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("meta")
    }

    /// Puts all files back as they were, but for one.
    fn bend(&self, file: usize, bend: impl FnOnce(&mut Vec<u8>)) {
        if let Err(error) = fs::remove_dir_all(self.path()) {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
        fs::create_dir(self.path()).unwrap();
        for (path, bytes) in &self.whole {
            fs::write(path, bytes).unwrap();
        }
        let (path, bytes) = &self.whole[file];
        let mut bytes = bytes.clone();
        bend(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    /// The bytes of a file that mean something, and some more: the rest is zeros.
    fn used(&self, file: usize) -> usize {
        let bytes = &self.whole[file].1;
        let end = bytes.iter().rposition(|&byte| byte != 0).unwrap_or_default();
        bytes.len().min(end + 20)
    }
}

fn is_set_or_absent(facts: Facts) -> bool {
    facts.node.is_none_or(|node| node == NODE_ID)
        && facts.group.is_none_or(|group| group == GROUP_ID)
}

/// What reading comes to; it must be the truth, less than it, or a complaint about the files.
fn check_reading(files: &Files, what: &str) -> Option<Facts> {
    match visit(&files.path(), load) {
        Ok(facts) => {
            assert!(is_set_or_absent(facts), "{what}: {facts:?}");
            Some(facts)
        }
        Err(Trouble::Damaged(_)) => None,
        Err(Trouble::Other(reason)) => panic!("{what}: {reason}"),
    }
}

#[test]
fn what_was_set_is_there_again_and_can_be_changed_as_promised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/meta");
    let meta = Meta::open(&path).unwrap();
    assert_eq!((meta.node().unwrap(), meta.group().unwrap()), (None, None));
    meta.set_node(NODE_ID).unwrap();
    meta.set_group(GroupId(1)).unwrap();
    meta.set_group(GROUP_ID).unwrap();
    assert_eq!(meta.facts(), SET);

    let again = Meta::open(&path).unwrap();
    assert_eq!((again.node().unwrap(), again.group().unwrap()), (Some(NODE_ID), Some(GROUP_ID)));
    again.set_node(NODE_ID).unwrap();
    let refused = again.set_node(NodeId(1)).unwrap_err();
    assert!(matches!(refused, MetaError::OtherNode { ours: NODE_ID, other: NodeId(1) }));
    assert_eq!(Meta::open(&path).unwrap().facts(), SET);
}

#[test]
fn a_flipped_byte_anywhere_never_gives_a_wrong_value() {
    let files = Files::new();
    let mut damaged = 0;
    for file in 0..files.whole.len() {
        for at in 0..files.used(file) {
            let mask = [0x01, 0x80, 0xff][at % 3];
            files.bend(file, |bytes| bytes[at] ^= mask);
            let what = format!("{} byte {at} ^ {mask:#x}", files.whole[file].0.display());
            damaged += usize::from(check_reading(&files, &what).is_none());
        }
    }
    assert!(damaged > 50, "only {damaged} flips were noticed: are these the right files?");
}

#[test]
fn truncated_and_shifted_files_never_give_a_wrong_value() {
    let files = Files::new();
    for file in 0..files.whole.len() {
        for at in (0..files.used(file)).step_by(5) {
            files.bend(file, |bytes| bytes.truncate(at));
            check_reading(&files, &format!("file {file} cut at {at}"));
            files.bend(file, |bytes| drop(bytes.drain(at..(at + 25).min(bytes.len()))));
            check_reading(&files, &format!("file {file} without 25 bytes at {at}"));
            files.bend(file, |bytes| bytes[at..].fill(0xa5));
            check_reading(&files, &format!("file {file} overwritten from {at}"));
        }
    }
}

/// Without its first bytes the database makes `sled` 0.34.7 panic while it opens.
fn bend_so_that_sled_panics(files: &Files) {
    let db = files.whole.iter().position(|(path, _)| path.ends_with("db")).unwrap();
    files.bend(db, |bytes| drop(bytes.drain(12..37)));
}

#[test]
fn damaged_files_are_moved_aside_and_new_ones_hold_what_is_set() {
    let files = Files::new();
    let mut aside = 0;
    for file in 0..files.whole.len() {
        for at in (0..files.used(file)).step_by(37) {
            files.bend(file, |bytes| bytes[at] ^= 0xff);
            let meta = Meta::open(&files.path()).unwrap();
            assert!(is_set_or_absent(meta.facts()), "{:?}", meta.facts());
            meta.set_node(NODE_ID).unwrap();
            meta.set_group(GROUP_ID).unwrap();
            assert_eq!(Meta::open(&files.path()).unwrap().facts(), SET, "file {file} byte {at}");
        }
    }
    while files.dir.path().join(format!("meta.damaged-{}", aside + 1)).exists() {
        aside += 1;
    }
    assert_eq!(aside, META_DAMAGED_MAX, "some are kept to be looked at, not all");
}

#[test]
fn a_panic_of_sled_does_not_escape() {
    let files = Files::new();
    bend_so_that_sled_panics(&files);
    match visit(&files.path(), load) {
        Err(Trouble::Damaged(reason)) => assert!(reason.contains("panicked"), "{reason}"),
        other => panic!("sled took it: {other:?}; choose another way to bend the file"),
    }
    bend_so_that_sled_panics(&files);
    let meta = Meta::open(&files.path()).unwrap();
    assert_eq!(meta.facts(), Facts::default());
    assert!(files.dir.path().join("meta.damaged-1/db").exists());
}

#[test]
fn files_that_go_bad_while_running_are_replaced_with_everything_known() {
    let files = Files::new();
    let meta = Meta::open(&files.path()).unwrap();
    bend_so_that_sled_panics(&files);
    meta.set_group(GroupId(2)).unwrap();
    let facts = Meta::open(&files.path()).unwrap().facts();
    assert_eq!(facts, Facts { group: Some(GroupId(2)), ..SET });
}

#[test]
fn a_write_that_sled_takes_and_loses_is_made_again() {
    let files = Files::new();
    let db = files.whole.iter().position(|(path, _)| path.ends_with("db")).unwrap();
    // In the checksum of the first segment's header.
    let bend = || files.bend(db, |bytes| bytes[0] ^= 1);
    let changed = Facts { group: Some(GroupId(2)), ..SET };
    bend();
    assert_eq!(visit(&files.path(), load).unwrap(), SET, "sled sees nothing wrong");
    visit(&files.path(), move |db| store(db, changed)).unwrap();
    assert_eq!(visit(&files.path(), load).unwrap(), SET, "the old value is back");

    bend();
    let meta = Meta::open(&files.path()).unwrap();
    meta.set_group(GroupId(2)).unwrap();
    assert_eq!(Meta::open(&files.path()).unwrap().facts(), changed);
}

#[test]
fn a_visit_that_does_not_end_is_given_up() {
    let files = Files::new();
    let db = File::open(files.path().join("db")).unwrap();
    db.lock().unwrap();
    let (done, late) = sync_channel(1);
    let given_up = visit_within(Duration::from_millis(50), &files.path(), move |_| {
        done.send(()).unwrap();
        Ok(())
    });
    assert!(matches!(given_up, Err(Trouble::Other(reason)) if reason.contains("no answer")));
    assert!(late.try_recv().is_err(), "it had not even begun");
    // It goes on once it can, and nobody minds.
    drop(db);
    late.recv().unwrap();
    wait_until_closed(&files.path()).unwrap();
}

#[test]
fn a_value_that_is_not_one_is_refused() {
    let bytes = encode(NODE, 7);
    assert_eq!(decode(NODE, &bytes).unwrap(), 7);
    let damaged = |name, bytes: &[u8]| matches!(decode(name, bytes), Err(Trouble::Damaged(_)));
    assert!(damaged(GROUP, &bytes), "the value of another name");
    for len in 0..bytes.len() {
        assert!(damaged(NODE, &bytes[..len]), "{len} bytes");
    }
    let with_checksum =
        |content: &[u8]| [content, &checksum(NODE, content).to_le_bytes()[..]].concat();
    assert!(damaged(NODE, &with_checksum(&[])));
    assert!(damaged(NODE, &with_checksum(&[FORMAT; 8])));
    assert!(damaged(NODE, &with_checksum(&[FORMAT; 10])));
    // A newer program may have written it: that is no damage.
    assert!(matches!(decode(NODE, &with_checksum(&[2; 9])), Err(Trouble::Other(_))));
}
