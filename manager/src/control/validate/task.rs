//! Task specs.

use skep_proto::v1::{Annotations, TaskSpec, task_spec::Runtime};

use super::{container, generic, placement, references, resources, restart};
use crate::control::ApiError;

/// The task of a service with these annotations.
pub fn check(spec: &TaskSpec, service: &Annotations) -> Result<(), ApiError> {
    if let Some(resources) = &spec.resources {
        resources::check(resources.limits.as_ref())?;
        resources::check(resources.reservations.as_ref())?;
    }
    restart::check(spec.restart.as_ref())?;
    placement::check(spec.placement.as_ref())?;
    if let Some(Runtime::Container(container)) = &spec.runtime {
        references::check(container)?;
    }
    match &spec.runtime {
        None => Err(ApiError::invalid("TaskSpec: missing runtime")),
        Some(Runtime::Container(spec)) => container::check(spec, service),
        Some(Runtime::Generic(spec)) => generic::check(spec),
        Some(Runtime::Attachment(_)) => Err(ApiError::unimplemented(
            "RuntimeSpec: unimplemented runtime in service spec",
        )),
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{ContainerSpec, NetworkAttachmentSpec};

    use super::*;
    use crate::control::testing::text;

    #[test]
    fn runtimes() {
        let check_runtime = |runtime: Option<Runtime>, expected: &str| {
            let spec = TaskSpec {
                runtime,
                ..Default::default()
            };
            assert_eq!(text(check(&spec, &Annotations::default())), expected);
        };
        check_runtime(None, "TaskSpec: missing runtime");
        check_runtime(
            Some(Runtime::Attachment(NetworkAttachmentSpec::default())),
            "RuntimeSpec: unimplemented runtime in service spec",
        );
        check_runtime(
            Some(Runtime::Container(ContainerSpec::default())),
            "ContainerSpec: image reference must be provided",
        );
        check_runtime(
            Some(Runtime::Container(ContainerSpec {
                image: "nginx".into(),
                ..Default::default()
            })),
            "",
        );
    }
}
