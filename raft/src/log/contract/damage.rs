//! What a power cut and a failing disk do to the file that is written, and what a start makes of it.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{Batch, HardState, LocalMember, entries, indexes, save, snapshot};
use crate::{
    Error,
    log::{LogKind, LogStore as _, open_log},
};

/// What the file `format` begins with, before the number.
const TITLE: &str = "skep raft log, format ";
const PATIENCE: Duration = Duration::from_secs(60);

super::of_each_kind!(
    r02_a_torn_tail_is_dropped_wherever_it_is_torn,
    r02_a_large_torn_append_is_dropped_as_a_whole,
    r02_damage_in_the_middle_is_refused_each_time,
    a_log_of_a_newer_version_is_left_alone,
    a_log_without_a_usable_format_is_refused,
    what_was_torn_or_cleared_is_not_taken_for_damage_later,
);

/// In memory if possible: there are thousands of starts, and each syncs.
fn tempdir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Copies a log.
fn copy(from: &Path) -> TempDir {
    let to = tempdir();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
        }
    }
    to
}

/// The file that is written.
fn db(dir: &TempDir) -> PathBuf {
    let files = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name == "db" || name.starts_with("segment-")
    };
    files.map(|file| file.path()).filter(is_it).max().unwrap()
}

fn vote(term: u64) -> Batch {
    Batch {
        hard_state: Some(HardState {
            term,
            vote: 1,
            ..HardState::default()
        }),
        ..Batch::default()
    }
}

/// Closed logs before and after one more append: as a crash in the midst of that append finds them.
/// sled writes to its file when it is closed, so both are copied while it is open.
fn before_and_after(kind: LogKind, last: &Batch) -> (TempDir, TempDir) {
    let dir = tempdir();
    let mut log = open_log(dir.path(), kind).unwrap();
    log.set_member(&LocalMember::default()).unwrap();
    for index in 1..=12 {
        log.append(&entries(index..=index, 1)).unwrap();
    }
    log.append(&vote(2)).unwrap();
    let before = copy(dir.path());
    log.append(last).unwrap();
    (before, copy(dir.path()))
}

/// The bytes that differ.
fn changed(before: &[u8], after: &[u8]) -> Vec<usize> {
    let old = |at: usize| before.get(at).copied();
    (0..after.len())
        .filter(|at| old(*at) != Some(after[*at]))
        .collect()
}

/// The start must find the log as it was before or after the append, and go on.
fn opens(kind: LogKind, base: &TempDir, bytes: &[u8], appended: &Batch) -> bool {
    let dir = copy(base.path());
    fs::write(db(&dir), bytes).unwrap();
    let mut log = open_log(dir.path(), kind).unwrap();
    let loaded = log.load().unwrap();
    assert!(loaded.member.is_some());
    assert_eq!(loaded.hard_state.term, 2);
    let found = loaded.last_index();
    let whole = loaded.entries[12..] == appended.entries;
    assert!(whole || found == 12, "{found}");
    log.append(&entries(found + 1..=found + 1, 2)).unwrap();
    log.append(&entries(found + 2..=found + 2, 2)).unwrap();
    drop(log);
    let mut log = open_log(dir.path(), kind).unwrap();
    assert_eq!(indexes(&mut log).len() as u64, found + 2);
    whole
}

fn r02_a_torn_tail_is_dropped_wherever_it_is_torn(kind: LogKind) {
    let appended = entries(13..=14, 2);
    let (before, after) = before_and_after(kind, &appended);
    let old = fs::read(db(&before)).unwrap();
    let new = fs::read(db(&after)).unwrap();
    let changed = changed(&old, &new);
    let (first, last) = (changed[0], changed[changed.len() - 1]);
    let mut kept = 0;
    // sled may have made the file longer before it is filled, or not.
    for cut in first..=last + 1 {
        let mut torn = new[..cut].to_vec();
        kept += u32::from(opens(kind, &after, &torn, &appended));
        torn.resize(new.len(), 0);
        kept += u32::from(opens(kind, &after, &torn, &appended));
    }
    assert!((1..=4).contains(&kept), "{kept}");
    for at in changed {
        let mut garbled = new.clone();
        garbled[at] ^= 0x55;
        opens(kind, &after, &garbled, &appended);
    }
}

fn r02_a_large_torn_append_is_dropped_as_a_whole(kind: LogKind) {
    let mut appended = entries(13..=400, 2);
    for entry in &mut appended.entries {
        entry.data = vec![entry.index as u8; 4000].into();
    }
    let (before, after) = before_and_after(kind, &appended);
    let old = fs::read(db(&before)).unwrap();
    let new = fs::read(db(&after)).unwrap();
    let mut at = old.len();
    let mut kept = 0;
    while at < new.len() {
        // Sectors may arrive in any order: all but one, and all up to one.
        let end = new.len().min(at + 512);
        let mut lost = new.clone();
        lost[at..end].fill(0);
        kept += u32::from(opens(kind, &after, &lost, &appended));
        kept += u32::from(opens(kind, &after, &new[..at], &appended));
        at += 173 * 512 + 100;
    }
    // What sled fills a segment up with may be lost.
    assert!(kept <= 2, "{kept}");
    assert!(opens(kind, &after, &new, &appended));
}

