//! The keys that lock managers: which one the cluster object says, and how each manager follows it.

use std::time::Duration;

use skep_proto::v1::{Cluster, EncryptionKey, encryption_key::Algorithm};
use skep_raft::Rotation;
use skep_security::{Kek, KekChange, NodeKey, UnlockKey};
use skep_store::{Event, Kind, Route, Store};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Marks the unlock key among the keys of a cluster; SwarmKit's name.
const SUBSYSTEM: &str = "swarm-manager";

/// Pause before a key file that could not be written is tried again: an administrator may have to
/// make room first.
const RETRY: Duration = Duration::from_secs(5);

/// What managers of this cluster are to be locked with.
pub(crate) fn kek(cluster: &Cluster) -> Kek {
    let locks = cluster.spec().encryption_config().auto_lock_managers;
    let key = locks.then(|| unlock_key(cluster)).flatten();
    Kek {
        key: key.and_then(|key| UnlockKey::from_bytes(&key.key)),
        version: cluster.meta().version().index,
    }
}

fn unlock_key(cluster: &Cluster) -> Option<&EncryptionKey> {
    let mut keys = cluster.unlock_keys.iter();
    keys.find(|key| key.subsystem == SUBSYSTEM)
}

/// Makes the unlock key of a cluster be what its spec says: none without the lock, otherwise the one
/// that is there, or a new one if there is none or `rotate` asks for it.
pub(crate) fn settle_unlock_key(cluster: &mut Cluster, rotate: bool) {
    let locks = cluster.spec().encryption_config().auto_lock_managers;
    let stays = locks && !rotate && unlock_key(cluster).is_some();
    if stays {
        return;
    }
    cluster.unlock_keys.retain(|key| key.subsystem != SUBSYSTEM);
    if locks {
        cluster.unlock_keys.push(EncryptionKey {
            subsystem: SUBSYSTEM.to_owned(),
            algorithm: Algorithm::Aes128Gcm.into(),
            key: UnlockKey::generate().as_bytes().to_vec().into(),
            lamport_time: 0,
        });
    }
}

/// Keeps this manager's key file locked as the cluster object says. Runs on every manager.
pub(crate) struct KeyManager {
    pub(crate) store: Store,
    pub(crate) cluster_id: String,
    pub(crate) key: NodeKey,
    /// Of the log that the key file has the keys of.
    pub(crate) rotation: Option<Rotation>,
}

impl KeyManager {
    /// Runs until `cancel`.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let _ = cancel.run_until_cancelled(self.follow()).await;
    }

    async fn follow(self) {
        let (mut snapshot, mut subscription) = self.store.watch([Route::Kind(Kind::Cluster)]);
        loop {
            let cluster = snapshot.get::<Cluster>(&self.cluster_id);
            let settled = match cluster.map(|cluster| kek(cluster)) {
                Some(kek) => self.apply(kek).await,
                None => true,
            };
            let event = match settled {
                true => Some(subscription.next().await),
                false => tokio::time::timeout(RETRY, subscription.next()).await.ok(),
            };
            snapshot = match event {
                Some(Event::Lagged(snapshot)) => snapshot,
                Some(Event::Commits(_)) | None => self.store.snapshot(),
            };
        }
    }

    /// Whether the key file is as the cluster wants it.
    async fn apply(&self, kek: Kek) -> bool {
        let (key, rotation) = (self.key.clone(), self.rotation.clone());
        let applied = tokio::task::spawn_blocking(move || {
            let change = key.set_kek(kek).map_err(|err| err.to_string())?;
            if let Some(rotation) = &rotation {
                rotation.begin_if_due().map_err(|err| err.to_string())?;
            }
            Ok::<_, String>(change)
        });
        match applied.await {
            Ok(Ok(KekChange::None)) => true,
            Ok(Ok(KekChange::Locked)) => {
                info!("this manager is locked with an unlock key now");
                true
            }
            Ok(Ok(KekChange::Replaced)) => {
                info!("the unlock key of this manager has changed");
                true
            }
            Ok(Err(err)) => {
                error!(err, "the unlock key of this manager cannot be changed");
                false
            }
            Err(err) => {
                error!(%err, "changing the unlock key of this manager has panicked");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
