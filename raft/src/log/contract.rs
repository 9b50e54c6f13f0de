//! What every log must do. Each test runs on each implementation; `reopen` is a restart.

use tempfile::TempDir;

use super::{Batch, LogStore, MemoryLog, OwnSnapshot, SledLog};
use crate::{
    Error, LocalMember,
    codec::{Entry, HardState, Snapshot},
};

/// A log that can be closed and opened again.
trait Disk {
    type Log: LogStore;
    fn new() -> Self;
    fn open(&self) -> Self::Log;
}

struct Memory(MemoryLog);

impl Disk for Memory {
    type Log = MemoryLog;
    fn new() -> Self {
        Self(MemoryLog::default())
    }
    fn open(&self) -> MemoryLog {
        self.0.clone()
    }
}

struct Sled(TempDir);

impl Disk for Sled {
    type Log = SledLog;
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn open(&self) -> SledLog {
        SledLog::open(&self.0.path().join("raft")).unwrap()
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: format!("{term}/{index}").into(),
        ..Entry::default()
    }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Batch {
    Batch {
        entries: range.map(|index| entry(index, term)).collect(),
        ..Batch::default()
    }
}

fn snapshot(index: u64, size: usize) -> Snapshot {
    let data: Vec<u8> = (0..size).map(|i| (i as u64 * index % 251) as u8).collect();
    let mut snapshot = Snapshot {
        data: data.into(),
        ..Snapshot::default()
    };
    let metadata = snapshot.mut_metadata();
    metadata.index = index;
    metadata.term = 2;
    metadata.mut_conf_state().voters = vec![1, 2, 3];
    snapshot
}

fn indexes(log: &mut impl LogStore) -> Vec<(u64, u64)> {
    let entries = log.load().unwrap().entries;
    entries.iter().map(|e| (e.term, e.index)).collect()
}

fn a_new_log_is_empty<D: Disk>() {
    let loaded = D::new().open().load().unwrap();
    assert!(loaded.is_empty() && loaded.member.is_none());
    assert_eq!(loaded.hard_state, HardState::default());
}

fn everything_survives_a_restart<D: Disk>() {
    let disk = D::new();
    let member = LocalMember {
        raft_id: 7,
        node_id: "node".into(),
        ..LocalMember::default()
    };
    let hard_state = HardState {
        term: 3,
        vote: 7,
        commit: 2,
        ..HardState::default()
    };
    {
        let mut log = disk.open();
        log.set_member(&member).unwrap();
        let mut batch = entries(1..=3, 3);
        batch.hard_state = Some(hard_state.clone());
        log.append(&batch).unwrap();
        log.append(&entries(4..=4, 3)).unwrap();
    }
    let loaded = disk.open().load().unwrap();
    assert_eq!(loaded.member, Some(member));
    assert_eq!(loaded.hard_state, hard_state);
    assert_eq!(loaded.entries, entries(1..=4, 3).entries);
}

fn an_append_replaces_all_that_came_after<D: Disk>() {
    let disk = D::new();
    let mut log = disk.open();
    log.append(&entries(1..=9, 1)).unwrap();
    log.append(&entries(4..=5, 2)).unwrap();
    let expected = [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)];
    assert_eq!(indexes(&mut log), expected);
    drop(log);
    let mut log = disk.open();
    assert_eq!(indexes(&mut log), expected);
    log.append(&entries(6..=6, 2)).unwrap();
    assert_eq!(indexes(&mut log).last(), Some(&(2, 6)));
}

fn a_hole_is_refused<D: Disk>() {
    let disk = D::new();
    let mut log = disk.open();
    log.append(&entries(1..=2, 1)).unwrap();
    assert!(matches!(
        log.append(&entries(4..=5, 1)),
        Err(Error::Hole(3))
    ));
    let mut gap = entries(3..=3, 1);
    gap.entries.push(entry(5, 1));
    assert!(matches!(log.append(&gap), Err(Error::Hole(4))));
    assert_eq!(indexes(&mut disk.open_again(log)), [(1, 1), (1, 2)]);
}

