//! Rolling updates: replaces the tasks that are not what the service's spec says, a few at a time.

use std::time::Duration;

use skep_proto::v1::{
    Service, Task, TaskState, UpdateStatus,
    update_config::{FailureAction, UpdateOrder},
    update_status::UpdateState,
};
use tracing::warn;

use super::{
    context::Context,
    new_task::new_task,
    progress::{self, Progress},
    restart::is_lost,
    slots::Slot,
};
use crate::{
    reconcile::Plan,
    reconcilers::facts::{desire, is_down, is_on_node, node_of, state},
    time::Time,
};

/// Does the update's next step over all slots that stay; `free` tells those with which nothing else
/// is being done. Returns whether there is none to be made, so that only a change of the service or a
/// slot that falls behind its spec can bring one about.
pub(super) fn plan(
    context: &Context<'_>,
    slots: &[&Slot<'_>],
    free: impl Fn(u64) -> bool,
    plan: &mut Plan,
) -> bool {
    let update = context.update_state();
    if matches!(update, UpdateState::Paused | UpdateState::RollbackPaused) {
        return true;
    }
    let mut tally = Tally::default();
    let progress: Vec<_> = slots
        .iter()
        .map(|slot| (*slot, Progress::of(context, slot)))
        .collect();
    for (slot, progress) in &progress {
        tally.add(context, slot, *progress);
    }
    if is_running(update) {
        if let Some(service) = fail(context, &progress, &tally) {
            plan.update(service);
            return false;
        }
        if tally.outdated.is_empty() && tally.in_flight == 0 {
            complete(context, &tally, plan);
            return false;
        }
    }
    if tally.outdated.is_empty() {
        return !is_running(update);
    }
    if update == UpdateState::Unknown {
        start(context, plan);
    }
    if let Some(at) = tally.delayed_until {
        plan.wake_at(at);
    }
    // What does not run has nothing to lose, so it goes first.
    tally
        .outdated
        .sort_by_key(|slot| (slot.is_running(), slot.number));
    let places = match context.update().parallelism {
        0 => usize::MAX,
        n => usize::try_from(n).unwrap_or(usize::MAX),
    };
    let next: Vec<_> = tally
        .outdated
        .iter()
        .take(places.saturating_sub(tally.busy))
        .filter(|slot| free(slot.number))
        .collect();
    for slot in &next {
        replace(context, slot, plan);
    }
    false
}

/// Ends the tasks of a slot that a task of the present spec has taken over from. Returns whether
/// there were any.
pub(super) fn finish(context: &Context<'_>, slot: &Slot<'_>, plan: &mut Plan) -> bool {
    let live: Vec<_> = slot.live().collect();
    let heir = live
        .iter()
        .filter(|task| !is_lost(context, task) && !context.is_dirty(task))
        .max_by_key(|task| (state(task) == TaskState::Running, task.desired_state()));
    let Some(heir) = heir else {
        return false;
    };
    // Start first: the old ones stay until the new one runs.
    let at_once =
        context.update().order() == UpdateOrder::StopFirst || state(heir) == TaskState::Running;
    let mut done = false;
    for task in &live {
        if task.id != heir.id && (at_once || !context.is_dirty(task)) {
            desire(plan, task, TaskState::Shutdown);
            done = true;
        }
    }
    done
}

/// Sums of an update's progress.
#[derive(Debug, Default)]
struct Tally<'a, 'b> {
    outdated: Vec<&'b Slot<'a>>,
    in_flight: usize,
    /// How many are replaced, and how many are to be.
    concerned: usize,
    /// Places taken by slots in flight and by the pause after each.
    busy: usize,
    /// When the first of these pauses ends.
    delayed_until: Option<Time>,
    last_settled: Option<Time>,
}

impl<'a, 'b> Tally<'a, 'b> {
    fn add(&mut self, context: &Context<'_>, slot: &'b Slot<'a>, progress: Progress<'a>) {
        match progress {
            Progress::Unconcerned => return,
            Progress::Outdated => self.outdated.push(slot),
            Progress::InFlight => {
                self.in_flight += 1;
                self.busy += 1;
            }
            Progress::Settled { at, .. } => {
                self.last_settled = self.last_settled.max(Some(at));
                let until = at + context.update_delay();
                if until > context.now {
                    self.busy += 1;
                    self.delayed_until =
                        Some(self.delayed_until.map_or(until, |first| first.min(until)));
                }
            }
        }
        self.concerned += 1;
    }
}

fn is_running(update: UpdateState) -> bool {
    matches!(update, UpdateState::Updating | UpdateState::RollbackStarted)
}

/// Puts a task of the present spec into a slot.
fn replace(context: &Context<'_>, slot: &Slot<'_>, plan: &mut Plan) {
    let stop_first = context.update().order() == UpdateOrder::StopFirst;
    let stops = |task: &Task| is_on_node(task) && !is_down(node_of(context.snapshot, task));
    let desired = if stop_first && slot.tasks.iter().any(|task| stops(task)) {
        TaskState::Ready
    } else {
        TaskState::Running
    };
    plan.create(new_task(
        context.cluster,
        context.service,
        slot.number,
        desired,
        context.now,
    ));
    if stop_first {
        for task in slot.live() {
            desire(plan, task, TaskState::Shutdown);
        }
    }
}

fn start(context: &Context<'_>, plan: &mut Plan) {
    let mut service = context.service.clone();
    service.update_status = Some(UpdateStatus {
        state: UpdateState::Updating.into(),
        message: "update in progress".to_owned(),
        started_at: Some(context.now.into()),
        completed_at: None,
    });
    plan.update(service);
}

/// Completes the update once its last task has been watched long enough.
fn complete(context: &Context<'_>, tally: &Tally<'_, '_>, plan: &mut Plan) {
    let (delay, monitor) = (context.update_delay(), context.update_monitor());
    let watch = if delay >= monitor {
        delay + Duration::from_secs(1)
    } else {
        monitor
    };
    if let Some(at) = tally.last_settled.map(|settled| settled + watch)
        && at > context.now
    {
        plan.wake_at(at);
        return;
    }
    let (state, message) = match context.update_state() {
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, "rollback completed"),
        _ => (UpdateState::Completed, "update completed"),
    };
    let mut service = context.service.clone();
    let status = service.update_status.get_or_insert_default();
    status.set_state(state);
    status.message = message.to_owned();
    status.completed_at = Some(context.now.into());
    plan.update(service);
}

