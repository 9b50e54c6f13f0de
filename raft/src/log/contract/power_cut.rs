//! A real file system on an image file that is copied at the moment of the power cut: what the kernel
//! has not been made to write by then is not in the copy.
//!
//! It does not show what a disk loses that acknowledges before it has written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use skep_security::{Credentials, Identity, Role, RootCa};
use tempfile::TempDir;

use super::{Batch, HardState, LocalMember, entries, indexes, save, snapshot};
use crate::{
    log::{LogKind, LogStore as _, open_log},
    testing::may_mount,
};

/// A file system on a file.
struct Image {
    dir: TempDir,
}

impl Image {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = Self { dir };
        let file = fs::File::create(image.file()).unwrap();
        file.set_len(64 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-qF").arg(image.file()));
        image.mount();
        image
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn mount(&self) {
        fs::create_dir(self.root()).unwrap();
        let mut mount = Command::new("mount");
        run(mount.args(["-o", "loop"]).arg(self.file()).arg(self.root()));
    }

    /// The file system as the power cut leaves it, after recovery.
    fn cut(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = Self { dir };
        fs::copy(self.file(), image.file()).unwrap();
        image.mount();
        image
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Detached if something is still open.
        let unmounted = Command::new("umount").arg("-l").arg(self.root()).status();
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn raft(root: &Path) -> PathBuf {
    root.join("state/raft")
}

fn member() -> LocalMember {
    LocalMember {
        raft_id: 7,
        node_id: "node".into(),
        ..LocalMember::default()
    }
}

fn state(term: u64) -> HardState {
    HardState {
        term,
        vote: 7,
        commit: 0,
        ..HardState::default()
    }
}

fn credentials() -> Credentials {
    let who = Identity {
        node_id: "node".into(),
        role: Role::Manager,
        cluster_id: "cluster".into(),
    };
    let hour = std::time::Duration::from_secs(3600);
    Credentials::self_issue(&RootCa::generate().unwrap(), &who, hour).unwrap()
}

super::of_each_kind!(what_was_acknowledged_survives_a_power_cut);

fn what_was_acknowledged_survives_a_power_cut(kind: LogKind) {
    if !may_mount("what_was_acknowledged_survives_a_power_cut") {
        return;
    }
    let image = Image::new();
    fs::create_dir(image.root().join("state")).unwrap();
    run(&mut Command::new("sync"));
    let mut log = open_log(&raft(&image.root()), kind).unwrap();
    log.set_member(&member()).unwrap();
    let check = |what: &str, (first, last), snapshot, term| {
        let cut = image.cut();
        let mut log = open_log(&raft(&cut.root()), kind).unwrap();
        let loaded = log.load().unwrap();
        assert_eq!(loaded.member, Some(member()), "{what}");
        assert_eq!(loaded.snapshot, snapshot, "{what}");
        assert_eq!(loaded.hard_state.term, term, "{what}");
        let found: Vec<_> = indexes(&mut log).iter().map(|(_, index)| *index).collect();
        assert_eq!(found, (first..=last).collect::<Vec<_>>(), "{what}");
        // It goes on from there.
        let next = last + 1;
        log.append(&entries(next..=next, term)).unwrap();
    };
    check("the member", (1, 0), None, 0);
    for index in 1..=80 {
        let mut batch = entries(index..=index, 1);
        batch.hard_state = Some(state(1));
        log.append(&batch).unwrap();
        if index % 40 == 1 {
            check("entries", (1, index), None, 1);
        }
    }
    let mut large = entries(81..=600, 1);
    for entry in &mut large.entries {
        entry.data = vec![entry.index as u8; 3000].into();
    }
    log.append(&large).unwrap();
    check("a large batch", (1, 600), None, 1);
    log.append(&Batch {
        hard_state: Some(state(2)),
        ..Batch::default()
    })
    .unwrap();
    check("a vote", (1, 600), None, 2);
    save(&mut log, snapshot(550, 300_000));
    check("a snapshot", (1, 600), Some(snapshot(550, 300_000)), 2);
    log.append(&entries(591..=595, 2)).unwrap();
    check(
        "replaced entries",
        (1, 595),
        Some(snapshot(550, 300_000)),
        2,
    );
    let mut restored = entries(1001..=1001, 2);
    restored.snapshot = Some(snapshot(1000, 200_000));
    restored.hard_state = Some(state(3));
    log.append(&restored).unwrap();
    let newest = Some(snapshot(1000, 200_000));
    check("a snapshot of the leader", (1001, 1001), newest, 3);
    // Space is used again and again.
    for round in 1..=30 {
        let first = 1002 + 100 * (round - 1);
        for index in first..first + 100 {
            log.append(&entries(index..=index, 3)).unwrap();
        }
        save(&mut log, snapshot(first + 99, 1000));
        while !log.compact(first + 79).unwrap() {}
        log.append(&Batch {
            hard_state: Some(state(3 + round)),
            ..Batch::default()
        })
        .unwrap();
    }
    let newest = Some(snapshot(4001, 1000));
    check("compaction", (3982, 4001), newest, 33);
}

#[test]
fn saved_credentials_survive_a_power_cut() {
    if !may_mount("saved_credentials_survive_a_power_cut") {
        return;
    }
    let image = Image::new();
    for _ in 0..2 {
        let credentials = credentials();
        let dir = |image: &Image| image.root().join("certificates");
        fs::create_dir_all(dir(&image)).unwrap();
        credentials.save(&dir(&image)).unwrap();
        let cut = image.cut();
        let (found, _) = Credentials::load(&dir(&cut), None).unwrap().unwrap();
        assert_eq!(found.cert_pem(), credentials.cert_pem());
    }
}
