//! What must happen in situations that have gone wrong elsewhere, and the plain cases beside them.

mod scheduling;
mod updates;

use std::{collections::BTreeMap, time::Duration};

use skep_proto::v1::{
    Cluster, Node, Placement, RestartPolicy, Service, Task, TaskState, node_spec::Availability,
    node_status, restart_policy::RestartCondition,
};
use skep_store::{AnyObject, Change, Object as _};

use super::{
    facts::state,
    world::{SERVICE, World, image, service},
};
use crate::reconcile::{Plan, Reconciler as _, Trigger, View, Write};

const SECOND: Duration = Duration::from_secs(1);

fn world(nodes: usize, replicas: u64) -> World {
    let mut world = World::new(nodes);
    world.create(service(replicas));
    world.settle();
    world
}

fn images(world: &World) -> Vec<String> {
    world.running().iter().map(|task| image(task)).collect()
}

fn by_node(world: &World) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    for task in world.running() {
        *nodes.entry(task.node_id.clone()).or_default() += 1;
    }
    nodes
}

#[test]
fn a_new_service_runs_spread_and_has_no_update() {
    let world = world(3, 7);
    assert_eq!(world.running().len(), 7);
    let mut counts: Vec<_> = by_node(&world).into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 2, 3]);
    let slots: Vec<_> = world.tasks().iter().map(|task| task.slot).collect();
    assert_eq!(slots, (1..=7).collect::<Vec<_>>());
    assert!(world.service().update_status.is_none());
    assert!(world.fresh_writes().is_empty());
}

#[test]
fn scaling_down_and_up_reuses_slots() {
    let mut world = world(2, 5);
    world.scale(2);
    world.settle();
    assert_eq!(world.tasks().len(), 2, "those that went are deleted");
    assert_eq!(by_node(&world).into_values().collect::<Vec<_>>(), [1, 1]);
    world.scale(4);
    world.settle();
    let slots: Vec<_> = world.running().iter().map(|task| task.slot).collect();
    assert_eq!(slots, [1, 2, 3, 4]);
    assert!(
        world.service().update_status.is_none(),
        "a new scale is no update"
    );
}

#[test]
fn a_failed_task_is_replaced_after_the_delay_also_by_another_leader() {
    let mut world = world(1, 1);
    let old = world.running()[0].id.clone();
    world.report(&old, TaskState::Failed);
    world.settle();
    assert_eq!(
        world.states(),
        [
            (1, TaskState::Shutdown, TaskState::Failed),
            (1, TaskState::Ready, TaskState::Ready),
        ]
    );
    world.pass(3 * SECOND);
    world.change_leader();
    world.pass(Duration::from_millis(1900));
    assert_eq!(world.running().len(), 0);
    world.pass(Duration::from_millis(200));
    assert_eq!(world.running().len(), 1);
}

#[test]
fn a_held_task_that_cannot_be_prepared_is_not_tried_without_delay() {
    let mut world = world(1, 1);
    world.broken.insert("v1".to_owned(), TaskState::Rejected);
    let old = world.running()[0].id.clone();
    world.report(&old, TaskState::Failed);
    world.pass(51 * SECOND);
    let tries = world
        .tasks()
        .iter()
        .filter(|task| state(task) == TaskState::Rejected)
        .count();
    assert!(world.tasks().len() <= 6, "history is bounded");
    assert!(tries <= 5, "{tries}");
    world.broken.clear();
    world.rest();
    assert_eq!(world.running().len(), 1);
}

#[test]
fn restarts_end_with_the_attempts() {
    let mut world = World::new(1);
    let mut service = service(1);
    service.spec_mut().task_mut().restart = Some(RestartPolicy {
        condition: RestartCondition::OnFailure.into(),
        max_attempts: 2,
        ..RestartPolicy::default()
    });
    world.create(service);
    for tries in 1..=3 {
        world.rest();
        assert_eq!(world.running().len(), 1, "try {tries}");
        let id = world.running()[0].id.clone();
        world.report(&id, TaskState::Failed);
    }
    world.rest();
    assert_eq!(world.running().len(), 0);
    assert_eq!(world.tasks().len(), 3);
    world.change_leader();
    world.rest();
    assert_eq!(world.tasks().len(), 3, "another leader counts the same");
    world.set_image("v2");
    world.rest();
    assert_eq!(images(&world), ["v2"], "an update starts anew");
}

