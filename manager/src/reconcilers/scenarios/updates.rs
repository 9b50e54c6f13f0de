//! Rolling updates and rollbacks.

use skep_proto::v1::{
    Cluster, Placement, Service, Task, TaskState, UpdateConfig, UpdateStatus,
    node_spec::Availability,
    node_status,
    update_config::{FailureAction, UpdateOrder},
    update_status::UpdateState,
};

use super::{SECOND, by_node, images, world};
use crate::reconcilers::{
    facts::state,
    world::{SERVICE, World, service},
};

fn update_config(world: &mut World, config: UpdateConfig) {
    world.update_service(|service| service.spec_mut().update = Some(config));
}
#[test]
fn a_rolling_update_replaces_one_after_the_other() {
    let mut world = world(3, 4);
    let config = UpdateConfig {
        parallelism: 1,
        delay: Some(skep_proto::Duration {
            seconds: 10,
            nanos: 0,
        }),
        ..UpdateConfig::default()
    };
    world.update_service(|service| {
        service.spec_mut().update = Some(config);
        service.spec_mut().task_mut().force_update = 1;
    });
    let updated = |world: &World| {
        world
            .running()
            .iter()
            .filter(|task| task.spec().force_update == 1)
            .count()
    };
    world.settle();
    let status = world.service().update_status.clone().unwrap();
    assert_eq!(status.state(), UpdateState::Updating);
    assert_eq!(status.message, "update in progress");
    assert!(status.started_at.is_some() && status.completed_at.is_none());
    assert_eq!(updated(&world), 1);
    world.pass(9 * SECOND);
    assert_eq!(updated(&world), 1);
    world.change_leader();
    world.pass(2 * SECOND);
    assert_eq!(updated(&world), 2);
    world.pass(20 * SECOND);
    assert_eq!(updated(&world), 4);
    assert_eq!(world.running().len(), 4);
    assert_eq!(
        world.update_state(),
        UpdateState::Updating,
        "the last one is watched"
    );
    world.rest();
    let status = world.service().update_status.clone().unwrap();
    assert_eq!(status.state(), UpdateState::Completed);
    assert_eq!(status.message, "update completed");
    assert!(status.completed_at.is_some());
}

#[test]
fn never_more_slots_than_the_parallelism_are_without_a_running_task() {
    for parallelism in [0, 1, 3] {
        let mut world = world(3, 6);
        let config = UpdateConfig {
            parallelism,
            ..UpdateConfig::default()
        };
        update_config(&mut world, config);
        world.set_image("v2");
        let least = if parallelism == 0 {
            0
        } else {
            6 - parallelism as usize
        };
        let mut seen = 6;
        world.settle_with(|world| seen = seen.min(world.running().len()));
        assert_eq!(seen, least, "parallelism {parallelism}");
        assert_eq!(images(&world), ["v2"; 6]);
    }
}

#[test]
fn start_first_keeps_the_old_task_until_the_new_one_runs() {
    let mut world = world(2, 3);
    let config = UpdateConfig {
        parallelism: 1,
        order: UpdateOrder::StartFirst.into(),
        ..UpdateConfig::default()
    };
    update_config(&mut world, config);
    world.set_image("v2");
    world.settle_with(|world| {
        let running = world.running().len();
        assert!((3..=4).contains(&running), "{running}");
    });
    world.rest();
    assert_eq!(images(&world), ["v2"; 3]);
    assert_eq!(world.update_state(), UpdateState::Completed);
}

#[test]
fn a_failing_update_pauses_and_touches_nothing_more() {
    for history in [5, 1, 0] {
        let mut world = world(3, 4);
        world.change::<Cluster>("cluster", |cluster| {
            cluster
                .spec_mut()
                .orchestration_mut()
                .task_history_retention_limit = history;
        });
        world.broken.insert("bad".to_owned(), TaskState::Failed);
        world.set_image("bad");
        world.pass(60 * SECOND);
        assert_eq!(world.running().len(), 3, "history {history}");
        let status = world.service().update_status.clone().unwrap();
        assert_eq!(status.state(), UpdateState::Paused);
        let prefix = "update paused due to failure or early termination of task ";
        let id = status.message.strip_prefix(prefix).unwrap();
        assert!(skep_proto::id::is_valid(id));
        assert_eq!(images(&world), ["v1"; 3]);
        world.broken.clear();
        world.set_image("v3");
        world.rest();
        assert_eq!(images(&world), ["v3"; 4]);
        assert_eq!(world.update_state(), UpdateState::Completed);
    }
}

#[test]
fn failures_below_the_ratio_are_borne() {
    let mut world = world(2, 4);
    let config = UpdateConfig {
        parallelism: 1,
        max_failure_ratio: 0.25,
        ..UpdateConfig::default()
    };
    update_config(&mut world, config);
    world.broken.insert("v2".to_owned(), TaskState::Failed);
    world.set_image("v2");
    let failed = |world: &World| world.tasks().iter().any(|t| state(t) == TaskState::Failed);
    world.until(failed);
    world.broken.clear();
    world.rest();
    assert_eq!(images(&world), ["v2"; 4]);
    assert_eq!(world.update_state(), UpdateState::Completed);
}

