//! Objects as a swarm of ordinary size has them, for benchmarks and tests of sizes.

use skep_proto::{
    Duration, Shared, Timestamp,
    v1::{
        Annotations, ContainerSpec, ContainerStatus, Meta, Node, NodeDescription, NodeSpec,
        NodeStatus, ResourceRequirements, Resources, RestartPolicy, Task, TaskSpec, TaskState,
        TaskStatus, Version, node_spec::Membership, node_status, task_spec, task_status,
    },
};

/// How many tasks one service has.
const TASKS_PER_SERVICE: u64 = 100;

/// How many tasks one node has.
const TASKS_PER_NODE: u64 = 20;

/// 25 characters like those of an object's ID; always the same ones for `number`.
pub fn id(number: u64) -> String {
    // SplitMix64: neighbours have nothing in common, as with random IDs.
    let mut state = number.wrapping_mul(2).wrapping_add(1);
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..25)
        .map(|_| char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[(random() % 36) as usize]))
        .collect()
}

/// ID of the node that the task of this number is on.
pub fn node_of(number: u64) -> String {
    id((1 << 40) + number / TASKS_PER_NODE)
}

/// ID of the service that the task of this number is of.
pub fn service_of(number: u64) -> String {
    id((1 << 41) + number / TASKS_PER_SERVICE)
}

/// A node that is up.
pub fn node(number: u64) -> Node {
    Node {
        id: id(number),
        spec: Some(NodeSpec {
            membership: Membership::Accepted.into(),
            ..Default::default()
        }),
        description: Some(NodeDescription {
            hostname: format!("node-{number}.example"),
            ..Default::default()
        }),
        status: Some(NodeStatus {
            state: node_status::State::Ready.into(),
            addr: "192.0.2.1".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A running task of a replicated service, with an image, environment, arguments and labels.
pub fn task(number: u64) -> Task {
    let time = Timestamp {
        seconds: 1_700_000_000,
        nanos: 123_456_789,
    };
    let labels = |prefix: &str| {
        ["team", "stage"]
            .map(|key| (format!("{prefix}.{key}"), "production".to_owned()))
            .into()
    };
    let service = service_of(number);
    Task {
        id: id(number),
        meta: Some(Meta {
            version: Some(Version { index: number + 1 }),
            created_at: Some(time),
            updated_at: Some(time),
        }),
        spec: Some(Shared::from(TaskSpec {
            resources: Some(ResourceRequirements {
                reservations: Some(Resources {
                    nano_cpus: 100_000_000,
                    memory_bytes: 64 << 20,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            restart: Some(RestartPolicy {
                delay: Some(Duration {
                    seconds: 5,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                image: "registry.example/team/web:1.27.3".to_owned(),
                labels: labels("example.container"),
                args: ["serve", "--listen=0.0.0.0:8080"].map(str::to_owned).into(),
                env: [
                    "STAGE=production",
                    "LOG_LEVEL=info",
                    "DATABASE=db.example:5432",
                ]
                .map(str::to_owned)
                .into(),
                ..Default::default()
            })),
            ..Default::default()
        })),
        slot: number % TASKS_PER_SERVICE + 1,
        node_id: node_of(number),
        annotations: Some(Annotations::default()),
        service_annotations: Some(Annotations {
            name: format!("web-{}", &service[..5]),
            labels: labels("example.service"),
            ..Default::default()
        }),
        service_id: service,
        status: Some(TaskStatus {
            timestamp: Some(time),
            state: TaskState::Running.into(),
            message: "started".to_owned(),
            runtime_status: Some(task_status::RuntimeStatus::Container(ContainerStatus {
                container_id: format!("{}{}", id(number), id(number + 1)),
                pid: 4242,
                exit_code: 0,
            })),
            ..Default::default()
        }),
        desired_state: TaskState::Running.into(),
        spec_version: Some(Version { index: 17 }),
        ..Default::default()
    }
}
