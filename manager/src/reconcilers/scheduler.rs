//! The scheduler: finds a node for each pending task, or says why there is none.

mod filters;
mod node_info;
mod nodes;
mod plugins;
mod rank;
mod resources;

use std::{collections::BTreeMap, sync::Arc};

use skep_proto::v1::{Node, Task, TaskState};
use skep_store::{By, Kind};

use self::{
    filters::Pipeline,
    node_info::{Group, NodeInfo},
    nodes::Nodes,
    rank::Turns,
};
use super::facts::{self, is_live, is_over, state};
use crate::{
    reconcile::{Plan, Reconciler, Trigger, View, Write},
    time::Time,
};

/// Moves tasks from PENDING to ASSIGNED.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    /// Whether the last plan wanted something written.
    unsettled: bool,
    nodes: Nodes,
}

impl Reconciler for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Task, Kind::Node]
    }

    fn plan(&mut self, view: &View<'_>) -> Plan {
        let mut plan = Plan::default();
        if !self.matters(view) && !self.unsettled {
            return plan;
        }
        let mut preassigned = Vec::new();
        let mut groups = BTreeMap::<(Group<'_>, &str), Vec<_>>::new();
        for task in view
            .snapshot
            .find::<Task>(By::task_state(TaskState::Pending))
        {
            match task.desired_state() {
                // The reaper's.
                TaskState::Remove => {}
                desired if desired >= TaskState::Shutdown => {
                    facts::end_unassigned(&mut plan, task, view.now);
                }
                _ if !task.node_id.is_empty() => preassigned.push(task),
                _ => {
                    let group = node_info::group(task);
                    // Only those of one spec version are sure to be alike.
                    let alone = if group.1.is_none() {
                        task.id.as_str()
                    } else {
                        ""
                    };
                    groups.entry((group, alone)).or_default().push(task);
                }
            }
        }
        if !preassigned.is_empty() || !groups.is_empty() {
            let nodes = self.nodes.refresh(view.snapshot, view.now);
            for task in preassigned {
                confirm(task, nodes, view.now, &mut plan);
            }
            for ((group, _), tasks) in groups {
                place(group, &tasks, nodes, view.now, &mut plan);
            }
            // What was counted of these may never be committed.
            for write in &plan.writes {
                if let Write::Update(any) = write
                    && let Some(task) = any.get::<Task>()
                {
                    self.nodes.touch(&task.node_id);
                }
            }
        }
        self.unsettled = !plan.writes.is_empty();
        plan
    }
}

impl Scheduler {
    /// Takes note of what has changed. Whether any of it can alter the outcome: a node, a task that is
    /// to be placed, or one that has made room.
    fn matters(&mut self, view: &View<'_>) -> bool {
        let Trigger::Changes(changes) = view.trigger else {
            self.nodes.forget();
            return true;
        };
        let mut matters = false;
        for change in changes {
            for any in [Some(change.object()), change.old()].into_iter().flatten() {
                if let Some(task) = any.get::<Task>() {
                    self.nodes.touch(&task.node_id);
                } else if let Some(node) = any.get::<Node>() {
                    self.nodes.touch(&node.id);
                }
            }
            matters |= match change.current::<Task>() {
                Some(task) => state(task) == TaskState::Pending || is_over(task) || !is_live(task),
                // A node, or gone.
                None => true,
            };
        }
        matters
    }
}

/// Confirms a task whose node was chosen when it was made.
fn confirm(task: &Arc<Task>, nodes: &mut [NodeInfo], now: Time, plan: &mut Plan) {
    let Ok(place) = nodes.binary_search_by(|info| info.node.id.cmp(&task.node_id)) else {
        return;
    };
    let pipeline = Pipeline::new(task);
    if pipeline.obstacle(&nodes[place]).is_none() {
        let message = "scheduler confirmed task can run on preassigned node";
        assign(task, &mut nodes[place], message, now, plan);
    } else {
        refuse(task, pipeline.explain([&nodes[place]]), now, plan);
    }
}

/// Places tasks that are alike.
fn place(
    group: Group<'_>,
    tasks: &[&Arc<Task>],
    nodes: &mut [NodeInfo],
    now: Time,
    plan: &mut Plan,
) {
    let Some(first) = tasks.first() else {
        return;
    };
    let pipeline = Pipeline::new(first);
    let mut ring: Vec<_> = (0..nodes.len())
        .filter(|&place| pipeline.obstacle(&nodes[place]).is_none())
        .collect();
    ring.sort_by_cached_key(|&place| rank::rank(&nodes[place], group));
    ring.truncate(tasks.len());
    let mut turns = Turns::new(ring);
    let mut reason = None;
    for task in tasks {
        let next = turns.next(
            |place| pipeline.obstacle(&nodes[place]).is_none(),
            |a, b| rank::rank(&nodes[a], group) < rank::rank(&nodes[b], group),
        );
        if let Some(place) = next {
            assign(
                task,
                &mut nodes[place],
                "scheduler assigned task to node",
                now,
                plan,
            );
            continue;
        }
        let reason: &String = reason.get_or_insert_with(|| match &*pipeline.explain(&*nodes) {
            "" => "no suitable node".to_owned(),
            texts => format!("no suitable node ({texts})"),
        });
        refuse(task, reason.clone(), now, plan);
    }
}

fn assign(task: &Arc<Task>, info: &mut NodeInfo, message: &str, now: Time, plan: &mut Plan) {
    let mut assigned = Task::clone(task);
    assigned.node_id.clone_from(&info.node.id);
    assigned.status = Some(facts::status(TaskState::Assigned, message, now));
    assigned.assigned_generic_resources = info.free.assign(task);
    info.occupy(task);
    plan.update(assigned);
}

/// Says why the task waits, unless that has been said.
fn refuse(task: &Arc<Task>, reason: String, now: Time, plan: &mut Plan) {
    if task.status().err != reason {
        let mut task = Task::clone(task);
        let status = task.status_mut();
        status.err = reason;
        status.timestamp = Some(now.into());
        plan.update(task);
    }
}
