//! Values that a new service can have and an existing one can be given.

use std::time::Duration;

use clap::{Args, ValueEnum};
use skep_proto::v1::{
    ResourceRequirements, Resources, RestartPolicy, ServiceSpec, UpdateConfig,
    restart_policy::RestartCondition as WireCondition,
    service_spec::Mode,
    update_config::{FailureAction as WireAction, UpdateOrder},
};

use super::{container, values};
use crate::Error;

/// Values of a service; `None` is "not said".
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// How many tasks to run; a new service has 1 unless this is said
    #[arg(long, value_name = "N")]
    pub replicas: Option<u64>,
    /// Image to run [default: none; the command runs as a process of the host]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Working directory of the command
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User to run as: <name|uid>[:<group|gid>]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Most tasks of this service on one node
    #[arg(long, value_name = "N")]
    pub replicas_max_per_node: Option<u64>,
    /// When to start a task again that ended [default: any]
    #[arg(long, value_name = "WHEN")]
    pub restart_condition: Option<RestartCondition>,
    /// How long to wait before starting a task again [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub restart_delay: Option<Duration>,
    /// How often to start a task again [default: without limit]
    #[arg(long, value_name = "N")]
    pub restart_max_attempts: Option<u64>,
    /// Time in which those attempts count [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub restart_window: Option<Duration>,
    /// How long a task may take to stop before it is killed [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub stop_grace_period: Option<Duration>,
    /// Signal that asks a task to stop [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// CPUs kept free for each task, for example 0.5
    #[arg(long, value_name = "CPUS", value_parser = values::cpus)]
    pub reserve_cpu: Option<i64>,
    /// Memory kept free for each task, for example 64MiB
    #[arg(long, value_name = "BYTES", value_parser = values::memory)]
    pub reserve_memory: Option<i64>,
    /// Most CPUs a task may use
    #[arg(long, value_name = "CPUS", value_parser = values::cpus)]
    pub limit_cpu: Option<i64>,
    /// Most memory a task may use
    #[arg(long, value_name = "BYTES", value_parser = values::memory)]
    pub limit_memory: Option<i64>,
    /// Tasks updated at the same time, 0 for all at once [default: 1]
    #[arg(long, value_name = "N")]
    pub update_parallelism: Option<u64>,
    /// How long to wait between updates of tasks [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub update_delay: Option<Duration>,
    /// Which goes first in an update, stopping the old or starting the new task [default: stop-first]
    #[arg(long, value_name = "ORDER")]
    pub update_order: Option<Order>,
    /// How long an updated task is watched for failure [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub update_monitor: Option<Duration>,
    /// What to do when an update fails [default: pause]
    #[arg(long, value_name = "ACTION")]
    pub update_failure_action: Option<FailureAction>,
    /// Share of tasks that may fail before the update counts as failed [default: 0]
    #[arg(long, value_name = "RATIO", value_parser = values::ratio)]
    pub update_max_failure_ratio: Option<f32>,
}

/// When a task that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestartCondition {
    /// Never
    None,
    /// If it failed
    OnFailure,
    /// Always
    Any,
}

/// Which goes first when a task is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The old task stops before the new one starts
    StopFirst,
    /// The new task runs before the old one stops
    StartFirst,
}

/// What happens when an update fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailureAction {
    /// Stop updating
    Pause,
    /// Go on
    Continue,
    /// Return to the previous spec
    Rollback,
}

impl Settings {
    /// Writes what was said into `spec` and leaves everything else as it is. Fails with
    /// [`Error::Usage`] if the service is of a kind that has no such value.
    pub fn apply(&self, spec: &mut ServiceSpec) -> Result<(), Error> {
        self.apply_mode(spec)?;
        self.apply_container(spec)?;
        if let Some(most) = self.replicas_max_per_node {
            spec.task_mut()
                .placement
                .get_or_insert_default()
                .max_replicas = most;
        }
        self.apply_restart(spec);
        let reserve = (self.reserve_cpu, self.reserve_memory);
        apply_resources(spec, reserve, |resources| &mut resources.reservations);
        let limit = (self.limit_cpu, self.limit_memory);
        apply_resources(spec, limit, |resources| &mut resources.limits);
        self.apply_update(spec);
        Ok(())
    }

