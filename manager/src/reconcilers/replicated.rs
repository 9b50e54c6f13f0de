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
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use skep_proto::v1::{Node, Service, Task, TaskState};
use skep_store::{By, Kind, Object as _, Snapshot};

use self::{context::Context, new_task::new_task, progress::Progress, slots::Slot};
use super::facts::{self, changed, desire};
use crate::{
    reconcile::{Plan, Reconciler, Trigger, View},
    time::Time,
};

/// Tasks that one plan creates for a service. What is missing then is created by the next one, which
/// their commit brings about: however many replicas are asked for, a plan stays small.
const MAX_NEW: u64 = 1000;

/// What is looked at: a service, or one slot of it.
type Place = (String, Option<u64>);

/// The orchestrator of replicated services. Tasks of services of any kind that are gone fall to it
/// too.
#[derive(Debug, Default)]
pub(super) struct Replicated {
    /// When places want to be looked at again. A plan over a part of them must not forget the
    /// others.
    wakes: BTreeMap<Place, Time>,
    /// Places that the last plan's writes are about. If those failed nobody else would bring them
    /// up.
    unsettled: BTreeSet<Place>,
    /// Services that were found at rest, by the version at which they were: what happens in a slot of
    /// these concerns no other slot. Only this reconciler makes tasks of services, so no slot can
    /// have been added since.
    at_rest: BTreeMap<String, u64>,
}

impl Reconciler for Replicated {
    fn name(&self) -> &'static str {
        "replicated"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Service, Kind::Task, Kind::Node]
    }

    fn plan(&mut self, view: &View<'_>) -> Plan {
        let mut places = concerned(view).unwrap_or_else(|| {
            *self = Self::default();
            let services = every(view.snapshot).into_iter();
            services.map(|service| (service, None)).collect()
        });
        places.append(&mut self.unsettled);
        let due = self.wakes.iter().filter(|(_, at)| **at <= view.now);
        places.extend(due.map(|(place, _)| place.clone()));

        let cluster = facts::cluster(view.snapshot);
        let places: Vec<_> = places.into_iter().collect();
        let mut whole = Plan::default();
        // The service as a whole, if it is among them, comes before its slots.
        for places in places.chunk_by(|a, b| a.0 == b.0) {
            let Some((id, first)) = places.first() else {
                continue;
            };
            let service = view.snapshot.get::<Service>(id);
            let context = service.map(|service| Context {
                snapshot: view.snapshot,
                cluster,
                service,
                now: view.now,
            });
            let plans = first
                .and(context.as_ref())
                .and_then(|context| self.plan_slots(context, places));
            let plans = plans.unwrap_or_else(|| vec![self.plan_whole(view, context, id)]);
            for (place, mut plan) in plans {
                match plan.wake_at {
                    Some(at) => self.wakes.insert(place.clone(), at),
                    None => self.wakes.remove(&place),
                };
                if !plan.writes.is_empty() {
                    whole.writes.append(&mut plan.writes);
                    self.unsettled.insert(place);
                }
            }
        }
        whole.wake_at = self.wakes.values().min().copied();
        whole
    }
}

impl Replicated {
    /// Plans a service, or what is left of it.
    fn plan_whole(
        &mut self,
        view: &View<'_>,
        context: Option<Context<'_>>,
        id: &str,
    ) -> (Place, Plan) {
        self.forget(id);
        let mut plan = Plan::default();
        match context {
            None => remove_all(view.snapshot, id, &mut plan),
            Some(context) => {
                if let Some(replicas) = facts::replicas(context.service)
                    && plan_service(&context, replicas, &mut plan)
                {
                    let version = context.service.version();
                    self.at_rest.insert(id.to_owned(), version);
                }
            }
        }
        ((id.to_owned(), None), plan)
    }

    /// Plans these slots of a service; `None` if more than these must be looked at.
    fn plan_slots(&self, context: &Context<'_>, places: &[Place]) -> Option<Vec<(Place, Plan)>> {
        if self.at_rest.get(&context.service.id) != Some(&context.service.version()) {
            return None;
        }
        let plans = places.iter().map(|place| {
            let tasks = By::slot(&context.service.id, place.1?);
            let slots = slots::group(context.snapshot.find::<Task>(tasks));
            let slot = slots.first().filter(|slot| !slot.holders().is_empty())?;
            let mut plan = Plan::default();
            plan_slot(context, slot, &mut plan);
            let outdated = matches!(Progress::of(context, slot), Progress::Outdated);
            (!outdated).then(|| (place.clone(), plan))
        });
        plans.collect()
    }

    fn forget(&mut self, id: &str) {
        self.at_rest.remove(id);
        let places = self.wakes.range((id.to_owned(), None)..);
        let places: Vec<_> = places
            .map(|(place, _)| place)
            .take_while(|place| place.0 == id)
            .cloned()
            .collect();
        for place in places {
            self.wakes.remove(&place);
        }
    }
}

/// What something has changed about; `None` for everything.
fn concerned(view: &View<'_>) -> Option<BTreeSet<Place>> {
    let mut places = BTreeSet::new();
    if matches!(view.trigger, Trigger::Timer) {
        return Some(places);
    }
    // Slots are rid of tasks that are desired to be removed.
    let mut add = |task: &Task| {
        if task.desired_state() < TaskState::Remove {
            places.insert((task.service_id.clone(), Some(task.slot)));
        }
    };
    changed::<Task>(view)?.for_each(|task| add(task));
    for node in changed::<Node>(view)? {
        let tasks = view.snapshot.find::<Task>(By::node(&node.id));
        tasks.for_each(|task| add(task));
    }
    places.extend(changed::<Service>(view)?.map(|service| (service.id.clone(), None)));
    places.retain(|(service, _)| !service.is_empty());
    Some(places)
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
///
/// Returns whether the service is at rest: all slots are there, none is too many, and no update is
/// to be made. Whatever a slot itself wants then is seen by looking at that slot.
fn plan_service(context: &Context<'_>, replicas: u64, plan: &mut Plan) -> bool {
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
        if plan_slot(context, slot, plan) {
            taken.insert(slot.number);
        }
    }
    let updated = update::plan(context, &staying, |slot| !taken.contains(&slot), plan);

    let new = missing(&staying, replicas);
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
    updated && going.is_empty() && dead.is_empty() && new.is_empty()
}

/// What is decided about a slot that stays, whatever the others do. Returns whether anything was.
fn plan_slot(context: &Context<'_>, slot: &Slot<'_>, plan: &mut Plan) -> bool {
    restart::plan(context, slot, plan)
        || update::finish(context, slot, plan)
        || restart::release(context, slot, plan)
}

/// The first free numbers, for slots that are missing.
fn missing(staying: &[&Slot<'_>], replicas: u64) -> BTreeSet<u64> {
    let missing = replicas.saturating_sub(staying.len() as u64).min(MAX_NEW);
    if missing == 0 {
        return BTreeSet::new();
    }
    let numbers: HashSet<u64> = staying.iter().map(|slot| slot.number).collect();
    (1..=u64::MAX)
        .filter(|number| !numbers.contains(number))
        .take(missing as usize)
        .collect()
}
