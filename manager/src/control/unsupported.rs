//! What clients may ask for and this swarm cannot do yet. Such requests are refused with the name of
//! the field rather than half fulfilled. This file shrinks as features arrive.

use skep_proto::v1::{
    Cluster, ClusterSpec, ContainerSpec, KeyRotation, Mount, NetworkAttachmentConfig, PortConfig,
    ServiceSpec, TaskSpec, mount, port_config::PublishMode, service_spec::Mode, task_spec::Runtime,
    update_config::FailureAction,
};

use super::ApiError;

/// The refusal of `what`, which reads well before "not supported yet".
pub(super) fn refuse(what: &str) -> ApiError {
    ApiError::unimplemented(format!("{what} not supported yet"))
}

/// Refuses the first thing of the list that is asked for.
fn refuse_any(asked: &[(bool, &str)]) -> Result<(), ApiError> {
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(refuse(what)),
        None => Ok(()),
    }
}

/// Fails if a service needs what is not there.
pub(super) fn service(spec: &ServiceSpec) -> Result<(), ApiError> {
    let rolls_back =
        |update: &skep_proto::v1::UpdateConfig| update.failure_action() == FailureAction::Rollback;
    let ingress = |port: &PortConfig| port.publish_mode() == PublishMode::Ingress;
    refuse_any(&[
        (
            matches!(spec.mode, Some(Mode::Global(_))),
            "ServiceSpec: global mode is",
        ),
        (
            matches!(spec.mode, Some(Mode::ReplicatedJob(_))),
            "ServiceSpec: replicated job mode is",
        ),
        (
            matches!(spec.mode, Some(Mode::GlobalJob(_))),
            "ServiceSpec: global job mode is",
        ),
        (
            spec.endpoint
                .as_ref()
                .is_some_and(|endpoint| endpoint.ports.iter().any(ingress)),
            "EndpointSpec: ports published in ingress mode are",
        ),
        (
            !service_networks(spec).is_empty(),
            "ServiceSpec: networks are",
        ),
        (
            spec.update.as_ref().is_some_and(rolls_back),
            "UpdateConfig: failure action rollback is",
        ),
    ])?;
    task(spec.task())
}

fn task(spec: &TaskSpec) -> Result<(), ApiError> {
    refuse_any(&[
        (!spec.networks.is_empty(), "TaskSpec: networks are"),
        (
            spec.placement
                .as_ref()
                .is_some_and(|placement| !placement.preferences.is_empty()),
            "TaskSpec: placement preferences are",
        ),
        (
            matches!(spec.runtime, Some(Runtime::Generic(_))),
            "TaskSpec: the generic runtime is",
        ),
    ])?;
    match &spec.runtime {
        Some(Runtime::Container(spec)) => container(spec),
        _ => Ok(()),
    }
}

fn container(spec: &ContainerSpec) -> Result<(), ApiError> {
    let of_cluster = |mount: &Mount| mount.r#type() == mount::Type::Cluster;
    refuse_any(&[(
        spec.mounts.iter().any(of_cluster),
        "ContainerSpec: mounts of cluster volumes are",
    )])
}

/// Fails if an update of `stored` to `spec` needs what is not there.
pub(super) fn cluster(
    stored: &Cluster,
    spec: &ClusterSpec,
    rotation: &KeyRotation,
) -> Result<(), ApiError> {
    let (old, new) = (stored.spec(), spec);
    let rotates_tokens = rotation.worker_join_token || rotation.manager_join_token;
    refuse_any(&[
        (
            new.raft().keep_old_snapshots != old.raft().keep_old_snapshots
                && new.raft().keep_old_snapshots > 0,
            "RaftConfig: keeping old snapshots is",
        ),
        (
            rotates_tokens && stored.fips,
            "KeyRotation: rotating the join tokens of a cluster in FIPS mode is",
        ),
    ])
}

