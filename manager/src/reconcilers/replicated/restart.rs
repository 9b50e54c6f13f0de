//! Restarts: whether a task that ended is followed by another, and when that one may start.
//!
//! The new task is created at once, held at desired state READY, and released later. All that is
//! needed to know when is in the stored tasks, so a change of leader neither shortens nor repeats
//! a wait.

use std::time::Duration;

use skep_proto::v1::{
    Task, TaskState, restart_policy::RestartCondition, update_config::UpdateOrder,
};

use super::{context::Context, new_task::new_task, slots::Slot};
use crate::{
    reconcile::Plan,
    reconcilers::facts::{
        created_at, desire, is_down, is_drained, is_invalid, is_live, is_on_node, is_over, node_of,
        state, status_at,
    },
    time::{Time, duration_or},
};

/// Wait before a restart when the policy names none.
const DEFAULT_DELAY: Duration = Duration::from_secs(5);

/// How long a new task waits for its predecessor to stop (SwarmKit's limit).
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Replaces the live tasks of the slot that have ended or whose node is no longer valid. Returns
/// whether anything was done.
pub(super) fn plan(context: &Context<'_>, slot: &Slot<'_>, plan: &mut Plan) -> bool {
    let lost: Vec<_> = slot.live().filter(|task| is_lost(context, task)).collect();
    let mut done = false;
    for task in lost {
        // A task that is still held has its turn first, or a task that cannot even be prepared
        // would be tried without any delay.
        if task.desired_state() == TaskState::Ready
            && let Some(at) = held_until(context, slot, task)
        {
            plan.wake_at(at);
            continue;
        }
        let replaced = slot
            .live()
            .any(|other| !is_lost(context, other) && !context.is_dirty(other));
        if !done && !replaced && is_allowed(task, slot) {
            plan.create(new_task(
                context.cluster,
                context.service,
                slot.number,
                TaskState::Ready,
                context.now,
            ));
        }
        desire(plan, task, TaskState::Shutdown);
        done = true;
    }
    done
}

/// Starts the held tasks of the slot whose wait is over. Returns whether there were any.
pub(super) fn release(context: &Context<'_>, slot: &Slot<'_>, plan: &mut Plan) -> bool {
    let mut done = false;
    for task in slot
        .live()
        .filter(|task| task.desired_state() == TaskState::Ready)
    {
        if let Some(at) = held_until(context, slot, task) {
            plan.wake_at(at);
        } else if !is_lost(context, task) {
            desire(plan, task, TaskState::Running);
            done = true;
        }
    }
    done
}

/// Whether the task has ended, or must be given up for the sake of its node.
pub(super) fn is_lost(context: &Context<'_>, task: &Task) -> bool {
    is_over(task) || (!task.node_id.is_empty() && is_invalid(node_of(context.snapshot, task)))
}

/// Whether the task's restart policy lets another one follow it.
pub(super) fn is_allowed(task: &Task, slot: &Slot<'_>) -> bool {
    let Some(policy) = &task.spec().restart else {
        return true;
    };
    let wanted = match policy.condition() {
        RestartCondition::None => false,
        RestartCondition::OnFailure => state(task) != TaskState::Complete,
        RestartCondition::Any => true,
    };
    if !wanted || policy.max_attempts == 0 {
        return wanted;
    }
    let window = duration_or(policy.window, Duration::ZERO);
    let ended = status_at(task);
    // The first of this spec version was no restart, all others were.
    let restarts = slot
        .tasks
        .iter()
        .filter(|other| other.spec_version == task.spec_version)
        .skip(1)
        .filter(|other| window.is_zero() || created_at(other) + window > ended)
        .count();
    (restarts as u64) < policy.max_attempts
}

/// Until when a task with desired state READY is held if nothing changes; `None` if it may start.
fn held_until(context: &Context<'_>, slot: &Slot<'_>, task: &Task) -> Option<Time> {
    let older: Vec<_> = slot
        .tasks
        .iter()
        .take_while(|other| other.id != task.id)
        .collect();
    let created = created_at(task);
    let mut until = created + delay(context, older.last().copied().map(|task| &***task), task);
    if older.iter().any(|older| blocks(context, older)) {
        until = until.max(created + STOP_TIMEOUT);
    }
    (until > context.now).then_some(until)
}

