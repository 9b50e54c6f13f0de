//! What a node tells the dispatcher: who it is, that it lives, what became of its tasks and volumes.

use std::time::Duration;

use prost::Message as _;
use skep_manager::{dispatcher::Dispatcher, secret_drivers::SecretDrivers};
use skep_proto::v1::{self, dispatcher_server::Dispatcher as _};
use skep_security::{Caller, Identity, Role};
use skep_store::{Entry, Store};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::seeds;

/// In inputs, the session that there is.
const SESSION: &str = "S";
pub(crate) const NODE: &str = "node";

/// The calls, by their number in inputs.
const CALLS: usize = 6;

/// Calls one after the other, each after its number in a byte and its size in two.
fn pack(calls: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, request) in calls {
        bytes.push(*number);
        bytes.extend((request.len() as u16).to_le_bytes());
        bytes.extend(request);
    }
    bytes
}

fn description() -> v1::NodeDescription {
    v1::NodeDescription {
        hostname: "node.example".into(),
        platform: Some(v1::Platform {
            architecture: "x86_64".into(),
            os: "linux".into(),
        }),
        resources: Some(v1::Resources {
            nano_cpus: 4_000_000_000,
            memory_bytes: 1 << 30,
            generic: vec![v1::GenericResource {
                resource: Some(v1::generic_resource::Resource::DiscreteResourceSpec(
                    v1::DiscreteGenericResource {
                        kind: "gpu".into(),
                        value: 2,
                    },
                )),
            }],
        }),
        engine: Some(v1::EngineDescription {
            engine_version: "20.10".into(),
            labels: [("disk".into(), "ssd".into())].into(),
            plugins: vec![v1::PluginDescription {
                r#type: "Volume".into(),
                name: "local".into(),
            }],
        }),
        tls_info: Some(v1::NodeTlsInfo {
            trust_root: "root".into(),
            ..Default::default()
        }),
        csi_info: vec![v1::NodeCsiInfo {
            plugin_name: "csi".into(),
            node_id: "there".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let session = |session_id: &str| v1::SessionRequest {
        description: Some(description()),
        session_id: session_id.into(),
    };
    let beat = v1::HeartbeatRequest {
        session_id: SESSION.into(),
    };
    let status = |state: v1::TaskState| v1::TaskStatus {
        state: state.into(),
        timestamp: Some(skep_proto::Timestamp {
            seconds: 7,
            nanos: 9,
        }),
        message: "started".into(),
        runtime_status: Some(v1::task_status::RuntimeStatus::Container(
            v1::ContainerStatus {
                container_id: "c1".into(),
                pid: 42,
                exit_code: 0,
            },
        )),
        port_status: Some(v1::PortStatus {
            ports: vec![v1::PortConfig {
                target_port: 80,
                published_port: 8080,
                ..Default::default()
            }],
        }),
        ..Default::default()
    };
    let update = |states: &[v1::TaskState]| v1::UpdateTaskStatusRequest {
        session_id: SESSION.into(),
        updates: states
            .iter()
            .map(|state| v1::update_task_status_request::TaskStatusUpdate {
                task_id: "task".into(),
                status: Some(status(*state)),
            })
            .collect(),
    };
    let volumes = v1::UpdateVolumeStatusRequest {
        session_id: SESSION.into(),
        updates: vec![v1::update_volume_status_request::VolumeStatusUpdate {
            id: "volume".into(),
            unpublished: true,
        }],
    };
    let assignments = v1::AssignmentsRequest {
        session_id: SESSION.into(),
    };
    let tasks = v1::TasksRequest {
        session_id: SESSION.into(),
    };
    let states = [v1::TaskState::Running, v1::TaskState::Complete];
    vec![
        pack(&[
            (1, beat.encode_to_vec()),
            (2, update(&states[..1]).encode_to_vec()),
            (3, volumes.encode_to_vec()),
            (2, update(&states).encode_to_vec()),
        ]),
        pack(&[
            (0, session("").encode_to_vec()),
            (4, assignments.encode_to_vec()),
            (2, update(&states).encode_to_vec()),
        ]),
        pack(&[
            (0, session(SESSION).encode_to_vec()),
            (5, tasks.encode_to_vec()),
            (1, beat.encode_to_vec()),
        ]),
    ]
}

/// A store that leads, with a cluster, and a node that has a task and is to let go of a volume.
fn store() -> Store {
    use v1::store_action::Target;
    let mut task = v1::Task {
        id: "task".into(),
        node_id: NODE.into(),
        ..Default::default()
    };
    task.status_mut().set_state(v1::TaskState::Assigned);
    let volume = v1::Volume {
        id: "volume".into(),
        publish_status: vec![v1::VolumePublishStatus {
            node_id: NODE.into(),
            state: v1::volume_publish_status::State::PendingNodeUnpublish.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let node = v1::Node {
        id: NODE.into(),
        ..Default::default()
    };
    let cluster = v1::Cluster {
        id: "cluster".into(),
        ..Default::default()
    };
    let targets = [
        Target::Cluster(cluster),
        Target::Node(node),
        Target::Task(task),
        Target::Volume(volume),
    ];
    let create = |target| v1::StoreAction {
        action: v1::StoreActionKind::StoreActionCreate.into(),
        target: Some(target),
    };
    let request = v1::InternalRaftRequest {
        id: 1,
        action: targets.into_iter().map(create).collect(),
    };
    let store = Store::new(skep_proto::Timestamp::default);
    let data = request.encode_to_vec().into();
    store.apply(&[Entry { index: 1, data }]).unwrap();
    skep_store::testing::lead(&store);
    store
}

/// `message` as a call of that node.
pub(crate) fn of_node<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller {
        identity: Some(Identity {
            node_id: NODE.into(),
            role: Role::Worker,
            cluster_id: "cluster".into(),
        }),
        remote_addr: "10.0.0.7:1".into(),
        forwarded_by: None,
    });
    request
}

/// A request if it decodes, with the session that there is where it says so.
macro_rules! request {
    ($request:ident, $body:expr, $session:expr) => {
        match v1::$request::decode($body) {
            Ok(mut request) => {
                if request.session_id == SESSION {
                    request.session_id.clone_from($session);
                }
                of_node(request)
            }
            Err(_) => return,
        }
    };
}

/// Makes one call; whether it is taken or refused does not matter. Streams say something first.
async fn call(dispatcher: &Dispatcher, number: u8, body: &[u8], session: &mut String) {
    match usize::from(number) % CALLS {
        0 => {
            let request = request!(SessionRequest, body, session);
            if let Ok(stream) = dispatcher.session(request).await {
                let first = stream.into_inner().next().await;
                if let Some(Ok(first)) = first {
                    *session = first.session_id;
                }
            }
        }
        1 => {
            let request = request!(HeartbeatRequest, body, session);
            if let Ok(answer) = dispatcher.heartbeat(request).await {
                let period = answer.into_inner().period.unwrap_or_default();
                assert!(Duration::try_from(period).is_ok_and(|period| period > Duration::ZERO));
            }
        }
        2 => drop(
            dispatcher
                .update_task_status(request!(UpdateTaskStatusRequest, body, session))
                .await,
        ),
        3 => drop(
            dispatcher
                .update_volume_status(request!(UpdateVolumeStatusRequest, body, session))
                .await,
        ),
        4 => {
            let request = request!(AssignmentsRequest, body, session);
            if let Ok(stream) = dispatcher.assignments(request).await {
                drop(stream.into_inner().next().await);
            }
        }
        _ => {
            let request = request!(TasksRequest, body, session);
            if let Ok(stream) = dispatcher.tasks(request).await {
                drop(stream.into_inner().next().await);
            }
        }
    }
}

pub(crate) fn run(mut input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = store();
    let (_members, members) = watch::channel(vec![seeds::member(1)]);
    let dispatcher = Dispatcher::new(
        store.clone(),
        members,
        "manager",
        SecretDrivers::new(Vec::new()),
    );
    let calls = async {
        // The term has begun when calls are taken.
        let mut session = String::new();
        let hello = v1::SessionRequest {
            description: Some(description()),
            ..Default::default()
        }
        .encode_to_vec();
        while session.is_empty() {
            tokio::task::yield_now().await;
            call(&dispatcher, 0, &hello, &mut session).await;
        }
        while let Some((head, rest)) = input.split_first_chunk::<3>() {
            let size = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
            let (body, rest) = rest.split_at(size);
            input = rest;
            call(&dispatcher, head[0], body, &mut session).await;
        }
    };
    let done = runtime.block_on(async {
        let calls = tokio::time::timeout(Duration::from_secs(20), calls);
        tokio::select! {
            done = calls => done,
            () = dispatcher.run(CancellationToken::new()) => unreachable!("nobody ends the term"),
        }
    });
    // Ends the thread that commits.
    store.follow();
    done.expect("each call is answered");
    let _ = store.snapshot().to_wire().encoded_len();
}
