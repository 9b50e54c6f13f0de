//! Who signs for the cluster: its own key, an external CA, or nobody for now.

use bytes::Bytes;
use skep_proto::v1::{Cluster, ExternalCa, external_ca::CaProtocol};
use skep_security::{RootCa, canonical_pem};

/// What signs certificates of nodes.
#[derive(Debug)]
pub(crate) enum Authority {
    /// A key that the cluster holds.
    Local(Box<RootCa>),
    /// A server outside.
    External(External),
    /// Nobody, until the cluster is changed; the text says why.
    Nobody(String),
}

/// An external CA, as the cluster names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct External {
    /// PEM of the root that it signs for.
    pub(crate) root: Bytes,
    /// Where it is asked, in this order.
    pub(crate) urls: Vec<String>,
    /// PEM that goes after each certificate.
    pub(crate) intermediate: Bytes,
}

impl Authority {
    /// While a rotation is under way the new root signs, and the certificate that the old one has made
    /// of it follows each certificate. External CAs go before the cluster's own key.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let root = cluster.root_ca();
        let none = Bytes::new();
        let (cert, key, intermediate) = match &root.root_rotation {
            Some(next) => (&next.ca_cert, &next.ca_key, &next.cross_signed_ca_cert),
            None => (&root.ca_cert, &root.ca_key, &none),
        };
        let urls = urls_for(
            cert,
            &cluster.spec().ca_config().external_cas,
            &root.ca_cert,
        );
        if !urls.is_empty() {
            return Self::External(External {
                root: cert.clone(),
                urls,
                intermediate: intermediate.clone(),
            });
        }
        if key.is_empty() {
            return Self::Nobody(
                "the cluster has neither its key nor an external CA for it".into(),
            );
        }
        match RootCa::from_pem(cert, Some(key)) {
            Ok(ca) => Self::Local(Box::new(ca.with_intermediate(intermediate.clone()))),
            Err(err) => Self::Nobody(err.to_string()),
        }
    }
}

/// The URLs of external CAs that sign for the root `wanted`. One that names no root is for the
/// `current` one.
pub(crate) fn urls_for(wanted: &[u8], external_cas: &[ExternalCa], current: &[u8]) -> Vec<String> {
    let same = |a: &[u8], b: &[u8]| {
        a == b || matches!((canonical_pem(a), canonical_pem(b)), (Ok(a), Ok(b)) if a == b)
    };
    external_cas
        .iter()
        .filter(|ca| ca.protocol() == CaProtocol::Cfssl)
        .filter(|ca| match ca.ca_cert.is_empty() {
            true => same(current, wanted),
            false => same(&ca.ca_cert, wanted),
        })
        .map(|ca| ca.url.clone())
        .collect()
}
