//! Answers about secrets, configs and clusters.

use skep_proto::v1::*;
use tonic::Status;

use super::{World, find, passes};

/// Notes a conflict that the test wants: somebody else has just changed the object.
fn meddle(conflicts: &mut usize, meta: &mut Meta) {
    if *conflicts > 0 {
        *conflicts -= 1;
        meta.version_mut().index += 1;
    }
}

/// Fails unless `version` is the present one, and moves on to the next.
fn advance(meta: &mut Meta, version: Option<Version>) -> Result<(), Status> {
    if version != meta.version {
        return Err(Status::unknown("update out of sequence"));
    }
    meta.version_mut().index += 1;
    Ok(())
}

macro_rules! payload {
    ($object:ident, $kind:ident, $many:ident, $id:ident, $version:ident, $redact:expr;
     $get:ident($get_request:ident) -> $get_reply:ident,
     $list:ident($list_request:ident) -> $list_reply:ident,
     $create:ident($create_request:ident) -> $create_reply:ident,
     $update:ident($update_request:ident) -> $update_reply:ident,
     $remove:ident($remove_request:ident) -> $remove_reply:ident) => {
        pub fn $get(world: &mut World, request: $get_request) -> Result<$get_reply, Status> {
            let kind = stringify!($kind);
            let found = find(&mut world.$many, kind, &request.$id, |object| &object.id)?;
            Ok($get_reply {
                $kind: Some($redact(found.clone())),
            })
        }

        pub fn $list(world: &mut World, request: $list_request) -> Result<$list_reply, Status> {
            let filters = request.filters.unwrap_or_default();
            let mut $many = world.$many.clone();
            $many.retain(|object| {
                let name = &object.spec().annotations().name;
                passes(&filters.names, &filters.id_prefixes, name, &object.id)
            });
            let $many = $many.into_iter().map($redact).collect();
            Ok($list_reply { $many })
        }

        pub fn $create(
            world: &mut World,
            request: $create_request,
        ) -> Result<$create_reply, Status> {
            let mut object = $object {
                id: format!("{}{}", stringify!($kind), world.$many.len() + 1),
                spec: request.spec,
                ..Default::default()
            };
            object.meta_mut().version_mut().index = 10;
            world.$many.push(object.clone());
            Ok($create_reply {
                $kind: Some($redact(object)),
            })
        }

        pub fn $update(
            world: &mut World,
            request: $update_request,
        ) -> Result<$update_reply, Status> {
            let kind = stringify!($kind);
            let object = find(&mut world.$many, kind, &request.$id, |object| &object.id)?;
            meddle(&mut world.conflicts, object.meta_mut());
            advance(object.meta_mut(), request.$version)?;
            let annotations = request.spec.unwrap_or_default().annotations;
            object.spec_mut().annotations = annotations;
            Ok($update_reply {
                $kind: Some($redact(object.clone())),
            })
        }

        pub fn $remove(
            world: &mut World,
            request: $remove_request,
        ) -> Result<$remove_reply, Status> {
            let kind = stringify!($kind);
            find(&mut world.$many, kind, &request.$id, |object| &object.id)?;
            world.$many.retain(|object| object.id != request.$id);
            Ok($remove_reply {})
        }
    };
}

payload!(
    Secret, secret, secrets, secret_id, secret_version,
    |mut secret: Secret| {
        secret.spec_mut().data = Default::default();
        secret
    };
    get_secret(GetSecretRequest) -> GetSecretResponse,
    list_secrets(ListSecretsRequest) -> ListSecretsResponse,
    create_secret(CreateSecretRequest) -> CreateSecretResponse,
    update_secret(UpdateSecretRequest) -> UpdateSecretResponse,
    remove_secret(RemoveSecretRequest) -> RemoveSecretResponse
);

payload!(
    Config, config, configs, config_id, config_version, |config: Config| config;
    get_config(GetConfigRequest) -> GetConfigResponse,
    list_configs(ListConfigsRequest) -> ListConfigsResponse,
    create_config(CreateConfigRequest) -> CreateConfigResponse,
    update_config(UpdateConfigRequest) -> UpdateConfigResponse,
    remove_config(RemoveConfigRequest) -> RemoveConfigResponse
);

pub fn update_cluster(
    world: &mut World,
    request: UpdateClusterRequest,
) -> Result<UpdateClusterResponse, Status> {
    let id = &request.cluster_id;
    let cluster = find(&mut world.clusters, "cluster", id, |cluster| &cluster.id)?;
    meddle(&mut world.conflicts, cluster.meta_mut());
    advance(cluster.meta_mut(), request.cluster_version)?;
    cluster.spec = request.spec;
    let rotation = request.rotation.unwrap_or_default();
    let tokens = cluster.root_ca_mut().join_tokens_mut();
    if rotation.worker_join_token {
        tokens.worker = "new-worker-token".to_owned();
    }
    if rotation.manager_join_token {
        tokens.manager = "new-manager-token".to_owned();
    }
    Ok(UpdateClusterResponse {
        cluster: Some(cluster.clone()),
    })
}
