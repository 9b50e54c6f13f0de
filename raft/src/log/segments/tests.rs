use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::log::{Batch, LogKind, open_log};

const ENTRY_BYTES: usize = 50_000;
/// Somewhere in the data of a segment's first entry.
const START: usize = 1000;

/// A log of one entry a record, a few of which fill a segment.
fn log(dir: &Path, last: u64) -> Box<dyn LogStore> {
    let mut log = open_log(dir, LogKind::Segments).unwrap();
    for index in 1..=last {
        append(&mut log, index);
    }
    log
}

fn append(log: &mut impl LogStore, index: u64) {
    let data = vec![index as u8; ENTRY_BYTES].into();
    let batch = Batch::of_entries(index, 1, vec![data]);
    log.append(&batch).unwrap();
}

fn save(log: &mut impl LogStore, index: u64) {
    let mut snapshot = crate::codec::Snapshot::default();
    snapshot.mut_metadata().index = index;
    let written = log.snapshot_writer().write(&snapshot.into()).unwrap();
    log.save_snapshot(&written).unwrap();
}

fn indexes(dir: &Path) -> Vec<u64> {
    let mut log = open_log(dir, LogKind::Segments).unwrap();
    let entries = log.load().unwrap().entries;
    entries.iter().map(|entry| entry.index).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let numbers = numbers(dir).unwrap();
    numbers.iter().map(|number| path(dir, *number)).collect()
}

/// Number of the next record in a copy of the log.
fn next_number(dir: &Path) -> u64 {
    let dir = copy(dir);
    let dir = LogDir::open(dir.path(), LogKind::Segments).unwrap();
    Found::read(&dir).unwrap().number
}

/// What a crash leaves of it.
fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap().map(|file| file.unwrap()) {
        fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

/// The index of the entry that is named as the first that is lost.
fn lost(dir: &Path) -> u64 {
    match open_log(dir, LogKind::Segments).err().unwrap() {
        Error::Damaged {
            dir: named, index, ..
        } if named == dir => index,
        error => panic!("{error}"),
    }
}

#[test]
fn segments_that_are_not_needed_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), 0);
    let mut most = 0;
    for index in 1..=400 {
        append(&mut log, index);
        if index % 20 == 0 {
            save(&mut log, index - 5);
        }
        log.compact(index.saturating_sub(15)).unwrap();
        most = most.max(files(dir.path()).len());
    }
    assert!(most <= MAX_FREE + 3, "{most}");
    drop(log);
    let files = files(dir.path()).into_iter();
    let taken: u64 = files.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(taken < 400 * ENTRY_BYTES as u64 / 2, "{taken}");
    assert_eq!(indexes(dir.path()).last(), Some(&400));
}

#[test]
fn segments_grow_with_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path(), 200);
    let files = files(dir.path());
    let last = fs::metadata(&files[files.len() - 1]).unwrap().len();
    assert!(last > FIRST_BYTES && files.len() < 20, "{last} {files:?}");
    drop(log);
    assert_eq!(indexes(dir.path()).len(), 200);
}

#[test]
fn a_crash_between_two_segments_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), 45);
    let before = files(dir.path());
    assert!(before.len() >= 3);
    let number = next_number(dir.path());
    let whole: Vec<_> = (1..=45).collect();
    // The next segment has just been made, of nothing or of an old one.
    for content in [vec![0; 5000], fs::read(&before[0]).unwrap()] {
        let crashed = copy(dir.path());
        fs::write(path(crashed.path(), number), content).unwrap();
        assert_eq!(indexes(crashed.path()), whole);
        let mut log = open_log(crashed.path(), LogKind::Segments).unwrap();
        log.load().unwrap();
        append(&mut log, 46);
        append(&mut log, 47);
        drop(log);
        assert_eq!(indexes(crashed.path()).len(), 47);
    }
    // Of two that were dropped only the older one is back.
    save(&mut log, 45);
    assert!(log.compact(45).unwrap());
    append(&mut log, 46);
    let crashed = copy(dir.path());
    fs::remove_file(crashed.path().join(before[1].file_name().unwrap())).unwrap();
    assert_eq!(indexes(crashed.path()), [46]);
    assert_eq!(files(crashed.path()).len(), before.len() - 2);
}

