use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;
use crate::{
    Role, RootCa,
    testing::{credentials, identity},
};

/// Made by hand after SwarmKit's rules, with OpenSSL and an implementation of secretbox that is not
/// ours. The private keys are the same.
const LOCKED: &[u8] = include_bytes!("testdata/locked.pem");
const OPEN: &[u8] = include_bytes!("testdata/open.pem");
const KEK: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

fn unlock_key(byte: u8) -> UnlockKey {
    UnlockKey::from_bytes(&[byte; 32]).unwrap()
}

fn kek(byte: u8, version: u64) -> Kek {
    Kek {
        key: Some(unlock_key(byte)),
        version,
    }
}

fn no_kek(version: u64) -> Kek {
    Kek { key: None, version }
}

fn reason(parsed: Result<KeyFile, Error>) -> String {
    parsed.err().expect("it is refused").to_string()
}

fn text(dir: &Path) -> String {
    fs::read_to_string(dir.join("swarm-node.key")).unwrap()
}

/// A manager's saved identity, and its directory.
fn saved(kek: Kek) -> (tempfile::TempDir, NodeKey) {
    let dir = tempfile::tempdir().unwrap();
    let own = credentials(&RootCa::generate().unwrap(), "m1", Role::Manager);
    let key = NodeKey::new(dir.path(), &own, kek).unwrap();
    key.save(&own).unwrap();
    (dir, key)
}

fn load(dir: &Path, unlock: Option<&UnlockKey>) -> Result<NodeKey, Error> {
    Ok(Credentials::load(dir, unlock)?.expect("it is there").1)
}

#[test]
fn swarmkits_files_are_read() {
    let key = UnlockKey::from_bytes(KEK).unwrap();
    let locked = KeyFile::parse(LOCKED, Some(&key)).unwrap();
    assert_eq!(
        locked.kek,
        Kek {
            key: Some(key),
            version: 1234
        }
    );
    let keys = locked.data_keys.as_ref().unwrap();
    assert_eq!(keys.current.as_bytes(), [0x11; 32]);
    assert_eq!(keys.pending.as_ref().unwrap().as_bytes(), [0x22; 32]);
    assert!(keys.needs_rotation);

    let open = KeyFile::parse(OPEN, None).unwrap();
    assert_eq!(open.kek, no_kek(7));
    let keys = open.data_keys.as_ref().unwrap();
    assert_eq!(keys.current.as_bytes(), [0x11; 32]);
    assert!(keys.pending.is_none() && !keys.needs_rotation);
    assert_eq!(open.key_pem(), locked.key_pem());
    assert_eq!(*open.to_bytes().unwrap(), OPEN, "and written alike");
}

#[test]
fn a_locked_file_has_the_form_of_swarmkits() {
    let key = UnlockKey::from_bytes(KEK).unwrap();
    let file = KeyFile::parse(LOCKED, Some(&key)).unwrap();
    let written = file.to_bytes().unwrap();
    let (ours, theirs) = (pem::parse(&*written).unwrap(), pem::parse(LOCKED).unwrap());
    assert_eq!(ours.tag(), theirs.tag());
    let names = |pem: &pem::Pem| -> Vec<(String, usize)> {
        let headers = pem.headers().iter();
        headers.map(|(k, v)| (k.to_owned(), v.len())).collect()
    };
    assert_eq!(names(&ours), names(&theirs));
    // Salt, IV and ciphertext differ; algorithms and their parameters do not.
    let (ours, theirs) = (ours.contents(), theirs.contents());
    assert_eq!(ours.len(), theirs.len());
    for same in [0..35, 43..62, 78..81] {
        assert_eq!(ours[same.clone()], theirs[same]);
    }
    let again = KeyFile::parse(&written, Some(&key)).unwrap();
    assert_eq!(again.data_keys, file.data_keys);
    assert_eq!(again.key_pem(), file.key_pem());
}

#[test]
fn a_wrong_key_or_none_finds_it_locked() {
    let expected = "node is locked, and needs a valid unlock key";
    assert_eq!(reason(KeyFile::parse(LOCKED, None)), expected);
    for byte in 0..40 {
        let wrong = unlock_key(byte);
        assert_eq!(reason(KeyFile::parse(LOCKED, Some(&wrong))), expected);
    }
    assert!(KeyFile::parse(OPEN, Some(&unlock_key(1))).is_ok());
}

