//! What several reconcilers read off tasks, nodes and services.

use std::sync::Arc;

use skep_proto::v1::{
    Cluster, Node, Service, Task, TaskState, TaskStatus, node_spec::Availability, node_status,
    service_spec::Mode,
};
use skep_store::{Change, Object, Snapshot};

use crate::{
    reconcile::{Plan, Trigger, View},
    time::Time,
};

/// The observed state.
pub(super) fn state(task: &Task) -> TaskState {
    task.status().state()
}

/// Whether nobody has yet asked the task to end.
pub(super) fn is_live(task: &Task) -> bool {
    task.desired_state() <= TaskState::Running
}

/// Whether the task has ended, however it did.
pub(super) fn is_over(task: &Task) -> bool {
    state(task) > TaskState::Running
}

/// Whether a node may be busy with the task: it was assigned and has not ended.
pub(super) fn is_on_node(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&state(task))
}

/// When the task was created, by a manager's clock.
pub(super) fn created_at(task: &Task) -> Time {
    task.meta().created_at.map(Time::from).unwrap_or_default()
}

/// When the task came into its present state: by the clock of the manager that stored it, or else
/// by that of whoever reported it.
pub(super) fn status_at(task: &Task) -> Time {
    let status = task.status();
    status
        .applied_at
        .or(status.timestamp)
        .map_or_else(|| created_at(task), Time::from)
}

/// Whether tasks must move away from the node: it is gone, down or drained.
pub(super) fn is_invalid(node: Option<&Node>) -> bool {
    node.is_none_or(|node| is_down(Some(node)) || is_drained(Some(node)))
}

/// Whether nothing can be heard of the node's tasks any more.
pub(super) fn is_down(node: Option<&Node>) -> bool {
    node.is_none_or(|node| node.status().state() == node_status::State::Down)
}

/// Whether the node's tasks were asked to move away.
pub(super) fn is_drained(node: Option<&Node>) -> bool {
    node.is_some_and(|node| node.spec().availability() == Availability::Drain)
}

/// The node that a task is on, if it exists.
pub(super) fn node_of<'a>(snapshot: &'a Snapshot, task: &Task) -> Option<&'a Node> {
    snapshot.get::<Node>(&task.node_id).map(|node| &**node)
}

/// The one cluster object.
pub(super) fn cluster(snapshot: &Snapshot) -> Option<&Cluster> {
    snapshot.all::<Cluster>().next().map(|cluster| &**cluster)
}

/// How many tasks a replicated service wants; `None` for other services.
pub(super) fn replicas(service: &Service) -> Option<u64> {
    match &service.spec().mode {
        Some(Mode::Replicated(replicated)) => Some(replicated.replicas),
        _ => None,
    }
}

/// A copy of the task with another desired state.
pub(super) fn desire(plan: &mut Plan, task: &Arc<Task>, desired: TaskState) {
    let mut task = Task::clone(task);
    task.set_desired_state(desired);
    plan.update(task);
}

/// A status that a manager gives to a task.
pub(super) fn status(state: TaskState, message: &str, now: Time) -> TaskStatus {
    TaskStatus {
        state: state.into(),
        message: message.to_owned(),
        timestamp: Some(now.into()),
        ..TaskStatus::default()
    }
}

/// Ends a task that no agent has ever seen and nobody wants.
pub(super) fn end_unassigned(plan: &mut Plan, task: &Arc<Task>, now: Time) {
    let mut task = Task::clone(task);
    let status = task.status_mut();
    status.set_state(TaskState::Shutdown);
    status.timestamp = Some(now.into());
    status.err.clear();
    plan.update(task);
}

/// The changed objects of one kind as they were and as they are; `None` if it is not changes that
/// are looked at.
pub(super) fn changed<'a, T: Object>(
    view: &View<'a>,
) -> Option<impl Iterator<Item = &'a Arc<T>> + use<'a, T>> {
    let Trigger::Changes(changes) = view.trigger else {
        return None;
    };
    Some(changes.iter().flat_map(|change: &Change| {
        [Some(change.object()), change.old()]
            .into_iter()
            .flatten()
            .filter_map(|any| any.get::<T>())
    }))
}
