//! What a manager has on disk: encrypted, and locked if the cluster says so.

use std::{fs, path::Path};

use skep_manager::manager::Ended;
use skep_proto::v1::{
    Annotations, CreateSecretRequest, GetUnlockKeyRequest, KeyRotation, ListSecretsRequest,
    SecretSpec, UpdateClusterRequest, ca_client::CaClient,
};
use skep_security::{Credentials, Error, ServerName, UnlockKey};
use skep_tests::cluster::{Cluster, eventually};

const SECRET: &str = "correct horse battery staple";

/// Updates the cluster object until it works.
async fn update(cluster: &Cluster, autolock: bool, rotate: bool) {
    eventually("the cluster to be updated", async || {
        let object = cluster.object().await;
        let mut spec = object.spec().clone();
        spec.encryption_config_mut().auto_lock_managers = autolock;
        let rotation = KeyRotation {
            manager_unlock_key: rotate,
            ..Default::default()
        };
        let request = UpdateClusterRequest {
            cluster_id: object.id.clone(),
            cluster_version: object.meta().version,
            spec: Some(spec),
            rotation: Some(rotation),
        };
        let mut control = cluster.control().await;
        control.update_cluster(request).await.ok()
    })
    .await;
}

/// The cluster's unlock key, asked for as managers do.
async fn unlock_key(cluster: &Cluster) -> Option<UnlockKey> {
    let node = cluster.node("manager-1");
    let addr = node.advertise_addr().unwrap();
    let channel = node.tls().channel(addr, ServerName::Ca).unwrap();
    let answer = eventually("the unlock key", async || {
        let mut ca = CaClient::new(channel.clone());
        ca.get_unlock_key(GetUnlockKeyRequest {}).await.ok()
    })
    .await
    .into_inner();
    assert!(answer.version().index > 0);
    UnlockKey::from_bytes(&answer.unlock_key)
}

fn key_file(cluster: &Cluster, name: &str) -> String {
    let path = cluster.state_dir(name).join("certificates/swarm-node.key");
    fs::read_to_string(path).unwrap()
}

/// Waits until a manager's key file opens with `key` alone, and its log has settled on one key.
async fn settled(cluster: &Cluster, name: &str, key: Option<&UnlockKey>) {
    let certificates = cluster.state_dir(name).join("certificates");
    // A manager that runs replaces the file under our hands: look at copies.
    let copy = tempfile::tempdir().unwrap();
    eventually("the key file", async || {
        for file in ["swarm-root-ca.crt", "swarm-node.crt", "swarm-node.key"] {
            fs::copy(certificates.join(file), copy.path().join(file)).ok()?;
        }
        let (_, found) = Credentials::load(copy.path(), key).ok()??;
        let file = fs::read_to_string(copy.path().join("swarm-node.key")).unwrap();
        let one = !file.contains("pending") && !file.contains("needs-rotation");
        (found.kek().key.as_ref() == key && one).then_some(())
    })
    .await;
}

fn files_with(dir: &Path, text: &[u8], found: &mut Vec<String>) {
    for file in fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_dir() {
            files_with(&file.path(), text, found);
        } else if file.file_type().unwrap().is_file() {
            let bytes = fs::read(file.path()).unwrap();
            if bytes.windows(text.len()).any(|part| part == text) {
                found.push(file.path().display().to_string());
            }
        }
    }
}

