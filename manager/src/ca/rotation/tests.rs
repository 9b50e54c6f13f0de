use std::collections::BTreeMap;

use bytes::Bytes;
use skep_proto::v1::{
    self, Certificate, NodeCertificateStatusRequest, NodeDescription, NodeTlsInfo,
    node_ca_server::NodeCa as _,
};
use skep_security::{CertificateRequest, Credentials, Identity, Role, Tls};
use skep_store::{Store, testing};

use super::*;
use crate::{
    ca::{Ca, Signer},
    reconcile::{Trigger, Write},
    time,
};

struct World {
    store: Store,
    old: RootCa,
    new: RootCa,
    rotation: Rotation,
    signer: Signer,
    now: Time,
}

impl World {
    /// A cluster in the middle of a rotation, with as many nodes that have not moved.
    async fn rotating(nodes: usize) -> Self {
        let store = testing::leading(|| time::now().into());
        let (old, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
        let mut cluster = Cluster {
            id: "c1".to_owned(),
            ..Default::default()
        };
        cluster.root_ca = Some(WireRootCa {
            ca_cert: old.cert_pem().clone(),
            ca_key: old.key_pem().unwrap().clone(),
            ca_cert_hash: old.hash(),
            join_tokens: Some(JoinTokens {
                worker: JoinToken::generate(&old).to_string(),
                manager: JoinToken::generate(&old).to_string(),
            }),
            root_rotation: Some(RootRotation {
                ca_cert: new.cert_pem().clone(),
                ca_key: new.key_pem().unwrap().clone(),
                cross_signed_ca_cert: old.cross_sign(&new).unwrap(),
            }),
            last_forced_rotation: 7,
        });
        store.update(|tx| tx.create(cluster)).await.unwrap();
        for number in 0..nodes {
            let node = node(&format!("n{number:03}"), State::Issued, &old);
            store.update(|tx| tx.create(node)).await.unwrap();
        }
        Self {
            store,
            old,
            new,
            rotation: Rotation::new("c1".to_owned()),
            signer: Signer::new("c1".to_owned()),
            now: time::now(),
        }
    }

    /// Lets the rotation look once, and carries out what it wants.
    async fn look(&mut self) -> Plan {
        let snapshot = self.store.snapshot();
        let plan = self.rotation.plan(&View {
            snapshot: &snapshot,
            trigger: &Trigger::Resync,
            now: self.now,
        });
        self.carry_out(&plan).await;
        plan
    }

    async fn sign(&mut self) {
        let snapshot = self.store.snapshot();
        let plan = self.signer.plan(&View {
            snapshot: &snapshot,
            trigger: &Trigger::Resync,
            now: self.now,
        });
        self.carry_out(&plan).await;
    }

    async fn carry_out(&self, plan: &Plan) {
        for write in &plan.writes {
            let Write::Update(object) = write.clone() else {
                panic!("{write:?}")
            };
            match object {
                skep_store::AnyObject::Node(node) => {
                    self.store
                        .update(|tx| tx.update(Node::clone(&node)))
                        .await
                        .unwrap();
                }
                skep_store::AnyObject::Cluster(cluster) => {
                    let cluster = Cluster::clone(&cluster);
                    self.store.update(|tx| tx.update(cluster)).await.unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn change(&self, id: &str, change: impl FnOnce(&mut Node)) {
        let mut node = self.node(id);
        change(&mut node);
        self.store.update(|tx| tx.update(node)).await.unwrap();
    }

    fn node(&self, id: &str) -> Node {
        Node::clone(self.store.snapshot().get::<Node>(id).unwrap())
    }

    fn cluster(&self) -> Cluster {
        Cluster::clone(self.store.snapshot().get::<Cluster>("c1").unwrap())
    }

    fn states(&self) -> BTreeMap<State, usize> {
        let mut states = BTreeMap::new();
        for node in self.store.snapshot().all::<Node>() {
            *states
                .entry(node.certificate().status().state())
                .or_default() += 1;
        }
        states
    }
}

fn node(id: &str, state: State, issuer: &RootCa) -> Node {
    let mut node = Node {
        id: id.to_owned(),
        certificate: Some(Certificate {
            certificate: "the last one".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    node.set_role(v1::NodeRole::Worker);
    node.certificate_mut().status_mut().set_state(state);
    node.description = Some(reports(issuer));
    node
}

fn reports(issuer: &RootCa) -> NodeDescription {
    let info = issuer.issuer_info().unwrap();
    NodeDescription {
        tls_info: Some(NodeTlsInfo {
            trust_root: Bytes::new(),
            cert_issuer_subject: info.subject,
            cert_issuer_public_key: info.public_key,
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn thirty_nodes_are_told_every_three_seconds() {
    let mut world = World::rotating(70).await;
    let mut left = 70;
    for told in [30, 30, 10, 0] {
        let plan = world.look().await;
        assert_eq!(plan.writes.len(), told);
        left -= told;
        assert_eq!(
            world.states().get(&State::Issued).copied().unwrap_or(0),
            left
        );
        assert_eq!(plan.wake_at, Some(world.now + INTERVAL));
        // Other things that happen in the cluster make nobody look earlier.
        let due = plan.wake_at.unwrap();
        world.now = world.now + INTERVAL / 2;
        let early = world.look().await;
        assert!(early.writes.is_empty());
        assert_eq!(early.wake_at, Some(due));
        world.now = due;
    }
    assert_eq!(world.states(), [(State::Rotate, 70)].into());
    assert_eq!(world.node("n000").certificate().certificate, "the last one");
}

#[tokio::test]
async fn only_nodes_that_are_behind_and_free_are_told() {
    let mut world = World::rotating(0).await;
    let states = [
        (State::Unknown, State::Rotate),
        (State::Issued, State::Rotate),
        (State::Failed, State::Rotate),
        (State::Renew, State::Renew),
        (State::Pending, State::Pending),
        (State::Rotate, State::Rotate),
    ];
    for (at, (state, _)) in states.iter().enumerate() {
        let behind = node(&format!("behind{at}"), *state, &world.old);
        let moved = node(&format!("moved{at}"), *state, &world.new);
        world
            .store
            .update(|tx| tx.create(behind).map(drop))
            .await
            .unwrap();
        world
            .store
            .update(|tx| tx.create(moved).map(drop))
            .await
            .unwrap();
    }
    assert_eq!(world.look().await.writes.len(), 3);
    for (at, (before, after)) in states.iter().enumerate() {
        let state = |id: String| world.node(&id).certificate().status().state();
        assert_eq!(state(format!("behind{at}")), *after);
        assert_eq!(state(format!("moved{at}")), *before);
    }
}

#[tokio::test]
async fn the_new_root_takes_over_when_the_last_node_has_moved() {
    let mut world = World::rotating(2).await;
    let before = world.cluster();
    world
        .change("n000", |node| node.description = Some(reports(&world.new)))
        .await;
    // Half of it is not enough, nor is no description at all.
    for half in [
        Some(NodeDescription::default()),
        None,
        Some({
            let mut half = reports(&world.new);
            let key = world.old.issuer_info().unwrap().public_key;
            half.tls_info.as_mut().unwrap().cert_issuer_public_key = key;
            half
        }),
    ] {
        world.change("n001", |node| node.description = half).await;
        world.look().await;
        assert_eq!(
            world.cluster(),
            before,
            "nothing changes for anybody before the end"
        );
        world.now = world.now + INTERVAL;
    }
    world
        .change("n001", |node| node.description = Some(reports(&world.new)))
        .await;
    world.look().await;
    let after = world.cluster();
    let (was, root) = (before.root_ca(), after.root_ca());
    assert_eq!(root.ca_cert, world.new.cert_pem());
    assert_eq!(&root.ca_key, world.new.key_pem().unwrap());
    assert_eq!(root.ca_cert_hash, world.new.hash());
    assert_eq!((&root.root_rotation, root.last_forced_rotation), (&None, 7));
    let (old, new) = (was.join_tokens(), root.join_tokens());
    for (old, new) in [(&old.worker, &new.worker), (&old.manager, &new.manager)] {
        let token: JoinToken = new.parse().unwrap();
        assert!(token.pins(world.new.cert_pem()) && !token.pins(world.old.cert_pem()));
        assert!(!token.matches(old));
    }
    world.now = world.now + INTERVAL;
    assert!(world.look().await.writes.is_empty());
}

/// A certificate that is signed is fetched although the rotation has marked its node meanwhile.
#[tokio::test]
async fn r39_a_mark_between_signing_and_download_loses_nothing() {
    let mut world = World::rotating(1).await;
    let request = CertificateRequest::generate().unwrap();
    world
        .change("n000", |node| {
            let certificate = node.certificate_mut();
            certificate.csr = request.csr_pem().to_vec().into();
            certificate.status_mut().set_state(State::Renew);
        })
        .await;
    world.look().await;
    let state = |world: &World| world.node("n000").certificate().status().state();
    assert_eq!(
        state(&world),
        State::Renew,
        "who waits for a certificate is left alone"
    );
    world.sign().await;
    assert_eq!(state(&world), State::Issued);
    // It has not said so yet, so it is marked; then it asks.
    world.now = world.now + INTERVAL;
    world.look().await;
    assert_eq!(state(&world), State::Rotate);
    let who = Identity {
        node_id: "m1".to_owned(),
        role: Role::Manager,
        cluster_id: "c1".to_owned(),
    };
    let tls = Tls::new(Credentials::self_issue(&world.old, &who, Duration::ZERO).unwrap());
    let asked = NodeCertificateStatusRequest {
        node_id: "n000".to_owned(),
    };
    let ca = Ca::new(world.store.clone(), tls);
    let answer = ca.node_certificate_status(tonic::Request::new(asked)).await;
    let certificate = answer.unwrap().into_inner().certificate.unwrap();
    assert_eq!(certificate.csr, request.csr_pem());
    // It is good for whoever trusts the old root, and names the new one as its issuer.
    let moved = request
        .finish(world.old.cert_pem(), &certificate.certificate)
        .unwrap();
    let description = NodeDescription {
        tls_info: Some(moved.tls_info()),
        ..Default::default()
    };
    world
        .change("n000", |node| node.description = Some(description))
        .await;
    world.now = world.now + INTERVAL;
    world.look().await;
    assert!(
        world.cluster().root_ca().root_rotation.is_none(),
        "and the rotation ends"
    );
}
