//! Services and what becomes of their tasks.

use skep_proto::v1::{
    Annotations, ContainerSpec, CreateServiceRequest, GetServiceRequest, GetTaskRequest,
    ListTasksRequest, ReplicatedService, RestartPolicy, Service, ServiceSpec, Task, TaskSpec,
    TaskState, UpdateServiceRequest, list_tasks_request::Filters, restart_policy::RestartCondition,
    service_spec::Mode, task_spec::Runtime,
};
use tonic::Status;

use super::{Cluster, eventually};

impl Cluster {
    /// Creates a service of `replicas` tasks that run `command`.
    pub async fn create(&self, name: &str, replicas: u64, command: &[&str]) -> Service {
        self.create_service(spec(name, replicas, command)).await
    }

    /// Creates a service.
    pub async fn create_service(&self, spec: ServiceSpec) -> Service {
        let created = Box::pin(self.retry("service create", async |mut control| {
            control
                .create_service(CreateServiceRequest {
                    spec: Some(spec.clone()),
                })
                .await
        }))
        .await;
        created.service.unwrap()
    }

    /// Changes a service's spec, whatever version it has.
    pub async fn update(&self, service_id: &str, change: impl Fn(&mut ServiceSpec)) -> Service {
        let updated = Box::pin(self.retry("service update", async |mut control| {
            let service_id = service_id.to_owned();
            let request = GetServiceRequest {
                service_id,
                insert_defaults: false,
            };
            let service = control
                .get_service(request)
                .await?
                .into_inner()
                .service
                .unwrap();
            let mut spec = service.spec().clone();
            change(&mut spec);
            let request = UpdateServiceRequest {
                service_id: service.id.clone(),
                service_version: service.meta().version,
                spec: Some(spec),
                ..Default::default()
            };
            control.update_service(request).await
        }))
        .await;
        updated.service.unwrap()
    }

    /// Sets the number of tasks.
    pub async fn scale(&self, service_id: &str, replicas: u64) -> Service {
        let mode = Mode::Replicated(ReplicatedService { replicas });
        Box::pin(self.update(service_id, |spec| spec.mode = Some(mode))).await
    }

    /// All tasks of a service, also those that are over.
    pub async fn tasks(&self, service_id: &str) -> Result<Vec<Task>, Status> {
        let filters = Filters {
            service_ids: vec![service_id.to_owned()],
            ..Default::default()
        };
        let request = ListTasksRequest {
            filters: Some(filters),
        };
        Ok(self
            .control()
            .await
            .list_tasks(request)
            .await?
            .into_inner()
            .tasks)
    }

    /// A task, if it is there.
    pub async fn task(&self, id: &str) -> Result<Task, Status> {
        let request = GetTaskRequest {
            task_id: id.to_owned(),
        };
        Ok(self
            .control()
            .await
            .get_task(request)
            .await?
            .into_inner()
            .task
            .unwrap_or_default())
    }

    /// Waits until exactly `count` tasks of a service should run and do, and returns them.
    pub async fn running(&self, service_id: &str, count: usize) -> Vec<Task> {
        eventually(&format!("{count} running tasks"), async || {
            let tasks = self.tasks(service_id).await.ok()?;
            let wanted: Vec<_> = tasks
                .into_iter()
                .filter(|task| task.desired_state() <= TaskState::Running)
                .collect();
            let running = wanted
                .iter()
                .all(|task| task.status().state() == TaskState::Running);
            (running && wanted.len() == count).then_some(wanted)
        })
        .await
    }
}

/// A service whose tasks restart at once.
pub fn spec(name: &str, replicas: u64, command: &[&str]) -> ServiceSpec {
    let container = ContainerSpec {
        image: "process".to_owned(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        ..Default::default()
    };
    let restart = RestartPolicy {
        condition: RestartCondition::Any.into(),
        delay: Some(skep_proto::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
        ..Default::default()
    };
    ServiceSpec {
        annotations: Some(Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        task: Some(TaskSpec {
            runtime: Some(Runtime::Container(container)),
            restart: Some(restart),
            ..Default::default()
        }),
        mode: Some(Mode::Replicated(ReplicatedService { replicas })),
        ..Default::default()
    }
}
