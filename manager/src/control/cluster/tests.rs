//! The calls about clusters, against a store that commits at once.

use skep_proto::v1::{self, control_server::Control as _, *};
use skep_security::{JoinToken, RootCa};
use tonic::Code;

use crate::control::testing::*;

const KEY: &[u8] = b"SECRET-KEY";

/// A cluster with something in every field that must not leave.
fn cluster() -> Cluster {
    let root = RootCa::generate().unwrap();
    let key = EncryptionKey {
        key: KEY.into(),
        ..Default::default()
    };
    let mut cluster = Cluster {
        id: "c1".into(),
        root_ca: Some(v1::RootCa {
            ca_key: KEY.into(),
            ca_cert: root.cert_pem().clone(),
            ca_cert_hash: root.hash(),
            join_tokens: Some(JoinTokens {
                worker: JoinToken::generate(&root).to_string(),
                manager: JoinToken::generate(&root).to_string(),
            }),
            root_rotation: Some(RootRotation {
                ca_cert: "next".into(),
                ca_key: KEY.into(),
                cross_signed_ca_cert: "crossed".into(),
            }),
            last_forced_rotation: 0,
        }),
        network_bootstrap_keys: vec![key.clone()],
        encryption_key_lamport_clock: 5,
        unlock_keys: vec![key],
        fips: false,
        blacklisted_certificates: [("n1".to_owned(), BlacklistedCertificate::default())].into(),
        ..Default::default()
    };
    cluster.spec_mut().annotations = labelled("default", "a", "b");
    cluster.spec_mut().ca_config_mut().signing_ca_cert = "signing".into();
    cluster.spec_mut().ca_config_mut().signing_ca_key = KEY.into();
    cluster
}

fn update(cluster: &Cluster, change: impl FnOnce(&mut ClusterSpec)) -> UpdateClusterRequest {
    let mut spec = cluster.spec().clone();
    change(&mut spec);
    UpdateClusterRequest {
        cluster_id: cluster.id.clone(),
        cluster_version: cluster.meta().version,
        spec: Some(spec),
        rotation: None,
    }
}

fn get(id: &str) -> tonic::Request<GetClusterRequest> {
    ask(GetClusterRequest {
        cluster_id: id.into(),
    })
}

async fn read(swarm: &Swarm) -> Cluster {
    reply(swarm.control.get_cluster(get("c1")).await)
        .cluster
        .unwrap()
}

fn hides_secrets(reply: &impl prost::Message) -> bool {
    let bytes = reply.encode_to_vec();
    !bytes.windows(KEY.len()).any(|window| window == KEY)
}

#[tokio::test]
async fn no_key_ever_leaves() {
    let swarm = Swarm::new();
    let stored = swarm.put(cluster()).await;
    assert!(!hides_secrets(&*stored), "the check itself works");
    let cluster = read(&swarm).await;
    assert!(hides_secrets(&cluster));
    assert!(cluster.network_bootstrap_keys.is_empty());
    assert!(cluster.unlock_keys.is_empty());
    assert_eq!(cluster.encryption_key_lamport_clock, 0);
    assert!(cluster.spec().ca_config().signing_ca_cert.is_empty());

    assert_eq!(cluster.meta, stored.meta);
    assert_eq!(cluster.spec().annotations, stored.spec().annotations);
    assert_eq!(cluster.root_ca().ca_cert, stored.root_ca().ca_cert);
    assert_eq!(
        cluster.root_ca().ca_cert_hash,
        stored.root_ca().ca_cert_hash
    );
    assert_eq!(cluster.root_ca().join_tokens, stored.root_ca().join_tokens);
    let rotation = cluster.root_ca().root_rotation.clone().unwrap();
    assert_eq!(rotation.cross_signed_ca_cert, "crossed");
    assert_eq!(
        cluster.blacklisted_certificates,
        stored.blacklisted_certificates
    );

    let listed = reply(
        swarm
            .control
            .list_clusters(ask(ListClustersRequest::default()))
            .await,
    );
    assert_eq!(listed.clusters, std::slice::from_ref(&cluster));
    let request = update(&cluster, |_| {});
    let updated = reply(swarm.control.update_cluster(ask(request)).await);
    assert!(hides_secrets(&updated));
    let stored = swarm.stored::<Cluster>("c1").unwrap();
    assert_eq!(
        stored.root_ca().ca_key,
        KEY,
        "an echoed spec leaves the CA alone"
    );
    assert_eq!(stored.unlock_keys.len(), 1);
}

#[tokio::test]
async fn display_defaults_are_filled_in() {
    let swarm = Swarm::new();
    let stored = swarm.put(cluster()).await;
    let shown = read(&swarm).await;
    assert_eq!(shown.default_address_pool, ["10.0.0.0/8"]);
    assert_eq!((shown.subnet_size, shown.vxlanudp_port), (24, 4789));

    let mut own = Cluster::clone(&stored);
    own.default_address_pool = vec!["10.9.0.0/16".into()];
    own.subnet_size = 26;
    own.vxlanudp_port = 4790;
    swarm.store.update(|tx| tx.update(own)).await.unwrap();
    let shown = read(&swarm).await;
    assert_eq!(shown.default_address_pool, ["10.9.0.0/16"]);
    assert_eq!((shown.subnet_size, shown.vxlanudp_port), (26, 4790));
}