#[test]
fn a_completed_task_stays_completed_if_the_policy_says_so() {
    let mut world = World::new(1);
    let mut service = service(2);
    service.spec_mut().task_mut().restart = Some(RestartPolicy {
        condition: RestartCondition::OnFailure.into(),
        ..RestartPolicy::default()
    });
    world.create(service);
    world.settle();
    let id = world.running()[0].id.clone();
    world.report(&id, TaskState::Complete);
    world.rest();
    assert_eq!(world.running().len(), 1);
    assert_eq!(world.tasks().len(), 2, "it holds its slot");
}

#[test]
fn tasks_leave_a_drained_node_at_once_but_one_stops_before_the_other_starts() {
    let mut world = world(2, 4);
    world.availability("n0", Availability::Drain);
    world.decide();
    let held = |world: &World| {
        world
            .tasks()
            .iter()
            .filter(|task| task.desired_state() == TaskState::Ready)
            .count()
    };
    assert_eq!(held(&world), 2);
    world.decide();
    assert_eq!(held(&world), 2, "the old ones still run");
    world.settle();
    assert_eq!(by_node(&world), [("n1".to_owned(), 4)].into());
}

#[test]
fn tasks_of_a_lost_node_move_after_the_delay() {
    let mut world = world(2, 2);
    world.node_state("n0", node_status::State::Down);
    world.pass(4 * SECOND);
    assert_eq!(by_node(&world), [("n1".to_owned(), 1)].into());
    world.pass(2 * SECOND);
    assert_eq!(by_node(&world), [("n1".to_owned(), 2)].into());
    // What ran on is stopped when the node is back.
    world.node_state("n0", node_status::State::Ready);
    world.settle();
    assert_eq!(world.running().len(), 2);
    assert!(
        world
            .tasks()
            .iter()
            .all(|t| state(t) != TaskState::Running || t.node_id == "n1")
    );
}

#[test]
fn unknown_nodes_keep_their_tasks() {
    let mut world = world(2, 2);
    let before = world.tasks();
    world.node_state("n0", node_status::State::Unknown);
    world.node_state("n1", node_status::State::Disconnected);
    world.availability("n0", Availability::Pause);
    world.rest();
    assert_eq!(world.tasks(), before);
}

#[test]
fn r60_tasks_of_a_removed_service_go_but_not_before_they_have_stopped() {
    let mut world = World::new(2);
    let mut service = service(3);
    service.spec_mut().task_mut().placement = Some(Placement {
        max_replicas: 1,
        ..Placement::default()
    });
    world.create(service);
    world.settle();
    let waiting = world
        .tasks()
        .iter()
        .find(|t| state(t) == TaskState::Pending)
        .unwrap()
        .id
        .clone();
    let completed = world.running()[0].id.clone();
    world.report(&completed, TaskState::Complete);
    world.remove::<Service>(SERVICE);
    world.plan_only();
    let left = world.tasks();
    assert_eq!(left.len(), 1, "an agent still has it");
    assert!(left[0].id != waiting && left[0].id != completed);
    assert_eq!(left[0].desired_state(), TaskState::Remove);
    world.settle();
    assert!(world.tasks().is_empty());
}

#[test]
fn r60_tasks_scaled_away_go_but_not_before_they_have_stopped() {
    let mut world = world(2, 2);
    world.scale(0);
    world.plan_only();
    assert_eq!(world.tasks().len(), 2);
    world.settle();
    assert!(world.tasks().is_empty());
}

#[test]
fn r61_tasks_of_a_deleted_node_are_given_up_also_by_the_next_leader() {
    let mut world = world(2, 2);
    world.node_state("n0", node_status::State::Down);
    world.remove::<Node>("n0");
    world.change_leader();
    world.rest();
    assert_eq!(by_node(&world), [("n1".to_owned(), 2)].into());
    let lost: Vec<_> = world
        .tasks()
        .into_iter()
        .filter(|task| task.node_id == "n0")
        .collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(state(&lost[0]), TaskState::Orphaned);
    assert_eq!(
        lost[0].status().message,
        "Task belonged to a node that has been deleted"
    );
    world.remove::<Service>(SERVICE);
    world.rest();
    assert!(world.tasks().is_empty());
}

