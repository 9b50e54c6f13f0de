//! All nodes as the scheduler sees them, kept from plan to plan.
//!
//! What is known of a node follows from its object, the tasks on it and the time. It is found out
//! anew, from the snapshot, when any of these has changed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use skep_proto::v1::{Node, Task};
use skep_store::{By, Snapshot};

use super::node_info::NodeInfo;
use crate::time::Time;

/// See above. At first nothing is known.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// Ordered by ID.
    infos: Vec<NodeInfo>,
    /// Those that have changed; `None` means that any may have.
    changed: Option<BTreeSet<String>>,
}

impl Nodes {
    /// Any node may have changed.
    pub fn forget(&mut self) {
        self.changed = None;
    }

    /// The node or a task on it has changed.
    pub fn touch(&mut self, id: &str) {
        if let Some(changed) = &mut self.changed
            && !id.is_empty()
            && !changed.contains(id)
        {
            changed.insert(id.to_owned());
            // To look at each costs more than to look at all.
            if changed.len() > self.infos.len() / 4 {
                self.changed = None;
            }
        }
    }

    /// All nodes as they are, ordered by ID. Those that are changed here are to be touched.
    pub fn refresh(&mut self, snapshot: &Snapshot, now: Time) -> &mut [NodeInfo] {
        match self.changed.replace(BTreeSet::new()) {
            None => self.infos = collect(snapshot, now),
            Some(changed) => {
                let due = self.infos.iter_mut();
                for info in due.filter(|info| info.changes_at.is_some_and(|at| at <= now)) {
                    *info = look(snapshot, info.node.clone(), now);
                }
                for id in changed {
                    let place = self.infos.binary_search_by(|info| info.node.id.cmp(&id));
                    let info = snapshot.get::<Node>(&id);
                    let info = info.map(|node| look(snapshot, node.clone(), now));
                    match (place, info) {
                        (Ok(place), Some(info)) => self.infos[place] = info,
                        (Err(place), Some(info)) => self.infos.insert(place, info),
                        (Ok(place), None) => drop(self.infos.remove(place)),
                        (Err(_), None) => {}
                    }
                }
            }
        }
        &mut self.infos
    }
}

fn look(snapshot: &Snapshot, node: Arc<Node>, now: Time) -> NodeInfo {
    let id = node.id.clone();
    NodeInfo::of(node, snapshot.find::<Task>(By::node(&id)), now)
}

fn collect(snapshot: &Snapshot, now: Time) -> Vec<NodeInfo> {
    let nodes: Vec<_> = snapshot.all::<Node>().collect();
    let mut infos: Vec<_> = nodes
        .iter()
        .map(|&node| NodeInfo::new(node.clone()))
        .collect();
    let places: HashMap<_, _> = nodes
        .iter()
        .enumerate()
        .map(|(place, node)| (node.id.as_str(), place))
        .collect();
    for task in snapshot.all::<Task>() {
        if let Some(&place) = places.get(task.node_id.as_str()) {
            infos[place].count(task, now);
        }
    }
    infos
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use skep_proto::v1::{TaskState, node_status};

    use super::*;
    use crate::reconcilers::{
        scheduler::node_info::group,
        world::{SERVICE, World, node, service},
    };

    type Facts = (String, bool, (usize, usize), usize);

    #[test]
    fn what_was_kept_is_what_is_found_anew() {
        let mut world = World::new(12);
        world.create(service(24));
        world.settle();
        let stays = |task: &&Arc<Task>| !["n3", "n4"].contains(&&*task.node_id);
        let failing = world.tasks().iter().find(stays).unwrap().clone();
        let facts = |infos: &[NodeInfo]| -> Vec<Facts> {
            let facts = infos.iter().map(|info| {
                let active = (info.active, info.active_of(SERVICE));
                let failures = info.failures_of(group(&failing));
                (info.node.id.clone(), info.is_ready(), active, failures)
            });
            facts.collect()
        };
        let mut nodes = Nodes::default();
        let mut look = |world: &World, touched: &[&str], later: u64| {
            touched.iter().for_each(|id| nodes.touch(id));
            let (snapshot, now) = (world.snapshot(), world.now() + Duration::from_secs(later));
            let kept = facts(nodes.refresh(&snapshot, now));
            assert_eq!(kept, facts(&collect(&snapshot, now)));
            kept
        };
        let failures = |facts: &[Facts]| facts.iter().map(|facts| facts.3).sum::<usize>();
        assert_eq!(failures(&look(&world, &[], 0)), 0);
        world.report(&failing.id, TaskState::Failed);
        assert_eq!(failures(&look(&world, &[&failing.node_id], 0)), 1);
        world.node_state("n3", node_status::State::Down);
        look(&world, &["n3"], 0);
        world.remove::<Node>("n4");
        world.create(node("n44"));
        assert_eq!(look(&world, &["n4", "n44"], 0).len(), 12);
        assert_eq!(failures(&look(&world, &[], 299)), 1);
        assert_eq!(failures(&look(&world, &[], 300)), 0, "forgotten in time");
        for n in 0..12 {
            let id = format!("n{n}");
            if n != 4 {
                world.node_state(&id, node_status::State::Unknown);
                look(&world, &[&id], 300);
            }
        }
    }
}