#[tokio::test]
async fn an_update_replaces_the_spec_and_renews_tokens() {
    let swarm = Swarm::new();
    let stored = swarm.put(cluster()).await;
    let before = read(&swarm).await;
    let request = update(&before, |spec| {
        spec.orchestration_mut().task_history_retention_limit = 9
    });
    let updated = reply(swarm.control.update_cluster(ask(request.clone())).await)
        .cluster
        .unwrap();
    assert_eq!(
        updated.spec().orchestration().task_history_retention_limit,
        9
    );
    assert_eq!(updated.root_ca(), before.root_ca());
    assert!(updated.meta().version().index > stored.meta().version().index);
    assert_eq!(
        refusal(swarm.control.update_cluster(ask(request)).await),
        (Code::Unknown, "update out of sequence".to_owned())
    );

    let rotate = |worker_join_token, manager_join_token, cluster: &Cluster| {
        ask(UpdateClusterRequest {
            rotation: Some(KeyRotation {
                worker_join_token,
                manager_join_token,
                manager_unlock_key: false,
            }),
            ..update(cluster, |_| {})
        })
    };
    let tokens = |cluster: &Cluster| cluster.root_ca().join_tokens().clone();
    let old = tokens(&updated);
    let request = rotate(true, false, &updated);
    let updated = reply(swarm.control.update_cluster(request).await)
        .cluster
        .unwrap();
    let new = tokens(&updated);
    assert_ne!(new.worker, old.worker);
    assert_eq!(new.manager, old.manager);
    let request = rotate(false, true, &updated);
    let updated = reply(swarm.control.update_cluster(request).await)
        .cluster
        .unwrap();
    assert_eq!(tokens(&updated).worker, new.worker);
    assert_ne!(tokens(&updated).manager, new.manager);
    // Old and new tokens name the same root.
    let digest = |token: &str| token.split('-').nth(2).unwrap().to_owned();
    assert_eq!(digest(&tokens(&updated).manager), digest(&old.manager));
}

#[tokio::test]
async fn the_lock_makes_a_key_and_rotation_another() {
    let swarm = Swarm::new();
    swarm.put(cluster()).await;
    let managers_key = || {
        let stored = swarm.stored::<Cluster>("c1").unwrap();
        assert_eq!(stored.unlock_keys[0].key, KEY, "keys of others stay");
        stored.unlock_keys.get(1).map(|key| key.key.clone())
    };
    let ask_for = async |autolock, manager_unlock_key| {
        let cluster = read(&swarm).await;
        let request = UpdateClusterRequest {
            rotation: Some(KeyRotation {
                manager_unlock_key,
                ..Default::default()
            }),
            ..update(&cluster, |spec| {
                spec.encryption_config_mut().auto_lock_managers = autolock;
            })
        };
        let updated = reply(swarm.control.update_cluster(ask(request)).await);
        let cluster = updated.cluster.unwrap();
        assert!(cluster.unlock_keys.is_empty(), "it does not leave this way");
        managers_key()
    };
    assert_eq!(ask_for(false, true).await, None);
    let first = ask_for(true, false).await.unwrap();
    assert_eq!(first.len(), 32);
    assert_eq!(ask_for(true, false).await, Some(first.clone()));
    let second = ask_for(true, true).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(ask_for(false, false).await, None);
    assert_ne!(ask_for(true, false).await, Some(second));
}

#[tokio::test]
async fn bad_requests_are_named() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    swarm.put(cluster()).await;
    let cluster = read(&swarm).await;
    let missing = (Code::InvalidArgument, "invalid argument".to_owned());
    let not_found = (Code::NotFound, "cluster x not found".to_owned());
    assert_eq!(refusal(control.get_cluster(get("")).await), missing);
    assert_eq!(refusal(control.get_cluster(get("x")).await), not_found);
    for request in [
        UpdateClusterRequest {
            cluster_id: String::new(),
            ..update(&cluster, |_| {})
        },
        UpdateClusterRequest {
            cluster_version: None,
            ..update(&cluster, |_| {})
        },
        UpdateClusterRequest {
            spec: None,
            ..update(&cluster, |_| {})
        },
    ] {
        assert_eq!(refusal(control.update_cluster(ask(request)).await), missing);
    }
    let unknown = UpdateClusterRequest {
        cluster_id: "x".into(),
        ..update(&cluster, |_| {})
    };
    assert_eq!(
        refusal(control.update_cluster(ask(unknown)).await),
        not_found
    );
    let renamed = update(&cluster, |spec| {
        spec.annotations_mut().name = "other".into()
    });
    assert_eq!(
        refusal(control.update_cluster(ask(renamed)).await),
        (
            Code::InvalidArgument,
            "modification of cluster name is not allowed".to_owned()
        )
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let swarm = Swarm::new();
    swarm.put(cluster()).await;
    let list = async |change: fn(&mut list_clusters_request::Filters)| {
        let mut filters = list_clusters_request::Filters::default();
        change(&mut filters);
        let request = ListClustersRequest {
            filters: Some(filters),
        };
        reply(swarm.control.list_clusters(ask(request)).await)
            .clusters
            .len()
    };
    assert_eq!(list(|_| {}).await, 1);
    assert_eq!(list(|f| f.names = vec!["default".into()]).await, 1);
    assert_eq!(list(|f| f.names = vec!["Default".into()]).await, 0);
    assert_eq!(list(|f| f.id_prefixes = vec!["c".into()]).await, 1);
    let labels: fn(&mut list_clusters_request::Filters) =
        |f| f.labels = [("a".to_owned(), "c".to_owned())].into();
    assert_eq!(list(labels).await, 0);
}