fn own_snapshots_replace_each_other_and_allow_compaction<D: Disk>() {
    let disk = D::new();
    let mut log = disk.open();
    log.append(&entries(1..=20, 2)).unwrap();
    log.save_snapshot(&OwnSnapshot(snapshot(8, 300_000)))
        .unwrap();
    log.save_snapshot(&OwnSnapshot(snapshot(15, 100))).unwrap();
    log.compact(10).unwrap();
    log.compact(5).unwrap();
    let mut log = disk.open_again(log);
    assert_eq!(log.load().unwrap().snapshot, Some(snapshot(15, 100)));
    assert_eq!(indexes(&mut log).first(), Some(&(2, 11)));
    assert_eq!(indexes(&mut log).last(), Some(&(2, 20)));
    log.append(&entries(21..=21, 2)).unwrap();
    log.compact(15).unwrap();
    assert_eq!(indexes(&mut disk.open_again(log)).len(), 6);
}

fn a_snapshot_of_the_leader_replaces_the_log<D: Disk>() {
    let disk = D::new();
    let mut log = disk.open();
    log.append(&entries(1..=20, 1)).unwrap();
    let mut batch = entries(101..=102, 3);
    batch.snapshot = Some(snapshot(100, 200_000));
    batch.hard_state = Some(HardState {
        term: 3,
        commit: 100,
        ..HardState::default()
    });
    log.append(&batch).unwrap();
    let mut log = disk.open_again(log);
    assert_eq!(indexes(&mut log), [(3, 101), (3, 102)]);
    assert_eq!(log.load().unwrap().snapshot, batch.snapshot);
    log.append(&Batch {
        snapshot: Some(snapshot(200, 10)),
        ..Batch::default()
    })
    .unwrap();
    let mut log = disk.open_again(log);
    assert_eq!(indexes(&mut log), []);
    log.append(&entries(201..=201, 3)).unwrap();
    assert_eq!(indexes(&mut disk.open_again(log)), [(3, 201)]);
}

trait OpenAgain: Disk {
    fn open_again(&self, log: Self::Log) -> Self::Log {
        drop(log);
        self.open()
    }
}

impl<D: Disk> OpenAgain for D {}

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod memory { $(#[test] fn $test() { super::$test::<super::Memory>(); })* }
        mod sled { $(#[test] fn $test() { super::$test::<super::Sled>(); })* }
    };
}

contract!(
    a_new_log_is_empty,
    everything_survives_a_restart,
    an_append_replaces_all_that_came_after,
    a_hole_is_refused,
    own_snapshots_replace_each_other_and_allow_compaction,
    a_snapshot_of_the_leader_replaces_the_log,
);

#[test]
fn a_log_in_use_is_locked_and_free_once_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let log = SledLog::open(dir.path()).unwrap();
    let refused = SledLog::open(dir.path());
    assert!(matches!(refused, Err(Error::Locked(path)) if path == dir.path()));
    drop(log);
    SledLog::open(dir.path()).unwrap();
}

#[test]
fn a_lost_entry_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = SledLog::open(dir.path()).unwrap();
    log.append(&entries(1..=5, 1)).unwrap();
    drop(log);
    let db = ::sled::open(dir.path()).unwrap();
    let mut key = vec![b'e'];
    key.extend_from_slice(&3_u64.to_be_bytes());
    db.open_tree("log").unwrap().remove(key).unwrap();
    db.flush().unwrap();
    drop(db);
    assert!(matches!(SledLog::open(dir.path()), Err(Error::Hole(3))));
}

#[test]
fn merged_batches_are_what_they_were_one_by_one() {
    let mut merged = entries(1..=5, 1);
    merged.merge(entries(4..=4, 2)).unwrap();
    merged
        .merge(Batch {
            hard_state: Some(HardState::default()),
            ..Batch::default()
        })
        .unwrap();
    merged.merge(entries(5..=6, 2)).unwrap();
    let (mut one, mut two) = (MemoryLog::default(), MemoryLog::default());
    one.append(&merged).unwrap();
    for batch in [entries(1..=5, 1), entries(4..=4, 2), entries(5..=6, 2)] {
        two.append(&batch).unwrap();
    }
    assert_eq!(indexes(&mut one), indexes(&mut two));
    assert_eq!(merged.hard_state, Some(HardState::default()));
    let alone = Batch {
        snapshot: Some(snapshot(9, 1)),
        ..Batch::default()
    };
    assert_eq!(*merged.merge(alone.clone()).unwrap_err(), alone);
}
