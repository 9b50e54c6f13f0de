//! Finds the object a user means: by full ID, then by name, then by a prefix of the ID.
//!
//! The Get calls take full IDs only; names and prefixes are looked up through List filters.

use skep_proto::v1::{
    Cluster, Config, GetClusterRequest, GetConfigRequest, GetNodeRequest, GetSecretRequest,
    GetServiceRequest, GetTaskRequest, ListClustersRequest, ListConfigsRequest, ListNodesRequest,
    ListSecretsRequest, ListServicesRequest, ListTasksRequest, Node, Secret, Service, Task,
    list_clusters_request, list_configs_request, list_nodes_request, list_secrets_request,
    list_services_request, list_tasks_request,
};
use tonic::{Code, Response, Status};

use crate::{Error, client::Client};

macro_rules! lookup {
    ($(#[$doc:meta])* $function:ident -> $object:ident, $kind:literal,
     $get:ident($get_request:ident { $id:ident $(, $rest:ident: $value:expr)? } -> $one:ident),
     $list:ident($list_request:ident, $filters:ident -> $many:ident)) => {
        $(#[$doc])*
        pub(crate) async fn $function(client: &Client, wanted: &str) -> Result<$object, Error> {
            let mut control = client.control();
            let got = control.$get($get_request { $id: wanted.to_owned() $(, $rest: $value)? });
            if let Some(found) = absent_as_none(got.await)? {
                return found.$one.ok_or_else(|| Error::Answer(format!("no {}", $kind)));
            }
            for filters in [
                $filters::Filters { names: vec![wanted.to_owned()], ..Default::default() },
                $filters::Filters { id_prefixes: vec![wanted.to_owned()], ..Default::default() },
            ] {
                let request = $list_request { filters: Some(filters) };
                let mut found = control.$list(request).await?.into_inner().$many;
                match (found.pop(), found.len()) {
                    (Some(only), 0) => return Ok(only),
                    (None, _) => {}
                    (Some(_), others) => {
                        return Err(Error::Ambiguous {
                            kind: $kind,
                            name: wanted.to_owned(),
                            count: others + 1,
                        });
                    }
                }
            }
            Err(Error::NotFound { kind: $kind, name: wanted.to_owned() })
        }
    };
}

lookup!(
    /// The service `wanted` means.
    service -> Service, "service",
    get_service(GetServiceRequest { service_id, insert_defaults: false } -> service),
    list_services(ListServicesRequest, list_services_request -> services)
);
lookup!(
    /// The node `wanted` means; its name is its hostname.
    node -> Node, "node",
    get_node(GetNodeRequest { node_id } -> node),
    list_nodes(ListNodesRequest, list_nodes_request -> nodes)
);
lookup!(
    /// The task `wanted` means.
    task -> Task, "task",
    get_task(GetTaskRequest { task_id } -> task),
    list_tasks(ListTasksRequest, list_tasks_request -> tasks)
);
lookup!(
    /// The cluster `wanted` means, usually `default`.
    cluster -> Cluster, "cluster",
    get_cluster(GetClusterRequest { cluster_id } -> cluster),
    list_clusters(ListClustersRequest, list_clusters_request -> clusters)
);

lookup!(
    /// The secret `wanted` means, without its data.
    secret -> Secret, "secret",
    get_secret(GetSecretRequest { secret_id } -> secret),
    list_secrets(ListSecretsRequest, list_secrets_request -> secrets)
);
lookup!(
    /// The config `wanted` means.
    config -> Config, "config",
    get_config(GetConfigRequest { config_id } -> config),
    list_configs(ListConfigsRequest, list_configs_request -> configs)
);

/// The answer of a Get call, `None` if there is no object with that ID.
fn absent_as_none<T>(answer: Result<Response<T>, Status>) -> Result<Option<T>, Error> {
    match answer {
        Ok(response) => Ok(Some(response.into_inner())),
        Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => Ok(None),
        Err(status) => Err(status.into()),
    }
}
