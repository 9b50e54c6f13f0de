//! The orchestrator of replicated services: keeps as many tasks as wanted, of the spec that is
//! wanted, on nodes that are there.

mod context;
mod new_task;
mod progress;
mod restart;
mod scale_down;
mod slots;
mod update;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_proto::v1::{Node, Service, Task, TaskState};
use skep_store::{By, Kind, Snapshot};

use self::{context::Context, new_task::new_task, slots::Slot};
use super::facts::{self, Unsettled, changed, desire};
use crate::{
    reconcile::{Plan, Reconciler, View},
    time::Time,
};

/// Tasks that one plan creates for a service. What is missing then is created by the next one, which
/// their commit brings about: however many replicas are asked for, a plan stays small.
const MAX_NEW: u64 = 1000;

/// The orchestrator of replicated services. Tasks of services of any kind that are gone fall to it
/// too.
#[derive(Debug, Default)]
pub(super) struct Replicated {
    /// When services want to be looked at again. A plan over a part of them must not forget the
    /// others.
    wakes: BTreeMap<String, Time>,
    unsettled: Unsettled,
}

impl Reconciler for Replicated {
    fn name(&self) -> &'static str {
        "replicated"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Service, Kind::Task, Kind::Node]
    }

    fn plan(&mut self, view: &View<'_>) -> Plan {
        let services = match concerned(view) {
            Some(mut services) => {
                services.append(&mut self.unsettled);
                services
            }
            None => {
                self.wakes.clear();
                self.unsettled.clear();
                every(view.snapshot)
            }
        };
        let cluster = facts::cluster(view.snapshot);
        let mut whole = Plan::default();
        for id in services {
            let mut plan = Plan::default();
            match view.snapshot.get::<Service>(&id) {
                None => remove_all(view.snapshot, &id, &mut plan),
                Some(service) => {
                    if let Some(replicas) = facts::replicas(service) {
                        let context = Context {
                            snapshot: view.snapshot,
                            cluster,
                            service,
                            now: view.now,
                        };
                        plan_service(&context, replicas, &mut plan);
                    }
                }
            }
            match plan.wake_at {
                Some(at) => self.wakes.insert(id.clone(), at),
                None => self.wakes.remove(&id),
            };
            if !plan.writes.is_empty() {
                whole.writes.append(&mut plan.writes);
                self.unsettled.insert(id);
            }
        }
        whole.wake_at = self.wakes.values().min().copied();
        whole
    }
}

/// Services about which something has changed; `None` for all.
fn concerned(view: &View<'_>) -> Option<BTreeSet<String>> {
    let mut services = BTreeSet::new();
    services.extend(changed::<Service>(view)?.map(|service| service.id.clone()));
    services.extend(changed::<Task>(view)?.map(|task| task.service_id.clone()));
    for node in changed::<Node>(view)? {
        let tasks = view.snapshot.find::<Task>(By::node(&node.id));
        services.extend(tasks.map(|task| task.service_id.clone()));
    }
    services.remove("");
    Some(services)
}

/// All services, and those of which only tasks are left.
fn every(snapshot: &Snapshot) -> BTreeSet<String> {
    let services = snapshot.all::<Service>().map(|service| &service.id);
    let owners = snapshot.all::<Task>().map(|task| &task.service_id);
    let all: BTreeSet<&String> = services.chain(owners).collect();
    all.into_iter()
        .filter(|id| !id.is_empty())
        .cloned()
        .collect()
}

/// The service is gone, its tasks follow. The reaper deletes them once they have stopped.
fn remove_all(snapshot: &Snapshot, service_id: &str, plan: &mut Plan) {
    for task in snapshot.find::<Task>(By::service(service_id)) {
        remove(task, plan);
    }
}

fn remove(task: &Arc<Task>, plan: &mut Plan) {
    if task.desired_state() < TaskState::Remove {
        desire(plan, task, TaskState::Remove);
    }
}

/// Each slot is given to the first decision that has something to do with it; the others look at
/// it again when that is written.
fn plan_service(context: &Context<'_>, replicas: u64, plan: &mut Plan) {
    let tasks = context
        .snapshot
        .find::<Task>(By::service(&context.service.id));
    let slots = slots::group(tasks);
    let (held, dead): (Vec<&Slot<'_>>, Vec<_>) =
        slots.iter().partition(|slot| !slot.holders().is_empty());
    let (staying, going) = scale_down::split(held, replicas);
    for task in going.iter().flat_map(|slot| &slot.tasks) {
        remove(task, plan);
    }

    let mut taken = BTreeSet::new();
    for slot in &staying {
        if restart::plan(context, slot, plan)
            || update::finish(context, slot, plan)
            || restart::release(context, slot, plan)
        {
            taken.insert(slot.number);
        }
    }
    update::plan(context, &staying, |slot| !taken.contains(&slot), plan);

    let missing = replicas.saturating_sub(staying.len() as u64).min(MAX_NEW);
    let numbers: BTreeSet<u64> = staying.iter().map(|slot| slot.number).collect();
    let new: BTreeSet<u64> = (1..=u64::MAX)
        .filter(|number| !numbers.contains(number))
        .take(missing as usize)
        .collect();
    for &number in &new {
        plan.create(new_task(
            context.cluster,
            context.service,
            number,
            TaskState::Running,
            context.now,
        ));
    }
    // Whose number was not needed again is not history but litter.
    for task in dead
        .iter()
        .filter(|slot| !new.contains(&slot.number))
        .flat_map(|slot| &slot.tasks)
    {
        remove(task, plan);
    }
}
