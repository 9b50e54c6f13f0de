//! What logs have in their directory.

use std::{fs, path::Path};

use super::{entries, indexes, save, snapshot};
use crate::{
    Error,
    log::{Batch, LogKind, LogStore as _, open_log, sled::open_db},
};

super::of_each_kind!(
    a_log_in_use_is_locked_and_free_once_dropped,
    only_the_newest_snapshot_stays_on_disk,
    a_damaged_snapshot_is_named,
);

fn a_log_in_use_is_locked_and_free_once_dropped(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path(), kind).unwrap();
    let refused = open_log(dir.path(), kind);
    assert!(matches!(refused, Err(Error::Locked(path)) if path == dir.path()));
    drop(log);
    open_log(dir.path(), kind).unwrap();
}

fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("snapshot")).collect();
    names.sort();
    names
}

fn only_the_newest_snapshot_stays_on_disk(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path(), kind).unwrap();
    log.append(&entries(1..=20, 1)).unwrap();
    save(&mut log, snapshot(9, 10));
    save(&mut log, snapshot(10, 10));
    assert_eq!(files(dir.path()), ["snapshot-10"]);
    // Crashes: while a snapshot is written, and before the log points to it.
    fs::write(dir.path().join("snapshot-15.0.tmp"), "half").unwrap();
    let writer = log.snapshot_writer();
    writer.write(&snapshot(12, 10).into()).unwrap();
    drop(log);
    let locked = open_log(dir.path(), kind);
    assert!(matches!(locked, Err(Error::Locked(_))));
    drop(writer);
    let mut log = open_log(dir.path(), kind).unwrap();
    assert_eq!(files(dir.path()), ["snapshot-10"]);
    let mut batch = entries(101..=102, 3);
    batch.snapshot = Some(snapshot(100, 10));
    log.append(&batch).unwrap();
    assert_eq!(files(dir.path()), ["snapshot-100"]);
}

fn a_damaged_snapshot_is_named(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path(), kind).unwrap();
    log.append(&entries(1..=20, 1)).unwrap();
    save(&mut log, snapshot(10, 1000));
    drop(log);
    let path = dir.path().join("snapshot-10");
    let whole = fs::read(&path).unwrap();
    let mut damages = vec![whole[..whole.len() - 1].to_vec(), Vec::new()];
    for position in [0, 9, 15, 21, 26, 500] {
        let mut flipped = whole.clone();
        flipped[position] ^= 0x10;
        damages.push(flipped);
    }
    for damaged in damages {
        fs::write(&path, damaged).unwrap();
        let error = open_log(dir.path(), kind).err().unwrap();
        assert!(matches!(error, Error::Snapshot { path: named, .. } if named == path));
    }
    fs::remove_file(&path).unwrap();
    let error = open_log(dir.path(), kind).err().unwrap();
    assert!(error.to_string().contains("snapshot-10"), "{error}");
    fs::write(&path, whole).unwrap();
    open_log(dir.path(), kind).unwrap();
}

#[test]
fn a_lost_piece_is_named() {
    // Each of these loses entries from the one that is named on.
    for (lost, hole) in [(1, 2), (2, 2), (3, 6)] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open_log(dir.path(), LogKind::Sled).unwrap();
        log.append(&entries(1..=1, 1)).unwrap();
        let mut large = entries(2..=5, 1);
        large.entries[1].data = vec![1; 5000].into();
        log.append(&large).unwrap();
        log.append(&entries(6..=7, 1)).unwrap();
        log.append(&entries(7..=8, 2)).unwrap();
        drop(log);
        let (db, tree) = open_db(dir.path()).unwrap();
        let mut key = vec![b'e'];
        key.extend_from_slice(&u64::to_be_bytes(lost));
        assert!(tree.remove(key).unwrap().is_some());
        db.flush().unwrap();
        drop((db, tree));
        let error = open_log(dir.path(), LogKind::Sled).err().unwrap();
        assert!(
            matches!(&error, Error::Damaged { dir: named, index, .. }
                if *index == hole && named == dir.path()),
            "{error}"
        );
    }
}

#[test]
fn nothing_lies_in_files_that_sled_does_not_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path(), LogKind::Sled).unwrap();
    let mut first = 1;
    for (count, size) in [
        (1, 1_500_000),
        (200, 3000),
        (40, 9000),
        (3000, 300),
        (1, 600_000),
    ] {
        for _ in 0..10 {
            let data = vec![vec![7; size].into(); count];
            log.append(&Batch::of_entries(first, 1, data)).unwrap();
            first += count as u64;
        }
    }
    assert_eq!(fs::read_dir(dir.path().join("blobs")).unwrap().count(), 0);
}

#[test]
fn sled_drops_a_few_pieces_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path(), LogKind::Sled).unwrap();
    for index in 1..=600 {
        log.append(&entries(index..=index, 2)).unwrap();
    }
    save(&mut log, snapshot(590, 10));
    assert!(!log.compact(590).unwrap() && !log.compact(590).unwrap());
    assert!(log.compact(590).unwrap());
}

#[test]
fn a_log_stays_of_the_kind_that_it_is() {
    for (kind, other) in [
        (LogKind::Segments, LogKind::Sled),
        (LogKind::Sled, LogKind::Segments),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open_log(dir.path(), kind).unwrap();
        log.append(&entries(1..=3, 1)).unwrap();
        drop(log);
        let mut log = open_log(dir.path(), other).unwrap();
        assert_eq!(indexes(&mut log).len(), 3, "{kind:?}");
        assert!(!other.is_in(dir.path()), "{kind:?}");
    }
}
