//! Signs what waits to be signed.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use skep_proto::v1::{
    Cluster, IssuanceStatus, Node, issuance_status::State, node_spec::Membership,
};
use skep_security::{Identity, RootCa};
use skep_store::Kind;
use tracing::{info, warn};

use super::authority::Authority;
use crate::{
    reconcile::{Plan, Reconciler, View},
    time::duration_or,
};

/// Certificates are valid for 90 days unless the cluster says otherwise; shorter than an hour is
/// taken for a mistake.
const DEFAULT_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3600);
const MIN_EXPIRY: Duration = Duration::from_secs(3600);

/// Turns `PENDING` and `RENEW` into `ISSUED` or `FAILED`.
#[derive(Debug)]
pub struct Signer {
    cluster_id: String,
}

impl Signer {
    /// A signer of this cluster's certificates.
    pub fn new(cluster_id: String) -> Self {
        Self { cluster_id }
    }
}

impl Reconciler for Signer {
    fn name(&self) -> &'static str {
        "certificate signer"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Node, Kind::Cluster]
    }

    fn plan(&mut self, view: &View<'_>) -> Plan {
        let mut plan = Plan::default();
        let waiting: Vec<_> = match view.changed {
            Some(changes) if changes.iter().all(|c| c.object().kind() == Kind::Node) => changes
                .iter()
                .filter_map(|change| view.snapshot.get::<Node>(change.object().id()))
                .filter(|node| waits(node))
                .collect(),
            _ => view
                .snapshot
                .all::<Node>()
                .filter(|node| waits(node))
                .collect(),
        };
        if waiting.is_empty() {
            return plan;
        }
        let Some(cluster) = view.snapshot.get::<Cluster>(&self.cluster_id) else {
            return plan;
        };
        let ca = match Authority::of(cluster) {
            Authority::Local(ca) => ca,
            // Asked by a driver of its own.
            Authority::External(_) => return plan,
            Authority::Nobody(reason) => {
                // Recoverable: it can be mended by an update of the cluster, which brings us back.
                warn!(
                    reason,
                    "nodes wait for certificates, but the cluster's CA cannot sign"
                );
                return plan;
            }
        };
        let expiry = duration_or(cluster.spec().ca_config().node_cert_expiry, DEFAULT_EXPIRY);
        let expiry = if expiry < MIN_EXPIRY {
            DEFAULT_EXPIRY
        } else {
            expiry
        };
        let now = SystemTime::UNIX_EPOCH + view.now.saturating_since(crate::time::Time::default());
        let mut done = std::collections::BTreeSet::new();
        for node in waiting {
            if done.insert(&node.id) {
                plan.update(self.sign(&ca, node, expiry, now));
            }
        }
        plan
    }
}

impl Signer {
    fn sign(&self, ca: &RootCa, node: &Node, expiry: Duration, now: SystemTime) -> Node {
        let mut node = node.clone();
        let who = Identity {
            node_id: node.id.clone(),
            role: node.role().into(),
            cluster_id: self.cluster_id.clone(),
        };
        let issued = ca.issue(&node.certificate().csr, &who, expiry, now);
        settle(&mut node, &who, issued.map_err(|err| err.to_string()));
        node
    }
}

/// Writes down what became of the request of a node.
pub(super) fn settle(node: &mut Node, who: &Identity, answer: Result<Bytes, String>) {
    let certificate = node.certificate_mut();
    let (state, err) = match answer {
        Ok(issued) => {
            certificate.certificate = issued;
            info!(node = who.node_id, role = ?who.role, "certificate issued");
            (State::Issued, String::new())
        }
        Err(err) => {
            certificate.certificate = Bytes::new();
            warn!(node = who.node_id, err, "certificate refused");
            (State::Failed, err)
        }
    };
    certificate.set_role(who.role.into());
    certificate.cn.clone_from(&who.node_id);
    certificate.status = Some(IssuanceStatus {
        state: state.into(),
        err,
    });
}

/// Whether a node waits for a certificate.
pub(super) fn waits(node: &Node) -> bool {
    match node.certificate().status().state() {
        State::Renew => true,
        State::Pending => node.spec().membership() == Membership::Accepted,
        _ => false,
    }
}
