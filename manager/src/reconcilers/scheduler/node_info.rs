//! What the scheduler knows of a node: what is left of it, and who is there.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use skep_proto::v1::{
    Node, PortConfig, Task, TaskState, node_spec::Availability, node_status,
    port_config::PublishMode,
};

use super::resources::Free;
use crate::{
    reconcilers::facts::{is_on_node, state, status_at},
    time::Time,
};

/// How long a failure counts against a node.
const FAILURE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// A service and the spec version of its tasks: what fails or fits together.
pub(super) type Group<'a> = (&'a str, Option<u64>);

/// The group of a task.
pub(super) fn group(task: &Task) -> Group<'_> {
    (
        &task.service_id,
        task.spec_version.map(|version| version.index),
    )
}

/// A node as the scheduler sees it. Tasks that are being assigned are added as they are.
#[derive(Debug)]
pub(super) struct NodeInfo {
    pub node: Arc<Node>,
    /// What tasks have not reserved.
    pub free: Free,
    /// Tasks that nobody has asked to end.
    pub active: usize,
    active_by_service: HashMap<String, usize>,
    host_ports: HashSet<(i32, u32)>,
    /// By service and spec version. They are few.
    failures: Vec<(String, Option<u64>)>,
    /// When the first of these does not count any more.
    pub changes_at: Option<Time>,
}

impl NodeInfo {
    pub fn new(node: Arc<Node>) -> Self {
        let resources = node.description.as_ref().and_then(|d| d.resources.as_ref());
        Self {
            free: Free::of(resources),
            node,
            active: 0,
            active_by_service: HashMap::new(),
            host_ports: HashSet::new(),
            failures: Vec::new(),
            changes_at: None,
        }
    }

    /// The node with its tasks.
    pub fn of<'t>(node: Arc<Node>, tasks: impl Iterator<Item = &'t Arc<Task>>, now: Time) -> Self {
        let mut info = Self::new(node);
        tasks.for_each(|task| info.count(task, now));
        info
    }

    /// Takes a task into account, if the node takes new ones: others are not asked for more.
    pub fn count(&mut self, task: &Task, now: Time) {
        if !self.is_ready() {
            return;
        }
        if is_on_node(task) {
            self.add(task);
        } else if matches!(state(task), TaskState::Failed | TaskState::Rejected) {
            let until = status_at(task) + FAILURE_WINDOW;
            if until > now {
                let (service, version) = group(task);
                self.failures.push((service.to_owned(), version));
                self.changes_at = Some(self.changes_at.map_or(until, |first| first.min(until)));
            }
        }
    }

    /// Whether the node takes new tasks at all.
    pub fn is_ready(&self) -> bool {
        self.node.status().state() == node_status::State::Ready
            && self.node.spec().availability() == Availability::Active
    }

    /// Takes into account that the task is here. It keeps its resources and ports until it has
    /// ended, whatever is desired of it.
    pub fn add(&mut self, task: &Task) {
        self.free.take(task);
        self.occupy(task);
    }

    /// As [`Self::add`], for a task whose resources are taken already.
    pub fn occupy(&mut self, task: &Task) {
        self.host_ports.extend(host_ports(task));
        if task.desired_state() <= TaskState::Complete {
            self.active += 1;
            if let Some(active) = self.active_by_service.get_mut(&task.service_id) {
                *active += 1;
            } else {
                self.active_by_service.insert(task.service_id.clone(), 1);
            }
        }
    }

    /// Active tasks of a service.
    pub fn active_of(&self, service_id: &str) -> usize {
        self.active_by_service.get(service_id).copied().unwrap_or(0)
    }

    /// Tasks of a group that have failed here lately.
    pub fn failures_of(&self, group: Group<'_>) -> usize {
        let of_group = |failure: &&(String, Option<u64>)| (&*failure.0, failure.1) == group;
        self.failures.iter().filter(of_group).count()
    }

    /// Whether none of the task's host ports is in use.
    pub fn has_ports_for(&self, task: &Task) -> bool {
        host_ports(task).all(|port| !self.host_ports.contains(&port))
    }
}

/// Protocol and number of the ports that the task wants of the host itself.
fn host_ports(task: &Task) -> impl Iterator<Item = (i32, u32)> {
    let endpoint = task.endpoint.as_ref();
    let ports: &[PortConfig] = match endpoint {
        Some(endpoint) if !endpoint.ports.is_empty() => &endpoint.ports,
        _ => endpoint
            .and_then(|e| e.spec.as_ref())
            .map_or(&[], |spec| &spec.ports),
    };
    ports
        .iter()
        .filter(|port| port.publish_mode() == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}
