//! Calls about extensions.

use skep_proto::v1::*;

use super::{ApiError, Control, unsupported};

pub(super) async fn get(
    control: &Control,
    request: GetExtensionRequest,
) -> Result<GetExtensionResponse, ApiError> {
    require(&request.extension_id)?;
    let extension = control.get::<Extension>(&request.extension_id)?;
    Ok(GetExtensionResponse {
        extension: Some(Extension::clone(&extension)),
    })
}

pub(super) async fn create(
    _: &Control,
    _: CreateExtensionRequest,
) -> Result<CreateExtensionResponse, ApiError> {
    Err(unsupported::refuse("creating extensions is"))
}

pub(super) async fn remove(
    control: &Control,
    request: RemoveExtensionRequest,
) -> Result<RemoveExtensionResponse, ApiError> {
    require(&request.extension_id)?;
    control.get::<Extension>(&request.extension_id)?;
    Err(unsupported::refuse("removing extensions is"))
}

fn require(id: &str) -> Result<(), ApiError> {
    if id.is_empty() {
        return Err(ApiError::invalid("extension ID must be provided"));
    }
    Ok(())
}
