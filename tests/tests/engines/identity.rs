//! Engines get new certificates, of new roots too, and nothing of their work stops.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair};
use skep_proto::v1::{Cluster, Node, issuance_status, node_status::State};
use skep_security::{Credentials, Identity, Role, RootCa};
use skep_store::Store;
use skep_tests::{cluster::eventually, engines::Engine};

use crate::fixture::Fixture;

const HOUR: Duration = Duration::from_secs(3600);

async fn leaders_store(fixture: &Fixture) -> Store {
    let leader = fixture.cluster.leader().await;
    let manager = fixture.cluster.node(&leader).manager();
    manager.unwrap().store().clone()
}

/// Does to one node what a rotation of the root does to all.
async fn ask_to_renew(fixture: &Fixture, id: &str) {
    let store = leaders_store(fixture).await;
    let asked = store.update::<_, skep_store::Error>(|tx| {
        let mut node = Node::clone(tx.get::<Node>(id).ok_or(skep_store::Error::NotFound)?);
        let status = node.certificate_mut().status_mut();
        status.set_state(issuance_status::State::Rotate);
        tx.update(node).map(drop)
    });
    asked.await.unwrap();
}

/// The issuers that the nodes report, by the names of their hosts.
async fn issuers(fixture: &Fixture) -> Option<BTreeSet<(String, Vec<u8>)>> {
    let nodes = fixture.cluster.node_objects().await.ok()?;
    let issuer = |node: &Node| {
        let description = node.description.as_ref()?;
        let info = description.tls_info.as_ref()?;
        Some((
            description.hostname.clone(),
            info.cert_issuer_public_key.to_vec(),
        ))
    };
    nodes.iter().map(issuer).collect()
}

/// The private key of an engine, without the headers of the file.
fn key(engine: &Engine) -> String {
    let file = engine.identity_file("swarm-node.key");
    let lines = file.lines();
    let lines: Vec<_> = lines
        .filter(|it| !it.contains(": ") && !it.is_empty())
        .collect();
    lines.join("\n")
}

