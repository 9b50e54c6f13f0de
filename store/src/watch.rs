//! Watching: exact hand-over from a snapshot to the commits after it, in bounded memory.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    iter, option,
    sync::Arc,
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
    /// Where the changes of each entry end, after the entry's index in the log. Entries without any
    /// are left out.
    pub(crate) ends: Vec<(u64, usize)>,
}

impl Commit {
    /// The changes by the entries that made them, each with its index in the log. How many entries a
    /// commit has is a matter of timing; the entries are the same on every manager. After a snapshot
    /// of the leader was restored, all that differs comes as one, under the snapshot's index.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &[Change])> {
        let mut begin = 0;
        self.ends.iter().map(move |&(index, end)| {
            let changes = &self.changes[begin..end];
            begin = end;
            (index, changes)
        })
    }
}

/// Which commits a subscription is woken by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Every commit.
    All,
    /// Commits that touch an object of this kind.
    Kind(Kind),
    /// Commits that touch the node of this ID, or a task or a published volume that is or was on it.
    Node(String),
    /// Commits that touch the service of this ID or a task of it.
    Service(String),
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
    number: u64,
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
            watchers.leave(route, self.number);
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
    last_number: u64,
    all: Queues,
    kinds: HashMap<Kind, Queues>,
    nodes: HashMap<String, Queues>,
    services: HashMap<String, Queues>,
    /// Queues that commits were put into, counted to see what a commit costs.
    #[cfg(test)]
    visits: usize,
}

/// Queues by the number of their subscription.
type Queues = BTreeMap<u64, Arc<Queue>>;

impl Watchers {
    /// Whether nobody watches.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
            && self.kinds.is_empty()
            && self.nodes.is_empty()
            && self.services.is_empty()
    }

    /// Makes `commit` the latest and queues it for whom it concerns. What it concerns is looked up
    /// by what it changes: subscriptions to other things cost nothing.
    pub(crate) fn publish(&mut self, commit: Commit) {
        self.latest = commit.snapshot.clone();
        let commit = Arc::new(commit);
        let mut visits = deliver(Some(&self.all), &commit);
        let mut last_kind = None;
        for change in &commit.changes {
            let kind = change.object().kind();
            if last_kind.replace(kind) != Some(kind) {
                visits += deliver(self.kinds.get(&kind), &commit);
            }
            for node in both(change, nodes) {
                visits += deliver(self.nodes.get(node), &commit);
            }
            for service in both(change, service) {
                visits += deliver(self.services.get(service), &commit);
            }
        }
        self.count(visits);
    }

    #[cfg(test)]
    fn count(&mut self, visits: usize) {
        self.visits += visits;
    }

    #[cfg(not(test))]
    fn count(&mut self, _visits: usize) {}

    /// Makes `snapshot` the latest without telling anyone: nothing was changed.
    pub(crate) fn advance(&mut self, snapshot: Snapshot) {
        self.latest = snapshot;
    }

    fn join(&mut self, route: &Route, number: u64, queue: &Arc<Queue>) {
        let queues = match route {
            Route::All => &mut self.all,
            Route::Kind(kind) => self.kinds.entry(*kind).or_default(),
            Route::Node(id) => self.nodes.entry(id.clone()).or_default(),
            Route::Service(id) => self.services.entry(id.clone()).or_default(),
        };
        queues.insert(number, queue.clone());
    }

    fn leave(&mut self, route: &Route, number: u64) {
        match route {
            Route::All => drop(self.all.remove(&number)),
            Route::Kind(kind) => leave(&mut self.kinds, kind, number),
            Route::Node(id) => leave(&mut self.nodes, id, number),
            Route::Service(id) => leave(&mut self.services, id, number),
        }
    }
}

fn leave<K: Eq + Hash>(routes: &mut HashMap<K, Queues>, route: &K, number: u64) {
    if let Some(queues) = routes.get_mut(route) {
        queues.remove(&number);
        if queues.is_empty() {
            routes.remove(route);
        }
    }
}

/// What a change concerns by `concerned`, after it or before it, each once.
fn both<'a, I: Iterator<Item = &'a str>>(
    change: &'a Change,
    concerned: impl Fn(&'a AnyObject) -> I + Copy,
) -> impl Iterator<Item = &'a str> {
    let object = change.object();
    let before = change.old().into_iter().flat_map(concerned);
    let before = before.filter(move |id| concerned(object).all(|now| now != *id));
    concerned(object).chain(before)
}

