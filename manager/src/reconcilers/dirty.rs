//! Whether a task is still what its service asks for.

use skep_proto::v1::{Node, Service, Task, TaskSpec, TaskState, task_spec::Runtime};

use crate::reconcilers::{constraint, facts::state};

/// Whether the task must be replaced to become what the service's spec says. `node` is the one it
/// is on.
pub(crate) fn is_dirty(service: &Service, task: &Task, node: Option<&Node>) -> bool {
    if has_version(service, task) {
        return false;
    }
    let endpoint = task.endpoint.as_ref();
    if endpoint.is_some_and(|endpoint| endpoint.spec != service.spec().endpoint) {
        return true;
    }
    let (wanted, present) = (service.spec().task(), task.spec());
    if wanted == present {
        return false;
    }
    // From here on a difference that does not matter to a task where and as it runs is made equal.
    let mut wanted = wanted.clone();
    if wanted.placement != present.placement && allows(&wanted, node) {
        wanted.placement.clone_from(&present.placement);
    }
    if (TaskState::Ready..=TaskState::Running).contains(&state(task))
        && let (Some(Runtime::Container(wanted)), Some(Runtime::Container(present))) =
            (&mut wanted.runtime, &present.runtime)
    {
        wanted.pull_options.clone_from(&present.pull_options);
    }
    wanted != *present
}

/// Whether the task was made of the service's present spec.
pub(crate) fn has_version(service: &Service, task: &Task) -> bool {
    task.spec_version.is_some() && task.spec_version == service.spec_version
}

/// Whether the node satisfies the spec's constraints.
fn allows(spec: &TaskSpec, node: Option<&Node>) -> bool {
    let constraints = spec.placement.as_ref().map_or(&[][..], |p| &p.constraints);
    match (node, constraint::parse(constraints)) {
        (Some(node), Ok(constraints)) => constraints.iter().all(|c| c.matches(node)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{
        ContainerSpec, Endpoint, EndpointSpec, Placement, Version, container_spec::PullOptions,
    };

    use super::*;

    fn pair() -> (Service, Task) {
        let spec = TaskSpec {
            runtime: Some(Runtime::Container(ContainerSpec::default())),
            ..TaskSpec::default()
        };
        let mut service = Service {
            spec_version: Some(Version { index: 2 }),
            ..Service::default()
        };
        *service.spec_mut().task_mut() = spec.clone();
        let task = Task {
            spec: Some(spec.into()),
            spec_version: Some(Version { index: 1 }),
            endpoint: Some(Endpoint::default()),
            ..Task::default()
        };
        (service, task)
    }

    fn place(service: &mut Service, constraint: &str) {
        service.spec_mut().task_mut().placement = Some(Placement {
            constraints: vec![constraint.to_owned()],
            ..Placement::default()
        });
    }

    #[test]
    fn a_version_alone_does_not_make_dirty() {
        let (mut service, mut task) = pair();
        assert!(!is_dirty(&service, &task, None));
        service.spec_mut().task_mut().force_update = 1;
        assert!(is_dirty(&service, &task, None));
        task.spec_version = service.spec_version;
        assert!(!is_dirty(&service, &task, None), "same version, same spec");
    }

    #[test]
    fn the_endpoint_counts() {
        let (mut service, task) = pair();
        service.spec_mut().endpoint = Some(EndpointSpec::default());
        assert!(is_dirty(&service, &task, None));
    }

    #[test]
    fn new_constraints_matter_only_where_they_are_not_met() {
        let (mut service, task) = pair();
        let node = Node {
            id: "here".to_owned(),
            ..Node::default()
        };
        place(&mut service, "node.id==here");
        assert!(!is_dirty(&service, &task, Some(&node)));
        assert!(is_dirty(&service, &task, None));
        place(&mut service, "node.id==there");
        assert!(is_dirty(&service, &task, Some(&node)));
        place(&mut service, "node.id==here");
        service.spec_mut().task_mut().force_update = 1;
        assert!(
            is_dirty(&service, &task, Some(&node)),
            "not the placement alone"
        );
    }

    #[test]
    fn pull_options_do_not_matter_once_the_image_is_there() {
        let (mut service, mut task) = pair();
        if let Some(Runtime::Container(container)) = &mut service.spec_mut().task_mut().runtime {
            container.pull_options = Some(PullOptions::default());
        }
        task.status_mut().set_state(TaskState::Preparing);
        assert!(is_dirty(&service, &task, None));
        task.status_mut().set_state(TaskState::Running);
        assert!(!is_dirty(&service, &task, None));
    }
}