    fn apply_mode(&self, spec: &mut ServiceSpec) -> Result<(), Error> {
        let Some(replicas) = self.replicas else {
            return Ok(());
        };
        match spec
            .mode
            .get_or_insert_with(|| Mode::Replicated(Default::default()))
        {
            Mode::Replicated(replicated) => replicated.replicas = replicas,
            Mode::ReplicatedJob(job) => job.total_completions = replicas,
            Mode::Global(_) | Mode::GlobalJob(_) => {
                return Err(Error::Usage(
                    "--replicas does not fit a global service: it has one task per node".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn apply_container(&self, spec: &mut ServiceSpec) -> Result<(), Error> {
        if self.image.is_none()
            && self.workdir.is_none()
            && self.user.is_none()
            && self.stop_signal.is_none()
            && self.stop_grace_period.is_none()
        {
            return Ok(());
        }
        let container = container(spec.task_mut())?;
        let set = |place: &mut String, said: &Option<String>| {
            if let Some(said) = said {
                place.clone_from(said);
            }
        };
        set(&mut container.image, &self.image);
        set(&mut container.dir, &self.workdir);
        set(&mut container.user, &self.user);
        set(&mut container.stop_signal, &self.stop_signal);
        if let Some(period) = self.stop_grace_period {
            container.stop_grace_period = Some(values::wire(period));
        }
        Ok(())
    }

    fn apply_restart(&self, spec: &mut ServiceSpec) {
        if self.restart_condition.is_none()
            && self.restart_delay.is_none()
            && self.restart_max_attempts.is_none()
            && self.restart_window.is_none()
        {
            return;
        }
        // A policy that is there but says no condition means "never"; one that is absent means
        // "any". So a new policy has to say what the absent one meant.
        let restart = spec
            .task_mut()
            .restart
            .get_or_insert_with(|| RestartPolicy {
                condition: WireCondition::Any.into(),
                ..Default::default()
            });
        if let Some(condition) = self.restart_condition {
            restart.condition = match condition {
                RestartCondition::None => WireCondition::None,
                RestartCondition::OnFailure => WireCondition::OnFailure,
                RestartCondition::Any => WireCondition::Any,
            }
            .into();
        }
        if let Some(delay) = self.restart_delay {
            restart.delay = Some(values::wire(delay));
        }
        if let Some(attempts) = self.restart_max_attempts {
            restart.max_attempts = attempts;
        }
        if let Some(window) = self.restart_window {
            restart.window = Some(values::wire(window));
        }
    }

    fn apply_update(&self, spec: &mut ServiceSpec) {
        if self.update_parallelism.is_none()
            && self.update_delay.is_none()
            && self.update_order.is_none()
            && self.update_monitor.is_none()
            && self.update_failure_action.is_none()
            && self.update_max_failure_ratio.is_none()
        {
            return;
        }
        // As with the restart policy: a parallelism of 0 means all at once, an absent
        // configuration means one at a time.
        let update = spec.update.get_or_insert_with(|| UpdateConfig {
            parallelism: 1,
            ..Default::default()
        });
        if let Some(parallelism) = self.update_parallelism {
            update.parallelism = parallelism;
        }
        if let Some(delay) = self.update_delay {
            update.delay = Some(values::wire(delay));
        }
        if let Some(order) = self.update_order {
            update.order = match order {
                Order::StopFirst => UpdateOrder::StopFirst,
                Order::StartFirst => UpdateOrder::StartFirst,
            }
            .into();
        }
        if let Some(monitor) = self.update_monitor {
            update.monitor = Some(values::wire(monitor));
        }
        if let Some(action) = self.update_failure_action {
            update.failure_action = match action {
                FailureAction::Pause => WireAction::Pause,
                FailureAction::Continue => WireAction::Continue,
                FailureAction::Rollback => WireAction::Rollback,
            }
            .into();
        }
        if let Some(ratio) = self.update_max_failure_ratio {
            update.max_failure_ratio = ratio;
        }
    }
}

/// Sets CPUs and memory in the part of the resources that `part` picks, if any was said.
fn apply_resources(
    spec: &mut ServiceSpec,
    (cpu, memory): (Option<i64>, Option<i64>),
    part: fn(&mut ResourceRequirements) -> &mut Option<Resources>,
) {
    if cpu.is_none() && memory.is_none() {
        return;
    }
    let resources = part(spec.task_mut().resources.get_or_insert_default()).get_or_insert_default();
    if let Some(cpu) = cpu {
        resources.nano_cpus = cpu;
    }
    if let Some(memory) = memory {
        resources.memory_bytes = memory;
    }
}
