//! Calls about secrets. Their data goes in and never comes out again.

use bytes::Bytes;
use skep_proto::{id, v1::*};
use skep_store::{By, Error};

use super::{ApiError, Control, filter, require, stored, usage, validate};

pub(super) async fn get(
    control: &Control,
    request: GetSecretRequest,
) -> Result<GetSecretResponse, ApiError> {
    validate::payload::secret_id(&request.secret_id)?;
    let secret = control.get::<Secret>(&request.secret_id)?;
    Ok(GetSecretResponse {
        secret: Some(redacted(&secret)),
    })
}

pub(super) async fn list(
    control: &Control,
    request: ListSecretsRequest,
) -> Result<ListSecretsResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let filters = request.filters.unwrap_or_default();
    let secrets = filter::select::<Secret>(&snapshot, filter::Common::from(&filters).named())
        .into_iter()
        .filter(|secret| {
            !secret.internal
                && filter::has_labels(&secret.spec().annotations().labels, &filters.labels)
        })
        .map(|secret| redacted(secret))
        .collect();
    Ok(ListSecretsResponse { secrets })
}

pub(super) async fn create(
    control: &Control,
    request: CreateSecretRequest,
) -> Result<CreateSecretResponse, ApiError> {
    let spec = request.spec.ok_or_else(ApiError::missing)?;
    validate::payload::secret(&spec)?;
    let name = spec.annotations().name.clone();
    let secret = Secret {
        id: id::random(),
        spec: Some(spec),
        ..Default::default()
    };
    let secret = control
        .store
        .update(|tx| tx.create(secret).map_err(ApiError::from))
        .await
        .map_err(|err| match err {
            ApiError::Store(Error::NameConflict) => {
                ApiError::AlreadyExists(format!("secret {name} already exists"))
            }
            err => err,
        })?;
    Ok(CreateSecretResponse {
        secret: Some(redacted(&secret)),
    })
}

/// Replaces the labels and nothing else.
pub(super) async fn update(
    control: &Control,
    request: UpdateSecretRequest,
) -> Result<UpdateSecretResponse, ApiError> {
    require(&request.secret_id)?;
    let version = request.secret_version.ok_or_else(ApiError::missing)?;
    let spec = request.spec.ok_or_else(ApiError::missing)?;
    let secret = control
        .store
        .update(|tx| {
            let mut secret = stored::<Secret>(tx, &request.secret_id)?;
            let same_data =
                spec.data.is_empty() || validate::payload::same(&spec.data, &secret.spec().data);
            if spec.annotations().name != secret.spec().annotations().name || !same_data {
                return Err(validate::payload::labels_only());
            }
            secret.meta_mut().version = Some(version);
            secret
                .spec_mut()
                .annotations_mut()
                .labels
                .clone_from(&spec.annotations().labels);
            Ok(tx.update(secret)?)
        })
        .await?;
    Ok(UpdateSecretResponse {
        secret: Some(redacted(&secret)),
    })
}

pub(super) async fn remove(
    control: &Control,
    request: RemoveSecretRequest,
) -> Result<RemoveSecretResponse, ApiError> {
    let id = request.secret_id;
    validate::payload::secret_id(&id)?;
    control
        .store
        .update(|tx| {
            let secret = tx
                .get::<Secret>(&id)
                .ok_or_else(|| ApiError::NotFound(format!("could not find secret {id}")))?;
            if let Some(users) = usage::services(tx, By::secret(&id)) {
                return Err(ApiError::invalid(format!(
                    "secret '{}' is in use by the following {users}",
                    secret.spec().annotations().name
                )));
            }
            tx.remove::<Secret>(&id)?;
            Ok(())
        })
        .await?;
    Ok(RemoveSecretResponse {})
}

/// The secret as clients may see it.
fn redacted(secret: &Secret) -> Secret {
    let mut secret = secret.clone();
    secret.spec_mut().data = Bytes::new();
    secret
}

#[cfg(test)]
mod tests;