async fn renewed(engine: &Engine, before: &str) -> String {
    eventually("another certificate", async || {
        let now = engine.identity_file("swarm-node.crt");
        (!now.is_empty() && now != before).then_some(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_renews_its_certificate_when_it_is_told_and_before_it_expires() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    let each = fixture.engines.len();
    let still = fixture.sleepers("still", each as u64, |_| ()).await;
    fixture.runs(&still, each).await;
    let containers = fixture.containers(&still);
    // The shortest that there is.
    fixture
        .cluster
        .configure(|spec| spec.ca_config_mut().node_cert_expiry = HOUR.try_into().ok())
        .await;
    let certificates = |fixture: &Fixture| -> Vec<_> {
        let certificate = |engine: &Engine| engine.identity_file("swarm-node.crt");
        fixture.engines.iter().map(certificate).collect()
    };
    let before = certificates(&fixture);
    let id = fixture.engines[0].node_id();
    ask_to_renew(&fixture, &id).await;
    let new = renewed(&fixture.engines[0], &before[0]).await;
    let stored = eventually("a certificate that is issued", async || {
        let certificate = fixture
            .node(&fixture.engines[0])
            .await
            .certificate()
            .clone();
        (certificate.status().state() == issuance_status::State::Issued).then_some(certificate)
    })
    .await;
    assert_eq!(stored.certificate, new);
    assert_eq!(
        certificates(&fixture)[1..],
        before[1..],
        "nobody else was told"
    );
    fixture
        .cluster
        .node_is(fixture.engines[0].name(), State::Ready)
        .await;
    assert_eq!(fixture.containers(&still), containers);

    // As if most of its time had passed: an engine renews before four fifths of it have.
    let snapshot = leaders_store(&fixture).await.snapshot();
    let object = snapshot.all::<Cluster>().next().unwrap();
    let root = RootCa::from_pem(&object.root_ca().ca_cert, Some(&object.root_ca().ca_key)).unwrap();
    for engine in &mut fixture.engines {
        let who = Identity {
            node_id: engine.node_id(),
            role: Role::Worker,
            cluster_id: object.id.clone(),
        };
        let pair = KeyPair::from_pem(&key(engine)).unwrap();
        let request = CertificateParams::default()
            .serialize_request(&pair)
            .unwrap();
        let request = request.pem().unwrap();
        let then = SystemTime::now() - HOUR * 3 / 4;
        let old = root.issue(request.as_bytes(), &who, HOUR, then).unwrap();
        let old = String::from_utf8(old.to_vec()).unwrap();
        engine.restart_with(|engine| engine.set_identity_file("swarm-node.crt", &old));
        renewed(engine, &old).await;
        let credentials = eventually("a certificate for its key", async || {
            let certificate = engine.identity_file("swarm-node.crt");
            let (certificate, key) = (certificate.as_bytes(), key(engine));
            Credentials::from_pem(root.cert_pem(), certificate, key.as_bytes()).ok()
        })
        .await;
        assert_eq!(credentials.identity(), &who, "the node is what it was");
        let left = credentials
            .expires_at()
            .duration_since(SystemTime::now())
            .unwrap();
        // The end is rounded to a minute.
        let most = HOUR + Duration::from_secs(30);
        assert!(left > HOUR / 2 && left <= most, "{left:?}");
    }
    for engine in &fixture.engines {
        fixture.cluster.node_is(engine.name(), State::Ready).await;
    }
    fixture.runs(&still, each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_survives_its_leader_and_waits_for_an_engine_that_is_away() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    // Nobody is given up while this lasts.
    fixture.cluster.set_heartbeat(Duration::from_secs(30)).await;
    let each = fixture.engines.len();
    let still = fixture.sleepers("still", 2 * each as u64, |_| ()).await;
    fixture.runs(&still, 2 * each).await;
    let containers = fixture.containers(&still);
    let before = fixture
        .cluster
        .object()
        .await
        .root_ca()
        .ca_cert_hash
        .clone();
    let old = issuers(&fixture).await.unwrap();

    let away = &fixture.engines[0];
    away.cut();
    fixture
        .cluster
        .configure(|spec| spec.ca_config_mut().force_rotate = 1)
        .await;
    eventually("all others to have moved", async || {
        let now = issuers(&fixture).await?;
        let moved = now.difference(&old).count();
        (moved == now.len() - 1).then_some(())
    })
    .await;
    let object = fixture.cluster.object().await;
    assert!(object.root_ca().root_rotation.is_some(), "one is missing");
    assert_eq!(object.root_ca().ca_cert_hash, before);

    let leader = fixture.cluster.leader().await;
    fixture.cluster.kill(&leader).await;
    // The next one goes on, with the one that comes back.
    fixture.cluster.leader().await;
    fixture.engines[0].heal();
    let after = eventually("the new root", async || {
        let cluster = fixture.cluster.object().await;
        let root = cluster.root_ca();
        root.root_rotation
            .is_none()
            .then(|| root.ca_cert_hash.clone())
    })
    .await;
    assert_ne!(after, before);
    assert!(issuers(&fixture).await.unwrap().is_disjoint(&old));
    fixture.cluster.restart(&leader).await;
    fixture.cluster.voters_are(3).await;
    for engine in &fixture.engines {
        fixture.cluster.node_is(engine.name(), State::Ready).await;
    }
    assert_eq!(fixture.containers(&still), containers);
    let more = fixture.sleepers("more", each as u64, |_| ()).await;
    fixture.runs(&more, each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_rotated_under_running_engines() {
    let Some(fixture) = Fixture::start().await else {
        return;
    };
    let each = fixture.engines.len();
    let still = fixture.sleepers("still", 2 * each as u64, |_| ()).await;
    fixture.runs(&still, 2 * each).await;
    let containers = fixture.containers(&still);
    let before = fixture.cluster.object().await;
    let old = issuers(&fixture).await.unwrap();

    fixture
        .cluster
        .configure(|spec| spec.ca_config_mut().force_rotate = 1)
        .await;
    let done = |cluster: &Cluster| {
        let root = cluster.root_ca();
        root.root_rotation.is_none() && root.ca_cert_hash != before.root_ca().ca_cert_hash
    };
    let after = eventually("a new root", async || {
        let cluster = fixture.cluster.object().await;
        done(&cluster).then_some(cluster)
    })
    .await;
    let new = issuers(&fixture).await.unwrap();
    assert_eq!(new.len(), 3 + each);
    assert!(new.is_disjoint(&old));
    let keys: BTreeSet<_> = new.iter().map(|(_, key)| key).collect();
    assert_eq!(keys.len(), 1);
    let (old_tokens, tokens) = (
        before.root_ca().join_tokens(),
        after.root_ca().join_tokens(),
    );
    assert_ne!(old_tokens.worker, tokens.worker);

    for engine in &fixture.engines {
        fixture.cluster.node_is(engine.name(), State::Ready).await;
    }
    assert_eq!(fixture.containers(&still), containers);
    // The engines take orders from whoever leads under the new root.
    let more = fixture.sleepers("more", each as u64, |_| ()).await;
    fixture.runs(&more, each).await;

    // Who comes now needs the new token.
    let newcomer = fixture.lab.engine(&skep_tests::engines::flavours()[0]);
    let addr = fixture.cluster.addr("manager-1");
    let refused = newcomer
        .try_docker(&["swarm", "join", "--token", &old_tokens.worker, &addr])
        .unwrap_err();
    assert!(refused.contains("fingerprint"), "{refused}");
    newcomer.join(&tokens.worker, &addr);
    fixture.cluster.node_is(newcomer.name(), State::Ready).await;
}
