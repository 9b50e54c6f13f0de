//! What an absent part of a service spec means, written out.

use skep_proto::{
    Duration,
    v1::{
        RestartPolicy, ServiceSpec, UpdateConfig, restart_policy::RestartCondition,
        task_spec::Runtime,
    },
};

const STOP_GRACE_PERIOD: Duration = seconds(10);
const RESTART_DELAY: Duration = seconds(5);
const MONITOR: Duration = seconds(5);
const PARALLELISM: u64 = 1;

const fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

/// Fills in what is absent.
pub fn fill(spec: &mut ServiceSpec) {
    let task = spec.task_mut();
    if let Some(Runtime::Container(container)) = &mut task.runtime {
        container.stop_grace_period.get_or_insert(STOP_GRACE_PERIOD);
        container.pull_options.get_or_insert_default();
        container.dns_config.get_or_insert_default();
    }
    task.resources.get_or_insert_default();
    let restart = task.restart.get_or_insert_with(|| RestartPolicy {
        condition: RestartCondition::Any.into(),
        ..Default::default()
    });
    restart.delay.get_or_insert(RESTART_DELAY);
    task.placement.get_or_insert_default();
    for update in [&mut spec.update, &mut spec.rollback] {
        // Pausing on failure and stopping first are the zero values.
        let update = update.get_or_insert_with(|| UpdateConfig {
            parallelism: PARALLELISM,
            ..Default::default()
        });
        update.monitor.get_or_insert(MONITOR);
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{
        ContainerSpec, Placement, ResourceRequirements, TaskSpec, container_spec::*,
    };

    use super::*;

    #[test]
    fn what_is_absent_is_filled() {
        let container = ContainerSpec::default();
        let mut spec = ServiceSpec {
            task: Some(TaskSpec {
                runtime: Some(Runtime::Container(container)),
                ..Default::default()
            }),
            ..Default::default()
        };
        fill(&mut spec);
        let task = spec.task();
        assert_eq!(
            task.runtime,
            Some(Runtime::Container(ContainerSpec {
                stop_grace_period: Some(seconds(10)),
                pull_options: Some(PullOptions::default()),
                dns_config: Some(DnsConfig::default()),
                ..Default::default()
            }))
        );
        assert_eq!(task.resources, Some(ResourceRequirements::default()));
        assert_eq!(task.placement, Some(Placement::default()));
        assert_eq!(
            task.restart,
            Some(RestartPolicy {
                condition: RestartCondition::Any.into(),
                delay: Some(seconds(5)),
                ..Default::default()
            })
        );
        let update = Some(UpdateConfig {
            parallelism: 1,
            monitor: Some(seconds(5)),
            ..Default::default()
        });
        assert_eq!(spec.update, update);
        assert_eq!(spec.rollback, update);
    }

    #[test]
    fn what_is_present_stays() {
        let mut spec = ServiceSpec {
            update: Some(UpdateConfig {
                parallelism: 0,
                monitor: Some(seconds(1)),
                ..Default::default()
            }),
            task: Some(TaskSpec {
                restart: Some(RestartPolicy {
                    condition: RestartCondition::None.into(),
                    delay: Some(seconds(0)),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let before = spec.clone();
        fill(&mut spec);
        assert_eq!(spec.update, before.update);
        assert_eq!(spec.task().restart, before.task().restart);
    }
}
