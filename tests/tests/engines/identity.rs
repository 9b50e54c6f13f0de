//! Engines get new certificates, of new roots too, and nothing of their work stops.

use skep_proto::v1::{Cluster, node_status::State};
use skep_tests::cluster::eventually;

use crate::fixture::Fixture;

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
    let issuers = async || {
        let nodes = fixture.cluster.node_objects().await.unwrap();
        let issuer = |node: &skep_proto::v1::Node| {
            let info = node.description.as_ref().unwrap().tls_info.clone();
            info.unwrap().cert_issuer_public_key
        };
        nodes.iter().map(issuer).collect::<Vec<_>>()
    };
    let old = issuers().await;

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
    let new = issuers().await;
    assert_eq!(new.len(), 3 + each);
    assert!(
        new.iter()
            .all(|issuer| *issuer == new[0] && !old.contains(issuer))
    );
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
