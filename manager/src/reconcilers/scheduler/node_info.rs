//! What the scheduler knows of a node: what is left of it, and who is there.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use skep_proto::v1::{
    Node, PortConfig, Task, TaskState, node_spec::Availability, node_status,
    port_config::PublishMode,
};
use skep_store::Snapshot;

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
pub(super) struct NodeInfo<'a> {
    pub node: &'a Node,
    /// What tasks have not reserved.
    pub free: Free,
    /// Tasks that nobody has asked to end.
    pub active: usize,
    active_by_service: HashMap<&'a str, usize>,
    host_ports: HashSet<(i32, u32)>,
    failures: HashMap<Group<'a>, usize>,
}

impl<'a> NodeInfo<'a> {
    pub fn new(node: &'a Node) -> Self {
        let resources = node.description.as_ref().and_then(|d| d.resources.as_ref());
        Self {
            node,
            free: Free::of(resources),
            active: 0,
            active_by_service: HashMap::new(),
            host_ports: HashSet::new(),
            failures: HashMap::new(),
        }
    }

    /// Whether the node takes new tasks at all.
    pub fn is_ready(&self) -> bool {
        self.node.status().state() == node_status::State::Ready
            && self.node.spec().availability() == Availability::Active
    }

    /// Takes into account that the task is here. It keeps its resources and ports until it has
    /// ended, whatever is desired of it.
    pub fn add(&mut self, task: &'a Task) {
        self.free.take(task);
        self.occupy(task);
    }

    /// As [`Self::add`], for a task whose resources are taken already.
    pub fn occupy(&mut self, task: &'a Task) {
        self.host_ports.extend(host_ports(task));
        if task.desired_state() <= TaskState::Complete {
            self.active += 1;
            *self.active_by_service.entry(&task.service_id).or_default() += 1;
        }
    }

    /// Active tasks of a service.
    pub fn active_of(&self, service_id: &str) -> usize {
        self.active_by_service.get(service_id).copied().unwrap_or(0)
    }

    /// Tasks of a group that have failed here lately.
    pub fn failures_of(&self, group: Group<'_>) -> usize {
        self.failures.get(&group).copied().unwrap_or(0)
    }

    /// Whether none of the task's host ports is in use.
    pub fn has_ports_for(&self, task: &Task) -> bool {
        host_ports(task).all(|port| !self.host_ports.contains(&port))
    }
}

/// All nodes, ordered by ID. Tasks are looked at for those alone that take new ones.
pub(super) fn collect(snapshot: &Snapshot, now: Time) -> Vec<NodeInfo<'_>> {
    let mut nodes: Vec<_> = snapshot
        .all::<Node>()
        .map(|node| NodeInfo::new(node))
        .collect();
    let places: HashMap<_, _> = nodes
        .iter()
        .enumerate()
        .filter(|(_, info)| info.is_ready())
        .map(|(place, info)| (info.node.id.as_str(), place))
        .collect();
    for task in snapshot.all::<Task>() {
        let Some(&place) = places.get(task.node_id.as_str()) else {
            continue;
        };
        if is_on_node(task) {
            nodes[place].add(task);
        } else if matches!(state(task), TaskState::Failed | TaskState::Rejected)
            && status_at(task) + FAILURE_WINDOW > now
        {
            *nodes[place].failures.entry(group(task)).or_default() += 1;
        }
    }
    nodes
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
