//! Who wants logs of which nodes, which nodes listen, and which have said all they have.
//!
//! Pure but for waking those whom a change concerns: they look for themselves what is new, so a wake
//! that comes twice or late does no harm.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use skep_proto::v1::SubscriptionMessage;
use tokio::sync::Notify;

use super::queue;

/// Subscriptions at one time. Each has up to a queue of memory here and a stream on every node that
/// it concerns, and all of those that nobody reads must fit in the window of a node's connection.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 256;

/// Streams that a node may have open for one subscription: the one in use, and the one before of a
/// connection that broke without a word.
const MAX_PUBLISHERS: usize = 2;

/// All subscriptions of a term and all nodes that listen for them.
#[derive(Debug, Default)]
pub(super) struct Board {
    subscriptions: BTreeMap<String, Entry>,
    /// Streams of a node that hear of subscriptions, by number; as a rule one.
    listeners: HashMap<String, BTreeMap<u64, Arc<Notify>>>,
    last_listener: u64,
}

#[derive(Debug)]
struct Entry {
    message: Arc<SubscriptionMessage>,
    sender: queue::Sender,
    /// Told when all nodes are through.
    complete: Arc<Notify>,
    nodes: BTreeMap<String, Node>,
    /// Why logs are missing.
    problems: BTreeSet<String>,
}

/// A node that has logs for a subscription.
#[derive(Debug, Default)]
struct Node {
    /// No more is expected of it. Never so while the subscription follows.
    through: bool,
    publishers: usize,
}

/// Why a stream of messages is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such subscription, or the node was never asked.
    Unknown,
    /// The node publishes for it already.
    Twice,
}

impl Entry {
    fn follows(&self) -> bool {
        self.message
            .options
            .as_ref()
            .is_some_and(|options| options.follow)
    }

    fn is_complete(&self) -> bool {
        !self.follows() && self.nodes.values().all(|node| node.through)
    }

    /// Expects nothing more of a node.
    fn through(&mut self, node_id: &str, problem: Option<String>) {
        if self.follows() {
            return;
        }
        let Some(node) = self.nodes.get_mut(node_id).filter(|node| !node.through) else {
            return;
        };
        node.through = true;
        self.problems.extend(problem);
        if self.is_complete() {
            self.complete.notify_one();
        }
    }
}

impl Board {
    /// Adds a subscription that concerns no node yet. False if there are too many.
    pub fn subscribe(
        &mut self,
        message: SubscriptionMessage,
        sender: queue::Sender,
        complete: Arc<Notify>,
        problems: impl IntoIterator<Item = String>,
    ) -> bool {
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return false;
        }
        let entry = Entry {
            sender,
            complete,
            nodes: BTreeMap::new(),
            problems: problems.into_iter().collect(),
            message: Arc::new(message),
        };
        self.subscriptions.insert(entry.message.id.clone(), entry);
        true
    }

    /// The subscription concerns these nodes as well. One that does not listen is through at once,
    /// unless the subscription follows: then it may come back.
    pub fn add_nodes(&mut self, id: &str, nodes: impl IntoIterator<Item = String>) {
        let Some(entry) = self.subscriptions.get_mut(id) else {
            return;
        };
        for node_id in nodes {
            if entry.nodes.contains_key(&node_id) {
                continue;
            }
            entry.nodes.insert(node_id.clone(), Node::default());
            match self.listeners.get(&node_id) {
                Some(listeners) => wake(listeners),
                None => entry.through(&node_id, Some(format!("node {node_id} is not available"))),
            }
        }
    }

    /// Forgets a subscription; its nodes hear of it.
    pub fn unsubscribe(&mut self, id: &str) {
        let Some(entry) = self.subscriptions.remove(id) else {
            return;
        };
        for node_id in entry.nodes.keys() {
            if let Some(listeners) = self.listeners.get(node_id) {
                wake(listeners);
            }
        }
    }

    /// Whether all nodes are through, and if so, what was missing.
    pub fn outcome(&self, id: &str) -> Option<Vec<String>> {
        let entry = self.subscriptions.get(id)?;
        entry
            .is_complete()
            .then(|| entry.problems.iter().cloned().collect())
    }

    /// A node listens from now on; returns the number of its stream.
    pub fn listen(&mut self, node_id: &str, wake: Arc<Notify>) -> u64 {
        self.last_listener += 1;
        let listeners = self.listeners.entry(node_id.to_owned()).or_default();
        listeners.insert(self.last_listener, wake);
        self.last_listener
    }

    /// A stream of a node has ended. With the last one the node is away.
    pub fn unlisten(&mut self, node_id: &str, number: u64) {
        let Some(listeners) = self.listeners.get_mut(node_id) else {
            return;
        };
        listeners.remove(&number);
        if !listeners.is_empty() {
            return;
        }
        self.listeners.remove(node_id);
        for entry in self.subscriptions.values_mut() {
            entry.through(node_id, Some(disconnected(node_id)));
        }
    }

    /// What a node has to serve now.
    pub fn wanted(&self, node_id: &str) -> impl Iterator<Item = &Arc<SubscriptionMessage>> {
        self.subscriptions.values().filter_map(move |entry| {
            let node = entry.nodes.get(node_id)?;
            (!node.through).then_some(&entry.message)
        })
    }

    /// Whether somebody still wants it.
    pub fn is_open(&self, id: &str) -> bool {
        self.subscriptions.contains_key(id)
    }

    /// A node begins to publish. To be followed by [`Self::unpublish`].
    pub fn publish(&mut self, id: &str, node_id: &str) -> Result<queue::Sender, Refusal> {
        let entry = self.subscriptions.get_mut(id).ok_or(Refusal::Unknown)?;
        let node = entry.nodes.get_mut(node_id).ok_or(Refusal::Unknown)?;
        if node.publishers == MAX_PUBLISHERS {
            return Err(Refusal::Twice);
        }
        node.publishers += 1;
        Ok(entry.sender.clone())
    }

    /// A node has ended to publish, by its own will or not.
    pub fn unpublish(&mut self, id: &str, node_id: &str, willing: bool) {
        let Some(entry) = self.subscriptions.get_mut(id) else {
            return;
        };
        if let Some(node) = entry.nodes.get_mut(node_id) {
            node.publishers = node.publishers.saturating_sub(1);
        }
        entry.through(node_id, (!willing).then(|| disconnected(node_id)));
    }

    /// Whether nothing is left of anyone.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty() && self.listeners.is_empty()
    }
}

fn wake(listeners: &BTreeMap<u64, Arc<Notify>>) {
    for listener in listeners.values() {
        listener.notify_one();
    }
}

fn disconnected(node_id: &str) -> String {
    format!("node {node_id} disconnected unexpectedly")
}
