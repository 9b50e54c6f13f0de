//! The task object as orchestrators make it.

use skep_proto::{
    id,
    v1::{Cluster, Endpoint, Service, Task, TaskState},
};

use crate::{
    reconcilers::{allocator, facts},
    time::Time,
};

/// A new task of `service` in `slot`.
pub(in crate::reconcilers) fn new_task(
    cluster: Option<&Cluster>,
    service: &Service,
    slot: u64,
    desired: TaskState,
    now: Time,
) -> Task {
    let spec = service.spec();
    let default_driver =
        || cluster.and_then(|cluster| cluster.spec().task_defaults().log_driver.clone());
    let mut task = Task {
        id: id::random(),
        service_id: service.id.clone(),
        slot,
        spec: Some(spec.task().clone().into()),
        spec_version: service.spec_version,
        service_annotations: Some(spec.annotations().clone()),
        status: Some(facts::status(TaskState::New, "created", now)),
        desired_state: desired.into(),
        endpoint: Some(Endpoint {
            spec: spec.endpoint.clone(),
            ..Endpoint::default()
        }),
        log_driver: spec.task().log_driver.clone().or_else(default_driver),
        ..Task::default()
    };
    allocator::pass_if_free(&mut task, service, now);
    task
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{Driver, NetworkAttachmentConfig, Version};

    use super::*;

    #[test]
    fn it_is_a_copy_of_what_the_service_says() {
        let mut service = Service {
            id: "service".to_owned(),
            spec_version: Some(Version { index: 7 }),
            ..Service::default()
        };
        let annotations = service.spec_mut().annotations_mut();
        annotations.name = "web".to_owned();
        annotations.labels.insert("a".to_owned(), "b".to_owned());
        let mut cluster = Cluster::default();
        let driver = |name: &str| {
            Some(Driver {
                name: name.to_owned(),
                ..Driver::default()
            })
        };
        cluster.spec_mut().task_defaults_mut().log_driver = driver("syslog");

        let now = Time::default() + std::time::Duration::from_secs(5);
        let task = new_task(Some(&cluster), &service, 3, TaskState::Ready, now);
        assert!(id::is_valid(&task.id));
        assert_eq!((task.slot, task.node_id.as_str()), (3, ""));
        assert_eq!(task.spec_version, service.spec_version);
        assert_eq!(task.service_annotations(), service.spec().annotations());
        assert!(task.annotations.is_none());
        assert_eq!(task.status().state(), TaskState::Pending);
        assert_eq!(task.status().message, "pending task scheduling");
        assert_eq!(task.status().timestamp, Some(now.into()));
        assert_eq!(task.desired_state(), TaskState::Ready);
        assert_eq!(task.log_driver, driver("syslog"));

        service.spec_mut().task_mut().log_driver = driver("local");
        let task = new_task(Some(&cluster), &service, 3, TaskState::Ready, now);
        assert_eq!(task.log_driver, driver("local"));
    }

    #[test]
    fn what_needs_to_be_allocated_waits_for_it() {
        let mut service = Service::default();
        service.spec_mut().task_mut().networks = vec![NetworkAttachmentConfig::default()];
        let task = new_task(None, &service, 1, TaskState::Running, Time::default());
        assert_eq!(task.status().state(), TaskState::New);
        assert_eq!(task.status().message, "created");
    }
}
