use std::sync::Arc;

use skep_raft::{LogStore as _, MemoryLog, SealedLog};
use skep_security::{Credentials, Identity, Role, RootCa};

use super::*;

/// A cluster object with an empty spec.
fn cluster() -> Cluster {
    Cluster {
        id: "c1".into(),
        ..Default::default()
    }
}

fn locked(cluster: &mut Cluster, locks: bool) {
    let config = cluster.spec.get_or_insert_default();
    config.encryption_config_mut().auto_lock_managers = locks;
}

#[test]
fn the_unlock_key_is_made_kept_replaced_and_dropped() {
    let mut cluster = cluster();
    let gossip = EncryptionKey {
        subsystem: "networking:gossip".into(),
        ..Default::default()
    };
    cluster.unlock_keys = vec![gossip.clone()];
    let kek_of = |cluster: &Cluster| kek(cluster).key;
    settle_unlock_key(&mut cluster, true);
    assert_eq!(cluster.unlock_keys, std::slice::from_ref(&gossip));
    assert_eq!(kek_of(&cluster), None);

    locked(&mut cluster, true);
    settle_unlock_key(&mut cluster, false);
    let first = kek_of(&cluster).unwrap();
    settle_unlock_key(&mut cluster, false);
    assert_eq!(kek_of(&cluster), Some(first.clone()));
    settle_unlock_key(&mut cluster, true);
    let second = kek_of(&cluster).unwrap();
    assert_ne!(second, first);
    assert_eq!(cluster.unlock_keys.len(), 2);
    let key = &cluster.unlock_keys[1];
    assert_eq!(
        (key.subsystem.as_str(), key.key.len()),
        ("swarm-manager", 32)
    );

    locked(&mut cluster, false);
    assert_eq!(kek_of(&cluster), None, "the spec counts");
    settle_unlock_key(&mut cluster, false);
    assert_eq!(cluster.unlock_keys, [gossip]);
}

#[test]
fn the_version_is_always_the_clusters() {
    let mut cluster = cluster();
    cluster.meta_mut().version_mut().index = 7;
    assert_eq!(
        kek(&cluster),
        Kek {
            key: None,
            version: 7
        }
    );
}

#[tokio::test]
async fn the_key_file_follows_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let who = Identity {
        node_id: "m1".into(),
        role: Role::Manager,
        cluster_id: "c1".into(),
    };
    let own = Credentials::self_issue(&RootCa::generate().unwrap(), &who, Duration::ZERO).unwrap();
    let key = NodeKey::new(dir.path(), &own, Kek::default()).unwrap();
    key.save(&own).unwrap();
    let log = SealedLog::open(MemoryLog::default(), Arc::new(key.clone())).unwrap();
    let old = key.data_keys().unwrap().current;
    let store = skep_store::testing::leading(|| crate::time::now().into());
    let manager = KeyManager {
        store: store.clone(),
        cluster_id: "c1".into(),
        key: key.clone(),
        rotation: log.rotation(),
    };
    let cancel = CancellationToken::new();
    let running = tokio::spawn(manager.run(cancel.clone()));
    let mut object = Cluster::clone(&*store.update(|tx| tx.create(cluster())).await.unwrap());
    let mut keys = Vec::new();
    for (locks, rotate) in [(true, false), (true, true), (false, false), (true, false)] {
        locked(&mut object, locks);
        settle_unlock_key(&mut object, rotate);
        let update = object.clone();
        object = Cluster::clone(&*store.update(|tx| tx.update(update)).await.unwrap());
        let wanted = kek(&object).key;
        assert!(!keys.contains(&wanted));
        let reached = async {
            while key.kek().key != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached);
        reached.await.expect("the key file follows");
        let found = Credentials::load(dir.path(), wanted.as_ref());
        assert!(found.unwrap().is_some());
        keys.push(wanted);
    }
    // The lock makes the log get another key, which waits for a snapshot here.
    let begun = async {
        while key.data_keys().unwrap().pending.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let begun = tokio::time::timeout(Duration::from_secs(20), begun);
    begun.await.expect("the log gets another key");
    assert_eq!(key.data_keys().unwrap().current, old);
    cancel.cancel();
    running.await.unwrap();
}