#[test]
fn r63_writes_that_come_too_late_are_decided_again() {
    let mut world = world(3, 6);
    world.hurried = true;
    world.availability("n0", Availability::Drain);
    world.set_image("v2");
    world.scale(8);
    world.rest();
    assert_eq!(images(&world), ["v2"; 8]);
}

#[test]
fn history_is_bounded() {
    let mut world = world(1, 1);
    for _ in 0..8 {
        let id = world.running()[0].id.clone();
        world.report(&id, TaskState::Failed);
        world.rest();
    }
    assert_eq!(world.tasks().len(), 5);
    world.change::<Cluster>("cluster", |cluster| {
        cluster
            .spec_mut()
            .orchestration_mut()
            .task_history_retention_limit = 2;
    });
    world.rest();
    assert_eq!(world.tasks().len(), 2);
    assert_eq!(world.running().len(), 1);
}

#[test]
fn without_history_a_drained_node_is_still_left_without_delay() {
    let mut world = world(2, 2);
    world.change::<Cluster>("cluster", |cluster| {
        cluster
            .spec_mut()
            .orchestration_mut()
            .task_history_retention_limit = 0;
    });
    world.availability("n0", Availability::Drain);
    world.settle();
    assert_eq!(by_node(&world), [("n1".to_owned(), 2)].into());
    assert_eq!(world.tasks().len(), 2);
}

#[test]
fn writes_that_failed_are_wanted_again_whatever_has_changed() {
    let mut world = World::new(1);
    world.create(service(1));
    let task = |id: &str, desired: TaskState, state: TaskState| {
        let mut task = Task {
            id: id.to_owned(),
            desired_state: desired.into(),
            ..Task::default()
        };
        task.status_mut().set_state(state);
        task
    };
    world.create(task("new", TaskState::Running, TaskState::New));
    world.create(task("pending", TaskState::Running, TaskState::Pending));
    world.create(task("gone", TaskState::Remove, TaskState::Pending));
    let snapshot = world.snapshot();
    let now = world.now();
    for mut reconciler in super::all() {
        let mut writes = |trigger| {
            let view = View {
                snapshot: &snapshot,
                trigger: &trigger,
                now,
            };
            reconciler.plan(&view).writes.len()
        };
        assert_eq!(writes(Trigger::Resync), 1);
        assert_eq!(writes(Trigger::Changes(vec![])), 1, "{}", reconciler.name());
    }
}

#[test]
fn of_a_service_at_rest_only_the_slots_are_looked_at_in_which_something_has_changed() {
    let mut world = world(1, 3);
    let mut replicated = super::replicated::Replicated::default();
    let mut plan = |world: &World, trigger| {
        replicated.plan(&View {
            snapshot: &world.snapshot(),
            trigger: &trigger,
            now: world.now(),
        })
    };
    assert!(plan(&world, Trigger::Resync).writes.is_empty());
    let before = world.tasks();
    world.report(&before[0].id, TaskState::Failed);
    world.report(&before[1].id, TaskState::Failed);
    let told = |world: &World, n: usize| Change::Update {
        old: before[n].clone().wrap(),
        new: world.tasks()[n].clone().wrap(),
    };
    let slots = |plan: Plan| -> Vec<_> {
        let writes = plan.writes.iter().map(|write| match write {
            Write::Create(AnyObject::Task(task)) | Write::Update(AnyObject::Task(task)) => {
                task.slot
            }
            other => panic!("{other:?}"),
        });
        writes.collect()
    };
    assert_eq!(
        slots(plan(&world, Trigger::Changes(vec![told(&world, 1)]))),
        [2, 2]
    );
    // What it wanted for slot 2 was not written.
    assert_eq!(slots(plan(&world, Trigger::Changes(vec![]))), [2, 2]);
    // Nothing is sure to be at rest in a service that has changed.
    world.change::<Service>(SERVICE, |_| {});
    assert_eq!(
        slots(plan(&world, Trigger::Changes(vec![told(&world, 2)]))),
        [1, 1, 2, 2]
    );
}

#[test]
fn many_replicas_come_in_portions() {
    let mut world = World::new(1);
    world.create(service(u64::MAX));
    world.decide();
    assert_eq!(world.tasks().len(), 1000);
    world.scale(1001);
    world.rest();
    assert_eq!(world.running().len(), 1001);
}
