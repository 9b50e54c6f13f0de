//! The way of task statuses from agents into the store: many reports in one transaction.
//!
//! SwarmKit answers a report before it is stored. Here the answer waits for the commit of the
//! batch: an acknowledged report is durable.

mod room;

use std::collections::{HashMap, hash_map};

use prost::Message as _;
use skep_proto::v1::{Task, TaskState, TaskStatus, update_task_status_request::TaskStatusUpdate};
use skep_store::{Error, Snapshot, Tx};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use self::room::{Place, Room, weight};
use super::{status, term::Term};
use crate::batch::write_all;

/// Reports that wait for a batch. As much as a batch takes; who comes on top waits in its own call, and
/// so does who would make them too large together: see [`Room`].
const QUEUE: usize = 10_000;

/// Task statuses from which on a batch takes no further report (SwarmKit's number).
const BATCH: usize = 10_000;

/// Largest status in bytes. A larger one could make the transaction that it shares with other
/// nodes' reports too large; those of stock agents stay far below.
const MAX_STATUS_BYTES: usize = 256 * 1024;

/// What one call reports.
pub(super) struct Report {
    node_id: String,
    updates: Vec<(String, TaskStatus)>,
    place: Place,
    done: oneshot::Sender<Result<(), Error>>,
}

/// The way of reports into batches.
pub(super) struct Reports {
    queue: mpsc::Sender<Report>,
    room: Room,
}

impl Reports {
    /// And the other end, for [`commit`].
    pub fn new() -> (Self, mpsc::Receiver<Report>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let room = Room::new();
        (Self { queue, room }, receiver)
    }
}

/// Takes the report of a node with a valid session and waits until it is stored.
pub(super) async fn report(
    term: &Term,
    node_id: String,
    updates: Vec<TaskStatusUpdate>,
) -> Result<(), Status> {
    let updates = admit(&term.store.snapshot(), &node_id, updates)?;
    if updates.is_empty() {
        return Ok(());
    }
    let place = term.reports.room.take(&node_id, weight(&updates)).await?;
    let (done, stored) = oneshot::channel();
    let report = Report {
        node_id,
        updates,
        place,
        done,
    };
    term.reports
        .queue
        .send(report)
        .await
        .map_err(|_| status::stopped())?;
    stored
        .await
        .map_err(|_| status::stopped())?
        .map_err(status::from_store)
}

/// The updates that mean something. One for another node's task spoils the whole report.
fn admit(
    snapshot: &Snapshot,
    node_id: &str,
    updates: Vec<TaskStatusUpdate>,
) -> Result<Vec<(String, TaskStatus)>, Status> {
    let mut admitted = Vec::with_capacity(updates.len());
    for update in updates {
        // An unknown state could never be left again: states only grow.
        let Some(status) = update
            .status
            .filter(|status| TaskState::try_from(status.state).is_ok())
        else {
            continue;
        };
        let Some(task) = snapshot.get::<Task>(&update.task_id) else {
            continue;
        };
        if task.node_id != node_id {
            let text = "cannot update a task not assigned this node";
            return Err(Status::permission_denied(text));
        }
        if status.encoded_len() > MAX_STATUS_BYTES {
            return Err(Status::resource_exhausted(
                "the status of a task is too large",
            ));
        }
        admitted.push((update.task_id, status));
    }
    Ok(admitted)
}

/// Commits what is reported, batch after batch. While one is being replicated the next fills up.
pub(super) async fn commit(term: &Term, mut queue: mpsc::Receiver<Report>) {
    while let Some(first) = queue.recv().await {
        let mut waiting = Vec::new();
        let mut latest = Latest::default();
        let mut next = Some(first);
        while let Some(report) = next {
            latest.take(report.node_id, report.updates);
            waiting.push((report.done, report.place));
            next = if latest.updates < BATCH {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        let stored = store(term, latest.by_task.into_iter().collect()).await;
        for (done, _place) in waiting {
            // The agent may have gone away.
            let _ = done.send(stored.clone());
        }
    }
}

/// The last status of each task, and who reported it.
#[derive(Default)]
struct Latest {
    by_task: HashMap<String, (String, TaskStatus)>,
    updates: usize,
}

impl Latest {
    fn take(&mut self, node_id: String, updates: Vec<(String, TaskStatus)>) {
        self.updates += updates.len();
        for (task_id, status) in updates {
            match self.by_task.entry(task_id) {
                hash_map::Entry::Occupied(mut entry) => {
                    if status.state >= entry.get().1.state {
                        entry.insert((node_id.clone(), status));
                    }
                }
                hash_map::Entry::Vacant(entry) => {
                    entry.insert((node_id.clone(), status));
                }
            }
        }
    }
}

type Item = (String, (String, TaskStatus));

async fn store(term: &Term, items: Vec<Item>) -> Result<(), Error> {
    let snapshot = term.store.snapshot();
    let size = |(task_id, (_, status)): &Item| {
        let task = snapshot
            .get::<Task>(task_id)
            .map_or(0, |task| task.encoded_len());
        task.saturating_add(status.encoded_len())
    };
    let write = |tx: &mut Tx, (task_id, (node_id, status)): &Item| {
        apply(tx, task_id, node_id, status, &term.own_node_id)
    };
    write_all(&term.store, &items, size, write).await
}

fn apply(
    tx: &mut Tx,
    task_id: &str,
    node_id: &str,
    status: &TaskStatus,
    leader: &str,
) -> Result<(), Error> {
    let Some(task) = tx
        .get::<Task>(task_id)
        .filter(|task| task.node_id == node_id)
    else {
        return Ok(());
    };
    let stored = task.status();
    if status.state < stored.state {
        return Ok(());
    }
    // Who applied it and when is not part of what the agent says.
    let mut status = status.clone();
    status.applied_by.clone_from(&stored.applied_by);
    status.applied_at = stored.applied_at;
    if status == *stored {
        return Ok(());
    }
    let mut task = Task::clone(task);
    status.applied_by = leader.to_owned();
    status.applied_at = Some(tx.now());
    task.status = Some(status);
    tx.update(task).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_status_wins_and_none_goes_backwards() {
        let status = |state: TaskState, message: &str| TaskStatus {
            state: state.into(),
            message: message.to_owned(),
            ..Default::default()
        };
        let mut latest = Latest::default();
        let mut take = |status: TaskStatus| {
            latest.take("n1".to_owned(), vec![("t1".to_owned(), status)]);
            latest.by_task["t1"].1.message.clone()
        };
        assert_eq!(take(status(TaskState::Ready, "first")), "first");
        assert_eq!(take(status(TaskState::Running, "second")), "second");
        assert_eq!(take(status(TaskState::Running, "third")), "third");
        assert_eq!(take(status(TaskState::Starting, "late")), "third");
        assert_eq!(latest.updates, 4);
    }
}
