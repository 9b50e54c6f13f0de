//! Lets this manager's TLS trust all roots of the cluster: the one that the cluster object names and
//! the one that it moves to.
//!
//! A manager adopts a new root for itself as every node does. Until it has, nodes that joined under the
//! new root call it already.

use bytes::Bytes;
use skep_proto::v1::Cluster;
use skep_security::Tls;
use skep_store::{Kind, Route, Snapshot, Store};
use tracing::warn;

/// Runs until it is dropped.
pub(crate) async fn follow(store: Store, tls: Tls, cluster_id: String) {
    let (mut snapshot, mut subscription) = store.watch([Route::Kind(Kind::Cluster)]);
    let mut trusted = Vec::new();
    loop {
        let roots = roots(&snapshot, &cluster_id, tls.current().root_pem());
        if roots != trusted {
            match tls.also_trust(&roots) {
                Ok(()) => trusted = roots,
                Err(err) => warn!(%err, "a root CA of the cluster cannot be trusted"),
            }
        }
        subscription.next().await;
        snapshot = store.snapshot();
    }
}

/// The roots besides the own one.
fn roots(snapshot: &Snapshot, cluster_id: &str, own: &Bytes) -> Vec<Bytes> {
    let Some(cluster) = snapshot.get::<Cluster>(cluster_id) else {
        return Vec::new();
    };
    let root = cluster.root_ca();
    let next = root.root_rotation.as_ref().map(|next| &next.ca_cert);
    [Some(&root.ca_cert), next]
        .into_iter()
        .flatten()
        .filter(|root| !root.is_empty() && *root != own)
        .cloned()
        .collect()
}
