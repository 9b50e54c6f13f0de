mod disk;

use std::thread;

use parking_lot::Mutex;
use skep_security::DataKeys;

use super::*;
use crate::{
    codec::{self, HardState, Message, MessageType, Snapshot},
    log::{LogKind, MemoryLog, open_log},
};

const SECRET: &str = "correct horse battery staple";

/// Keys that are as durable as this process.
#[derive(Clone)]
pub(crate) struct TestKeys(Arc<Mutex<DataKeys>>);

impl TestKeys {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(DataKeys {
            current: DataKey::generate(),
            pending: None,
            needs_rotation: false,
        })))
    }

    /// What would be left after a crash now.
    fn image(&self) -> Self {
        Self(Arc::new(Mutex::new(self.get())))
    }

    fn get(&self) -> DataKeys {
        self.0.lock().clone()
    }

    fn ask(&self) {
        self.0.lock().needs_rotation = true;
    }
}

impl Keyring for TestKeys {
    fn keys(&self) -> Result<DataKeys, Error> {
        Ok(self.get())
    }

    fn needs_rotation(&self) -> bool {
        self.0.lock().needs_rotation
    }

    fn begin_rotation(&self) -> Result<DataKeys, Error> {
        let mut keys = self.0.lock();
        if keys.pending.is_none() {
            keys.pending = Some(DataKey::generate());
            keys.needs_rotation = false;
        }
        Ok(keys.clone())
    }

    fn finish_rotation(&self) -> Result<(), Error> {
        let mut keys = self.0.lock();
        if let Some(pending) = keys.pending.take() {
            keys.current = pending;
        }
        Ok(())
    }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Batch {
    let data = range.clone().map(|i| format!("{SECRET} {term}/{i}").into());
    let mut batch = Batch::of_entries(*range.start(), term, data.collect());
    batch.hard_state = Some(HardState {
        term,
        ..HardState::default()
    });
    batch
}

fn snapshot(index: u64) -> OwnSnapshot {
    let mut snapshot = Snapshot {
        data: format!("{SECRET} {index}").into_bytes().into(),
        ..Snapshot::default()
    };
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = 1;
    snapshot.into()
}

fn member() -> LocalMember {
    LocalMember {
        raft_id: 7,
        node_id: "node".into(),
        ..LocalMember::default()
    }
}

fn open(log: &MemoryLog, keys: &TestKeys) -> Result<SealedLog<MemoryLog>, Error> {
    SealedLog::open(log.clone(), Arc::new(keys.clone()))
}

/// A log of a member with entries up to `last`.
fn log(last: u64) -> (MemoryLog, TestKeys, SealedLog<MemoryLog>) {
    let (inner, keys) = (MemoryLog::default(), TestKeys::new());
    let mut log = open(&inner, &keys).unwrap();
    log.set_member(&member()).unwrap();
    log.append(&entries(1..=last, 1)).unwrap();
    (inner, keys, log)
}

fn save(log: &mut impl LogStore, index: u64) {
    let written = log.snapshot_writer().write(&snapshot(index)).unwrap();
    log.save_snapshot(&written).unwrap();
}

fn refusal(log: &MemoryLog, keys: &TestKeys) -> String {
    open(log, keys).err().expect("it is refused").to_string()
}

#[test]
fn what_the_inner_log_sees_tells_nothing() {
    let (mut inner, _, mut log) = log(3);
    save(&mut log, 2);
    let stored = inner.load().unwrap();
    let data = stored.entries.iter().map(|entry| &entry.data);
    for data in data.chain(stored.snapshot.iter().map(|snapshot| &snapshot.data)) {
        assert!(!data.windows(8).any(|part| part == &SECRET.as_bytes()[..8]));
        assert!(is_sealed(data));
    }
    let loaded = log.load().unwrap();
    assert_eq!(loaded.entries, entries(1..=3, 1).entries);
    assert_eq!(loaded.snapshot, Some(snapshot(2).stored().unwrap()));
    assert_eq!(loaded.member, Some(member()));
}

#[test]
fn no_file_of_a_log_tells_anything() {
    for kind in LogKind::ALL {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raft");
        let keys = Arc::new(TestKeys::new());
        let mut log = SealedLog::open(open_log(&path, kind).unwrap(), keys.clone()).unwrap();
        log.set_member(&member()).unwrap();
        for index in 1..=50 {
            log.append(&entries(index..=index, 1)).unwrap();
        }
        save(&mut log, 40);
        log.compact(20).unwrap();
        drop(log);
        let mut found = 0;
        for file in std::fs::read_dir(&path).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                let bytes = std::fs::read(file.path()).unwrap();
                found += bytes.len();
                let mut parts = bytes.windows(SECRET.len());
                assert!(!parts.any(|part| part == SECRET.as_bytes()), "{file:?}");
            }
        }
        assert!(found > 5000, "the check sees what was written");
        let mut log = SealedLog::open(open_log(&path, kind).unwrap(), keys).unwrap();
        assert_eq!(log.load().unwrap().last_index(), 50);
    }
}