/// Where clients attached networks before they moved to the task spec.
#[allow(deprecated)]
pub(super) fn service_networks(spec: &ServiceSpec) -> &[NetworkAttachmentConfig] {
    &spec.networks
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::*;

    use super::*;
    use crate::control::testing::{service_spec, text};

    #[test]
    fn a_service_of_plain_containers_is_supported() {
        assert_eq!(text(service(&service_spec("web"))), "");
        let mut full = service_spec("web");
        full.update = Some(UpdateConfig::default());
        full.rollback = Some(UpdateConfig::default());
        full.endpoint = Some(EndpointSpec {
            ports: vec![PortConfig {
                publish_mode: PublishMode::Host.into(),
                ..Default::default()
            }],
            ..Default::default()
        });
        full.task_mut().placement = Some(Placement {
            constraints: vec!["node.role==worker".into()],
            platforms: vec![Platform::default()],
            max_replicas: 2,
            ..Default::default()
        });
        full.task_mut().resources = Some(ResourceRequirements {
            reservations: Some(Resources {
                generic: vec![GenericResource::default()],
                ..Default::default()
            }),
            ..Default::default()
        });
        full.task_mut().resource_references = vec![ResourceReference::default()];
        let Some(Runtime::Container(container)) = &mut full.task_mut().runtime else {
            panic!("not a container: {full:?}");
        };
        container.secrets = vec![SecretReference::default()];
        container.configs = vec![ConfigReference::default()];
        container.mounts = vec![Mount::default()];
        container.healthcheck = Some(HealthConfig::default());
        assert_eq!(text(service(&full)), "");
    }

    #[test]
    fn what_a_service_cannot_have_yet_is_named() {
        let check = |change: fn(&mut ServiceSpec), expected: &str| {
            let mut spec = service_spec("web");
            change(&mut spec);
            let error = service(&spec).unwrap_err();
            assert_eq!(error, ApiError::Unimplemented(expected.to_owned()));
        };
        fn task(spec: &mut ServiceSpec, change: impl FnOnce(&mut TaskSpec)) {
            change(spec.task_mut());
        }
        fn container(spec: &mut ServiceSpec, change: impl FnOnce(&mut ContainerSpec)) {
            match &mut spec.task_mut().runtime {
                Some(task_spec::Runtime::Container(container)) => change(container),
                other => panic!("not a container: {other:?}"),
            }
        }
        check(
            |s| s.mode = Some(Mode::Global(GlobalService {})),
            "ServiceSpec: global mode is not supported yet",
        );
        check(
            |s| s.mode = Some(Mode::ReplicatedJob(ReplicatedJob::default())),
            "ServiceSpec: replicated job mode is not supported yet",
        );
        check(
            |s| s.mode = Some(Mode::GlobalJob(GlobalJob {})),
            "ServiceSpec: global job mode is not supported yet",
        );
        check(
            |s| {
                s.endpoint = Some(EndpointSpec {
                    ports: vec![PortConfig::default()],
                    ..Default::default()
                });
            },
            "EndpointSpec: ports published in ingress mode are not supported yet",
        );
        #[allow(deprecated)]
        let networks: fn(&mut ServiceSpec) = |s| s.networks = vec![Default::default()];
        check(networks, "ServiceSpec: networks are not supported yet");
        check(
            |s| {
                s.update = Some(UpdateConfig {
                    failure_action: FailureAction::Rollback.into(),
                    ..Default::default()
                });
            },
            "UpdateConfig: failure action rollback is not supported yet",
        );
        check(
            |s| task(s, |t| t.networks = vec![Default::default()]),
            "TaskSpec: networks are not supported yet",
        );
        check(
            |s| {
                task(s, |t| {
                    t.placement = Some(Placement {
                        preferences: vec![PlacementPreference::default()],
                        ..Default::default()
                    });
                });
            },
            "TaskSpec: placement preferences are not supported yet",
        );
        check(
            |s| {
                task(s, |t| {
                    t.runtime = Some(Runtime::Generic(Default::default()))
                })
            },
            "TaskSpec: the generic runtime is not supported yet",
        );
        check(
            |s| {
                container(s, |c| {
                    c.mounts = vec![Mount {
                        r#type: mount::Type::Cluster.into(),
                        ..Default::default()
                    }];
                });
            },
            "ContainerSpec: mounts of cluster volumes are not supported yet",
        );
    }

    #[test]
    fn what_a_cluster_cannot_change_yet_is_named() {
        let check = |change: fn(&mut Cluster, &mut ClusterSpec, &mut KeyRotation),
                     expected: &str| {
            let mut stored = Cluster::default();
            let mut spec = ClusterSpec::default();
            let mut rotation = KeyRotation::default();
            change(&mut stored, &mut spec, &mut rotation);
            assert_eq!(text(cluster(&stored, &spec, &rotation)), expected);
        };
        check(|_, _, _| {}, "");
        check(|_, _, rotation| rotation.worker_join_token = true, "");
        check(
            |_, spec, _| spec.raft_mut().keep_old_snapshots = 1,
            "RaftConfig: keeping old snapshots is not supported yet",
        );
        check(
            |stored, spec, _| {
                stored.spec_mut().raft_mut().keep_old_snapshots = 1;
                spec.raft_mut().keep_old_snapshots = 0;
            },
            "",
        );
        check(
            |_, spec, rotation| {
                spec.encryption_config_mut().auto_lock_managers = true;
                rotation.manager_unlock_key = true;
            },
            "",
        );
        check(
            |stored, _, rotation| {
                stored.fips = true;
                rotation.manager_join_token = true;
            },
            "KeyRotation: rotating the join tokens of a cluster in FIPS mode is not supported yet",
        );
    }
}