/// Whether a start refuses the log or finds all of it.
fn refused(kind: LogKind, dir: &TempDir) -> bool {
    let started = Instant::now();
    let mut opened = open_log(dir.path(), kind);
    // On a busy machine it takes its time until sled has let go of what it has refused.
    while matches!(opened, Err(Error::Locked(_))) && started.elapsed() < PATIENCE {
        opened = open_log(dir.path(), kind);
    }
    match opened {
        Ok(mut log) => {
            let loaded = log.load().unwrap();
            assert!(loaded.member.is_some());
            assert_eq!(loaded.hard_state.term, 40);
            assert_eq!(loaded.last_index(), 200);
            false
        }
        Err(Error::Damaged {
            dir: named, index, ..
        }) => {
            assert_eq!(named, dir.path());
            assert!((1..=200).contains(&index));
            true
        }
        Err(error) => panic!("{error}"),
    }
}

fn r02_damage_in_the_middle_is_refused_each_time(kind: LogKind) {
    let dir = tempdir();
    let mut log = open_log(dir.path(), kind).unwrap();
    log.set_member(&LocalMember::default()).unwrap();
    for index in 1..=200 {
        log.append(&entries(index..=index, 1)).unwrap();
        if index % 5 == 0 {
            log.append(&vote(index / 5)).unwrap();
        }
        if index == 70 {
            save(&mut log, snapshot(60, 10));
            while !log.compact(50).unwrap() {}
        }
    }
    // The last write can be lost unnoticed.
    log.append(&vote(40)).unwrap();
    let whole = copy(dir.path());
    drop(log);
    let closed = copy(dir.path());
    let mut seen = 0;
    for base in [&whole, &closed] {
        let size = fs::metadata(db(base)).unwrap().len();
        let live = size.min(60_000);
        for at in (0..live).step_by(211) {
            let dir = copy(base.path());
            let mut open = fs::File::options();
            let file = open.read(true).write(true).open(db(&dir)).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
            if refused(kind, &dir) {
                seen += 1;
                assert!(
                    refused(kind, &dir),
                    "a second start takes what the first one refused"
                );
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

fn a_log_of_a_newer_version_is_left_alone(kind: LogKind) {
    let dir = tempdir();
    open_log(dir.path(), kind).unwrap();
    let path = dir.path().join("format");
    let text = fs::read_to_string(&path).unwrap();
    let before = fs::read(db(&dir)).unwrap();
    let newer = format!(
        "{}7{}new things\n",
        &text[..TITLE.len()],
        &text[TITLE.len() + 1..]
    );
    fs::write(&path, &newer).unwrap();
    let error = open_log(dir.path(), kind).err().unwrap();
    assert!(
        matches!(&error, Error::Newer { dir: named, found: 7, known: 2 } if named == dir.path())
    );
    assert!(
        error.to_string().contains("start the newer version"),
        "{error}"
    );
    assert_eq!(fs::read(db(&dir)).unwrap(), before);
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    fs::write(&path, text).unwrap();
    open_log(dir.path(), kind).unwrap();
}

fn a_log_without_a_usable_format_is_refused(kind: LogKind) {
    let dir = tempdir();
    open_log(dir.path(), kind).unwrap();
    let path = dir.path().join("format");
    for text in [
        "",
        "skep raft log, format 1\nid xyz\nseen 1\n",
        "\u{0}\u{0}",
    ] {
        fs::write(&path, text).unwrap();
        let refused = open_log(dir.path(), kind);
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{text}");
    }
    fs::remove_file(&path).unwrap();
    let refused = open_log(dir.path(), kind);
    assert!(matches!(refused, Err(Error::Damaged { .. })));
}

fn what_was_torn_or_cleared_is_not_taken_for_damage_later(kind: LogKind) {
    let dir = tempdir();
    for round in 0..4 {
        let mut log = open_log(dir.path(), kind).unwrap();
        let last = log.load().unwrap().last_index();
        for index in last + 1..=last + 30 {
            log.append(&entries(index..=index, 1)).unwrap();
        }
        let mut batch = entries(last + 41..=last + 40, 1);
        batch.snapshot = Some(snapshot(last + 40, 10));
        if round % 2 == 0 {
            log.append(&batch).unwrap();
        } else {
            save(&mut log, snapshot(last + 30, 10));
            while !log.compact(last + 30).unwrap() {}
            log.append(&vote(round)).unwrap();
        }
    }
    open_log(dir.path(), kind).unwrap();
}
