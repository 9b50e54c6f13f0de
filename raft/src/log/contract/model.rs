//! Logs on disk against the one in memory: the same is done to both, in any order.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{Entry, HardState, LocalMember, entry, save, snapshot};
use crate::{
    Error,
    log::{Batch, LogKind, LogStore, MemoryLog, open_log},
};

#[derive(Clone, Debug)]
enum Step {
    /// Entries of this size, the first of which replaces so many.
    Append {
        count: u64,
        size: usize,
        replaced: u64,
    },
    Vote(u64),
    /// A snapshot so many entries before the last, and the log dropped up to as many before that.
    Snapshot {
        before: u64,
        kept: u64,
    },
    /// A snapshot of a leader that is so far ahead.
    Restore(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..20_u64, 0..40_000_usize, 0..5_u64)
            .prop_map(|(count, size, replaced)| Step::Append { count, size, replaced }),
        1 => (1..9_u64).prop_map(Step::Vote),
        2 => (0..4_u64, 0..30_u64).prop_map(|(before, kept)| Step::Snapshot { before, kept }),
        1 => (1..50_u64).prop_map(Step::Restore),
        2 => Just(Step::Reopen),
    ]
}

/// Index, term and size of an entry; what is in it follows from the first two.
type Seen = (u64, u64, usize);

/// What both must have in common: of what a snapshot covers, each keeps what it likes.
fn needed(log: &mut dyn LogStore) -> (Option<LocalMember>, HardState, u64, Vec<Seen>) {
    let mut loaded = log.load().unwrap();
    let covered = loaded.snapshot_index();
    loaded.entries.retain(|entry| entry.index > covered);
    let see = |entry: &Entry| {
        let data = &entry.data;
        assert!(data.iter().all(|byte| *byte == entry.index as u8));
        (entry.index, entry.term, data.len())
    };
    let entries = loaded.entries.iter().map(see).collect();
    (loaded.member, loaded.hard_state, covered, entries)
}

/// On a busy machine sled takes its time to let go of its file.
fn open(dir: &Path, kind: LogKind) -> Box<dyn LogStore> {
    let started = Instant::now();
    loop {
        match open_log(dir, kind) {
            Err(Error::Locked(_)) if started.elapsed() < Duration::from_secs(60) => {}
            opened => return opened.unwrap(),
        }
    }
}

fn what_is_needed_is_there_whatever_is_done(kind: LogKind) {
    let run = |steps: Vec<Step>| {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let mut log = open_log(dir.path(), kind).unwrap();
        let mut model = MemoryLog::default();
        let member = LocalMember {
            raft_id: 7,
            ..LocalMember::default()
        };
        log.set_member(&member).unwrap();
        model.set_member(&member).unwrap();
        // Index of the last entry and of the snapshot.
        let (mut last, mut covered, mut term) = (0, 0, 1);
        for step in steps {
            let mut batch = Batch::default();
            match step {
                Step::Append {
                    count,
                    size,
                    replaced,
                } => {
                    let first = (last + 1 - replaced.min(last - covered)).max(1);
                    last = first + count - 1;
                    batch.entries.extend((first..=last).map(|index| {
                        let mut entry = entry(index, term);
                        entry.data = vec![index as u8; size].into();
                        entry
                    }));
                }
                Step::Vote(vote) => {
                    term += 1;
                    batch.hard_state = Some(HardState {
                        term,
                        vote,
                        commit: covered,
                        ..HardState::default()
                    });
                }
                Step::Snapshot { before, kept } => {
                    let index = last.saturating_sub(before);
                    if index > covered {
                        covered = index;
                        save(&mut log, snapshot(index, 100));
                        save(&mut model, snapshot(index, 100));
                    }
                    let until = covered.saturating_sub(kept);
                    log.compact(until).unwrap();
                    model.compact(until).unwrap();
                    continue;
                }
                Step::Restore(ahead) => {
                    (last, covered) = (last + ahead, last + ahead);
                    batch.snapshot = Some(snapshot(covered, 100));
                }
                Step::Reopen => {
                    drop(log);
                    log = open(dir.path(), kind);
                    prop_assert_eq!(needed(&mut log), needed(&mut model));
                    continue;
                }
            }
            log.append(&batch).unwrap();
            model.append(&batch).unwrap();
        }
        drop(log);
        let mut log = open(dir.path(), kind);
        prop_assert_eq!(needed(&mut log), needed(&mut model));
        Ok(())
    };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 64,
        ..ProptestConfig::default()
    });
    let steps = prop::collection::vec(step(), 1..60);
    runner.run(&steps, run).unwrap();
}

super::of_each_kind!(what_is_needed_is_there_whatever_is_done);
