//! Calls about tasks. Nobody makes or changes tasks here: orchestrators do.

use std::borrow::Cow;

use skep_proto::v1::{
    GetTaskRequest, GetTaskResponse, ListTasksRequest, ListTasksResponse, Node, RemoveTaskRequest,
    RemoveTaskResponse, Service, Task, list_tasks_request::Filters,
};
use skep_store::{By, Snapshot};

use super::{ApiError, Control, filter, require, service::runtime};
use crate::reconcilers::dirty::is_dirty;

pub(super) async fn get(
    control: &Control,
    request: GetTaskRequest,
) -> Result<GetTaskResponse, ApiError> {
    let task = control.get::<Task>(&request.task_id)?;
    Ok(GetTaskResponse {
        task: Some(Task::clone(&task)),
    })
}

pub(super) async fn list(
    control: &Control,
    request: ListTasksRequest,
) -> Result<ListTasksResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let filters = request.filters.unwrap_or_default();
    let tasks = filter::select::<Task>(&snapshot, candidates(&filters))
        .into_iter()
        .filter(|task| passes(&snapshot, &filters, task))
        .map(|task| Task::clone(task))
        .collect();
    Ok(ListTasksResponse { tasks })
}

/// Deletes the task without stopping it.
pub(super) async fn remove(
    control: &Control,
    request: RemoveTaskRequest,
) -> Result<RemoveTaskResponse, ApiError> {
    require(&request.task_id)?;
    control
        .store
        .update(|tx| super::remove::<Task>(tx, &request.task_id))
        .await?;
    Ok(RemoveTaskResponse {})
}

/// A look-up that yields at least all tasks that pass, and few others.
fn candidates(filters: &Filters) -> Vec<By<'_>> {
    if !filters.id_prefixes.is_empty() {
        filters
            .id_prefixes
            .iter()
            .map(|id| By::IdPrefix(id))
            .collect()
    } else if !filters.service_ids.is_empty() {
        filters
            .service_ids
            .iter()
            .map(|id| By::service(id))
            .collect()
    } else if !filters.node_ids.is_empty() {
        filters.node_ids.iter().map(|id| By::node(id)).collect()
    } else {
        filters.desired_states().map(By::desired_state).collect()
    }
}

fn passes(snapshot: &Snapshot, filters: &Filters, task: &Task) -> bool {
    let labels = &task.service_annotations().labels;
    filter::Common::from(filters).pass_as(&task.id, &name(task), labels)
        && filter::any(&filters.service_ids, |id| *id == task.service_id)
        && filter::any(&filters.node_ids, |id| *id == task.node_id)
        && filter::any(&filters.desired_states, |&state| {
            state == task.desired_state
        })
        && filter::any(&filters.runtimes, |wanted| {
            runtime(task.spec()).as_ref() == Some(wanted)
        })
        && (!filters.up_to_date || is_up_to_date(snapshot, task))
}

/// The name that users see: `<service>.<slot, or node if it has none>.<task ID>`.
pub(crate) fn name(task: &Task) -> Cow<'_, str> {
    if !task.annotations().name.is_empty() {
        return Cow::Borrowed(&task.annotations().name);
    }
    let service = &task.service_annotations().name;
    Cow::Owned(if task.slot == 0 {
        format!("{service}.{}.{}", task.node_id, task.id)
    } else {
        format!("{service}.{}.{}", task.slot, task.id)
    })
}

/// Whether the task is what its service now asks for, by the rule that decides on replacing it.
fn is_up_to_date(snapshot: &Snapshot, task: &Task) -> bool {
    snapshot
        .get::<Service>(&task.service_id)
        .is_some_and(|service| {
            let node = snapshot.get::<Node>(&task.node_id);
            !is_dirty(service, task, node.map(|node| &**node))
        })
}

#[cfg(test)]
mod tests;
