//! The task reaper: deletes tasks that nobody needs any more, and the older part of the history of
//! each slot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_proto::v1::{
    Cluster, Node, Service, Task, TaskState, service_spec::Mode, update_status::UpdateState,
};
use skep_store::{By, Index, Kind, Snapshot};

use super::facts::{self, changed, created_at, is_live, is_on_node, is_over, state};
use crate::{
    reconcile::{Plan, Reconciler, View},
    time::Time,
};

/// Tasks kept per slot, or per node for global services, if the cluster does not say.
const DEFAULT_HISTORY: i64 = 5;

/// Deletes tasks.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    unsettled: BTreeSet<Place>,
}

/// Where one task follows the other: a slot of a service, or for slot 0 a node.
type Place = (String, u64, String);

fn place(task: &Task) -> Place {
    let node = if task.slot == 0 {
        task.node_id.clone()
    } else {
        String::new()
    };
    (task.service_id.clone(), task.slot, node)
}

impl Reconciler for Reaper {
    fn name(&self) -> &'static str {
        "reaper"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Task, Kind::Node, Kind::Service, Kind::Cluster]
    }

    fn plan(&mut self, view: &View<'_>) -> Plan {
        let mut plan = Plan::default();
        let mut places = BTreeMap::<Place, Vec<&Arc<Task>>>::new();
        match concerned(view) {
            None => {
                self.unsettled.clear();
                for task in view.snapshot.all::<Task>() {
                    places.entry(place(task)).or_default().push(task);
                }
            }
            Some(mut concerned) => {
                concerned.append(&mut self.unsettled);
                for place in concerned {
                    let tasks = tasks_of(view.snapshot, &place);
                    places.insert(place, tasks);
                }
            }
        }
        for (place, tasks) in places {
            let before = plan.writes.len();
            reap(view.snapshot, &place, tasks, view.now, &mut plan);
            if plan.writes.len() > before {
                self.unsettled.insert(place);
            }
        }
        plan
    }
}

/// Places about which something has changed; `None` for all.
fn concerned(view: &View<'_>) -> Option<BTreeSet<Place>> {
    // Its history limit rules all of them.
    if changed::<Cluster>(view)?.next().is_some() {
        return None;
    }
    let mut places: BTreeSet<Place> = changed::<Task>(view)?.map(|task| place(task)).collect();
    for service in changed::<Service>(view)? {
        let tasks = view.snapshot.find::<Task>(By::service(&service.id));
        places.extend(tasks.map(|task| place(task)));
    }
    for node in changed::<Node>(view)? {
        if view.snapshot.get::<Node>(&node.id).is_none() {
            let tasks = view.snapshot.find::<Task>(By::node(&node.id));
            places.extend(tasks.map(|task| place(task)));
        }
    }
    Some(places)
}

fn tasks_of<'a>(snapshot: &'a Snapshot, place: &Place) -> Vec<&'a Arc<Task>> {
    let (service, slot, node) = place;
    let by = match (service.is_empty(), node.is_empty()) {
        (_, false) => By::Is(Index::Node, node.clone().into()),
        (false, true) => By::slot(service, *slot),
        // Neither service nor node: nothing but a wish can make such a task go.
        (true, true) => By::desired_state(TaskState::Remove),
    };
    let all = snapshot.find::<Task>(by);
    all.filter(|task| self::place(task) == *place).collect()
}

fn reap(
    snapshot: &Snapshot,
    place: &Place,
    mut tasks: Vec<&Arc<Task>>,
    now: Time,
    plan: &mut Plan,
) {
    tasks.retain(|task| {
        if is_waste(task) {
            plan.remove(task);
            return false;
        }
        if is_on_node(task) && snapshot.get::<Node>(&task.node_id).is_none() {
            orphan(task, now, plan);
        }
        true
    });
    if let Some(service) = snapshot.get::<Service>(&place.0)
        && let Some(limit) = history_limit(snapshot, service)
    {
        prune(service, tasks, limit, plan);
    }
}

/// Whether nothing is lost with the task: it is to be removed and no agent has it to do, or it
/// belongs to no service and its node has lost it.
fn is_waste(task: &Task) -> bool {
    let state = state(task);
    let removed = task.desired_state() == TaskState::Remove
        && (state < TaskState::Assigned || state >= TaskState::Complete);
    removed || (state == TaskState::Orphaned && task.service_id.is_empty())
}

/// Gives up a task whose node does not exist: it was assigned while the node was being removed, and
/// no agent will ever report what became of it.
fn orphan(task: &Arc<Task>, now: Time, plan: &mut Plan) {
    let mut task = Task::clone(task);
    let status = task.status_mut();
    status.set_state(TaskState::Orphaned);
    status.message = "Task belonged to a node that has been deleted".to_owned();
    status.timestamp = Some(now.into());
    status.err.clear();
    plan.update(task);
}

/// Tasks kept in each place of the service; `None` for all.
fn history_limit(snapshot: &Snapshot, service: &Service) -> Option<usize> {
    let spec = service.spec();
    if !matches!(spec.mode, Some(Mode::Replicated(_) | Mode::Global(_))) {
        return None;
    }
    let attempts = spec
        .task()
        .restart
        .as_ref()
        .map_or(0, |restart| restart.max_attempts);
    if attempts > 0 {
        // What has been tried is counted from these tasks.
        return Some(
            usize::try_from(attempts)
                .unwrap_or(usize::MAX)
                .saturating_add(1),
        );
    }
    let cluster =
        facts::cluster(snapshot).and_then(|cluster| cluster.spec().orchestration.as_ref());
    let limit = cluster.map_or(DEFAULT_HISTORY, |config| {
        config.task_history_retention_limit
    });
    usize::try_from(limit).ok()
}

/// Deletes the oldest tasks above the limit that are over or will never be.
fn prune(service: &Service, mut tasks: Vec<&Arc<Task>>, limit: usize, plan: &mut Plan) {
    let surplus = tasks.len().saturating_sub(limit);
    if surplus == 0 {
        return;
    }
    tasks.sort_by_key(|task| (created_at(task), &task.id));
    let kept = evidence(service, &tasks);
    let never_runs = |task: &Task| state(task) < TaskState::Assigned;
    tasks
        .iter()
        .enumerate()
        .filter(|(n, task)| {
            !kept.contains(n) && !is_live(task) && (is_over(task) || never_runs(task))
        })
        .take(surplus)
        .for_each(|(_, task)| plan.remove(task));
}

/// Places in the history, oldest first, from which something is still to be read.
fn evidence(service: &Service, tasks: &[&Arc<Task>]) -> Vec<usize> {
    let mut kept = Vec::new();
    // How long a held task waits is told by the one that it follows.
    let held = tasks
        .iter()
        .position(|task| is_live(task) && task.desired_state() == TaskState::Ready);
    kept.extend(held.and_then(|held| held.checked_sub(1)));
    // How far an update has come is told by the last task of an older spec and the one after it.
    let update = service.update_status.as_ref().map(|status| status.state());
    if let Some(UpdateState::Updating | UpdateState::RollbackStarted) = update {
        let older = |task: &&Arc<Task>| task.spec_version != service.spec_version;
        if let Some(last) = tasks.iter().rposition(older) {
            kept.extend([last, last + 1]);
        }
    }
    kept
}
