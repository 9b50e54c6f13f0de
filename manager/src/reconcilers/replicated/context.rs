//! What every decision about one service looks at.

use std::{sync::LazyLock, time::Duration};

use skep_proto::v1::{
    Cluster, Service, Task, UpdateConfig, update_config::FailureAction, update_status::UpdateState,
};
use skep_store::Snapshot;

use crate::{
    reconcilers::{dirty, facts::node_of},
    time::{Time, duration_or},
};

/// How long a started task is watched when the config does not say.
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);

/// A service in its surroundings.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub snapshot: &'a Snapshot,
    pub cluster: Option<&'a Cluster>,
    pub service: &'a Service,
    pub now: Time,
}

impl<'a> Context<'a> {
    /// Whether the task must be replaced for the service's present spec.
    pub fn is_dirty(&self, task: &Task) -> bool {
        // Mostly so, and then nobody needs to look for the node.
        !dirty::has_version(self.service, task)
            && dirty::is_dirty(self.service, task, node_of(self.snapshot, task))
    }

    /// Where the service's update stands; unknown when there is none.
    pub fn update_state(&self) -> UpdateState {
        let status = self.service.update_status.as_ref();
        status.map_or(UpdateState::Unknown, |status| status.state())
    }

    /// When the service's update began; long ago if there is none.
    pub fn update_started(&self) -> Time {
        let status = self.service.update_status.as_ref();
        status
            .and_then(|status| status.started_at)
            .map(Time::from)
            .unwrap_or_default()
    }

    /// How tasks are to be replaced: the rules of the rollback while there is one.
    pub fn update(&self) -> &'a UpdateConfig {
        static DEFAULT: LazyLock<UpdateConfig> = LazyLock::new(|| UpdateConfig {
            parallelism: 1,
            failure_action: FailureAction::Pause.into(),
            ..UpdateConfig::default()
        });
        let spec = self.service.spec();
        let config = match self.update_state() {
            UpdateState::RollbackStarted
            | UpdateState::RollbackPaused
            | UpdateState::RollbackCompleted => &spec.rollback,
            _ => &spec.update,
        };
        config.as_ref().unwrap_or(&DEFAULT)
    }

    /// Pause after each replaced task.
    pub fn update_delay(&self) -> Duration {
        duration_or(self.update().delay, Duration::ZERO)
    }

    /// How long a task of an update is watched once it runs.
    pub fn update_monitor(&self) -> Duration {
        duration_or(self.update().monitor, DEFAULT_MONITOR)
    }
}