#[test]
fn a_log_of_before_is_read_once_and_sealed() {
    let inner = MemoryLog::default();
    let mut plain = inner.clone();
    plain.set_member(&member()).unwrap();
    // Data that begins like a record, as a request does.
    let mut batch = entries(1..=6, 1);
    batch.entries[1].data = Bytes::from_static(&[0x08, 0x01, 0x12, 0x02, 0x08, 0x01]);
    batch.entries[2].data = Bytes::new();
    plain.append(&batch).unwrap();
    let written = plain.snapshot_writer().write(&snapshot(4)).unwrap();
    plain.save_snapshot(&written).unwrap();
    let keys = TestKeys::new();
    for _ in 0..2 {
        let loaded = open(&inner, &keys).unwrap().load().unwrap();
        assert_eq!(loaded.entries, batch.entries);
        assert_eq!(loaded.snapshot, Some(snapshot(4).stored().unwrap()));
        assert_eq!(loaded.hard_state.term, 1);
        let stored = inner.clone().load().unwrap();
        assert!(stored.entries.iter().all(|entry| is_sealed(&entry.data)));
        assert!(stored.snapshot.is_some_and(|s| is_sealed(&s.data)));
    }
    // Whoever puts something plain into it now is found out.
    let mut forged = inner.clone();
    forged.append(&entries(7..=7, 1)).unwrap();
    let error = refusal(&inner, &keys);
    assert!(error.contains("entry 7 cannot be decrypted"), "{error}");
}

#[test]
fn what_cannot_be_opened_is_named() {
    let (inner, keys, mut log) = log(3);
    let error = refusal(&inner, &TestKeys::new());
    assert!(
        error.contains("entry 1 cannot be decrypted: the key does not fit"),
        "{error}"
    );
    let data = inner.clone().load().unwrap().entries[1].data.clone();
    let (mut flipped, mut other) = (data.to_vec(), data.to_vec());
    flipped[30] ^= 1;
    other[1] = 2;
    for (damaged, part) in [
        (Bytes::from(flipped), "was changed"),
        (Bytes::from(other), "algorithm 2"),
        (data.slice(..9), "not a sealed record"),
        (Bytes::new(), "it is not encrypted"),
    ] {
        let image = inner.image();
        let mut batch = Batch::of_entries(2, 1, vec![damaged]);
        batch
            .entries
            .push(inner.clone().load().unwrap().entries[2].clone());
        image.clone().append(&batch).unwrap();
        let error = refusal(&image, &keys);
        assert!(
            error.contains("entry 2 cannot be decrypted") && error.contains(part),
            "{part}: {error}"
        );
    }
    save(&mut log, 3);
    while !log.compact(3).unwrap() {}
    let error = refusal(&inner, &TestKeys::new());
    assert!(error.contains("snapshot 3 cannot be decrypted"), "{error}");
}

/// One snapshot object is encrypted and written, again and again, while it is sent to peers.
#[test]
fn r04_a_snapshot_is_the_same_for_all_who_use_it() {
    let (inner, keys, mut log) = log(9);
    let mut big = snapshot(9).stored().unwrap();
    let data: Vec<u8> = (0..7_000_000_u32).map(|i| (i % 251) as u8).collect();
    big.data = data.clone().into();
    let big = OwnSnapshot::from(big);
    let message = Message {
        msg_type: MessageType::MsgSnapshot,
        snapshot: Some(big.without_data()).into(),
        ..Message::default()
    };
    let writer = log.snapshot_writer();
    let written = thread::scope(|scope| {
        let writes: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| writer.write(&big).unwrap()))
            .collect();
        for _ in 0..3 {
            scope.spawn(|| {
                let mut pieces = Vec::new();
                codec::cut(message.clone(), &big, |piece| {
                    let part: Message = codec::decode(&piece).unwrap();
                    pieces.extend_from_slice(&part.get_snapshot().data);
                    Ok(())
                })
                .unwrap();
                assert!(pieces == data);
            });
        }
        let mut written: Vec<_> = writes.into_iter().map(|w| w.join().unwrap()).collect();
        written.pop().unwrap()
    });
    assert!(big.stored().unwrap().data == data);
    log.save_snapshot(&written).unwrap();
    let loaded = open(&inner, &keys).unwrap().load().unwrap();
    assert!(loaded.snapshot.unwrap().data == data);
}

