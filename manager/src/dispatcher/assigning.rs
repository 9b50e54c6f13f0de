//! Streams to a node what it has to run, commit by commit.
//!
//! All commits that are queued go into one message, and an idle stream waits for nothing but secret
//! drivers: a commit is on its way to the agent at once. While the stream is not read, commits pile
//! up in the store subscription; past its bound they are replaced by the difference to what was sent.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use skep_proto::v1::{AssignmentsMessage, Volume};
use skep_store::{AnyObject, Commit, Event, Route, Snapshot, Subscription};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use super::{
    assignments::{Assignments, Touched},
    made,
    term::{Handle, Term},
};

struct Assigning {
    term: Arc<Term>,
    handle: Handle,
    _counted: TaskTrackerToken,
    subscription: Subscription,
    assignments: Assignments,
    next: Next,
}

/// What is sent next.
enum Next {
    /// Everything, as it is in this snapshot.
    Complete(Box<Snapshot>),
    Changes,
    Nothing,
}

/// The assignments of a session.
pub(super) fn stream(
    term: Arc<Term>,
    handle: Handle,
) -> BoxStream<'static, Result<AssignmentsMessage, Status>> {
    let (snapshot, subscription) = term.store.watch([Route::Node(handle.node_id.clone())]);
    let assigning = Assigning {
        _counted: term.streams.token(),
        assignments: Assignments::new(&handle.node_id),
        term,
        handle,
        subscription,
        next: Next::Complete(Box::new(snapshot)),
    };
    stream::unfold(assigning, async |mut assigning| {
        Some((assigning.next().await?, assigning))
    })
    .boxed()
}

impl Assigning {
    async fn next(&mut self) -> Option<Result<AssignmentsMessage, Status>> {
        match std::mem::replace(&mut self.next, Next::Changes) {
            Next::Complete(snapshot) if !self.handle.gone.is_cancelled() => {
                let message = self.assignments.complete(&snapshot);
                return Some(self.finished(message, &snapshot).await);
            }
            Next::Complete(_) | Next::Changes => {}
            Next::Nothing => return None,
        }
        loop {
            let event = tokio::select! {
                biased;
                () = self.handle.gone.cancelled() => {
                    return Some(Err(self.farewell()));
                }
                event = self.subscription.next() => event,
            };
            let (snapshot, message) = match &event {
                Event::Lagged(snapshot) => (snapshot, self.assignments.incremental(snapshot, None)),
                Event::Commits(commits) => {
                    let Some(last) = commits.last() else { continue };
                    let touched = touched(commits, &self.handle.node_id);
                    let snapshot = &last.snapshot;
                    (
                        snapshot,
                        self.assignments.incremental(snapshot, Some(&touched)),
                    )
                }
            };
            if let Some(message) = message {
                return Some(self.finished(message, snapshot).await);
            }
        }
    }

    /// The message with the values that drivers make, or the final error if the session ends before
    /// they are there.
    async fn finished(
        &mut self,
        mut message: AssignmentsMessage,
        snapshot: &Snapshot,
    ) -> Result<AssignmentsMessage, Status> {
        tokio::select! {
            biased;
            () = made::fill(&mut message, snapshot, &self.term.secret_drivers) => Ok(message),
            () = self.handle.gone.cancelled() => Err(self.farewell()),
        }
    }

    fn farewell(&mut self) -> Status {
        self.next = Next::Nothing;
        self.term.farewell(&self.handle)
    }
}

/// Tasks and volumes of the node that these commits have changed.
fn touched<'a>(commits: &'a [Arc<Commit>], node_id: &str) -> Touched<'a> {
    let mut touched = Touched::default();
    for change in commits.iter().flat_map(|commit| &commit.changes) {
        for object in [Some(change.object()), change.old()].into_iter().flatten() {
            match object {
                AnyObject::Task(task) if task.node_id == node_id => {
                    touched.tasks.insert(&task.id);
                }
                AnyObject::Volume(volume) if is_published(volume, node_id) => {
                    touched.volumes.insert(&volume.id);
                }
                _ => {}
            }
        }
    }
    touched
}

fn is_published(volume: &Volume, node_id: &str) -> bool {
    let mut published = volume.publish_status.iter();
    published.any(|status| status.node_id == node_id)
}
