//! Watching: exact hand-over from a snapshot to the commits after it, in bounded memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{AnyObject, Change, Kind, Snapshot};

/// Commits that a subscription holds for a reader that is busy. Past that it is told that it lags:
/// every consumer is correct from a snapshot alone, so a deep queue would only cost memory.
const QUEUE_COMMITS: usize = 1024;

/// What was published together: all changes of the entries that were committed in one go.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The tables after these changes.
    pub snapshot: Snapshot,
    /// The changes, in log order.
    pub changes: Vec<Change>,
}

/// Which commits a subscription is woken by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Every commit.
    All,
    /// Commits that touch an object of this kind.
    Kind(Kind),
    /// Commits that touch the node of this ID or a task that is or was on it.
    Node(String),
}

/// What a subscription delivers.
#[derive(Clone, Debug)]
pub enum Event {
    /// Everything that was committed since the last call, oldest first, never empty.
    Commits(Vec<Arc<Commit>>),
    /// The reader was too slow and has missed commits. This snapshot has all that it missed, and
    /// what is delivered next comes right after it.
    Lagged(Snapshot),
}

/// The reading end of [`crate::Store::watch`].
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
    watchers: Arc<Mutex<Watchers>>,
    routes: Vec<Route>,
}

impl Drop for Subscription {
    /// Leaves nothing behind: a route may name something that nobody ever touches, and whoever
    /// names it may be a stranger.
    fn drop(&mut self) {
        let mut watchers = self.watchers.lock();
        for route in &self.routes {
            watchers.leave(route, &self.queue);
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    commits: VecDeque<Arc<Commit>>,
    lagged: bool,
}

/// All subscriptions by route, and the snapshot they are level with.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    latest: Snapshot,
    routes: HashMap<Route, Vec<Weak<Queue>>>,
}

impl Watchers {
    /// Makes `commit` the latest and queues it for whom it concerns.
    pub(crate) fn publish(&mut self, commit: Commit) {
        self.latest = commit.snapshot.clone();
        let commit = Arc::new(commit);
        self.deliver(&Route::All, &commit);
        for change in &commit.changes {
            self.deliver(&Route::Kind(change.object().kind()), &commit);
            for object in [Some(change.object()), change.old()].into_iter().flatten() {
                let node = match object {
                    AnyObject::Task(task) => &task.node_id,
                    AnyObject::Node(node) => &node.id,
                    _ => continue,
                };
                if !node.is_empty() {
                    self.deliver(&Route::Node(node.clone()), &commit);
                }
            }
        }
    }

    /// Makes `snapshot` the latest without telling anyone: nothing was changed.
    pub(crate) fn advance(&mut self, snapshot: Snapshot) {
        self.latest = snapshot;
    }

    fn leave(&mut self, route: &Route, queue: &Arc<Queue>) {
        let Some(queues) = self.routes.get_mut(route) else {
            return;
        };
        let own = queues
            .iter()
            .position(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(queue)));
        if let Some(own) = own {
            queues.swap_remove(own);
        }
        if queues.is_empty() {
            self.routes.remove(route);
        }
    }

    fn deliver(&mut self, route: &Route, commit: &Arc<Commit>) {
        let Some(queues) = self.routes.get_mut(route) else {
            return;
        };
        for queue in queues.iter().filter_map(Weak::upgrade) {
            queue.push(commit);
        }
    }
}

impl Queue {
    fn push(&self, commit: &Arc<Commit>) {
        let mut state = self.state.lock();
        // A commit with several changes may reach a queue by several routes.
        if state.lagged
            || state
                .commits
                .back()
                .is_some_and(|last| Arc::ptr_eq(last, commit))
        {
            return;
        }
        if state.commits.len() == QUEUE_COMMITS {
            state.commits = VecDeque::new();
            state.lagged = true;
        } else {
            state.commits.push_back(commit.clone());
        }
        drop(state);
        self.ready.notify_one();
    }
}

pub(crate) fn subscribe(
    watchers: &Arc<Mutex<Watchers>>,
    routes: impl IntoIterator<Item = Route>,
) -> (Snapshot, Subscription) {
    let queue = Arc::new(Queue::default());
    let routes: Vec<_> = routes.into_iter().collect();
    let mut locked = watchers.lock();
    for route in &routes {
        locked
            .routes
            .entry(route.clone())
            .or_default()
            .push(Arc::downgrade(&queue));
    }
    (
        locked.latest.clone(),
        Subscription {
            queue,
            watchers: watchers.clone(),
            routes,
        },
    )
}

impl Subscription {
    /// Waits for the next commits. Cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.queue.ready.notified().await;
        }
    }

    /// The next commits, if there are any now.
    pub fn try_next(&mut self) -> Option<Event> {
        // Before the queue: nothing can be published between the snapshot and its first follower.
        let watchers = self.watchers.lock();
        let mut state = self.queue.state.lock();
        if state.lagged {
            state.lagged = false;
            return Some(Event::Lagged(watchers.latest.clone()));
        }
        if state.commits.is_empty() {
            return None;
        }
        Some(Event::Commits(std::mem::take(&mut state.commits).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_leaves_nothing_behind() {
        let watchers = Arc::<Mutex<Watchers>>::default();
        let node = || Route::Node("never-heard-of".to_owned());
        let (_, first) = subscribe(&watchers, [node(), Route::All]);
        let (_, second) = subscribe(&watchers, [node(), node()]);
        drop(first);
        assert_eq!(watchers.lock().routes[&node()].len(), 2);
        assert!(!watchers.lock().routes.contains_key(&Route::All));
        drop(second);
        assert!(watchers.lock().routes.is_empty());
    }
}
