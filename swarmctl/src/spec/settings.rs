//! Values that a new service can have and an existing one can be given.

mod capabilities;
mod container;
mod health;
mod log;
mod rollout;

pub use container::ContainerFlags;
pub use health::HealthFlags;
pub use log::LogFlags;
pub use rollout::{FailureAction, Order, RollbackFailureAction, RollbackFlags, UpdateFlags};

use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};
use skep_proto::v1::{
    ResourceRequirements, Resources, RestartPolicy, ServiceSpec,
    restart_policy::RestartCondition as WireCondition, service_spec::Mode,
};

use super::values;
use crate::{Error, spec::container};

/// Values of a service; `None` is "not said".
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// How many tasks to run; a new service has 1 unless this is said
    #[arg(long, value_name = "N")]
    pub replicas: Option<u64>,
    /// Values of its containers.
    #[command(flatten)]
    pub container: ContainerFlags,
    /// Their health check.
    #[command(flatten)]
    pub health: HealthFlags,
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
    /// Most memory and swap together that a task may use, -1 for no limit
    #[arg(long, value_name = "BYTES", value_parser = values::swap, allow_negative_numbers = true)]
    pub memory_swap: Option<i64>,
    /// How willingly memory of a task is swapped out
    #[arg(long, value_name = "0..100", value_parser = value_parser!(i64).range(0..=100))]
    pub memory_swappiness: Option<i64>,
    /// Where output goes.
    #[command(flatten)]
    pub log: LogFlags,
    /// How it is updated.
    #[command(flatten)]
    pub update: UpdateFlags,
    /// How it is rolled back.
    #[command(flatten)]
    pub rollback: RollbackFlags,
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
        self.apply_swap(spec);
        if self.log.is_said() {
            self.log.change(&mut spec.task_mut().log_driver);
        }
        self.update.apply(spec);
        self.rollback.apply(spec);
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
        if !self.container.is_empty() {
            self.container.apply(container(spec.task_mut())?)?;
        }
        if !self.health.is_empty() {
            self.health.apply(container(spec.task_mut())?);
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

    fn apply_swap(&self, spec: &mut ServiceSpec) {
        if self.memory_swap.is_none() && self.memory_swappiness.is_none() {
            return;
        }
        let resources = spec.task_mut().resources.get_or_insert_default();
        resources.swap_bytes = self.memory_swap.or(resources.swap_bytes);
        resources.memory_swappiness = self.memory_swappiness.or(resources.memory_swappiness);
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