/// Does what is left of a change of the key, as the owner of a log would: `applied` is how far it is.
fn carry_on(log: &mut SealedLog<MemoryLog>, applied: u64) {
    let rotation = log.rotation().unwrap();
    rotation.begin_if_due().unwrap();
    if rotation.wants_snapshot(applied) {
        save(log, applied);
        if let Some(until) = rotation.must_drop(applied) {
            while !log.compact(until).unwrap() {}
        }
    }
}

/// Everything on disk is sealed with the only key that is left, and another than `old`.
fn assert_rotated(log: &MemoryLog, keys: &TestKeys, old: &DataKey) {
    let left = keys.get();
    assert!(left.pending.is_none() && left.current != *old);
    let mut stored = log.clone();
    let stored = stored.load().unwrap();
    let data = stored.entries.iter().map(|entry| &entry.data);
    for data in data.chain(stored.snapshot.iter().map(|snapshot| &snapshot.data)) {
        left.current.open(data.clone()).unwrap();
    }
}

/// The change of a key with a crash after each thing that reaches the disk: whatever the moment, the
/// log can be opened, has everything that was acknowledged, and the change comes to its end.
#[test]
fn r06_a_crash_at_any_step_of_a_change_of_the_key() {
    let (inner, keys, mut log) = log(10);
    save(&mut log, 5);
    let old = keys.get().current;
    let mut crashes = Vec::new();
    let mut crash = |last: u64| crashes.push((inner.image(), keys.image(), last));
    let rotation = log.rotation().unwrap();
    crash(10);
    keys.ask();
    crash(10);
    rotation.begin_if_due().unwrap();
    crash(10);
    log.append(&entries(11..=12, 1)).unwrap();
    crash(12);
    assert!(!rotation.wants_snapshot(9) && rotation.wants_snapshot(11));
    let written = log.snapshot_writer().write(&snapshot(11)).unwrap();
    crash(12);
    assert!(!rotation.wants_snapshot(12), "one is enough");
    log.save_snapshot(&written).unwrap();
    crash(12);
    assert_eq!(rotation.must_drop(11), Some(10));
    // Dropped, but the pending key is not the current one yet.
    let dropped = inner.image();
    dropped.clone().compact(10).unwrap();
    let half = (dropped, keys.image(), 12);
    while !log.compact(10).unwrap() {}
    assert!(keys.get().pending.is_none() && keys.get().current != old);
    crash(12);
    crashes.push(half);
    log.append(&entries(13..=13, 1)).unwrap();
    assert_rotated(&inner, &keys, &old);
    for (at, (inner, keys, last)) in crashes.into_iter().enumerate() {
        let asked = at > 0;
        let mut log = open(&inner, &keys).unwrap_or_else(|error| panic!("crash {at}: {error}"));
        let loaded = log.load().unwrap();
        assert_eq!(loaded.last_index(), last, "crash {at}");
        for entry in &loaded.entries {
            assert_eq!(entry.data, format!("{SECRET} 1/{}", entry.index));
        }
        carry_on(&mut log, last);
        drop(log);
        open(&inner, &keys).unwrap();
        if asked {
            assert_rotated(&inner, &keys, &old);
        } else {
            assert_eq!(keys.get().current, old, "nobody has asked for another key");
        }
    }
}

/// The last entry under the old key is not committed when a snapshot is taken: it must stay readable.
#[test]
fn r05_a_snapshot_before_the_last_entry_of_the_old_key_does_not_end_it() {
    let (inner, keys, mut log) = log(10);
    let old = keys.get().current;
    keys.ask();
    let rotation = log.rotation().unwrap();
    rotation.begin_if_due().unwrap();
    assert!(!rotation.wants_snapshot(9));
    save(&mut log, 9);
    assert_eq!(rotation.must_drop(9), None);
    while !log.compact(9).unwrap() {}
    assert!(keys.get().pending.is_some());
    for _ in 0..2 {
        let loaded = open(&inner, &keys).unwrap().load().unwrap();
        assert_eq!(loaded.entries.last().unwrap().index, 10);
        assert_eq!(loaded.snapshot_index(), 9);
    }
    assert!(keys.get().pending.is_some());
    // Another leader replaces that entry, and so does away with the old key's last use.
    let mut log = open(&inner, &keys).unwrap();
    log.append(&entries(10..=10, 2)).unwrap();
    drop(log);
    open(&inner, &keys).unwrap();
    assert_rotated(&inner, &keys, &old);
}

