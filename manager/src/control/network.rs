//! Calls about networks.

use skep_proto::v1::*;

use super::{ApiError, Control, filter, unsupported};

pub(super) async fn get(
    control: &Control,
    request: GetNetworkRequest,
) -> Result<GetNetworkResponse, ApiError> {
    let network = control.get::<Network>(&request.network_id)?;
    Ok(GetNetworkResponse {
        network: Some(Network::clone(&network)),
    })
}

pub(super) async fn list(
    control: &Control,
    request: ListNetworksRequest,
) -> Result<ListNetworksResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let filters = request.filters.unwrap_or_default();
    let common = filter::Common::from(&filters);
    let networks = filter::select::<Network>(&snapshot, common.candidates())
        .into_iter()
        .filter(|network| common.pass(&***network))
        .map(|network| Network::clone(network))
        .collect();
    Ok(ListNetworksResponse { networks })
}

pub(super) async fn create(
    _: &Control,
    _: CreateNetworkRequest,
) -> Result<CreateNetworkResponse, ApiError> {
    Err(unsupported::refuse("creating networks is"))
}

pub(super) async fn remove(
    control: &Control,
    request: RemoveNetworkRequest,
) -> Result<RemoveNetworkResponse, ApiError> {
    control.get::<Network>(&request.network_id)?;
    Err(unsupported::refuse("removing networks is"))
}
