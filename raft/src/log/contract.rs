//! What every log must do. Each test runs on each implementation; `reopen` is a restart.

use std::sync::Arc;

use tempfile::TempDir;

use super::{Batch, LogKind, LogStore, MemoryLog, SealedLog, open_log, sealed::tests::TestKeys};
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

struct Segments(TempDir);

impl Disk for Segments {
    type Log = Box<dyn LogStore>;
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn open(&self) -> Self::Log {
        open_log(&self.0.path().join("raft"), LogKind::Segments).unwrap()
    }
}

struct Sled(TempDir);

impl Disk for Sled {
    type Log = Box<dyn LogStore>;
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn open(&self) -> Self::Log {
        open_log(&self.0.path().join("raft"), LogKind::Sled).unwrap()
    }
}

/// A log on another disk that is encrypted.
struct Sealed<D>(D, TestKeys);

impl<D: Disk> Disk for Sealed<D> {
    type Log = SealedLog<D::Log>;
    fn new() -> Self {
        Self(D::new(), TestKeys::new())
    }
    fn open(&self) -> Self::Log {
        SealedLog::open(self.0.open(), Arc::new(self.1.clone())).unwrap()
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

fn save(log: &mut impl LogStore, snapshot: Snapshot) {
    let writer = log.snapshot_writer();
    let written = writer.write(&snapshot.into()).unwrap();
    log.save_snapshot(&written).unwrap();
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

fn the_commit_index_survives_with_the_entries<D: Disk>() {
    let disk = D::new();
    let mut log = disk.open();
    for index in 1..=9 {
        let mut batch = entries(index..=index, 4);
        batch.hard_state = Some(HardState {
            term: 4,
            vote: 2,
            commit: index - 1,
            ..HardState::default()
        });
        log.append(&batch).unwrap();
        log = disk.open_again(log);
        assert_eq!(log.load().unwrap().hard_state, batch.hard_state.unwrap());
    }
    let mut later = HardState {
        term: 5,
        commit: 9,
        ..HardState::default()
    };
    for vote in [0, 3] {
        later.vote = vote;
        log.append(&Batch {
            hard_state: Some(later.clone()),
            ..Batch::default()
        })
        .unwrap();
        log = disk.open_again(log);
        assert_eq!(log.load().unwrap().hard_state, later);
    }
    save(&mut log, snapshot(9, 10));
    while !log.compact(9).unwrap() {}
    log.append(&entries(10..=10, 5)).unwrap();
    assert_eq!(disk.open_again(log).load().unwrap().hard_state, later);
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
    for index in 1..=20 {
        log.append(&entries(index..=index, 2)).unwrap();
    }
    save(&mut log, snapshot(8, 3_000_000));
    save(&mut log, snapshot(15, 100));
    assert!(log.compact(10).unwrap());
    assert!(log.compact(5).unwrap());
    // What was dropped may come back as long as nothing was written since.
    log.append(&Batch::default()).unwrap();
    let mut log = disk.open_again(log);
    assert_eq!(log.load().unwrap().snapshot, Some(snapshot(15, 100)));
    assert_eq!(indexes(&mut log).first(), Some(&(2, 11)));
    assert_eq!(indexes(&mut log).last(), Some(&(2, 20)));
    log.append(&entries(21..=21, 2)).unwrap();
    assert!(log.compact(15).unwrap());
    log.append(&Batch::default()).unwrap();
    assert_eq!(indexes(&mut disk.open_again(log)).len(), 6);
}

fn a_written_snapshot_counts_when_the_log_says_so<D: Disk>() {
    let disk = D::new();
    let mut log = disk.open();
    log.append(&entries(1..=20, 2)).unwrap();
    let (first, second, late) = (snapshot(8, 10), snapshot(15, 1000), snapshot(18, 10));
    let writer = log.snapshot_writer();
    let written = writer.write(&first.clone().into()).unwrap();
    assert_eq!((written.index(), log.load().unwrap().snapshot), (8, None));
    let again = writer.write(&first.clone().into()).unwrap();
    log.save_snapshot(&written).unwrap();
    log.save_snapshot(&again).unwrap();
    let written = writer.write(&second.clone().into()).unwrap();
    assert_eq!(log.load().unwrap().snapshot, Some(first));
    log.save_snapshot(&written).unwrap();
    writer.write(&late.into()).unwrap();
    drop(writer);
    let mut log = disk.open_again(log);
    assert_eq!(log.load().unwrap().snapshot, Some(second));
}

fn compaction_does_not_go_beyond_the_snapshot<D: Disk>() {
    let disk = D::new();
    let mut log = disk.open();
    for index in 1..=600 {
        log.append(&entries(index..=index, 2)).unwrap();
    }
    save(&mut log, snapshot(590, 10));
    let mut first = 1;
    while !log.compact(595).unwrap() {
        let now = indexes(&mut log)[0].1;
        assert!(now > first && now <= 591, "{first} {now}");
        first = now;
    }
    log.append(&entries(601..=601, 2)).unwrap();
    let expected: Vec<_> = (591..=601).map(|index| (2, index)).collect();
    assert_eq!(indexes(&mut disk.open_again(log)), expected);
}

fn what_was_replaced_does_not_come_back_when_older_entries_go<D: Disk>() {
    let disk = D::new();
    let mut log = disk.open();
    log.append(&entries(1..=2, 1)).unwrap();
    log.append(&entries(3..=9, 1)).unwrap();
    log.append(&entries(5..=6, 2)).unwrap();
    log.append(&entries(4..=4, 3)).unwrap();
    log.append(&entries(5..=7, 3)).unwrap();
    save(&mut log, snapshot(6, 10));
    for (index, first) in [(2, 3), (3, 4), (4, 5), (6, 7)] {
        while !log.compact(index).unwrap() {}
        log.append(&Batch::default()).unwrap();
        log = disk.open_again(log);
        let left = indexes(&mut log);
        // Entries of one append may stay together.
        assert!(left[0].1 <= first && left.last() == Some(&(3, 7)));
        let left = left.into_iter().filter(|(_, index)| *index > 3);
        assert!(left.into_iter().all(|(term, _)| term == 3));
    }
    assert!(indexes(&mut log)[0].1 >= 5);
}

fn large_entries_survive<D: Disk>() {
    let disk = D::new();
    let mut log = disk.open();
    let mut batch = entries(1..=5, 1);
    for (entry, size) in batch.entries.iter_mut().zip([4091, 1_500_000, 0, 4096, 20]) {
        entry.data = vec![entry.index as u8; size].into();
    }
    log.append(&batch).unwrap();
    log.append(&entries(6..=6, 1)).unwrap();
    let mut log = disk.open_again(log);
    assert_eq!(log.load().unwrap().entries[..5], batch.entries);
    assert_eq!(indexes(&mut log).len(), 6);
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
        mod segments { $(#[test] fn $test() { super::$test::<super::Segments>(); })* }
        mod sled { $(#[test] fn $test() { super::$test::<super::Sled>(); })* }
        mod sealed_memory {
            use super::*;
            $(#[test] fn $test() { super::$test::<Sealed<Memory>>(); })*
        }
        mod sealed_segments {
            use super::*;
            $(#[test] fn $test() { super::$test::<Sealed<Segments>>(); })*
        }
        mod sealed_sled {
            use super::*;
            $(#[test] fn $test() { super::$test::<Sealed<Sled>>(); })*
        }
    };
}

contract!(
    a_new_log_is_empty,
    everything_survives_a_restart,
    the_commit_index_survives_with_the_entries,
    an_append_replaces_all_that_came_after,
    a_hole_is_refused,
    own_snapshots_replace_each_other_and_allow_compaction,
    a_written_snapshot_counts_when_the_log_says_so,
    compaction_does_not_go_beyond_the_snapshot,
    what_was_replaced_does_not_come_back_when_older_entries_go,
    large_entries_survive,
    a_snapshot_of_the_leader_replaces_the_log,
);

/// Tests of logs on disk, each for both kinds.
macro_rules! of_each_kind {
    ($($test:ident),* $(,)?) => {
        mod segments {
            $(#[test] fn $test() { super::$test(crate::log::LogKind::Segments); })*
        }
        mod sled {
            $(#[test] fn $test() { super::$test(crate::log::LogKind::Sled); })*
        }
    };
}
use of_each_kind;

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

mod churn;
mod damage;
mod files;
mod model;
mod power_cut;