#[test]
fn damage_is_named_and_nothing_of_it_is_shown() {
    let key = UnlockKey::from_bytes(KEK).unwrap();
    let (open, locked) = (
        std::str::from_utf8(OPEN).unwrap(),
        std::str::from_utf8(LOCKED).unwrap(),
    );
    for (file, part) in [
        (
            open.replace("kek-version: 7", "kek-version: x"),
            "not a number",
        ),
        (
            open.replace("raft-dek: E", "raft-dek: *"),
            "header raft-dek:",
        ),
        (
            open.replace("raft-dek: EiA", "raft-dek: EiE"),
            "header raft-dek:",
        ),
        (
            open.replace("raft-dek:", "raft-dek-pending:"),
            "no raft-dek",
        ),
        (
            locked.replace("ENCRYPTED PRIVATE", "PRIVATE"),
            "encrypted, but the private key is not",
        ),
        (
            locked.replace("raft-dek: CAES", "raft-dek: CAIS"),
            "algorithm 2",
        ),
        (
            open.replace("kek-version: 7", "Proc-Type: 4,ENCRYPTED"),
            "old form",
        ),
        (open.replace("MIGH", "****"), "no PEM private key"),
        (
            open.replace("PRIVATE KEY", "CERTIFICATE"),
            "no PEM private key",
        ),
        (String::new(), "no PEM private key"),
        ("x".repeat(2 << 20), "larger than 1 MiB"),
    ] {
        let error = reason(KeyFile::parse(file.as_bytes(), Some(&key)));
        assert!(error.contains(part), "{part}: {error}");
        assert!(!error.contains("ERERER"), "{error}");
    }
    // Whatever is cut off or changed: an error or the same keys, and no panic.
    for at in (0..LOCKED.len()).step_by(11) {
        let _ = KeyFile::parse(&LOCKED[..at], Some(&key));
        let mut changed = LOCKED.to_vec();
        changed[at] ^= 1;
        if let Ok(file) = KeyFile::parse(&changed, Some(&key)) {
            for key in file.data_keys.iter().map(|keys| &keys.current) {
                assert_eq!(key.as_bytes(), [0x11; 32]);
            }
        }
    }
}

#[test]
fn directories_of_before_have_no_keys_until_they_are_asked_for() {
    let (dir, _) = saved(Kek::default());
    let key = load(dir.path(), None).unwrap();
    assert!(!text(dir.path()).contains("raft-dek") && !key.needs_rotation());
    let keys = key.data_keys().unwrap();
    assert!(text(dir.path()).contains("\nraft-dek: "));
    assert_eq!(key.data_keys().unwrap(), keys);
    assert_eq!(load(dir.path(), None).unwrap().data_keys().unwrap(), keys);
}

#[test]
fn locking_follows_the_newest_key() {
    let (dir, key) = saved(Kek::default());
    let keys = key.data_keys().unwrap();
    assert_eq!(key.set_kek(no_kek(5)).unwrap(), KekChange::None);
    assert_eq!(key.set_kek(kek(1, 6)).unwrap(), KekChange::Locked);
    assert!(
        text(dir.path()).starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\nkek-version: 6\n")
    );
    assert!(key.needs_rotation());
    for wrong in [None, Some(&unlock_key(2))] {
        assert!(matches!(load(dir.path(), wrong), Err(Error::Locked)));
    }
    let again = load(dir.path(), Some(&unlock_key(1))).unwrap();
    assert_eq!(again.kek(), kek(1, 6));
    assert!(again.needs_rotation());
    assert_eq!(again.data_keys().unwrap().current, keys.current);

    // The same key, an older one, and two of the same age.
    assert_eq!(key.set_kek(kek(1, 9)).unwrap(), KekChange::None);
    assert_eq!(key.set_kek(kek(2, 5)).unwrap(), KekChange::None);
    let error = key.set_kek(kek(2, 6)).unwrap_err();
    assert!(matches!(error, Error::TwoUnlockKeys(6)), "{error}");
    assert_eq!(key.kek(), kek(1, 6));

    // Another key needs no other log keys: they were never to be read.
    key.begin_rotation().unwrap();
    key.finish_rotation().unwrap();
    assert_eq!(key.set_kek(kek(2, 10)).unwrap(), KekChange::Replaced);
    assert!(!key.needs_rotation());
    assert!(matches!(
        load(dir.path(), Some(&unlock_key(1))),
        Err(Error::Locked)
    ));
    load(dir.path(), Some(&unlock_key(2))).unwrap();
    assert_eq!(key.set_kek(no_kek(11)).unwrap(), KekChange::Replaced);
    assert_eq!(load(dir.path(), None).unwrap().kek(), no_kek(11));
}

#[test]
fn keys_of_the_log_are_replaced_in_two_steps() {
    let (dir, key) = saved(kek(1, 3));
    let unlock = unlock_key(1);
    let on_disk = || {
        load(dir.path(), Some(&unlock))
            .unwrap()
            .data_keys()
            .unwrap()
    };
    let old = key.data_keys().unwrap().current;
    let begun = key.begin_rotation().unwrap();
    let new = begun.pending.clone().unwrap();
    assert_eq!(begun.current, old);
    assert_ne!(new, old);
    assert_eq!(on_disk(), begun);
    assert_eq!(key.begin_rotation().unwrap(), begun, "one at a time");
    key.finish_rotation().unwrap();
    assert_eq!((on_disk().current, on_disk().pending), (new.clone(), None));
    key.finish_rotation().unwrap();
    assert_eq!(key.data_keys().unwrap().current, new);
    key.remove_data_keys().unwrap();
    assert!(!text(dir.path()).contains("raft-dek"));
}

