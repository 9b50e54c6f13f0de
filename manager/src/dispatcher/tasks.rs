//! The stream that `Assignments` has replaced: all tasks of a node, whenever one changes. Agents that
//! do not know better get their tasks by it, and no secrets.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use skep_proto::v1::{Task, TaskState, TasksMessage};
use skep_store::{By, Route, Snapshot, Subscription};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use super::{
    assignments::same_but_for_status,
    term::{Handle, Term},
};

struct Tasks {
    term: Arc<Term>,
    handle: Handle,
    _counted: TaskTrackerToken,
    subscription: Subscription,
    /// What the node has; none before the first message.
    sent: Option<BTreeMap<String, Arc<Task>>>,
    ended: bool,
}

/// The tasks of a session.
pub(super) fn stream(
    term: Arc<Term>,
    handle: Handle,
) -> BoxStream<'static, Result<TasksMessage, Status>> {
    let (_, subscription) = term.store.watch([Route::Node(handle.node_id.clone())]);
    let tasks = Tasks {
        _counted: term.streams.token(),
        term,
        handle,
        subscription,
        sent: None,
        ended: false,
    };
    stream::unfold(tasks, async |mut tasks| Some((tasks.next().await?, tasks))).boxed()
}

impl Tasks {
    async fn next(&mut self) -> Option<Result<TasksMessage, Status>> {
        if self.ended {
            return None;
        }
        loop {
            if self.handle.gone.is_cancelled() {
                self.ended = true;
                return Some(Err(self.term.farewell(&self.handle)));
            }
            let tasks = self.present(&self.term.store.snapshot());
            let news = self.sent.as_ref().is_none_or(|sent| !is_same(sent, &tasks));
            self.sent = Some(tasks);
            if news && let Some(sent) = &self.sent {
                let tasks = sent.values().map(|task| Task::clone(task)).collect();
                return Some(Ok(TasksMessage { tasks }));
            }
            tokio::select! {
                () = self.handle.gone.cancelled() => {}
                // Only a wake: what is sent is what there is.
                _ = self.subscription.next() => {}
            }
        }
    }

    fn present(&self, snapshot: &Snapshot) -> BTreeMap<String, Arc<Task>> {
        snapshot
            .find::<Task>(By::node(&self.handle.node_id))
            .filter(|task| task.status().state() >= TaskState::Assigned)
            .map(|task| (task.id.clone(), task.clone()))
            .collect()
    }
}

/// Whether there is nothing to tell: the status of a task comes from the node itself.
fn is_same(sent: &BTreeMap<String, Arc<Task>>, now: &BTreeMap<String, Arc<Task>>) -> bool {
    sent.len() == now.len()
        && sent.iter().zip(now).all(|((id, sent), (now_id, now))| {
            id == now_id
                && (Arc::ptr_eq(sent, now)
                    || now.status().state() > TaskState::Assigned && same_but_for_status(sent, now))
        })
}