/// The IDs of the nodes that a change of `object` concerns.
fn nodes(object: &AnyObject) -> impl Iterator<Item = &str> {
    let (one, published) = match object {
        AnyObject::Task(task) => (&*task.node_id, &[][..]),
        AnyObject::Node(node) => (&*node.id, &[][..]),
        AnyObject::Volume(volume) => ("", &volume.publish_status[..]),
        _ => ("", &[][..]),
    };
    let published = published.iter().map(|status| &*status.node_id);
    iter::once(one).chain(published).filter(|id| !id.is_empty())
}

/// The ID of the service that a change of `object` concerns, if any.
fn service(object: &AnyObject) -> option::IntoIter<&str> {
    let id = match object {
        AnyObject::Task(task) => &*task.service_id,
        AnyObject::Service(service) => &*service.id,
        _ => "",
    };
    Some(id).filter(|id| !id.is_empty()).into_iter()
}

/// Puts `commit` into all of `queues` and returns how many they are.
fn deliver(queues: Option<&Queues>, commit: &Arc<Commit>) -> usize {
    let Some(queues) = queues else { return 0 };
    for queue in queues.values() {
        queue.push(commit);
    }
    queues.len()
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
    locked.last_number += 1;
    let number = locked.last_number;
    for route in &routes {
        locked.join(route, number, &queue);
    }
    (
        locked.latest.clone(),
        Subscription {
            number,
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
    use skep_proto::v1::{Task, Volume, VolumePublishStatus};

    use super::*;

    #[test]
    fn a_subscription_leaves_nothing_behind() {
        let watchers = Arc::<Mutex<Watchers>>::default();
        let node = || Route::Node("never-heard-of".to_owned());
        let (_, first) = subscribe(&watchers, [node(), Route::All]);
        let routes = [node(), node(), Route::Service(String::new())];
        let (_, second) = subscribe(&watchers, routes);
        drop(first);
        assert_eq!(watchers.lock().nodes["never-heard-of"].len(), 1);
        assert!(watchers.lock().all.is_empty());
        assert!(!watchers.lock().is_empty());
        drop(second);
        assert!(watchers.lock().is_empty());
    }

    #[test]
    fn a_volume_concerns_every_node_that_it_is_or_was_published_to() {
        let watchers = Arc::<Mutex<Watchers>>::default();
        let node = |id: &str| subscribe(&watchers, [Route::Node(id.to_owned())]).1;
        let nodes = ["n1", "n2", "n3", "n4"].map(node);
        let volume = |nodes: &[&str]| {
            let published = nodes.iter().map(|id| VolumePublishStatus {
                node_id: (*id).to_owned(),
                ..Default::default()
            });
            AnyObject::from(Volume {
                publish_status: published.collect(),
                ..Default::default()
            })
        };
        watchers.lock().publish(Commit {
            snapshot: Snapshot::default(),
            changes: vec![Change::Update {
                old: volume(&["n1", "n2"]),
                new: volume(&["n2", "n3"]),
            }],
            ends: vec![(1, 1)],
        });
        let told = nodes.map(|node| node.queue.state.lock().commits.len());
        assert_eq!(told, [1, 1, 1, 0]);
        assert_eq!(watchers.lock().visits, 3);
    }

    #[test]
    fn a_commit_visits_those_that_it_concerns_and_no_others() {
        let watchers = Arc::<Mutex<Watchers>>::default();
        let others: Vec<_> = (0..10_000)
            .map(|number| {
                let routes = [
                    Route::Node(format!("node{number}")),
                    Route::Service(format!("service{number}")),
                    Route::Kind(Kind::Cluster),
                ];
                subscribe(&watchers, routes).1
            })
            .collect();
        let task = |node: &str| {
            AnyObject::from(Task {
                node_id: node.to_owned(),
                service_id: "service7".to_owned(),
                ..Default::default()
            })
        };
        watchers.lock().publish(Commit {
            snapshot: Snapshot::default(),
            changes: vec![Change::Update {
                old: task("node1"),
                new: task("node2"),
            }],
            ends: vec![(1, 1)],
        });
        assert_eq!(watchers.lock().visits, 3, "two nodes and the service");
        let told = |at: usize| others[at].queue.state.lock().commits.len();
        assert_eq!([told(1), told(2), told(7)], [1; 3]);
        assert_eq!((0..others.len()).map(told).sum::<usize>(), 3);
    }
}
