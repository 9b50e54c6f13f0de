//! What one session has been told to run, and the next message about it.
//!
//! Pure: it compares what was sent with a snapshot. Whether it is asked about single tasks or about
//! everything changes only how much it looks at.

mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_proto::v1::{
    Assignment, AssignmentChange, AssignmentsMessage, Task, TaskState, Volume, assignment::Item,
    assignment_change::AssignmentAction, assignments_message::Type,
};
use skep_store::{By, Object, Snapshot};

use self::volumes::Volumes;
use super::dependencies::{self, Dependencies};

/// What the agent at the other end has.
#[derive(Debug)]
pub(super) struct Assignments {
    node_id: String,
    /// The newest version seen of each task that was sent. Shared with the store.
    sent: BTreeMap<String, Arc<Task>>,
    volumes: Volumes,
    dependencies: Dependencies,
    /// Number of the last message.
    step: u64,
}

/// IDs of what may have changed for a node.
#[derive(Debug, Default)]
pub(super) struct Touched<'a> {
    pub tasks: BTreeSet<&'a str>,
    pub volumes: BTreeSet<&'a str>,
}

impl Assignments {
    /// Nothing was sent yet.
    pub fn new(node_id: &str) -> Self {
        Self {
            node_id: node_id.to_owned(),
            sent: BTreeMap::new(),
            volumes: Volumes::default(),
            dependencies: Dependencies::default(),
            step: 0,
        }
    }

    /// The first message: everything, even if that is nothing. To be called once and first.
    pub fn complete(&mut self, snapshot: &Snapshot) -> AssignmentsMessage {
        let changes = self.difference(snapshot, None);
        self.message(Type::Complete, changes)
    }

    /// What has changed since the last message, if anything has. `None` means that everything may
    /// have.
    pub fn incremental(
        &mut self,
        snapshot: &Snapshot,
        touched: Option<&Touched<'_>>,
    ) -> Option<AssignmentsMessage> {
        let changes = self.difference(snapshot, touched);
        (!changes.is_empty()).then(|| self.message(Type::Incremental, changes))
    }

    fn message(&mut self, kind: Type, changes: Vec<AssignmentChange>) -> AssignmentsMessage {
        let applies_to = if self.step == 0 {
            String::new()
        } else {
            self.step.to_string()
        };
        self.step += 1;
        AssignmentsMessage {
            r#type: kind.into(),
            applies_to,
            results_in: self.step.to_string(),
            changes,
        }
    }

    fn difference(
        &mut self,
        snapshot: &Snapshot,
        touched: Option<&Touched<'_>>,
    ) -> Vec<AssignmentChange> {
        let mut changes = Vec::new();
        match touched {
            Some(touched) => {
                for task_id in &touched.tasks {
                    let task = snapshot
                        .get(task_id)
                        .filter(|task: &&Arc<Task>| self.is_ours(task));
                    changes.extend(self.task(snapshot, task_id, task));
                }
                for volume_id in &touched.volumes {
                    changes.extend(self.volume(snapshot, volume_id));
                }
            }
            None => {
                let gone: Vec<_> = self
                    .sent
                    .keys()
                    .filter(|id| !snapshot.get(id).is_some_and(|task| self.is_ours(task)))
                    .cloned()
                    .collect();
                for task_id in gone {
                    changes.extend(self.task(snapshot, &task_id, None));
                }
                let node_id = self.node_id.clone();
                for task in snapshot.find::<Task>(By::node(&node_id)) {
                    if self.is_ours(task) {
                        changes.extend(self.task(snapshot, &task.id, Some(task)));
                    }
                }
                let here = snapshot.find::<Volume>(By::node(&node_id));
                let mut volumes = self.volumes.ids();
                volumes.extend(here.map(|volume| volume.id.clone()));
                for volume_id in volumes {
                    changes.extend(self.volume(snapshot, &volume_id));
                }
            }
        }
        changes.extend(self.dependencies.changes(snapshot));
        changes
    }

    /// Whether the agent is to have the task.
    fn is_ours(&self, task: &Task) -> bool {
        task.node_id == self.node_id && task.status().state() >= TaskState::Assigned
    }

    /// Takes note of a task as it is now and says what the agent must hear of it.
    fn task(
        &mut self,
        snapshot: &Snapshot,
        task_id: &str,
        task: Option<&Arc<Task>>,
    ) -> Option<AssignmentChange> {
        let Some(task) = task else {
            self.sent.remove(task_id)?;
            self.dependencies.release(task_id);
            let id = Task {
                id: task_id.to_owned(),
                ..Default::default()
            };
            return Some(change(Item::Task(id), AssignmentAction::Remove));
        };
        let state = task.status().state();
        let must_send = match self.sent.get(task_id) {
            Some(sent) if sent.version() == task.version() => return None,
            // `ASSIGNED` is the managers' doing, all states above come from the agent.
            Some(sent) => state == TaskState::Assigned || !same_but_for_status(sent, task),
            None => {
                if state <= TaskState::Running {
                    let needed = dependencies::of_task(task);
                    self.dependencies.add(task_id, needed, snapshot);
                }
                true
            }
        };
        if state > TaskState::Running {
            self.dependencies.release(task_id);
        }
        self.sent.insert(task_id.to_owned(), task.clone());
        must_send.then(|| change(Item::Task(Task::clone(task)), AssignmentAction::Update))
    }

    /// Takes note of a volume as it is now and says what the agent must hear of it.
    fn volume(&mut self, snapshot: &Snapshot, volume_id: &str) -> Option<AssignmentChange> {
        let volume = snapshot.get(volume_id).map(AsRef::as_ref);
        let (action, volume) = self.volumes.next(&self.node_id, volume_id, volume)?;
        match action {
            AssignmentAction::Update => {
                let needed = dependencies::of_volume(&volume);
                self.dependencies.add(volume_id, needed, snapshot);
            }
            AssignmentAction::Remove => self.dependencies.release(volume_id),
        }
        Some(change(Item::Volume(volume), action))
    }
}

pub(super) fn change(item: Item, action: AssignmentAction) -> AssignmentChange {
    AssignmentChange {
        assignment: Some(Assignment { item: Some(item) }),
        action: action.into(),
    }
}

/// Whether two versions of a task differ in `meta` and `status` at most.
pub(super) fn same_but_for_status(a: &Task, b: &Task) -> bool {
    // All fields are named, so that a new one cannot be forgotten.
    let Task {
        id,
        meta: _,
        spec,
        service_id,
        slot,
        node_id,
        annotations,
        service_annotations,
        status: _,
        desired_state,
        networks,
        endpoint,
        log_driver,
        spec_version,
        assigned_generic_resources,
        job_iteration,
        volumes,
    } = a;
    *desired_state == b.desired_state
        && *id == b.id
        && *service_id == b.service_id
        && *slot == b.slot
        && *node_id == b.node_id
        && *spec_version == b.spec_version
        && *job_iteration == b.job_iteration
        && *networks == b.networks
        && *endpoint == b.endpoint
        && *log_driver == b.log_driver
        && *assigned_generic_resources == b.assigned_generic_resources
        && *volumes == b.volumes
        && *annotations == b.annotations
        && *service_annotations == b.service_annotations
        && *spec == b.spec
}

#[cfg(test)]
mod tests;
