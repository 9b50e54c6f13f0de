//! Networks that a service may be attached to.

use skep_proto::v1::{Network, ServiceSpec};
use skep_store::Tx;

use crate::control::{ApiError, unsupported::service_networks};

/// Labelled so, a network is the ingress network of an old swarm, from before the field for it.
const LEGACY_INGRESS_LABEL: &str = "com.docker.swarm.internal";

/// The ingress network is not for asking. Networks that do not exist are none of our business: they
/// may come later.
pub fn check(tx: &Tx, spec: &ServiceSpec) -> Result<(), ApiError> {
    let ingress = service_networks(spec)
        .iter()
        .chain(&spec.task().networks)
        .filter_map(|attachment| tx.get::<Network>(&attachment.target))
        .find(|network| is_ingress(network));
    match ingress {
        None => Ok(()),
        Some(network) => Err(ApiError::invalid(format!(
            "Service cannot be explicitly attached to the ingress network {:?}",
            network.spec().annotations().name
        ))),
    }
}

/// Whether this is the network of the routing mesh.
pub fn is_ingress(network: &Network) -> bool {
    let spec = network.spec();
    spec.ingress || spec.annotations().labels.contains_key(LEGACY_INGRESS_LABEL)
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::NetworkAttachmentConfig;

    use super::*;
    use crate::control::testing::*;

    #[tokio::test]
    async fn the_ingress_network_cannot_be_asked_for() {
        let swarm = Swarm::new();
        let put = async |id: &str, ingress: bool, label: &str| {
            let mut network = Network {
                id: id.into(),
                ..Default::default()
            };
            network.spec_mut().ingress = ingress;
            network.spec_mut().annotations = labelled(id, label, "");
            swarm.put(network).await;
        };
        put("mesh", true, "a").await;
        put("oldmesh", false, "com.docker.swarm.internal").await;
        put("plain", false, "a").await;
        let check_one = async |target: &str, deprecated: bool, expected: &str| {
            let attachment = vec![NetworkAttachmentConfig {
                target: target.into(),
                ..Default::default()
            }];
            let mut spec = ServiceSpec::default();
            if deprecated {
                #[allow(deprecated)]
                spec.networks.extend(attachment);
            } else {
                spec.task_mut().networks = attachment;
            }
            let result = swarm.store.update(|tx| check(tx, &spec)).await;
            assert_eq!(text(result), expected);
        };
        let mesh = "Service cannot be explicitly attached to the ingress network \"mesh\"";
        check_one("mesh", false, mesh).await;
        check_one("mesh", true, mesh).await;
        check_one(
            "oldmesh",
            false,
            "Service cannot be explicitly attached to the ingress network \"oldmesh\"",
        )
        .await;
        check_one("plain", false, "").await;
        check_one("unknown", false, "").await;
    }
}
