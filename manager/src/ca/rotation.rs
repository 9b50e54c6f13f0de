//! Brings a root rotation to its end: has the nodes renew their certificates, a few at a time, and
//! puts the new root in the place of the old one when all have done so.

use std::{sync::Arc, time::Duration};

use skep_proto::v1::{
    Cluster, IssuanceStatus, JoinTokens, Node, RootCa as WireRootCa, RootRotation,
    issuance_status::State,
};
use skep_security::{IssuerInfo, JoinToken, RootCa};
use skep_store::Kind;
use tracing::{info, warn};

use crate::{
    reconcile::{Plan, Reconciler, View},
    time::Time,
};

/// How often the nodes are looked at, and how many are told to renew each time (SwarmKit's numbers):
/// signing and reconnecting ten thousand nodes at once would disturb what they run.
const INTERVAL: Duration = Duration::from_secs(3);
const BATCH: usize = 30;

/// Moves all nodes to a new root.
#[derive(Debug)]
pub(crate) struct Rotation {
    cluster_id: String,
    /// Not before then are more nodes told. A new leader begins anew, which only is faster.
    next: Time,
}

impl Rotation {
    pub(crate) fn new(cluster_id: String) -> Self {
        Self {
            cluster_id,
            next: Time::default(),
        }
    }
}

impl Reconciler for Rotation {
    fn name(&self) -> &'static str {
        "root rotation"
    }

    fn watches(&self) -> &'static [Kind] {
        // Nodes change all the time: that they have moved is seen when they are looked at.
        &[Kind::Cluster]
    }

    fn plan(&mut self, view: &View<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(cluster) = view.snapshot.get::<Cluster>(&self.cluster_id) else {
            return plan;
        };
        let Some(rotation) = &cluster.root_ca().root_rotation else {
            return plan;
        };
        if view.now < self.next {
            plan.wake_at(self.next);
            return plan;
        }
        let next = RootCa::from_pem(&rotation.ca_cert, None);
        let issuer = match next.and_then(|next| Ok((next.issuer_info()?, next))) {
            Ok(next) => next,
            Err(err) => {
                warn!(%err, "the root that the cluster is to move to cannot be used");
                return plan;
            }
        };
        let (issuer, next) = issuer;
        self.next = view.now + INTERVAL;
        plan.wake_at(self.next);
        let behind: Vec<_> = view
            .snapshot
            .all::<Node>()
            .filter(|node| !has_moved(node, &issuer))
            .collect();
        if behind.is_empty() {
            info!("all nodes have certificates of the new root CA, which replaces the old one");
            plan.update(completed(cluster, rotation, &next));
            return plan;
        }
        let told: Vec<_> = behind
            .iter()
            .filter(|node| may_rotate(node))
            .take(BATCH)
            .collect();
        info!(
            behind = behind.len(),
            told = told.len(),
            "moving nodes to the new root CA"
        );
        for node in told {
            plan.update(rotating(node));
        }
        plan
    }
}

/// Whether the node says that its certificate is of this issuer. Those that are down count too: they
/// could not come back if the old root were gone.
fn has_moved(node: &Node, issuer: &IssuerInfo) -> bool {
    let info = node
        .description
        .as_ref()
        .and_then(|node| node.tls_info.as_ref());
    info.is_some_and(|info| {
        info.cert_issuer_subject == issuer.subject
            && info.cert_issuer_public_key == issuer.public_key
    })
}

/// Whether the node can be told: it does not wait for a certificate, and was not told.
fn may_rotate(node: &Node) -> bool {
    matches!(
        node.certificate().status().state(),
        State::Issued | State::Failed | State::Unknown
    )
}

/// The certificate stays: the node may not have fetched it yet.
fn rotating(node: &Arc<Node>) -> Node {
    let mut node = Node::clone(node);
    node.certificate_mut().status = Some(IssuanceStatus {
        state: State::Rotate.into(),
        err: String::new(),
    });
    node
}

/// The cluster with the new root in place. Its tokens name the root, so they are new too.
fn completed(cluster: &Cluster, rotation: &RootRotation, next: &RootCa) -> Cluster {
    let mut cluster = cluster.clone();
    cluster.root_ca = Some(WireRootCa {
        ca_cert: rotation.ca_cert.clone(),
        ca_key: rotation.ca_key.clone(),
        ca_cert_hash: next.hash(),
        join_tokens: Some(JoinTokens {
            worker: JoinToken::generate(next).to_string(),
            manager: JoinToken::generate(next).to_string(),
        }),
        root_rotation: None,
        last_forced_rotation: cluster.root_ca().last_forced_rotation,
    });
    cluster
}

#[cfg(test)]
mod tests;
