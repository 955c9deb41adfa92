//! What every disk does, the real one and the simulated one.

use super::revocable::Revocable;
use super::simulated::Simulated;
use super::*;

fn every_disk(test: impl Fn(&dyn Disk, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    test(&Real, &dir.path().join("dir"));
    test(&Simulated::new(), Path::new("/dir"));
    test(&Revocable::new(Arc::new(Simulated::new())), Path::new("/dir"));
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    disk.open(path, Open::Truncate).unwrap().write_at(bytes, 0).unwrap();
}

fn read(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    FileStream::new(disk.open(path, Open::Read).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_file_has_what_was_written_to_it() {
    every_disk(|disk, dir| {
        make_dir(disk, dir).unwrap();
        let file = disk.open(&dir.join("file"), Open::New).unwrap();
        assert_eq!(file.size().unwrap(), 0);
        file.write_at(b"hello", 3).unwrap();
        file.write_at(b"J", 3).unwrap();
        file.sync().unwrap();
        assert_eq!(read(disk, &dir.join("file")), b"\0\0\0Jello");
        let mut bytes = [9; 4];
        assert_eq!(file.read_at(&mut bytes, 6).unwrap(), 2);
        assert_eq!(bytes, *b"lo\x09\x09");
        assert_eq!(file.read_at(&mut bytes, 100).unwrap(), 0);
        let short = file.read_exact_at(&mut bytes, 6).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        file.allocate(10).unwrap();
        assert_eq!(file.size().unwrap(), 10);
        file.allocate(1).unwrap();
        assert_eq!(file.size().unwrap(), 10, "it never gets shorter");
        assert_eq!(read(disk, &dir.join("file")), b"\0\0\0Jello\0\0");
    });
}

#[test]
fn a_file_is_opened_as_it_was_asked_for() {
    every_disk(|disk, dir| {
        make_dir(disk, dir).unwrap();
        let path = dir.join("file");
        for how in [Open::Read, Open::Edit] {
            let missing = disk.open(&path, how).unwrap_err();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound, "{how:?}");
        }
        write(disk, &path, b"content");
        let there = disk.open(&path, Open::New).unwrap_err();
        assert_eq!(there.kind(), io::ErrorKind::AlreadyExists);
        for (how, content) in [(Open::Edit, b"Xontent".as_slice()), (Open::Keep, b"Xontent")] {
            disk.open(&path, how).unwrap().write_at(b"X", 0).unwrap();
            assert_eq!(read(disk, &path), content, "{how:?}");
        }
        assert!(disk.open(&path, Open::Read).unwrap().write_at(b"Y", 0).is_err());
        drop(disk.open(&path, Open::Truncate).unwrap());
        assert_eq!(read(disk, &path), b"");
    });
}

#[test]
fn names_come_change_and_go() {
    every_disk(|disk, dir| {
        assert_eq!(disk.list(dir).unwrap(), Vec::<PathBuf>::new(), "a directory that is not there");
        assert!(disk.open(&dir.join("file"), Open::New).is_err(), "nor are files in it");
        make_dir(disk, dir).unwrap();
        make_dir(disk, dir).unwrap();
        let (new, old) = (dir.join("new"), dir.join("old"));
        write(disk, &old, b"old");
        write(disk, &new, b"new");
        let open = disk.open(&old, Open::Read).unwrap();
        replace(disk, &new, &old).unwrap();
        assert_eq!(disk.list(dir).unwrap(), std::slice::from_ref(&old));
        assert_eq!(read(disk, &old), b"new");
        remove(disk, &old).unwrap();
        assert_eq!(disk.list(dir).unwrap(), Vec::<PathBuf>::new());
        let missing = remove(disk, &old).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let mut bytes = [0; 3];
        open.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, *b"old", "an open file keeps what it has");
    });
}
