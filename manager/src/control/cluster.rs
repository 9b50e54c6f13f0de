//! Calls about the cluster.

mod redact;
mod root;

use std::collections::BTreeMap;

use bytes::Bytes;
use skep_proto::{Timestamp, v1::*};
use skep_security::{JoinToken, RootCa};

use super::{ApiError, Control, filter, require, stored, unsupported, validate};
use crate::keys::settle_unlock_key;
use redact::redacted;

pub(super) use validate::cluster::NAME;

/// How long a removed node stays on the blacklist after its certificate has ended, in seconds: 7
/// days, so that clocks that lag do not let it in.
const BLACKLIST_GRACE: i64 = 7 * 24 * 3600;

pub(super) async fn get(
    control: &Control,
    request: GetClusterRequest,
) -> Result<GetClusterResponse, ApiError> {
    let cluster = control.get::<Cluster>(&request.cluster_id)?;
    Ok(GetClusterResponse {
        cluster: Some(redacted(&cluster)),
    })
}

pub(super) async fn list(
    control: &Control,
    request: ListClustersRequest,
) -> Result<ListClustersResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let filters = request.filters.unwrap_or_default();
    let common = filter::Common::from(&filters);
    let clusters = filter::select::<Cluster>(&snapshot, common.candidates())
        .into_iter()
        .filter(|cluster| common.pass(&***cluster))
        .map(|cluster| redacted(cluster))
        .collect();
    Ok(ListClustersResponse { clusters })
}

pub(super) async fn update(
    control: &Control,
    request: UpdateClusterRequest,
) -> Result<UpdateClusterResponse, ApiError> {
    require(&request.cluster_id)?;
    let version = request.cluster_version.ok_or_else(ApiError::missing)?;
    let spec = request.spec.ok_or_else(ApiError::missing)?;
    let rotation = request.rotation.unwrap_or_default();
    validate::cluster::check(&spec)?;
    // Others than this one may have to be asked, so it is done before the transaction. That the cluster
    // is still the one that this was decided on, the version tells.
    let decided_on = control.get::<Cluster>(&request.cluster_id)?;
    if decided_on.meta().version() != &version {
        return Err(skep_store::Error::OutOfSequence.into());
    }
    let root_ca = root::desired(control, &decided_on, &spec).await?;
    let cluster = control
        .store
        .update(|tx| {
            let mut cluster = stored::<Cluster>(tx, &request.cluster_id)?;
            unsupported::cluster(&cluster, &spec, &rotation)?;
            cluster.meta_mut().version = Some(version);
            cluster.root_ca = Some(root_ca);
            // It has served its purpose, and a key should not lie around twice.
            let mut spec = spec;
            spec.ca_config_mut().signing_ca_cert = Bytes::new();
            spec.ca_config_mut().signing_ca_key = Bytes::new();
            cluster.spec = Some(spec);
            settle_unlock_key(&mut cluster, rotation.manager_unlock_key);
            drop_expired(&mut cluster.blacklisted_certificates, tx.now());
            if rotation.worker_join_token {
                cluster.root_ca_mut().join_tokens_mut().worker = join_token(&cluster)?;
            }
            if rotation.manager_join_token {
                cluster.root_ca_mut().join_tokens_mut().manager = join_token(&cluster)?;
            }
            Ok::<_, ApiError>(tx.update(cluster)?)
        })
        .await?;
    Ok(UpdateClusterResponse {
        cluster: Some(redacted(&cluster)),
    })
}

/// A new token for the cluster's root.
fn join_token(cluster: &Cluster) -> Result<String, ApiError> {
    let root = RootCa::from_pem(&cluster.root_ca().ca_cert, None)
        .map_err(|err| ApiError::Internal(format!("the stored root certificate: {err}")))?;
    Ok(JoinToken::generate(&root).to_string())
}

/// Drops removed nodes whose certificate has ended long enough ago.
pub(super) fn drop_expired(
    blacklist: &mut BTreeMap<String, BlacklistedCertificate>,
    now: Timestamp,
) {
    blacklist.retain(|_, certificate| {
        certificate
            .expiry
            .is_none_or(|expiry| expiry.seconds.saturating_add(BLACKLIST_GRACE) >= now.seconds)
    });
}

#[cfg(test)]
mod tests;
