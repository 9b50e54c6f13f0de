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
    reconcile::{Plan, Reconciler, Trigger, View},
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
        let waiting: Vec<_> = match view.trigger {
            Trigger::Changes(changes)
                if changes.iter().all(|c| c.object().kind() == Kind::Node) =>
            {
                changes
                    .iter()
                    .filter_map(|change| view.snapshot.get::<Node>(change.object().id()))
                    .filter(|node| waits(node))
                    .collect()
            }
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

#[cfg(test)]
mod tests {
    use skep_proto::v1::{NodeRole, RootCa as WireRootCa};
    use skep_security::{CertificateRequest, Role};
    use skep_store::{AnyObject, Error, testing};

    use super::*;
    use crate::{reconcile::Write, time};

    /// How long the certificate is valid that a node gets which renews its own, from now.
    async fn life(expiry: Duration) -> Duration {
        let root = RootCa::generate().unwrap();
        let mut cluster = Cluster {
            id: "c1".to_owned(),
            root_ca: Some(WireRootCa {
                ca_cert: root.cert_pem().clone(),
                ca_key: root.key_pem().unwrap().clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let config = cluster.spec_mut().ca_config_mut();
        config.node_cert_expiry = expiry.try_into().ok();
        let request = CertificateRequest::generate().unwrap();
        let mut node = Node {
            id: "n1".to_owned(),
            role: NodeRole::Worker.into(),
            ..Default::default()
        };
        // The role that the node has counts, not the one that it is to have.
        node.spec_mut().set_desired_role(NodeRole::Manager);
        let certificate = node.certificate_mut();
        certificate.csr = Bytes::copy_from_slice(request.csr_pem());
        certificate.status_mut().set_state(State::Renew);
        let store = testing::leading(|| time::now().into());
        let create = store.update::<_, Error>(|tx| {
            tx.create(cluster)?;
            tx.create(node).map(drop)
        });
        create.await.unwrap();
        let snapshot = store.snapshot();
        let now = time::now();
        let plan = Signer::new("c1".to_owned()).plan(&View {
            snapshot: &snapshot,
            trigger: &Trigger::Resync,
            now,
        });
        let [Write::Update(AnyObject::Node(node))] = &plan.writes[..] else {
            panic!("one node is written")
        };
        assert_eq!(node.certificate().status().state(), State::Issued);
        let issued = &node.certificate().certificate;
        let credentials = request.finish(root.cert_pem(), issued).unwrap();
        assert_eq!(credentials.identity().role, Role::Worker);
        let left = credentials.expires_at().duration_since(SystemTime::now());
        left.unwrap()
    }

    #[tokio::test]
    async fn certificates_live_as_long_as_the_cluster_says() {
        let about = |life: Duration, expected: Duration| {
            assert!(
                life.abs_diff(expected) < Duration::from_secs(90),
                "{life:?}"
            );
        };
        let hour = Duration::from_secs(3600);
        about(life(2 * hour).await, 2 * hour);
        about(life(hour / 2).await, DEFAULT_EXPIRY);
    }
}
