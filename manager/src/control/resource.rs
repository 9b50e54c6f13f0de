//! Calls about resources.

use skep_proto::v1::*;

use super::{ApiError, Control, filter, unsupported};

pub(super) async fn get(
    control: &Control,
    request: GetResourceRequest,
) -> Result<GetResourceResponse, ApiError> {
    require(&request.resource_id)?;
    let resource = control.get::<Resource>(&request.resource_id)?;
    Ok(GetResourceResponse {
        resource: Some(Resource::clone(&resource)),
    })
}

pub(super) async fn list(
    control: &Control,
    request: ListResourcesRequest,
) -> Result<ListResourcesResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let filters = request.filters.unwrap_or_default();
    let resources = filter::select::<Resource>(&snapshot, filter::Common::from(&filters).named())
        .into_iter()
        .filter(|resource| {
            filter::has_labels(&resource.annotations().labels, &filters.labels)
                && (filters.kind.is_empty() || resource.kind == filters.kind)
        })
        .map(|resource| Resource::clone(resource))
        .collect();
    Ok(ListResourcesResponse { resources })
}

pub(super) async fn create(
    _: &Control,
    _: CreateResourceRequest,
) -> Result<CreateResourceResponse, ApiError> {
    Err(unsupported::refuse("creating resources is"))
}

pub(super) async fn update(
    control: &Control,
    request: UpdateResourceRequest,
) -> Result<UpdateResourceResponse, ApiError> {
    if request.resource_id.is_empty() || request.resource_version.is_none() {
        return Err(ApiError::invalid("must include ID and version"));
    }
    control.get::<Resource>(&request.resource_id)?;
    Err(unsupported::refuse("updating resources is"))
}

pub(super) async fn remove(
    control: &Control,
    request: RemoveResourceRequest,
) -> Result<RemoveResourceResponse, ApiError> {
    require(&request.resource_id)?;
    control.get::<Resource>(&request.resource_id)?;
    Err(unsupported::refuse("removing resources is"))
}

fn require(id: &str) -> Result<(), ApiError> {
    if id.is_empty() {
        return Err(ApiError::invalid("resource ID must be present"));
    }
    Ok(())
}
