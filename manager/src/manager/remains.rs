//! What is left of a manager that was removed from its cluster.
//!
//! The log goes first and its keys after it: a log without keys could not be opened any more, while
//! keys without a log do no harm. A log that is half deleted would be a damaged one, so it is first
//! put out of the way.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use skep_security::NodeKey;
use tracing::{info, warn};

/// Where a log lies while it is deleted.
fn aside(raft_dir: &Path) -> PathBuf {
    raft_dir.with_extension("removed")
}

/// Deletes what a crash has left of a log that was being deleted.
pub(super) fn discard(raft_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(aside(raft_dir)) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

/// Deletes the log in `raft_dir`, which must be closed, and its keys.
pub(super) async fn remove(raft_dir: PathBuf, key: NodeKey) {
    let removed = tokio::task::spawn_blocking(move || {
        discard(&raft_dir)?;
        fs::rename(&raft_dir, aside(&raft_dir))?;
        discard(&raft_dir)?;
        key.remove_data_keys().map_err(io::Error::other)
    });
    match removed.await {
        Ok(Ok(())) => info!("this manager was removed from the cluster; its log is deleted"),
        Ok(Err(err)) => warn!(%err, "the log of this removed manager cannot be deleted"),
        Err(err) => warn!(%err, "deleting the log of this removed manager has panicked"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use skep_security::{Credentials, Identity, Kek, Role, RootCa};

    use super::*;

    #[tokio::test]
    async fn log_and_keys_go() {
        let dir = tempfile::tempdir().unwrap();
        let (raft, certificates) = (dir.path().join("raft"), dir.path().join("certificates"));
        fs::create_dir_all(raft.join("blobs")).unwrap();
        fs::create_dir_all(aside(&raft)).unwrap();
        fs::write(raft.join("db"), "log").unwrap();
        let who = Identity {
            node_id: "m1".into(),
            role: Role::Manager,
            cluster_id: "c1".into(),
        };
        let ca = RootCa::generate().unwrap();
        let own = Credentials::self_issue(&ca, &who, Duration::ZERO).unwrap();
        let key = NodeKey::new(&certificates, &own, Kek::default()).unwrap();
        key.save(&own).unwrap();
        key.data_keys().unwrap();
        remove(raft.clone(), key).await;
        assert!(!raft.exists() && !aside(&raft).exists());
        let file = fs::read_to_string(certificates.join("swarm-node.key")).unwrap();
        assert!(file.contains("PRIVATE KEY") && !file.contains("raft-dek"));
    }
}
