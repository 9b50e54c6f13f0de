//! Managers whose disk is full or read-only.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use skep_raft::{Error, LogKind, open_log, testing::may_mount};
use tokio::time::timeout;

use crate::support::Cluster;

/// A small file system in memory.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, options: &str) -> Self {
        mount(&path, options);
        Self(path)
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}

fn mount(path: &Path, options: &str) {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(path);
    assert!(mount.status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r01_a_manager_with_a_full_disk_stops_and_catches_up_once_there_is_space() {
    if !may_mount("r01_a_manager_with_a_full_disk_stops_and_catches_up_once_there_is_space") {
        return;
    }
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    cluster.everyone_has("before").await;
    let victim = cluster.leader().await;
    cluster.kill(victim);
    let dir = cluster.managers[victim].log_dir();
    // Closed by the time that it can be opened.
    cluster.open_log(victim).await;
    let aside = dir.with_extension("aside");
    fs::rename(&dir, &aside).unwrap();
    fs::create_dir(&dir).unwrap();
    let disk = Small::mount(dir.clone(), "size=16m");
    let mut copy = Command::new("cp");
    copy.arg("-aT").arg(&aside).arg(&dir);
    assert!(copy.status().unwrap().success());
    cluster.restart(victim).await;
    cluster.everyone_has("before").await;

    disk.fill();
    let raft = cluster.managers[victim].raft();
    // More than there is room for in the files that it has already.
    for i in 0..30 {
        cluster.write_large(&format!("large{i}"), 100_000).await;
    }
    let end = timeout(Duration::from_secs(20), raft.stopped()).await;
    let reason = end.unwrap().unwrap_err().to_string();
    assert!(reason.contains("No space left on device"), "{reason}");
    drop(raft);
    cluster.kill(victim);
    cluster.write("meanwhile").await;

    // Not even its log can be opened, or it still stops; nothing is lost by trying.
    disk.free();
    cluster.restart(victim).await;
    cluster.everyone_has("meanwhile").await;
    cluster.everyone_has("large29").await;
    cluster.write("after").await;
    cluster.everyone_has("after").await;
    cluster.kill(victim);
    cluster.open_log(victim).await;
}

#[test]
fn a_log_on_a_read_only_disk_is_refused_with_the_reason() {
    if !may_mount("a_log_on_a_read_only_disk_is_refused_with_the_reason") {
        return;
    }
    for kind in LogKind::ALL {
        let dir = tempfile::tempdir().unwrap();
        let disk = Small::mount(dir.path().to_owned(), "size=16m");
        let log = dir.path().join("raft");
        loop {
            mount_again(&disk.0, "rw");
            drop(open_log(&log, kind).unwrap());
            // sled closes its file in the background.
            if mount_again(&disk.0, "ro") {
                break;
            }
            std::thread::yield_now();
        }
        let refused = open_log(&log, kind).err().unwrap();
        let said = refused.to_string();
        assert!(matches!(refused, Error::Log { .. }), "{kind:?}: {said}");
        assert!(said.contains("Read-only file system"), "{kind:?}: {said}");
        mount_again(&disk.0, "rw");
        open_log(&log, kind).unwrap();
    }
}

fn mount_again(path: &Path, mode: &str) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-o", &format!("remount,{mode}")]).arg(path);
    mount.output().unwrap().status.success()
}