#[test]
fn a_segment_that_was_only_begun_is_not_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = log(dir.path(), 25);
    save(&mut first, 25);
    drop(first);
    fs::write(path(dir.path(), next_number(dir.path())), [0; 5000]).unwrap();
    let mut log = open_log(dir.path(), LogKind::Segments).unwrap();
    assert!(log.compact(25).unwrap());
    // A crash before anything else is written, and when those before it were used again.
    let crashed = copy(dir.path());
    let files = files(crashed.path());
    for file in &files[..files.len() - 1] {
        fs::remove_file(file).unwrap();
    }
    let mut log = open_log(crashed.path(), LogKind::Segments).unwrap();
    assert_eq!(log.load().unwrap().last_index(), 25);
}

#[test]
fn r02_lost_entries_show_without_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    drop(log(dir.path(), 25));
    let old = files(dir.path());
    // A segment without an entry.
    fs::write(path(dir.path(), next_number(dir.path())), [0; 5000]).unwrap();
    assert_eq!(indexes(dir.path()).len(), 25);
    let last = &old[old.len() - 1];
    let mut bytes = fs::read(last).unwrap();
    let first = u64::from(bytes[START]);
    bytes[START] ^= 1;
    fs::write(last, bytes).unwrap();
    assert_eq!(lost(dir.path()), first);
    assert_eq!(files(dir.path()).len(), old.len() + 1, "nothing is removed");
    // Nor is all that is left taken for a new log.
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), 5);
    save(&mut log, 5);
    drop(log);
    for file in files(dir.path()) {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(lost(dir.path()), 1);
    assert!(dir.path().join("snapshot-5").exists());
}

#[test]
fn r02_a_segment_that_is_lost_or_damaged_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), 100);
    save(&mut log, 3);
    append(&mut log, 101);
    drop(log);
    let files = files(dir.path());
    assert!(files.len() >= 4);
    let name = |number: usize| files[number].file_name().unwrap();
    // The entry that each segment begins with.
    let first = |number: usize| {
        let log = copy(dir.path());
        for file in &files[number..] {
            fs::remove_file(log.path().join(file.file_name().unwrap())).unwrap();
        }
        indexes(log.path()).len() as u64 + 1
    };
    for number in 1..files.len() - 1 {
        let damaged = copy(dir.path());
        fs::remove_file(damaged.path().join(name(number))).unwrap();
        assert_eq!(lost(damaged.path()), first(number), "{number}");
        let damaged = copy(dir.path());
        let file = damaged.path().join(name(number));
        let mut bytes = fs::read(&file).unwrap();
        bytes[2 * ENTRY_BYTES] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(lost(damaged.path()), first(number) + 1, "{number}");
        assert_eq!(lost(damaged.path()), first(number) + 1, "a second start");
    }
    // Without the last one the log is shorter, which nobody can see; all that there is, is not nothing.
    let damaged = copy(dir.path());
    for file in &files[..files.len() - 1] {
        fs::remove_file(damaged.path().join(file.file_name().unwrap())).unwrap();
    }
    fs::write(damaged.path().join(name(files.len() - 1)), [0; 5000]).unwrap();
    assert_eq!(lost(damaged.path()), 1);
}

#[test]
fn a_full_disk_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut spare = Spare::new(dir.path());
    fs::create_dir(dir.path().join("spare")).unwrap();
    spare.begin(FIRST_BYTES);
    let failed = spare.take(&dir.path().join("segment"), FIRST_BYTES);
    assert!(failed.is_err());
    // Once there is space it goes on.
    fs::remove_dir(dir.path().join("spare")).unwrap();
    let file = spare
        .take(&dir.path().join("segment"), FIRST_BYTES)
        .unwrap();
    assert_eq!(file.metadata().unwrap().len(), FIRST_BYTES);
}

#[test]
fn what_a_leaders_snapshot_replaces_stays_until_that_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), 45);
    let before = files(dir.path());
    let data = vec![vec![7; ENTRY_BYTES].into(); 50];
    let mut batch = Batch::of_entries(101, 1, data);
    let mut snapshot = crate::codec::Snapshot::default();
    snapshot.mut_metadata().index = 100;
    batch.snapshot = Some(snapshot);
    log.append(&batch).unwrap();
    // It took a new segment, which must not be one that a crash might still need.
    assert_eq!(files(dir.path())[..before.len()], before);
    assert_eq!(files(dir.path()).len(), before.len() + 1);
    // From now on they may be used.
    for index in 151..=200 {
        append(&mut log, index);
    }
    assert!(!before[0].exists());
    drop(log);
    assert_eq!(indexes(dir.path()), (101..=200).collect::<Vec<_>>());
}
