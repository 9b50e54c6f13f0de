//! The objects that tests start from.

use skep_proto::v1::{
    ContainerSpec, Node, NodeDescription, ReplicatedService, Resources, Service, Task, TaskSpec,
    Version, node_status, service_spec::Mode, task_spec::Runtime,
};

use super::SERVICE;

/// What runs an image.
pub(in crate::reconcilers) fn container(image: &str) -> Runtime {
    let image = image.to_owned();
    Runtime::Container(ContainerSpec {
        image,
        ..ContainerSpec::default()
    })
}

/// The image that a task runs.
pub(in crate::reconcilers) fn image(task: &Task) -> String {
    match &task.spec().runtime {
        Some(Runtime::Container(container)) => container.image.clone(),
        _ => String::new(),
    }
}

/// A ready node with 4 CPUs and 8 GB.
pub(in crate::reconcilers) fn node(id: &str) -> Node {
    let mut node = Node {
        id: id.to_owned(),
        description: Some(NodeDescription {
            hostname: id.to_owned(),
            resources: Some(Resources {
                nano_cpus: 4_000_000_000,
                memory_bytes: 8_000_000_000,
                ..Resources::default()
            }),
            ..NodeDescription::default()
        }),
        ..Node::default()
    };
    node.status_mut().set_state(node_status::State::Ready);
    node
}

/// The service with image `v1`.
pub(in crate::reconcilers) fn service(replicas: u64) -> Service {
    let mut service = Service {
        id: SERVICE.to_owned(),
        spec_version: Some(Version { index: 1 }),
        ..Service::default()
    };
    let spec = service.spec_mut();
    spec.annotations_mut().name = "web".to_owned();
    spec.task = Some(TaskSpec {
        runtime: Some(container("v1")),
        ..TaskSpec::default()
    });
    spec.mode = Some(Mode::Replicated(ReplicatedService { replicas }));
    service
}
