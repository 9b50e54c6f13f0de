//! Calls of the control API: everything in a spec comes from a user.

use std::time::Duration;

use prost::Message as _;
use skep_manager::control::Control;
use skep_proto::{Timestamp, v1, v1::control_server::Control as _};
use skep_store::{Entry, Store};
use tonic::Request;

use crate::seeds;

macro_rules! calls {
    ($($method:ident: $request:ident,)*) => {
        const METHODS: &[&str] = &[$(stringify!($method),)*];

        /// Makes the call of this number, if the request decodes.
        async fn call(control: &Control, method: &str, body: &[u8]) {
            match method {
                $(stringify!($method) => {
                    if let Ok(request) = v1::$request::decode(body) {
                        // Either is fine.
                        let _ = control.$method(Request::new(request)).await;
                    }
                })*
                _ => unreachable!("it is one of METHODS"),
            }
        }
    };
}

calls! {
    create_service: CreateServiceRequest,
    update_service: UpdateServiceRequest,
    list_services: ListServicesRequest,
    remove_service: RemoveServiceRequest,
    list_service_statuses: ListServiceStatusesRequest,
    update_node: UpdateNodeRequest,
    list_nodes: ListNodesRequest,
    remove_node: RemoveNodeRequest,
    list_tasks: ListTasksRequest,
    update_cluster: UpdateClusterRequest,
    create_network: CreateNetworkRequest,
    list_networks: ListNetworksRequest,
    create_secret: CreateSecretRequest,
    update_secret: UpdateSecretRequest,
    create_config: CreateConfigRequest,
    update_config: UpdateConfigRequest,
    list_configs: ListConfigsRequest,
    create_extension: CreateExtensionRequest,
    create_resource: CreateResourceRequest,
    update_resource: UpdateResourceRequest,
    create_volume: CreateVolumeRequest,
    update_volume: UpdateVolumeRequest,
}

/// A request after the number of its method in a byte.
fn seed(method: &str, request: &impl prost::Message) -> Vec<u8> {
    let number = METHODS.iter().position(|known| *known == method).unwrap();
    let mut bytes = vec![number as u8];
    request.encode(&mut bytes).unwrap();
    bytes
}

fn annotations(name: &str) -> Option<v1::Annotations> {
    Some(v1::Annotations {
        name: name.into(),
        labels: [("a".into(), "b".into())].into(),
        ..v1::Annotations::default()
    })
}