#[test]
fn a_failed_write_changes_nothing() {
    let (dir, key) = saved(Kek::default());
    let keys = key.data_keys().unwrap();
    // The temporary file cannot be made.
    fs::create_dir(dir.path().join(".swarm-node.key")).unwrap();
    assert!(matches!(key.set_kek(kek(1, 2)), Err(Error::File { .. })));
    assert!(key.begin_rotation().is_err());
    assert_eq!(key.kek(), Kek::default());
    assert_eq!(key.data_keys().unwrap(), keys);
    fs::remove_dir(dir.path().join(".swarm-node.key")).unwrap();
    assert_eq!(load(dir.path(), None).unwrap().data_keys().unwrap(), keys);
}

/// A crash may leave a temporary file. If that is plain, it must not stay.
#[test]
fn what_a_crash_leaves_is_removed() {
    let (dir, _) = saved(kek(1, 3));
    let left = dir.path().join(".swarm-node.key");
    fs::write(&left, OPEN).unwrap();
    load(dir.path(), Some(&unlock_key(1))).unwrap();
    assert!(!left.exists());
}

#[test]
fn nothing_is_on_disk_before_it_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let own = credentials(&RootCa::generate().unwrap(), "m1", Role::Manager);
    let key = NodeKey::new(dir.path(), &own, Kek::default()).unwrap();
    let keys = key.data_keys().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    key.save(&own).unwrap();
    assert_eq!(load(dir.path(), None).unwrap().data_keys().unwrap(), keys);
}

#[test]
fn a_worker_is_never_locked() {
    let ca = RootCa::generate().unwrap();
    let (dir, key) = saved(kek(1, 4));
    key.data_keys().unwrap();
    // Demoted: whatever the cluster says from then on.
    key.save(&credentials(&ca, "m1", Role::Worker)).unwrap();
    assert_eq!(key.kek(), Kek::default());
    assert_eq!(key.set_kek(kek(2, 9)).unwrap(), KekChange::None);
    assert!(!text(dir.path()).contains("ENCRYPTED"));
    let loaded = load(dir.path(), None).unwrap();
    assert_eq!(loaded.set_kek(kek(2, 9)).unwrap(), KekChange::None);
    // Promoted: locked from the start, and it follows again.
    let promoted = credentials(&ca, "m1", Role::Manager);
    loaded.save_promoted(&promoted, kek(2, 9)).unwrap();
    assert!(text(dir.path()).contains("ENCRYPTED"));
    assert!(matches!(load(dir.path(), None), Err(Error::Locked)));
    let unlocked = load(dir.path(), Some(&unlock_key(2))).unwrap();
    assert_eq!(unlocked.set_kek(kek(3, 10)).unwrap(), KekChange::Replaced);
}

#[test]
fn a_key_that_was_plain_is_exposed_until_there_is_another() {
    let ca = RootCa::generate().unwrap();
    let (_dir, key) = saved(no_kek(1));
    let exposed = key.exposed();
    assert!(!*exposed.borrow());
    key.set_kek(kek(1, 2)).unwrap();
    assert!(*exposed.borrow());
    key.save(&credentials(&ca, "m1", Role::Manager)).unwrap();
    assert!(!*exposed.borrow());
    key.set_kek(kek(2, 3)).unwrap();
    assert!(!*exposed.borrow(), "it was locked all the time");
}

/// While certificates are renewed and the lock is turned on and off, whoever looks at the files
/// finds a key that fits the certificate, under one of the unlock keys.
#[test]
fn r37_key_and_certificate_match_while_the_lock_is_toggled() {
    let ca = RootCa::generate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let first = credentials(&ca, "m1", Role::Manager);
    let key = NodeKey::new(dir.path(), &first, Kek::default()).unwrap();
    key.save(&first).unwrap();
    let keys = key.data_keys().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1..=40 {
                let next = match version % 3 {
                    0 => no_kek(version),
                    byte => kek(byte as u8, version),
                };
                key.set_kek(next).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let renewed = credentials(&ca, "m1", Role::Manager);
                key.save(&renewed).unwrap();
            }
        });
        scope.spawn(|| {
            // A copy of the directory, as a crash would leave it.
            while !done.load(Ordering::SeqCst) {
                let copy = tempfile::tempdir().unwrap();
                let state = key.inner.state.lock();
                for file in fs::read_dir(dir.path()).unwrap() {
                    let file = file.unwrap();
                    fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
                }
                drop(state);
                let found = [None, Some(unlock_key(1)), Some(unlock_key(2))]
                    .iter()
                    .find_map(|unlock| Credentials::load(copy.path(), unlock.as_ref()).ok());
                let (own, key) = found.flatten().expect("one of the keys opens it");
                assert_eq!(own.identity(), &identity("m1", Role::Manager));
                assert_eq!(key.data_keys().unwrap().current, keys.current);
            }
        });
    });
}
