//! Which function answers which call.

use skep_proto::v1::{self, control_server};
use tonic::{Request, Response, Status};
use tracing::debug;

use super::{
    Control, cluster, config, extension, network, node, resource, secret, service, task, volume,
};

macro_rules! serve {
    ($($method:ident: $request:ident -> $response:ident = $handler:path;)*) => {
        #[tonic::async_trait]
        impl control_server::Control for Control {$(
            async fn $method(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<v1::$response>, Status> {
                // Requests hold secrets and are not logged; error texts hold names and IDs only.
                $handler(self, request.into_inner()).await.map(Response::new).map_err(|err| {
                    debug!(call = stringify!($method), %err, "refused");
                    err.into()
                })
            }
        )*}
    };
}

serve! {
    get_node: GetNodeRequest -> GetNodeResponse = node::get;
    list_nodes: ListNodesRequest -> ListNodesResponse = node::list;
    update_node: UpdateNodeRequest -> UpdateNodeResponse = node::update;
    remove_node: RemoveNodeRequest -> RemoveNodeResponse = node::remove;

    get_task: GetTaskRequest -> GetTaskResponse = task::get;
    list_tasks: ListTasksRequest -> ListTasksResponse = task::list;
    remove_task: RemoveTaskRequest -> RemoveTaskResponse = task::remove;

    get_service: GetServiceRequest -> GetServiceResponse = service::get;
    list_services: ListServicesRequest -> ListServicesResponse = service::list;
    create_service: CreateServiceRequest -> CreateServiceResponse = service::create;
    update_service: UpdateServiceRequest -> UpdateServiceResponse = service::update;
    remove_service: RemoveServiceRequest -> RemoveServiceResponse = service::remove;
    list_service_statuses: ListServiceStatusesRequest -> ListServiceStatusesResponse
        = service::statuses;

    get_network: GetNetworkRequest -> GetNetworkResponse = network::get;
    list_networks: ListNetworksRequest -> ListNetworksResponse = network::list;
    create_network: CreateNetworkRequest -> CreateNetworkResponse = network::create;
    remove_network: RemoveNetworkRequest -> RemoveNetworkResponse = network::remove;

    get_cluster: GetClusterRequest -> GetClusterResponse = cluster::get;
    list_clusters: ListClustersRequest -> ListClustersResponse = cluster::list;
    update_cluster: UpdateClusterRequest -> UpdateClusterResponse = cluster::update;

    get_secret: GetSecretRequest -> GetSecretResponse = secret::get;
    list_secrets: ListSecretsRequest -> ListSecretsResponse = secret::list;
    create_secret: CreateSecretRequest -> CreateSecretResponse = secret::create;
    update_secret: UpdateSecretRequest -> UpdateSecretResponse = secret::update;
    remove_secret: RemoveSecretRequest -> RemoveSecretResponse = secret::remove;

    get_config: GetConfigRequest -> GetConfigResponse = config::get;
    list_configs: ListConfigsRequest -> ListConfigsResponse = config::list;
    create_config: CreateConfigRequest -> CreateConfigResponse = config::create;
    update_config: UpdateConfigRequest -> UpdateConfigResponse = config::update;
    remove_config: RemoveConfigRequest -> RemoveConfigResponse = config::remove;

    get_extension: GetExtensionRequest -> GetExtensionResponse = extension::get;
    create_extension: CreateExtensionRequest -> CreateExtensionResponse = extension::create;
    remove_extension: RemoveExtensionRequest -> RemoveExtensionResponse = extension::remove;

    get_resource: GetResourceRequest -> GetResourceResponse = resource::get;
    list_resources: ListResourcesRequest -> ListResourcesResponse = resource::list;
    create_resource: CreateResourceRequest -> CreateResourceResponse = resource::create;
    update_resource: UpdateResourceRequest -> UpdateResourceResponse = resource::update;
    remove_resource: RemoveResourceRequest -> RemoveResourceResponse = resource::remove;

    get_volume: GetVolumeRequest -> GetVolumeResponse = volume::get;
    list_volumes: ListVolumesRequest -> ListVolumesResponse = volume::list;
    create_volume: CreateVolumeRequest -> CreateVolumeResponse = volume::create;
    update_volume: UpdateVolumeRequest -> UpdateVolumeResponse = volume::update;
    remove_volume: RemoveVolumeRequest -> RemoveVolumeResponse = volume::remove;
}

#[cfg(test)]
mod tests;
