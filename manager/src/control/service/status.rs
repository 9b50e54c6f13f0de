//! How many tasks of a service there should be and are.

use skep_proto::v1::{
    ListServiceStatusesRequest, ListServiceStatusesResponse, Service, Task, TaskState,
    list_service_statuses_response::ServiceStatus, service_spec::Mode,
};
use skep_store::{By, Snapshot};

use crate::control::{ApiError, Control};

/// One status for each ID, in the order of the request, also for IDs of no service.
pub async fn statuses(
    control: &Control,
    request: ListServiceStatusesRequest,
) -> Result<ListServiceStatusesResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let statuses = request
        .services
        .into_iter()
        .map(|id| status(&snapshot, id))
        .collect();
    Ok(ListServiceStatusesResponse { statuses })
}

fn status(snapshot: &Snapshot, service_id: String) -> ServiceStatus {
    let service = snapshot.get::<Service>(&service_id);
    let mode = service.and_then(|service| service.spec().mode);
    let iteration = service
        .and_then(|service| service.job_status.as_ref())
        .map(|job| job.job_iteration().index);
    let (wished, global) = match mode {
        Some(Mode::Replicated(replicated)) => (replicated.replicas, false),
        Some(Mode::ReplicatedJob(job)) => (job.max_concurrent, false),
        Some(Mode::Global(_) | Mode::GlobalJob(_)) => (0, true),
        None => (0, false),
    };
    let mut status = ServiceStatus {
        desired_tasks: wished,
        ..Default::default()
    };
    for task in snapshot.find::<Task>(By::service(&service_id)) {
        let state = task.status().state();
        if global && wants_to_run(task) {
            status.desired_tasks += 1;
        }
        if state == TaskState::Running {
            status.running_tasks += 1;
        }
        let current = iteration.is_some()
            && task.job_iteration.as_ref().map(|version| version.index) == iteration;
        if state == TaskState::Complete && current {
            status.completed_tasks += 1;
        }
    }
    status.service_id = service_id;
    status
}

fn wants_to_run(task: &Task) -> bool {
    match task.desired_state() {
        TaskState::Running => true,
        TaskState::Complete => task.status().state() != TaskState::Complete,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{
        GlobalJob, GlobalService, JobStatus, ReplicatedJob, ReplicatedService, TaskStatus, Version,
        control_server::Control as _,
    };

    use super::*;
    use crate::control::testing::*;

    #[tokio::test]
    async fn statuses_count_tasks() {
        use TaskState::{Complete, Failed, Running, Shutdown};
        let swarm = Swarm::new();
        let put_service = async |id: &str, mode: Mode, iteration: Option<u64>| {
            let mut spec = service_spec(id);
            spec.mode = Some(mode);
            swarm
                .put(Service {
                    id: id.into(),
                    spec: Some(spec),
                    job_status: iteration.map(|index| JobStatus {
                        job_iteration: Some(Version { index }),
                        last_execution: None,
                    }),
                    ..Default::default()
                })
                .await;
        };
        put_service(
            "web",
            Mode::Replicated(ReplicatedService { replicas: 5 }),
            None,
        )
        .await;
        put_service("all", Mode::Global(GlobalService {}), None).await;
        let job = ReplicatedJob {
            max_concurrent: 2,
            total_completions: 9,
        };
        put_service("job", Mode::ReplicatedJob(job), Some(1)).await;
        put_service("alljob", Mode::GlobalJob(GlobalJob {}), Some(0)).await;
        let tasks = [
            ("web", Running, Running, None),
            ("web", Running, Failed, None),
            ("web", Shutdown, Running, None),
            ("all", Running, Running, None),
            ("all", Running, TaskState::New, None),
            ("all", Shutdown, Shutdown, None),
            ("job", Complete, Running, Some(1)),
            ("job", Complete, Complete, Some(1)),
            ("job", Complete, Complete, Some(0)),
            ("alljob", Complete, Complete, Some(0)),
            ("alljob", Complete, Running, Some(0)),
            ("gone", Running, Running, None),
        ];
        for (n, (service_id, desired, state, iteration)) in tasks.into_iter().enumerate() {
            swarm
                .put(Task {
                    id: format!("t{n}"),
                    service_id: service_id.into(),
                    desired_state: desired.into(),
                    status: Some(TaskStatus {
                        state: state.into(),
                        ..Default::default()
                    }),
                    job_iteration: iteration.map(|index| Version { index }),
                    ..Default::default()
                })
                .await;
        }
        let ids = ["web", "all", "job", "alljob", "gone", "nobody"];
        let request = ListServiceStatusesRequest {
            services: ids.iter().map(|&id| id.to_owned()).collect(),
        };
        let statuses: Vec<_> = reply(swarm.control.list_service_statuses(ask(request)).await)
            .statuses
            .into_iter()
            .map(|s| {
                (
                    s.service_id,
                    s.desired_tasks,
                    s.running_tasks,
                    s.completed_tasks,
                )
            })
            .collect();
        let expected = [
            ("web", 5, 2, 0),
            ("all", 2, 1, 0),
            ("job", 2, 1, 1),
            ("alljob", 1, 1, 1),
            ("gone", 0, 1, 0),
            ("nobody", 0, 0, 0),
        ]
        .map(|(id, desired, running, completed)| (id.to_owned(), desired, running, completed));
        assert_eq!(statuses, expected);
    }
}