#[test]
fn a_snapshot_of_the_leader_ends_it() {
    let (inner, keys, mut log) = log(10);
    let old = keys.get().current;
    keys.ask();
    log.rotation().unwrap().begin_if_due().unwrap();
    log.append(&Batch {
        snapshot: Some(snapshot(100).stored().unwrap()),
        ..entries(101..=102, 3)
    })
    .unwrap();
    assert_rotated(&inner, &keys, &old);
    assert_eq!(log.load().unwrap().last_index(), 102);
}

/// A snapshot that was begun under the old key comes to its end after the change has begun.
#[test]
fn a_late_snapshot_of_the_old_key_does_not_end_it() {
    let (inner, keys, mut log) = log(10);
    let written = log.snapshot_writer().write(&snapshot(10)).unwrap();
    keys.ask();
    let rotation = log.rotation().unwrap();
    rotation.begin_if_due().unwrap();
    log.save_snapshot(&written).unwrap();
    while !log.compact(10).unwrap() {}
    assert!(keys.get().pending.is_some() && rotation.wants_snapshot(10));
    open(&inner, &keys).unwrap();
    // One of the new key is on disk, but that of the old key still counts.
    log.append(&entries(11..=11, 1)).unwrap();
    let next = log.snapshot_writer().write(&snapshot(11)).unwrap();
    while !log.compact(10).unwrap() {}
    assert!(keys.get().pending.is_some());
    open(&inner.image(), &keys.image()).unwrap();
    log.save_snapshot(&next).unwrap();
    while !log.compact(10).unwrap() {}
    assert!(keys.get().pending.is_none());
    open(&inner, &keys).unwrap();
}

/// The snapshot must count, and the whole of the old log be gone.
#[test]
fn it_does_not_end_early() {
    let (inner, keys, mut log) = log(600);
    keys.ask();
    log.rotation().unwrap().begin_if_due().unwrap();
    save(&mut log, 599);
    log.append(&entries(601..=601, 1)).unwrap();
    let written = log.snapshot_writer().write(&snapshot(601)).unwrap();
    let mut steps = 0;
    let mut under_way = |log: &mut SealedLog<MemoryLog>, index| {
        let done = log.compact(index).unwrap();
        let pending = keys.get().pending.is_some();
        open(&inner.image(), &keys.image()).unwrap();
        steps += 1;
        (done, pending)
    };
    // It is written, but the snapshot before it counts.
    while under_way(&mut log, 300) != (true, true) {}
    log.save_snapshot(&written).unwrap();
    assert_eq!(under_way(&mut log, 600), (false, true), "some are left");
    assert_eq!(under_way(&mut log, 599), (true, true), "entry 600 is left");
    assert_eq!(under_way(&mut log, 600), (true, false));
    assert!(steps > 3);
}

#[test]
fn a_key_that_is_asked_for_meanwhile_comes_next() {
    let (inner, keys, mut log) = log(10);
    keys.ask();
    carry_on(&mut log, 9);
    let first = keys.get().pending.unwrap();
    keys.ask();
    carry_on(&mut log, 9);
    assert_eq!(keys.get().pending.as_ref(), Some(&first), "one at a time");
    carry_on(&mut log, 10);
    assert_eq!(keys.get().current, first);
    assert!(keys.get().pending.is_some(), "the next has begun");
    log.append(&entries(11..=11, 1)).unwrap();
    carry_on(&mut log, 11);
    assert_rotated(&inner, &keys, &first);
}

#[test]
fn an_empty_log_changes_its_key_at_once() {
    let (inner, keys) = (MemoryLog::default(), TestKeys::new());
    let old = keys.get().current;
    open(&inner, &keys).unwrap().set_member(&member()).unwrap();
    keys.ask();
    drop(open(&inner, &keys).unwrap());
    assert_rotated(&inner, &keys, &old);
}
