//! Which tasks a selector means, and on which nodes they are.

use std::collections::BTreeSet;

use skep_proto::v1::{LogSelector, Task, TaskState};
use skep_store::{By, Change, Commit, Route, Snapshot};

/// Where the logs that a selector means are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub nodes: BTreeSet<String>,
    /// Tasks that are on no node yet.
    pub unscheduled: BTreeSet<String>,
}

impl Selection {
    fn add(&mut self, task: &Task) {
        if task.node_id.is_empty() {
            self.unscheduled.insert(task.id.clone());
        } else {
            self.nodes.insert(task.node_id.clone());
        }
    }
}

/// What `selector` means now. Without `follow` tasks of services count only once they run.
pub(super) fn select(snapshot: &Snapshot, selector: &LogSelector, follow: bool) -> Selection {
    let mut selection = Selection {
        nodes: selector.node_ids.iter().cloned().collect(),
        ..Default::default()
    };
    for task_id in &selector.task_ids {
        if let Some(task) = snapshot.get::<Task>(task_id) {
            selection.add(task);
        }
    }
    for service_id in &selector.service_ids {
        for task in snapshot.find::<Task>(By::service(service_id)) {
            if follow || task.status().state() >= TaskState::Running {
                selection.add(task);
            }
        }
    }
    selection
}

/// The nodes that these commits have brought tasks to that `selector` means.
pub(super) fn arrived<'a>(
    commits: impl IntoIterator<Item = &'a Commit>,
    selector: &LogSelector,
) -> BTreeSet<String> {
    let changes = commits.into_iter().flat_map(|commit| &commit.changes);
    changes
        .filter_map(Change::current::<Task>)
        .filter(|task| !task.node_id.is_empty())
        .filter(|task| {
            selector.service_ids.contains(&task.service_id) || selector.task_ids.contains(&task.id)
        })
        .map(|task| task.node_id.clone())
        .collect()
}

/// What can bring further tasks. A task that is named is found by its service, so that naming one
/// does not mean to look at all.
pub(super) fn routes(snapshot: &Snapshot, selector: &LogSelector) -> Vec<Route> {
    let of_tasks = selector.task_ids.iter().filter_map(|task_id| {
        let task = snapshot.get::<Task>(task_id)?;
        Some(task.service_id.clone())
    });
    let mut services: BTreeSet<_> = selector
        .service_ids
        .iter()
        .cloned()
        .chain(of_tasks)
        .collect();
    services.remove("");
    services.into_iter().map(Route::Service).collect()
}
