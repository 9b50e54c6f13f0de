//! The allocator: gives new tasks what they need besides a node, and lets them pass to the scheduler.
//!
//! A task that needs nothing of the kind passes as it is made, which saves it a write.
//!
//! Networks and ingress ports cannot be allocated yet. Tasks that ask for them wait and say so.

use std::sync::Arc;

use skep_proto::v1::{Network, PortConfig, Service, Task, TaskState, port_config::PublishMode};
use skep_store::{By, Kind, Snapshot};

use super::facts;
use crate::{
    reconcile::{Plan, Reconciler, View},
    time::Time,
};

/// Moves tasks from NEW to PENDING.
#[derive(Debug)]
pub(super) struct Allocator;

impl Reconciler for Allocator {
    fn name(&self) -> &'static str {
        "allocator"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Task]
    }

    fn plan(&mut self, view: &View<'_>) -> Plan {
        let mut plan = Plan::default();
        for task in view.snapshot.find::<Task>(By::task_state(TaskState::New)) {
            match task.desired_state() {
                // The reaper's.
                TaskState::Remove => {}
                desired if desired >= TaskState::Shutdown => {
                    facts::end_unassigned(&mut plan, task, view.now);
                }
                _ => allocate(view.snapshot, task, view.now, &mut plan),
            }
        }
        plan
    }
}

fn allocate(snapshot: &Snapshot, task: &Arc<Task>, now: Time, plan: &mut Plan) {
    let reason = missing(snapshot, task);
    let mut changed = Task::clone(task);
    match reason {
        None => pass(&mut changed, now),
        Some(reason) if reason == task.status().err => return,
        Some(reason) => changed.status_mut().err = reason,
    }
    plan.update(changed);
}

/// Lets a new task of `service` pass if there is nothing to be allocated for it.
pub(super) fn pass_if_free(task: &mut Task, service: &Service, now: Time) {
    if network(task, Some(service)).is_none() && ingress_port(task).is_none() {
        pass(task, now);
    }
}

/// The task has all it needs besides a node.
fn pass(task: &mut Task, now: Time) {
    task.status = Some(facts::status(
        TaskState::Pending,
        "pending task scheduling",
        now,
    ));
    if let Some(endpoint) = &mut task.endpoint
        && let Some(spec) = &endpoint.spec
    {
        endpoint.ports.clone_from(&spec.ports);
    }
}

/// What cannot be allocated for the task, and why.
fn missing(snapshot: &Snapshot, task: &Task) -> Option<String> {
    let service = snapshot.get::<Service>(&task.service_id);
    if let Some(target) = network(task, service.map(|service| &**service)) {
        let network = snapshot.get::<Network>(target);
        let name = network.map_or(target, |network| &network.spec().annotations().name);
        return Some(format!(
            "cannot allocate network {name}: network support is not available yet"
        ));
    }
    let port = ingress_port(task)?;
    Some(format!(
        "cannot publish target port {}/{} through the ingress network: network support is not \
         available yet",
        port.target_port,
        port.protocol().as_str_name().to_lowercase(),
    ))
}

/// The first network that the task asks for, or its service where old clients have put it.
#[allow(deprecated)]
fn network<'a>(task: &'a Task, service: Option<&'a Service>) -> Option<&'a str> {
    let of_service = service.map_or(&[][..], |service| &service.spec().networks);
    let mut networks = task.spec().networks.iter().chain(of_service);
    networks.next().map(|network| network.target.as_str())
}

/// The first port that the task wants published by all nodes.
fn ingress_port(task: &Task) -> Option<&PortConfig> {
    let spec = task.endpoint.as_ref()?.spec.as_ref()?;
    spec.ports
        .iter()
        .find(|port| port.publish_mode() == PublishMode::Ingress)
}