async fn secrets(cluster: &Cluster) -> usize {
    eventually("the secrets", async || {
        let mut control = cluster.control().await;
        let request = ListSecretsRequest::default();
        control.list_secrets(request).await.ok()
    })
    .await
    .into_inner()
    .secrets
    .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_lies_in_clear_text_in_a_state_directory() {
    let mut cluster = Cluster::start(1, 0).await;
    let spec = SecretSpec {
        annotations: Some(Annotations {
            name: "password".to_owned(),
            ..Default::default()
        }),
        data: SECRET.into(),
        ..Default::default()
    };
    let request = CreateSecretRequest { spec: Some(spec) };
    let mut control = cluster.control().await;
    control.create_secret(request).await.unwrap();
    let id = cluster.id("manager-1");
    cluster.kill("manager-1").await;
    let dir = cluster.state_dir("manager-1");
    let mut found = Vec::new();
    files_with(&dir, SECRET.as_bytes(), &mut found);
    assert_eq!(found, Vec::<String>::new());
    files_with(&dir, id.as_bytes(), &mut found);
    assert!(!found.is_empty(), "the check sees what is there");
    cluster.restart("manager-1").await;
    assert_eq!(secrets(&cluster).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_manager_is_locked_restarts_with_the_key_and_follows_a_new_one() {
    let mut cluster = Cluster::start(3, 0).await;
    let names = cluster.managers();
    assert_eq!(unlock_key(&cluster).await, None);
    let before: Vec<_> = names.iter().map(|name| key_file(&cluster, name)).collect();
    // A change of the leader is no reason to change a key.
    let leader = cluster.leader().await;
    let raft = cluster.node(&leader).manager().unwrap().raft().clone();
    raft.transfer_leadership().await.unwrap();
    // A handle keeps the log open when its manager is killed.
    drop(raft);
    cluster.all_ready().await;
    cluster.leader().await;
    for (name, before) in names.iter().zip(&before) {
        assert_eq!(key_file(&cluster, name), *before);
    }

    update(&cluster, true, false).await;
    let first = unlock_key(&cluster).await.unwrap();
    for name in &names {
        settled(&cluster, name, Some(&first)).await;
    }
    cluster.create("web", 0, &["sleep", "1"]).await;
    for name in &names {
        cluster.kill(name).await;
        let certificates = cluster.state_dir(name).join("certificates");
        let locked = Credentials::load(&certificates, None);
        assert!(matches!(locked, Err(Error::Locked)));
    }
    for name in &names {
        cluster.restart_locked(name, &first).await;
    }
    cluster.leader().await;
    cluster.all_ready().await;

    // One that joins is locked before it has written anything.
    cluster.add("manager-4", true).await;
    let file = key_file(&cluster, "manager-4");
    assert!(file.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    settled(&cluster, "manager-4", Some(&first)).await;

    update(&cluster, true, true).await;
    let second = unlock_key(&cluster).await.unwrap();
    assert_ne!(second, first);
    for name in cluster.managers() {
        settled(&cluster, &name, Some(&second)).await;
    }
    let follower = cluster.follower().await;
    cluster.stop(&follower).await;
    let certificates = cluster.state_dir(&follower).join("certificates");
    let old = Credentials::load(&certificates, Some(&first));
    assert!(matches!(old, Err(Error::Locked)));
    cluster.restart_locked(&follower, &second).await;

    update(&cluster, false, false).await;
    assert_eq!(unlock_key(&cluster).await, None);
    for name in cluster.managers() {
        settled(&cluster, &name, None).await;
    }
    cluster.stop(&follower).await;
    cluster.restart(&follower).await;
    cluster.all_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_manager_deletes_its_log_and_the_keys_of_that() {
    let mut cluster = Cluster::start(3, 0).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let raft = cluster.node(&leader).manager().unwrap().raft().clone();
    let manager = cluster.node(&follower).manager().unwrap();
    let id = manager.status().borrow().raft_id;
    raft.remove(id).await.unwrap();
    assert!(matches!(manager.stopped().await, Ended::Removed));
    let dir = cluster.state_dir(&follower);
    assert!(dir.join("raft").exists());
    cluster.stop(&follower).await;
    assert!(!dir.join("raft").exists() && !dir.join("raft.removed").exists());
    let file = key_file(&cluster, &follower);
    assert!(file.contains("PRIVATE KEY") && !file.contains("raft-dek"));
}
