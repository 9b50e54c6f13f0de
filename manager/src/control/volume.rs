//! Calls about CSI volumes.

use skep_proto::v1::*;

use super::{ApiError, Control, filter, unsupported};

pub(super) async fn get(
    control: &Control,
    request: GetVolumeRequest,
) -> Result<GetVolumeResponse, ApiError> {
    let volume = control.get::<Volume>(&request.volume_id)?;
    Ok(GetVolumeResponse {
        volume: Some(Volume::clone(&volume)),
    })
}

pub(super) async fn list(
    control: &Control,
    request: ListVolumesRequest,
) -> Result<ListVolumesResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let filters = request.filters.unwrap_or_default();
    let common = filter::Common::from(&filters);
    let volumes = filter::select::<Volume>(&snapshot, common.candidates())
        .into_iter()
        .filter(|volume| {
            let spec = volume.spec();
            let driver = spec.driver.as_ref().map_or("", |driver| &driver.name);
            common.pass(&***volume)
                && filter::any(&filters.groups, |group| *group == spec.group)
                && filter::any(&filters.drivers, |name| name == driver)
        })
        .map(|volume| Volume::clone(volume))
        .collect();
    Ok(ListVolumesResponse { volumes })
}

pub(super) async fn create(
    _: &Control,
    _: CreateVolumeRequest,
) -> Result<CreateVolumeResponse, ApiError> {
    Err(unsupported::refuse("creating volumes is"))
}

pub(super) async fn update(
    control: &Control,
    request: UpdateVolumeRequest,
) -> Result<UpdateVolumeResponse, ApiError> {
    if request.volume_id.is_empty() {
        return Err(ApiError::invalid("VolumeID must not be empty"));
    }
    if request.spec.is_none() {
        return Err(ApiError::invalid("Spec must not be empty"));
    }
    if request.volume_version.is_none() {
        return Err(ApiError::invalid("VolumeVersion must not be empty"));
    }
    control.get::<Volume>(&request.volume_id)?;
    Err(unsupported::refuse("updating volumes is"))
}

pub(super) async fn remove(
    control: &Control,
    request: RemoveVolumeRequest,
) -> Result<RemoveVolumeResponse, ApiError> {
    control.get::<Volume>(&request.volume_id)?;
    Err(unsupported::refuse("removing volumes is"))
}
