//! The rows of the table of what an update does to the root, against a store that commits at once.

use skep_proto::v1::{self, control_server::Control as _, *};
use skep_security::{RootCa, canonical_pem};
use tonic::Code;

use crate::control::testing::*;

/// A certificate with its key, made by hand.
fn root(lasts: time::Duration, change: fn(&mut rcgen::CertificateParams)) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "own-ca");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::minutes(5);
    params.not_after = params.not_before + lasts;
    change(&mut params);
    let cert = params.self_signed(&key).unwrap();
    (cert.pem(), key.serialize_pem())
}

fn lasting() -> (String, String) {
    root(time::Duration::days(1000), |_| {})
}

struct World {
    swarm: Swarm,
    old: RootCa,
}

impl World {
    async fn new() -> Self {
        let (swarm, old) = (Swarm::new(), RootCa::generate().unwrap());
        let mut cluster = Cluster {
            id: "c1".into(),
            root_ca: Some(v1::RootCa {
                ca_key: old.key_pem().unwrap().clone(),
                ca_cert: old.cert_pem().clone(),
                ca_cert_hash: old.hash(),
                join_tokens: Some(JoinTokens {
                    worker: "w".into(),
                    manager: "m".into(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        cluster.spec_mut().annotations = named("default");
        swarm.put(cluster).await;
        Self { swarm, old }
    }

    fn stored(&self) -> Cluster {
        Cluster::clone(&self.swarm.stored::<Cluster>("c1").unwrap())
    }

    fn root(&self) -> v1::RootCa {
        self.stored().root_ca().clone()
    }

    async fn put_root(&self, change: impl FnOnce(&mut v1::RootCa)) {
        let mut cluster = self.stored();
        change(cluster.root_ca_mut());
        self.swarm
            .store
            .update(|tx| tx.update(cluster))
            .await
            .unwrap();
    }

    async fn update(
        &self,
        change: impl FnOnce(&mut CaConfig),
    ) -> Result<tonic::Response<UpdateClusterResponse>, tonic::Status> {
        let cluster = self.stored();
        let mut spec = cluster.spec().clone();
        change(spec.ca_config_mut());
        let request = UpdateClusterRequest {
            cluster_id: "c1".into(),
            cluster_version: cluster.meta().version,
            spec: Some(spec),
            rotation: None,
        };
        self.swarm.control.update_cluster(ask(request)).await
    }

    /// That an update is refused, and changes nothing.
    async fn refuses(&self, change: impl FnOnce(&mut CaConfig), text: &str) {
        let before = self.stored();
        let (code, message) = refusal(self.update(change).await);
        assert_eq!((code, message.as_str()), (Code::InvalidArgument, text));
        assert_eq!(self.stored(), before);
    }

    /// That `next` vouches for nodes now, also with those who know the old root alone.
    fn rotates_to(&self, next: &str) {
        let root = self.root();
        assert_eq!(
            root.ca_cert,
            self.old.cert_pem(),
            "the old one stays for now"
        );
        assert_eq!(root.join_tokens.as_ref().unwrap().worker, "w");
        let rotation = root.root_rotation.unwrap();
        assert_eq!(rotation.ca_cert, next);
        super::prove(
            &RootCa::from_pem(&rotation.ca_cert, Some(&rotation.ca_key)).unwrap(),
            &rotation.cross_signed_ca_cert,
            self.old.cert_pem(),
        )
        .unwrap();
    }
}

fn wish(cert: &str, key: &str) -> impl Fn(&mut CaConfig) {
    let (cert, key) = (cert.to_owned(), key.to_owned());
    move |config| {
        config.signing_ca_cert = cert.clone().into();
        config.signing_ca_key = key.clone().into();
    }
}

#[tokio::test]
async fn nothing_asked_for_changes_nothing() {
    let world = World::new().await;
    let before = world.root();
    reply(world.update(|_| {}).await);
    reply(world.update(|config| config.node_cert_expiry = None).await);
    assert_eq!(world.root(), before);
}

#[tokio::test]
async fn another_number_makes_a_new_root() {
    let world = World::new().await;
    let reply = reply(world.update(|config| config.force_rotate = 3).await);
    let root = world.root();
    assert_eq!(root.last_forced_rotation, 3);
    let next = root.root_rotation.clone().unwrap();
    assert_ne!(next.ca_cert, root.ca_cert);
    world.rotates_to(std::str::from_utf8(&next.ca_cert).unwrap());
    // What clients see of it.
    let shown = reply.cluster.unwrap().root_ca.unwrap();
    assert!(shown.ca_key.is_empty());
    let shown = shown.root_rotation.unwrap();
    assert!(shown.ca_key.is_empty() && shown.ca_cert == next.ca_cert);

    // The same number is no new wish, another one is.
    world.update(|_| {}).await.unwrap();
    assert_eq!(world.root(), root);
    world
        .update(|config| config.force_rotate = 4)
        .await
        .unwrap();
    assert_ne!(world.root().root_rotation.unwrap().ca_cert, next.ca_cert);
}

#[tokio::test]
async fn a_root_of_ones_own_is_rotated_to_and_away_from() {
    let world = World::new().await;
    let (cert, key) = lasting();
    // As somebody's editor left it.
    let odd = format!("\n{}\n", cert.replace('\n', "\r\n"));
    world.update(wish(&odd, &key)).await.unwrap();
    world.rotates_to(&String::from_utf8(canonical_pem(cert.as_bytes()).unwrap().into()).unwrap());
    let config = world.stored().spec().ca_config().clone();
    assert!(config.signing_ca_cert.is_empty() && config.signing_ca_key.is_empty());

    // The same once more: only the key is put, be it the same.
    let rotating = world.root();
    world.update(wish(&cert, &key)).await.unwrap();
    assert_eq!(world.root(), rotating);

    // A third one takes its place; still the original root vouches for it.
    let (third, third_key) = lasting();
    world.update(wish(&third, &third_key)).await.unwrap();
    world.rotates_to(&third);

    // Back to where it began.
    let old = world.old.clone();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (old_cert, old_key) = (text(old.cert_pem()), text(old.key_pem().unwrap()));
    world.update(wish(&old_cert, &old_key)).await.unwrap();
    let root = world.root();
    assert_eq!(root.root_rotation, None);
    assert_eq!(
        (&root.ca_cert, &root.ca_key),
        (old.cert_pem(), old.key_pem().unwrap())
    );
    assert_eq!(root.join_tokens.unwrap().worker, "w");
}

#[tokio::test]
async fn what_cannot_be_a_root_is_refused() {
    let world = World::new().await;
    let (cert, key) = lasting();
    let (other, other_key) = lasting();
    world
        .refuses(
            wish("", &key),
            "if a signing CA key is provided, the signing CA cert must also be provided",
        )
        .await;
    let twice = format!("{cert}{other}");
    world
        .refuses(
            wish(&twice, &key),
            "the desired CA certificate cannot contain multiple certificates",
        )
        .await;
    let (short, short_key) = root(time::Duration::days(364), |_| {});
    world
        .refuses(wish(&short, &short_key), "CA certificate expires too soon")
        .await;
    let desired = "there must be at least one valid, reachable external CA \
                            corresponding to the desired CA certificate";
    world.refuses(wish(&cert, ""), desired).await;
    for (cert, key) in [
        ("hello", &key),
        (&cert, &other_key),
        (&cert, &"hello".to_owned()),
        (&cert.replace('M', "N"), &key),
    ] {
        let before = world.stored();
        let (code, message) = refusal(world.update(wish(cert, key)).await);
        assert_eq!(code, Code::InvalidArgument, "{message}");
        assert!(message.starts_with("unusable "), "{message}");
        assert_eq!(world.stored(), before);
    }

    // One that signs, but not in a way that anybody believes.
    let (leaf, leaf_key) = root(time::Duration::days(1000), |params| {
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
    });
    let (code, message) = refusal(world.update(wish(&leaf, &leaf_key)).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        message.starts_with("the desired CA cannot sign: "),
        "{message}"
    );

    // The key of the present root under another name.
    let old_key = world.old.key_pem().unwrap().clone();
    let pair = rcgen::KeyPair::from_pem(std::str::from_utf8(&old_key).unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let renamed = params.self_signed(&pair).unwrap().pem();
    world
        .refuses(
            wish(&renamed, &pair.serialize_pem()),
            "Cannot update to a cert with an identical key",
        )
        .await;
}

#[tokio::test]
async fn a_root_without_a_key_needs_an_external_ca() {
    let missing = |which: &str| {
        format!(
            "there must be at least one valid, reachable external CA corresponding to the {which} \
             CA certificate"
        )
    };
    let world = World::new().await;
    let (cert, key) = lasting();
    world.update(wish(&cert, &key)).await.unwrap();
    world
        .put_root(|root| root.root_rotation.as_mut().unwrap().ca_key.clear())
        .await;
    world.refuses(|_| {}, &missing("next")).await;
    world.put_root(|root| root.ca_key.clear()).await;
    world.refuses(|_| {}, &missing("current")).await;
    world
        .refuses(|config| config.force_rotate = 9, &missing("current"))
        .await;
}

#[tokio::test]
async fn an_old_version_is_told_before_anybody_is_asked() {
    let world = World::new().await;
    let stale = world.stored();
    world.update(|_| {}).await.unwrap();
    let mut spec = stale.spec().clone();
    spec.ca_config_mut().force_rotate = 1;
    let request = UpdateClusterRequest {
        cluster_id: "c1".into(),
        cluster_version: stale.meta().version,
        spec: Some(spec),
        rotation: None,
    };
    let refused = refusal(world.swarm.control.update_cluster(ask(request)).await);
    assert_eq!(
        refused,
        (Code::Unknown, "update out of sequence".to_owned())
    );
}
