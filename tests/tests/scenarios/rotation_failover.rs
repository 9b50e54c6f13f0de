//! The root CA is replaced while leaders die, and single nodes get new certificates while they are away.

use skep_proto::v1::{Node, RootCa as WireRootCa, issuance_status::State};
use skep_tests::cluster::{Cluster, eventually};

const NODES: [&str; 5] = [
    "manager-1",
    "manager-2",
    "manager-3",
    "worker-1",
    "worker-2",
];

async fn root(cluster: &Cluster) -> WireRootCa {
    cluster.object().await.root_ca().clone()
}

/// Kills whoever leads, waits for another leader, and starts the dead one again.
async fn lose_the_leader(cluster: &mut Cluster) {
    let leader = cluster.leader().await;
    cluster.kill(&leader).await;
    assert_ne!(cluster.leader().await, leader);
    // What was committed is there, also before the dead one is back.
    cluster.object().await;
    cluster.restart(&leader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r39_a_root_rotation_outlives_two_leaders_and_loses_no_node() {
    let mut cluster = Cluster::start(3, 2).await;
    let ids = NODES.map(|name| cluster.id(name));
    let before = root(&cluster).await;
    // While one is away the rotation cannot end.
    cluster.isolate("worker-2");
    cluster
        .configure(|spec| spec.ca_config_mut().force_rotate = 1)
        .await;
    let rotation = root(&cluster).await.root_rotation.unwrap();
    for _ in 0..2 {
        lose_the_leader(&mut cluster).await;
        let now = root(&cluster).await;
        assert_eq!(now.ca_cert, before.ca_cert, "the old root counts");
        let going_on = now.root_rotation.unwrap();
        assert_eq!(
            going_on.ca_cert, rotation.ca_cert,
            "and it is not begun anew"
        );
    }
    // All the others move meanwhile, those that were killed too.
    let others: Vec<_> = NODES
        .into_iter()
        .filter(|name| *name != "worker-2")
        .collect();
    let moved = async |name: &str| {
        let issuer = cluster.node(name).tls().current().tls_info();
        let old = cluster.node("worker-2").tls().current().tls_info();
        issuer.cert_issuer_public_key != old.cert_issuer_public_key
    };
    for name in &others {
        eventually(&format!("{name} to move"), async || {
            moved(name).await.then_some(())
        })
        .await;
    }
    assert!(root(&cluster).await.root_rotation.is_some());

    cluster.heal();
    let after = eventually("the new root", async || {
        let root = root(&cluster).await;
        root.root_rotation.is_none().then_some(root)
    })
    .await;
    assert_eq!(after.ca_cert, rotation.ca_cert);
    for (name, id) in NODES.iter().zip(&ids) {
        eventually(&format!("{name} to trust the new root alone"), async || {
            let current = cluster.node(name).tls().current();
            (current.root_pem() == &after.ca_cert).then_some(())
        })
        .await;
        assert_eq!(cluster.id(name), *id);
    }
    cluster.all_ready().await;
    assert_eq!(cluster.node_objects().await.unwrap().len(), NODES.len());
    // They find each other again with what they have now, and others come in.
    lose_the_leader(&mut cluster).await;
    cluster.add("worker-3", false).await;
    cluster.all_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r39_a_node_that_is_told_to_renew_while_it_is_away_does_so_under_another_leader() {
    let mut cluster = Cluster::start(3, 2).await;
    let terms = NODES.map(|name| cluster.node(name).tls().current());
    cluster.isolate("worker-1");
    let id = cluster.id("worker-1");
    let leader = cluster.leader().await;
    let store = cluster.node(&leader).manager().unwrap().store().clone();
    store
        .update::<_, skep_store::Error>(|tx| {
            let mut node = Node::clone(tx.get::<Node>(&id).ok_or(skep_store::Error::NotFound)?);
            let status = node.certificate_mut().status_mut();
            status.set_state(State::Rotate);
            tx.update(node).map(drop)
        })
        .await
        .unwrap();
    drop(store);
    lose_the_leader(&mut cluster).await;
    cluster.heal();
    eventually("another certificate in use", async || {
        let now = cluster.node("worker-1").tls().current();
        (now.cert_pem() != terms[3].cert_pem()).then_some(())
    })
    .await;
    eventually("the store to know", async || {
        let node = cluster.node_object("worker-1").await;
        let now = cluster.node("worker-1").tls().current();
        let known = node.certificate().certificate == now.cert_pem();
        (known && node.certificate().status().state() == State::Issued).then_some(())
    })
    .await;
    // Nobody else was told, and the root is what it was.
    for (name, before) in NODES.iter().zip(&terms) {
        let now = cluster.node(name).tls().current();
        assert_eq!(now.root_pem(), before.root_pem());
        if *name != "worker-1" {
            assert_eq!(now.cert_pem(), before.cert_pem(), "{name}");
        }
    }
    cluster.all_ready().await;
}