/// Most of what a service can have.
fn service(name: &str) -> v1::ServiceSpec {
    let container = v1::ContainerSpec {
        image: "registry.example:5000/web:1@sha256:0".into(),
        env: vec!["A={{.Task.Slot}}".into()],
        mounts: vec![v1::Mount {
            source: "data".into(),
            target: "/data".into(),
            ..v1::Mount::default()
        }],
        hosts: vec!["10.0.0.1 a b".into()],
        dns_config: Some(v1::container_spec::DnsConfig {
            nameservers: vec!["10.0.0.2".into()],
            ..Default::default()
        }),
        ..v1::ContainerSpec::default()
    };
    let task = v1::TaskSpec {
        runtime: Some(v1::task_spec::Runtime::Container(container)),
        placement: Some(v1::Placement {
            constraints: vec!["node.labels.a==b".into(), "node.ip != 10.0.0.0/8".into()],
            ..v1::Placement::default()
        }),
        ..v1::TaskSpec::default()
    };
    let port = |target_port, published_port| v1::PortConfig {
        target_port,
        published_port,
        ..v1::PortConfig::default()
    };
    v1::ServiceSpec {
        annotations: annotations(name),
        task: Some(task),
        endpoint: Some(v1::EndpointSpec {
            ports: vec![port(80, 8080), port(81, 0)],
            ..v1::EndpointSpec::default()
        }),
        ..v1::ServiceSpec::default()
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let version = Some(v1::Version { index: 3 });
    let payload = |name| v1::ConfigSpec {
        annotations: annotations(name),
        data: "data".into(),
        ..v1::ConfigSpec::default()
    };
    let cluster = v1::ClusterSpec {
        annotations: annotations("default"),
        raft: Some(v1::RaftConfig {
            heartbeat_tick: 1,
            election_tick: 10,
            ..v1::RaftConfig::default()
        }),
        ca_config: Some(v1::CaConfig {
            node_cert_expiry: Some(skep_proto::Duration {
                seconds: 86_400,
                nanos: 0,
            }),
            force_rotate: 1,
            ..v1::CaConfig::default()
        }),
        ..v1::ClusterSpec::default()
    };
    let filters = v1::list_services_request::Filters {
        name_prefixes: vec!["w".into()],
        labels: [("a".into(), "b".into())].into(),
        ..Default::default()
    };
    vec![
        seed(
            "create_service",
            &v1::CreateServiceRequest {
                spec: Some(service("api")),
            },
        ),
        seed(
            "update_service",
            &v1::UpdateServiceRequest {
                service_id: "service".into(),
                service_version: version,
                spec: Some(service("web")),
                ..Default::default()
            },
        ),
        seed(
            "list_services",
            &v1::ListServicesRequest {
                filters: Some(filters),
            },
        ),
        seed(
            "remove_service",
            &v1::RemoveServiceRequest {
                service_id: "service".into(),
            },
        ),
        seed(
            "update_node",
            &v1::UpdateNodeRequest {
                node_id: "first".into(),
                node_version: version,
                spec: Some(v1::NodeSpec::default()),
            },
        ),
        seed(
            "update_cluster",
            &v1::UpdateClusterRequest {
                cluster_id: "cluster".into(),
                cluster_version: version,
                spec: Some(cluster),
                rotation: Some(v1::KeyRotation {
                    worker_join_token: true,
                    manager_unlock_key: true,
                    ..Default::default()
                }),
            },
        ),
        seed(
            "create_config",
            &v1::CreateConfigRequest {
                spec: Some(payload("config")),
            },
        ),
        seed(
            "create_network",
            &v1::CreateNetworkRequest {
                spec: Some(v1::NetworkSpec {
                    annotations: annotations("net"),
                    ..Default::default()
                }),
            },
        ),
        seed(
            "create_extension",
            &v1::CreateExtensionRequest {
                annotations: annotations("ext"),
                description: "things".into(),
            },
        ),
    ]
}

/// A store that leads and has a node, a service and a cluster with a root of its own.
fn store() -> Store {
    let store = Store::new(Timestamp::default);
    let known = seeds::identity();
    let mut cluster = v1::Cluster {
        id: "cluster".into(),
        ..v1::Cluster::default()
    };
    cluster.spec_mut().annotations = annotations("default");
    cluster.root_ca_mut().ca_cert = known.root.clone();
    cluster.root_ca_mut().ca_key = known.ca.key_pem().map(|key| key.to_vec()).unwrap().into();
    let create = v1::StoreAction {
        action: v1::StoreActionKind::StoreActionCreate.into(),
        target: Some(v1::store_action::Target::Cluster(cluster)),
    };
    let founding = v1::InternalRaftRequest {
        id: 9,
        action: vec![create],
    };
    let data = [seeds::requests(), vec![founding.encode_to_vec()]].concat();
    for (index, data) in (1..).zip(data) {
        let data = data.into();
        store.apply(&[Entry { index, data }]).unwrap();
    }
    skep_store::testing::lead(&store);
    store
}

pub(crate) fn run(input: &[u8]) {
    let Some((method, body)) = input.split_first() else {
        return;
    };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = store();
    let control = Control::new(store.clone(), skep_raft::Status::default);
    let answered = runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), call(&control, method, body)).await
    });
    // Ends the thread that commits.
    store.follow();
    answered.expect("each call is answered");
    let _ = store.snapshot().to_wire().encoded_len();
}
