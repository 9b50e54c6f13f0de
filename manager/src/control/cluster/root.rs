//! What an update of the cluster makes of its root CA.
//!
//! Certificates and keys are brought to be what they must be before anything is stored: a cluster
//! whose CA signs what its nodes do not believe cannot be mended over the network.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use skep_proto::v1::{self, Cluster, ClusterSpec, RootRotation};
use skep_security::{
    CertificateRequest, DEFAULT_NODE_CERT_EXPIRY, Error as SecurityError, ExternalCa, Identity,
    Role, RootCa, canonical_pem,
};
use tracing::{info, warn};

use super::{ApiError, Control};
use crate::ca::authority::urls_for;

/// A new root must last at least this long: a year, in which nobody has to think of it.
const MIN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The CA that `cluster` has after its spec is `spec`.
pub(super) async fn desired(
    control: &Control,
    cluster: &Cluster,
    spec: &ClusterSpec,
) -> Result<v1::RootCa, ApiError> {
    let (wish, current) = (spec.ca_config(), cluster.root_ca());
    let external = External {
        control,
        spec,
        current: &current.ca_cert,
    };
    if current.ca_key.is_empty() {
        external.reachable(&current.ca_cert, "current").await?;
    }
    if wish.signing_ca_cert.is_empty() {
        if wish.force_rotate != current.last_forced_rotation {
            let next = RootCa::generate().map_err(|err| ApiError::Internal(err.to_string()))?;
            return begin(cluster, &external, &next, wish.force_rotate).await;
        }
        if let Some(next) = &current.root_rotation
            && next.ca_key.is_empty()
        {
            external.reachable(&next.ca_cert, "next").await?;
        }
        return Ok(current.clone());
    }

    let unusable = |err: SecurityError| ApiError::invalid(err.to_string());
    let cert = canonical_pem(&wish.signing_ca_cert).map_err(unusable)?;
    let key = (!wish.signing_ca_key.is_empty()).then_some(&wish.signing_ca_key[..]);
    let next = RootCa::from_pem(&cert, key).map_err(unusable)?;
    if next.certificate_count() > 1 {
        return Err(ApiError::invalid(
            "the desired CA certificate cannot contain multiple certificates",
        ));
    }
    if next.expires_at().map_err(unusable)? < SystemTime::now() + MIN_LIFE {
        return Err(ApiError::invalid("CA certificate expires too soon"));
    }
    if key.is_none() {
        external.reachable(&cert, "desired").await?;
    }
    let changed = |change: &dyn Fn(&mut v1::RootCa)| {
        let mut root = current.clone();
        root.last_forced_rotation = wish.force_rotate;
        change(&mut root);
        root
    };
    let is = |stored: &Bytes| canonical_pem(stored).is_ok_and(|stored| stored == cert);
    if is(&current.ca_cert) {
        return Ok(changed(&|root| {
            root.ca_key = wish.signing_ca_key.clone();
            root.root_rotation = None;
        }));
    }
    if has_key_of(&current.ca_cert, &next) {
        return Err(ApiError::invalid(
            "Cannot update to a cert with an identical key",
        ));
    }
    if current
        .root_rotation
        .as_ref()
        .is_some_and(|next| is(&next.ca_cert))
    {
        return Ok(changed(&|root| {
            if let Some(next) = &mut root.root_rotation {
                next.ca_key = wish.signing_ca_key.clone();
            }
        }));
    }
    begin(cluster, &external, &next, wish.force_rotate).await
}

/// Whether the stored root has the same key as `next`.
fn has_key_of(stored: &[u8], next: &RootCa) -> bool {
    let stored = RootCa::from_pem(stored, None).and_then(|stored| stored.issuer_info());
    match (stored, next.issuer_info()) {
        (Ok(stored), Ok(next)) => stored.public_key == next.public_key,
        _ => false,
    }
}

/// A rotation to `next`, instead of one that may be under way. It is always the original root that
/// vouches for the new one: that is what nodes trust.
async fn begin(
    cluster: &Cluster,
    external: &External<'_>,
    next: &RootCa,
    force_rotate: u64,
) -> Result<v1::RootCa, ApiError> {
    let current = cluster.root_ca();
    let crossed = if !current.ca_key.is_empty() {
        RootCa::from_pem(&current.ca_cert, Some(&current.ca_key))
            .and_then(|current| current.cross_sign(next))
            .map_err(|err| err.to_string())
    } else if next.key_pem().is_none() {
        return Err(ApiError::invalid(
            "rotating from one external CA to a different external CA is not supported",
        ));
    } else {
        match external.ca(&current.ca_cert) {
            Ok(ca) => ca.cross_sign(next).await.map_err(|err| err.to_string()),
            Err(err) => Err(err),
        }
    };
    let failed = |err: String| {
        warn!(err, "no rotation of the root CA begins");
        ApiError::Internal(
            "unable to generate a cross-signed certificate for root rotation".to_owned(),
        )
    };
    let crossed = crossed.map_err(failed)?;
    if next.key_pem().is_some() {
        // Nodes believe it now, and when it is alone.
        for trusted in [&current.ca_cert, next.cert_pem()] {
            prove(next, &crossed, trusted)
                .map_err(|err| ApiError::invalid(format!("the desired CA cannot sign: {err}")))?;
        }
    }
    info!(
        root = next.hash(),
        "the root CA of the cluster is being replaced"
    );
    let mut root = current.clone();
    root.last_forced_rotation = force_rotate;
    root.root_rotation = Some(RootRotation {
        ca_cert: next.cert_pem().clone(),
        ca_key: next.key_pem().cloned().unwrap_or_default(),
        cross_signed_ca_cert: canonical_pem(&crossed).map_err(|err| failed(err.to_string()))?,
    });
    Ok(root)
}

/// Whether nodes that trust `trusted` will believe what `next` signs.
fn prove(next: &RootCa, crossed: &Bytes, trusted: &[u8]) -> Result<(), SecurityError> {
    let request = CertificateRequest::generate()?;
    let who = Identity {
        node_id: "nobody".to_owned(),
        role: Role::Manager,
        cluster_id: "nowhere".to_owned(),
    };
    let ca = next.clone().with_intermediate(crossed.clone());
    let now = SystemTime::now();
    let chain = ca.issue(request.csr_pem(), &who, DEFAULT_NODE_CERT_EXPIRY, now)?;
    request.finish(trusted, &chain).map(drop)
}

/// The external CAs of a spec.
struct External<'a> {
    control: &'a Control,
    spec: &'a ClusterSpec,
    current: &'a [u8],
}

impl External<'_> {
    /// The one for this root.
    fn ca(&self, root: &[u8]) -> Result<ExternalCa, String> {
        let urls = urls_for(root, &self.spec.ca_config().external_cas, self.current);
        let tls = self
            .control
            .tls
            .as_ref()
            .ok_or("this manager has no identity")?;
        ExternalCa::new(tls, root, urls).map_err(|err| err.to_string())
    }

    /// Fails if none for this root answers.
    async fn reachable(&self, root: &[u8], which: &str) -> Result<(), ApiError> {
        let reached = match self.ca(root) {
            Ok(ca) => ca.reachable().await.map_err(|err| err.to_string()),
            Err(err) => Err(err),
        };
        reached.map_err(|err| {
            warn!(err, "no external CA for the {which} root can be used");
            ApiError::invalid(format!(
                "there must be at least one valid, reachable external CA corresponding to the \
                 {which} CA certificate"
            ))
        })
    }
}

#[cfg(test)]
mod tests;
