//! The cluster as clients may see it. What is not named here does not leave: a new field is secret
//! until someone decides otherwise.

use bytes::Bytes;
use skep_proto::v1::{Cluster, ClusterSpec, RootCa, RootRotation};

/// Shown when the cluster has no address pool of its own.
const DEFAULT_ADDRESS_POOL: &str = "10.0.0.0/8";

/// Prefix length of a subnet out of the default pool.
const DEFAULT_SUBNET_SIZE: u32 = 24;

/// Shown when the cluster has no VXLAN port of its own (IANA's number for it).
const DEFAULT_VXLAN_PORT: u32 = 4789;

/// A copy without keys, with defaults for display.
pub fn redacted(cluster: &Cluster) -> Cluster {
    let (default_address_pool, subnet_size) = if cluster.default_address_pool.is_empty() {
        (vec![DEFAULT_ADDRESS_POOL.to_owned()], DEFAULT_SUBNET_SIZE)
    } else {
        (cluster.default_address_pool.clone(), cluster.subnet_size)
    };
    Cluster {
        id: cluster.id.clone(),
        meta: cluster.meta,
        spec: Some(spec(cluster.spec())),
        root_ca: Some(root_ca(cluster.root_ca())),
        blacklisted_certificates: cluster.blacklisted_certificates.clone(),
        default_address_pool,
        subnet_size,
        vxlanudp_port: match cluster.vxlanudp_port {
            0 => DEFAULT_VXLAN_PORT,
            port => port,
        },
        ..Default::default()
    }
}

fn spec(spec: &ClusterSpec) -> ClusterSpec {
    let mut spec = spec.clone();
    let ca = spec.ca_config_mut();
    ca.signing_ca_cert = Bytes::new();
    ca.signing_ca_key = Bytes::new();
    spec
}

fn root_ca(root: &RootCa) -> RootCa {
    RootCa {
        ca_cert: root.ca_cert.clone(),
        ca_cert_hash: root.ca_cert_hash.clone(),
        join_tokens: root.join_tokens.clone(),
        root_rotation: root.root_rotation.as_ref().map(|rotation| RootRotation {
            ca_cert: rotation.ca_cert.clone(),
            cross_signed_ca_cert: rotation.cross_signed_ca_cert.clone(),
            ..Default::default()
        }),
        last_forced_rotation: root.last_forced_rotation,
        ..Default::default()
    }
}
