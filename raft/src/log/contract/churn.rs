//! A year in fast forward: what a log that is never left alone takes on disk.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::{Batch, HardState, entry, indexes, save, snapshot};
use crate::log::{LogKind, LogStore as _, open_log};

/// Bytes that a directory takes on disk.
fn taken(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    files
        .map(|file| match file.file_type().unwrap().is_dir() {
            true => taken(&file.path()),
            false => file.metadata().unwrap().blocks() * 512,
        })
        .sum()
}

super::of_each_kind!(r19_a_year_of_churn_keeps_what_is_needed_and_not_much_more);

/// As on a manager with the usual settings, a hundredth in size: a snapshot every 500 entries, of
/// which 100 are kept; a new leader every now and then, who replaces the last few; a restart a week.
fn r19_a_year_of_churn_keeps_what_is_needed_and_not_much_more(kind: LogKind) {
    const SNAPSHOT_BYTES: usize = 300_000;
    const KEPT: u64 = 100;
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let mut log = open_log(dir.path(), kind).unwrap();
    let (mut last, mut term, mut written, mut most) = (0_u64, 1, 0, 0);
    let mut newest = 0;
    for day in 1_u64..=365 {
        for round in 0..20 {
            // Of all sizes, in batches of all sizes.
            let count = 1 + (day * 7 + round * 13) % 40;
            let mut batch = Batch::default();
            for index in last + 1..=last + count {
                let mut entry = entry(index, term);
                let size = 100 + (index * 37 % 700) * (1 + u64::from(index % 50 == 0) * 20);
                entry.data = vec![index as u8; size as usize].into();
                written += size;
                batch.entries.push(entry);
            }
            batch.hard_state = Some(HardState {
                term,
                commit: last,
                ..HardState::default()
            });
            log.append(&batch).unwrap();
            last += count;
            if round % 10 == 9 {
                term += 1;
                last -= count.min(3);
            }
            if last >= newest + 500 {
                newest = last - 10;
                save(&mut log, snapshot(newest, SNAPSHOT_BYTES));
            }
            log.compact(newest.saturating_sub(KEPT)).unwrap();
        }
        if day % 7 == 0 {
            // What was dropped may be back as long as nothing was written since.
            log.append(&Batch::default()).unwrap();
            drop(log);
            log = open_log(dir.path(), kind).unwrap();
            let first = indexes(&mut log)[0].1;
            assert!(
                first + 200 > newest.saturating_sub(KEPT),
                "{first} {newest}"
            );
            assert!(indexes(&mut log).last().unwrap().1 >= last);
        }
        most = most.max(taken(dir.path()));
    }
    assert!(written > 60_000_000, "{written}");
    // Of entries there are at most 700 at a time, a few hundred bytes each.
    let bound = 2 * SNAPSHOT_BYTES as u64 + 20 * 1024 * 1024;
    assert!(most < bound, "{most} of {bound}; {written} written");
    println!("{most} bytes at most, {written} written");
}