#[test]
fn a_failing_update_rolls_back_if_told_to() {
    let mut world = world(3, 3);
    let config = UpdateConfig {
        parallelism: 1,
        failure_action: FailureAction::Rollback.into(),
        ..UpdateConfig::default()
    };
    update_config(&mut world, config);
    world.settle();
    world.broken.insert("bad".to_owned(), TaskState::Rejected);
    world.set_image("bad");
    world.settle();
    let status = world.service().update_status.clone().unwrap();
    assert_eq!(status.state(), UpdateState::RollbackStarted);
    assert!(
        status
            .message
            .starts_with("update rolled back due to failure or early termination of task ")
    );
    world.rest();
    assert_eq!(images(&world), ["v1"; 3]);
    let status = world.service().update_status.clone().unwrap();
    assert_eq!(status.state(), UpdateState::RollbackCompleted);
    assert_eq!(status.message, "rollback completed");
}

#[test]
fn a_rollback_takes_back_also_what_had_come_up() {
    let mut world = world(3, 4);
    let config = UpdateConfig {
        parallelism: 1,
        failure_action: FailureAction::Rollback.into(),
        ..UpdateConfig::default()
    };
    update_config(&mut world, config);
    world.settle();
    world.set_image("v2");
    world.until(|world| images(world).iter().filter(|image| *image == "v2").count() == 2);
    world.broken.insert("v2".to_owned(), TaskState::Failed);
    world.rest();
    assert_eq!(images(&world), ["v1"; 4]);
    assert_eq!(world.update_state(), UpdateState::RollbackCompleted);
}

#[test]
fn a_rollback_on_request_completes_as_one() {
    let mut world = world(3, 4);
    world.set_image("v2");
    world.rest();
    let now = world.now();
    world.change::<Service>(SERVICE, |service| {
        service.spec = service.previous_spec.take();
        service.spec_version = service.previous_spec_version.take();
        service.update_status = Some(UpdateStatus {
            state: UpdateState::RollbackStarted.into(),
            message: "manually requested rollback".to_owned(),
            started_at: Some(now.into()),
            completed_at: None,
        });
    });
    world.rest();
    assert_eq!(images(&world), ["v1"; 4]);
    assert_eq!(world.update_state(), UpdateState::RollbackCompleted);
}

#[test]
fn r56_start_first_with_a_failing_task_leaves_the_old_one_running() {
    let mut world = world(2, 3);
    let config = UpdateConfig {
        parallelism: 1,
        order: UpdateOrder::StartFirst.into(),
        ..UpdateConfig::default()
    };
    update_config(&mut world, config);
    world.broken.insert("bad".to_owned(), TaskState::Failed);
    world.set_image("bad");
    world.pass(30 * SECOND);
    assert_eq!(images(&world), ["v1"; 3]);
    assert_eq!(world.update_state(), UpdateState::Paused);
}

#[test]
fn r52_a_pending_task_of_an_old_spec_ends_and_the_update_goes_on() {
    let mut world = World::new(1);
    let mut service = service(1);
    service.spec_mut().task_mut().placement = Some(Placement {
        constraints: vec!["node.labels.none==here".to_owned()],
        ..Placement::default()
    });
    world.create(service);
    world.settle();
    let old = world.tasks()[0].clone();
    assert_eq!(state(&old), TaskState::Pending);
    assert_eq!(
        old.status().err,
        "no suitable node (scheduling constraints not satisfied on 1 node)"
    );
    assert_eq!(old.status().message, "pending task scheduling");

    world.update_service(|service| service.spec_mut().task_mut().placement = None);
    world.rest();
    assert_eq!(world.running().len(), 1);
    let snapshot = world.snapshot();
    let old = snapshot.get::<Task>(&old.id).unwrap();
    assert_eq!(
        (old.desired_state(), state(old)),
        (TaskState::Shutdown, TaskState::Shutdown)
    );
    assert_eq!(world.update_state(), UpdateState::Completed);
}

#[test]
fn r55_an_update_during_an_update_with_lost_nodes_does_not_get_stuck() {
    let mut world = world(3, 6);
    world.set_image("v2");
    world.decide();
    world.decide();
    world.node_state("n0", node_status::State::Down);
    world.availability("n1", Availability::Drain);
    world.decide();
    world.set_image("v3");
    world.act();
    world.decide();
    world.set_image("v4");
    world.rest();
    assert_eq!(images(&world), ["v4"; 6]);
    assert_eq!(by_node(&world), [("n2".to_owned(), 6)].into());
    assert_eq!(world.update_state(), UpdateState::Completed);
    assert!(
        world
            .tasks()
            .iter()
            .all(|task| task.desired_state() != TaskState::Ready)
    );
}

#[test]
fn r58_an_update_survives_a_new_leader_at_every_step() {
    let mut world = world(3, 5);
    world.hurried = true;
    world.set_image("v2");
    // A new leader looks at everything once; go on until that changes nothing.
    world.until_with(World::change_leader, |world| {
        world.fresh_writes().is_empty() && images(world).iter().all(|image| image == "v2")
    });
    world.rest();
    assert_eq!(images(&world), ["v2"; 5]);
    assert_eq!(world.update_state(), UpdateState::Completed);
    assert!(
        world
            .tasks()
            .iter()
            .all(|task| task.desired_state() != TaskState::Ready)
    );
}

#[test]
fn an_old_task_that_ends_while_its_heir_starts_gets_no_second_heir() {
    let mut world = world(2, 1);
    let config = UpdateConfig {
        order: UpdateOrder::StartFirst.into(),
        ..UpdateConfig::default()
    };
    update_config(&mut world, config);
    world.settle();
    let old = world.running()[0].id.clone();
    world.set_image("v2");
    world.decide();
    assert_eq!(world.tasks().len(), 2);
    world.report(&old, TaskState::Failed);
    world.rest();
    assert_eq!(images(&world), ["v2"]);
    assert_eq!(world.tasks().len(), 2);
}