/// The service after the failure action, if too many of the update's tasks have failed.
fn fail(
    context: &Context<'_>,
    progress: &[(&Slot<'_>, Progress<'_>)],
    tally: &Tally<'_, '_>,
) -> Option<Service> {
    let config = context.update();
    if config.failure_action() == FailureAction::Continue {
        return None;
    }
    let update = context.service.update_status.as_ref()?;
    let progress = progress.iter().map(|&(_, progress)| progress);
    let failures = progress::failures(context, progress);
    let last = failures.first()?;
    if failures.len() as f32 / tally.concerned as f32 <= config.max_failure_ratio {
        return None;
    }
    let cause = format!("due to failure or early termination of task {}", last.id);
    let mut service = context.service.clone();
    let rolling_back = update.state() == UpdateState::RollbackStarted;
    let rollback = config.failure_action() == FailureAction::Rollback;
    if rollback && !rolling_back {
        if let Some(previous) = service.previous_spec.take() {
            service.spec = Some(previous);
            service.spec_version = service.previous_spec_version.take();
            let status = service.update_status.get_or_insert_default();
            status.set_state(UpdateState::RollbackStarted);
            status.message = format!("update rolled back {cause}");
            return Some(service);
        }
        warn!(
            service = service.id,
            "no previous spec to roll back to, the update is paused"
        );
    }
    let status = service.update_status.get_or_insert_default();
    if rolling_back {
        status.set_state(UpdateState::RollbackPaused);
    } else {
        status.set_state(UpdateState::Paused);
    }
    let what = if rolling_back && rollback {
        "rollback"
    } else {
        "update"
    };
    status.message = format!("{what} paused {cause}");
    Some(service)
}
