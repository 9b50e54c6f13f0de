//! Calls about configs.

use skep_proto::{id, v1::*};
use skep_store::{By, Error};

use super::{ApiError, Control, filter, require, stored, usage, validate};

pub(super) async fn get(
    control: &Control,
    request: GetConfigRequest,
) -> Result<GetConfigResponse, ApiError> {
    validate::payload::config_id(&request.config_id)?;
    let config = control.get::<Config>(&request.config_id)?;
    Ok(GetConfigResponse {
        config: Some(Config::clone(&config)),
    })
}

pub(super) async fn list(
    control: &Control,
    request: ListConfigsRequest,
) -> Result<ListConfigsResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let filters = request.filters.unwrap_or_default();
    let configs = filter::select::<Config>(&snapshot, filter::Common::from(&filters).named())
        .into_iter()
        .filter(|config| filter::has_labels(&config.spec().annotations().labels, &filters.labels))
        .map(|config| Config::clone(config))
        .collect();
    Ok(ListConfigsResponse { configs })
}

pub(super) async fn create(
    control: &Control,
    request: CreateConfigRequest,
) -> Result<CreateConfigResponse, ApiError> {
    let spec = request.spec.ok_or_else(ApiError::missing)?;
    validate::payload::config(&spec)?;
    let name = spec.annotations().name.clone();
    let config = Config {
        id: id::random(),
        spec: Some(spec),
        ..Default::default()
    };
    let config = control
        .store
        .update(|tx| tx.create(config).map_err(ApiError::from))
        .await
        .map_err(|err| match err {
            ApiError::Store(Error::NameConflict) => {
                ApiError::AlreadyExists(format!("config {name} already exists"))
            }
            err => err,
        })?;
    Ok(CreateConfigResponse {
        config: Some(Config::clone(&config)),
    })
}

/// Replaces the labels and nothing else.
pub(super) async fn update(
    control: &Control,
    request: UpdateConfigRequest,
) -> Result<UpdateConfigResponse, ApiError> {
    require(&request.config_id)?;
    let version = request.config_version.ok_or_else(ApiError::missing)?;
    let spec = request.spec.ok_or_else(ApiError::missing)?;
    let config = control
        .store
        .update(|tx| {
            let mut config = stored::<Config>(tx, &request.config_id)?;
            let same_data = spec.data.is_empty() || spec.data == config.spec().data;
            if spec.annotations().name != config.spec().annotations().name || !same_data {
                return Err(validate::payload::labels_only());
            }
            config.meta_mut().version = Some(version);
            config
                .spec_mut()
                .annotations_mut()
                .labels
                .clone_from(&spec.annotations().labels);
            Ok(tx.update(config)?)
        })
        .await?;
    Ok(UpdateConfigResponse {
        config: Some(Config::clone(&config)),
    })
}

pub(super) async fn remove(
    control: &Control,
    request: RemoveConfigRequest,
) -> Result<RemoveConfigResponse, ApiError> {
    let id = request.config_id;
    validate::payload::config_id(&id)?;
    control
        .store
        .update(|tx| {
            let config = tx
                .get::<Config>(&id)
                .ok_or_else(|| ApiError::NotFound(format!("could not find config {id}")))?;
            if let Some(users) = usage::services(tx, By::config(&id)) {
                return Err(ApiError::invalid(format!(
                    "config '{}' is in use by the following {users}",
                    config.spec().annotations().name
                )));
            }
            tx.remove::<Config>(&id)?;
            Ok(())
        })
        .await?;
    Ok(RemoveConfigResponse {})
}

#[cfg(test)]
mod tests;
