//! The change of the key with the files that ship: a key file and a log on disk.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use skep_security::{Credentials, Identity, Kek, NodeKey, Role, RootCa, UnlockKey};
use tempfile::TempDir;

use super::*;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let (file, to) = (
            file.as_ref().unwrap(),
            to.join(file.as_ref().unwrap().file_name()),
        );
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &to);
        } else {
            fs::copy(file.path(), to).unwrap();
        }
    }
}

/// The state directory of a manager, or what a crash has left of one.
struct Host(TempDir);

impl Host {
    fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn image(&self) -> Self {
        let image = tempfile::tempdir().unwrap();
        copy(self.0.path(), image.path());
        Self(image)
    }

    /// Opens it with the unlock key that it may have by now.
    fn open(&self, unlock: &UnlockKey) -> (NodeKey, SealedLog<Box<dyn LogStore>>) {
        let loaded = Credentials::load(&self.dir("certificates"), Some(unlock)).unwrap();
        let (_, key) = loaded.unwrap();
        let log = open_log(&self.dir("raft"), LogKind::default()).unwrap();
        let log = SealedLog::open(log, Arc::new(key.clone())).unwrap();
        (key, log)
    }
}

fn identity() -> Identity {
    Identity {
        node_id: "node".into(),
        role: Role::Manager,
        cluster_id: "cluster".into(),
    }
}

#[test]
fn r06_a_lock_is_turned_on_with_a_crash_at_any_step() {
    let host = Host(tempfile::tempdir().unwrap());
    let ca = RootCa::generate().unwrap();
    let own = Credentials::self_issue(&ca, &identity(), Duration::ZERO).unwrap();
    own.save(&host.dir("certificates")).unwrap();
    let unlock = UnlockKey::generate();
    let (key, mut log) = host.open(&unlock);
    let old = key.data_keys().unwrap().current;
    log.set_member(&member()).unwrap();
    log.append(&entries(1..=10, 1)).unwrap();
    save(&mut log, 5);

    let mut crashes = Vec::new();
    let kek = Kek {
        key: Some(unlock.clone()),
        version: 9,
    };
    key.set_kek(kek).unwrap();
    crashes.push(host.image());
    let rotation = log.rotation().unwrap();
    rotation.begin_if_due().unwrap();
    crashes.push(host.image());
    log.append(&entries(11..=12, 1)).unwrap();
    crashes.push(host.image());
    let written = log.snapshot_writer().write(&snapshot(12)).unwrap();
    crashes.push(host.image());
    log.save_snapshot(&written).unwrap();
    crashes.push(host.image());
    log.log.compact(10).unwrap();
    crashes.push(host.image());
    while !log.compact(10).unwrap() {}
    crashes.push(host.image());
    for (at, host) in crashes.into_iter().enumerate() {
        for _ in 0..2 {
            let (key, mut log) = host.open(&unlock);
            let loaded = log.load().unwrap();
            let last = if at < 2 { 10 } else { 12 };
            assert_eq!(loaded.last_index(), last, "crash {at}");
            for entry in &loaded.entries {
                assert_eq!(entry.data, format!("{SECRET} 1/{}", entry.index));
            }
            if let Some(found) = loaded.snapshot {
                assert_eq!(
                    found,
                    snapshot(found.get_metadata().index).stored().unwrap()
                );
            }
            let rotation = log.rotation().unwrap();
            if rotation.wants_snapshot(last) {
                save(&mut log, last);
                let until = rotation.must_drop(last).unwrap();
                while !log.compact(until).unwrap() {}
            }
            let keys = key.data_keys().unwrap();
            assert!(keys.pending.is_none() && keys.current != old, "crash {at}");
        }
    }
}