/// Whether a task that came before must stop before the next one starts.
fn blocks(context: &Context<'_>, older: &Task) -> bool {
    let leaves = !is_live(older) || context.update().order() == UpdateOrder::StopFirst;
    leaves && is_on_node(older) && !is_down(node_of(context.snapshot, older))
}

/// The delay before a held task starts, counted from its creation.
fn delay(context: &Context<'_>, predecessor: Option<&Task>, task: &Task) -> Duration {
    let Some(predecessor) = predecessor else {
        return restart_delay(task);
    };
    let node = node_of(context.snapshot, predecessor);
    // An update replaces a task that ran until then; it does not delay the new one.
    let updates = predecessor.spec_version != task.spec_version
        && (!is_over(predecessor) || status_at(predecessor) >= created_at(task))
        && (predecessor.node_id.is_empty() || !is_down(node));
    if is_drained(node) || updates {
        Duration::ZERO
    } else {
        restart_delay(predecessor)
    }
}

fn restart_delay(task: &Task) -> Duration {
    let policy = task.spec().restart.as_ref();
    duration_or(policy.and_then(|policy| policy.delay), DEFAULT_DELAY)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skep_proto::{
        Timestamp,
        v1::{RestartPolicy, Version},
    };

    use super::*;
    use crate::reconcilers::replicated::slots;

    fn task(created: i64, ended: i64, how: TaskState, policy: Option<RestartPolicy>) -> Arc<Task> {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let mut task = Task {
            id: created.to_string(),
            slot: 1,
            spec_version: Some(Version { index: 1 }),
            ..Task::default()
        };
        task.meta_mut().created_at = at(created);
        task.spec_mut().restart = policy;
        task.status_mut().set_state(how);
        task.status_mut().timestamp = at(1_000_000);
        task.status_mut().applied_at = at(ended);
        Arc::new(task)
    }

    fn policy(
        condition: RestartCondition,
        max_attempts: u64,
        window: i64,
    ) -> Option<RestartPolicy> {
        Some(RestartPolicy {
            condition: condition.into(),
            max_attempts,
            window: (window > 0).then_some(skep_proto::Duration {
                seconds: window,
                nanos: 0,
            }),
            ..RestartPolicy::default()
        })
    }

    fn allowed(tasks: &[Arc<Task>]) -> bool {
        let slots = slots::group(tasks.iter());
        is_allowed(tasks.last().unwrap(), &slots[0])
    }

    #[test]
    fn the_condition_decides() {
        use RestartCondition::{Any, None as Never, OnFailure};
        let ended = |how, policy| allowed(&[task(1, 2, how, policy)]);
        assert!(ended(TaskState::Complete, None));
        assert!(ended(TaskState::Complete, policy(Any, 0, 0)));
        assert!(ended(TaskState::Failed, policy(OnFailure, 0, 0)));
        assert!(!ended(TaskState::Complete, policy(OnFailure, 0, 0)));
        assert!(!ended(TaskState::Failed, policy(Never, 0, 0)));
    }

    #[test]
    fn attempts_are_counted_from_the_stored_tasks() {
        let policy = policy(RestartCondition::Any, 2, 0);
        let mut tasks = Vec::new();
        for n in 0..3 {
            tasks.push(task(10 * n, 10 * n + 5, TaskState::Failed, policy));
            assert_eq!(allowed(&tasks), n < 2);
        }
        let mut other = Task::clone(&task(100, 101, TaskState::Failed, policy));
        other.spec_version = Some(Version { index: 2 });
        tasks.push(Arc::new(other));
        assert!(allowed(&tasks), "a new spec version starts anew");
    }

    #[test]
    fn a_window_forgets_old_attempts() {
        let policy = policy(RestartCondition::Any, 1, 30);
        let first = task(0, 9, TaskState::Failed, policy);
        let second = |ended| task(10, ended, TaskState::Failed, policy);
        assert!(!allowed(&[first.clone(), second(39)]));
        assert!(allowed(&[first, second(40)]));
    }
}
