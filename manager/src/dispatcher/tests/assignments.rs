//! The stream of assignments.

use std::time::Duration;

use skep_proto::{
    Shared,
    v1::{
        AssignmentsMessage, ContainerSpec, Driver, Secret, SecretReference, SecretSpec, Task,
        TaskSpec, TaskState, assignment::Item, assignment_change::AssignmentAction,
        assignments_message::Type, node_status::State, task_spec::Runtime,
    },
};
use skep_store::Tx;
use tokio::net::UnixListener;
use tonic::Code;

use crate::{
    dispatcher::testing::{World, last, next, node, task, told},
    secret_drivers::SecretDrivers,
};

fn with_secret(mut task: Task) -> Task {
    let secrets = vec![SecretReference {
        secret_id: "s1".to_owned(),
        ..Default::default()
    }];
    let runtime = Runtime::Container(ContainerSpec {
        secrets,
        ..Default::default()
    });
    task.spec = Some(Shared::from(TaskSpec {
        runtime: Some(runtime),
        ..Default::default()
    }));
    task
}

/// `+t1` for an update of a task, `-s1` for the removal of a secret.
pub(super) fn items(message: &AssignmentsMessage) -> Vec<String> {
    let item = |item: &Item| match item {
        Item::Task(task) => task.id.clone(),
        Item::Secret(secret) => secret.id.clone(),
        Item::Config(config) => config.id.clone(),
        Item::Volume(volume) => volume.id.clone(),
    };
    message
        .changes
        .iter()
        .map(|change| {
            let sign = if change.action() == AssignmentAction::Update {
                "+"
            } else {
                "-"
            };
            sign.to_owned() + &item(change.assignment.as_ref().unwrap().item.as_ref().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_session_follows_its_tasks_and_their_secrets() {
    let world = World::two_nodes().await;
    let spec = SecretSpec {
        data: "hush".into(),
        ..Default::default()
    };
    world
        .write(|tx| {
            let secret = Secret {
                id: "s1".to_owned(),
                spec: Some(spec),
                ..Default::default()
            };
            tx.create(secret).unwrap();
            tx.create(task("t0", "n1", TaskState::Running)).unwrap();
            tx.create(task("t9", "n2", TaskState::Assigned)).unwrap();
        })
        .await;
    let (id, _session) = world.register("n1").await;
    let mut assignments = world.assignments("n1", &id).await.unwrap();
    let message = next(&mut assignments).await.unwrap();
    assert_eq!(message.r#type(), Type::Complete);
    assert_eq!((&*message.applies_to, &*message.results_in), ("", "1"));
    assert_eq!(items(&message), ["+t0"]);

    // Scheduled: pending without a node, then assigned.
    world
        .write(|tx| {
            tx.create(with_secret(task("t1", "", TaskState::Pending)))
                .unwrap()
        })
        .await;
    world
        .change::<Task>("t1", |task| {
            task.node_id = "n1".to_owned();
            task.status_mut().set_state(TaskState::Assigned);
        })
        .await;
    let message = next(&mut assignments).await.unwrap();
    assert_eq!(message.r#type(), Type::Incremental);
    assert_eq!((&*message.applies_to, &*message.results_in), ("1", "2"));
    assert_eq!(items(&message), ["+t1", "+s1"]);
    let Some(Item::Secret(secret)) = message.changes[1].assignment.clone().unwrap().item else {
        panic!("a secret");
    };
    assert_eq!(secret.spec().data, "hush");

    // What the agent reports is not echoed; what managers want is told.
    world
        .report("n1", &id, &[("t1", TaskState::Running)])
        .await
        .unwrap();
    world
        .change::<Task>("t1", |task| task.set_desired_state(TaskState::Shutdown))
        .await;
    let message = next(&mut assignments).await.unwrap();
    assert_eq!((&*message.applies_to, &*message.results_in), ("2", "3"));
    assert_eq!(items(&message), ["+t1"]);

    world
        .report("n1", &id, &[("t1", TaskState::Shutdown)])
        .await
        .unwrap();
    assert_eq!(items(&next(&mut assignments).await.unwrap()), ["-s1"]);
    world.write(|tx| tx.remove::<Task>("t1").unwrap()).await;
    let message = next(&mut assignments).await.unwrap();
    assert_eq!((&*message.applies_to, &*message.results_in), ("4", "5"));
    assert_eq!(items(&message), ["-t1"]);
    let Some(Item::Task(removed)) = message.changes[0].assignment.clone().unwrap().item else {
        panic!("a task");
    };
    assert_eq!(
        removed,
        Task {
            id: "t1".to_owned(),
            ..Default::default()
        },
        "only the ID"
    );
}

/// A task `t1` that needs a secret whose values a driver makes.
fn create_with_driver(tx: &mut Tx) {
    let mut secret = Secret {
        id: "s1".to_owned(),
        ..Default::default()
    };
    secret.spec_mut().driver = Some(Driver {
        name: "vault".to_owned(),
        ..Default::default()
    });
    tx.create(secret).unwrap();
    tx.create(with_secret(task("t1", "n1", TaskState::Assigned)))
        .unwrap();
}

#[tokio::test]
async fn a_secret_whose_driver_is_not_there_is_left_out() {
    let world = World::two_nodes().await;
    world.write(create_with_driver).await;
    let (id, _session) = world.register("n1").await;
    let mut assignments = world.assignments("n1", &id).await.unwrap();
    assert_eq!(items(&next(&mut assignments).await.unwrap()), ["+t1"]);
    world.write(|tx| tx.remove::<Task>("t1").unwrap()).await;
    assert_eq!(
        items(&next(&mut assignments).await.unwrap()),
        ["-t1", "-s1.t1"]
    );
}

#[tokio::test]
async fn a_term_that_ends_while_a_driver_is_asked_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let silent = UnixListener::bind(dir.path().join("vault.sock")).unwrap();
    let drivers = SecretDrivers::new(vec![dir.path().into()]);
    let mut world = World::with_drivers(drivers, Duration::ZERO, |tx| {
        tx.create(node("n1", State::Unknown)).unwrap();
        create_with_driver(tx);
    })
    .await;
    let (id, _session) = world.register("n1").await;
    let mut assignments = world.assignments("n1", &id).await.unwrap();
    let end = tokio::spawn(async move { next(&mut assignments).await });
    let _asked = silent.accept().await.unwrap();
    world.end_term().await;
    let end = end.await.unwrap().unwrap_err();
    assert_eq!(
        told(end),
        (Code::Aborted, "node must disconnect".to_owned())
    );
}

#[tokio::test]
async fn a_slow_reader_gets_the_difference_and_the_chain_goes_on() {
    let world = World::two_nodes().await;
    let (id, _session) = world.register("n1").await;
    let mut assignments = world.assignments("n1", &id).await.unwrap();
    assert_eq!(
        items(&next(&mut assignments).await.unwrap()),
        Vec::<String>::new()
    );
    world
        .write(|tx| tx.create(task("t1", "n1", TaskState::Assigned)).unwrap())
        .await;
    assert_eq!(items(&next(&mut assignments).await.unwrap()), ["+t1"]);

    // More commits than a subscription holds.
    for slot in 0..1100 {
        world.change::<Task>("t1", |task| task.slot = slot).await;
    }
    world
        .write(|tx| {
            tx.remove::<Task>("t1").unwrap();
            tx.create(task("t2", "n1", TaskState::Assigned)).unwrap();
            tx.create(task("t3", "n1", TaskState::Pending)).unwrap();
        })
        .await;
    let message = next(&mut assignments).await.unwrap();
    assert_eq!(message.r#type(), Type::Incremental);
    assert_eq!((&*message.applies_to, &*message.results_in), ("2", "3"));
    assert_eq!(items(&message), ["-t1", "+t2"]);
}

#[tokio::test]
async fn queued_commits_become_one_message() {
    let world = World::two_nodes().await;
    let (id, _session) = world.register("n1").await;
    let mut assignments = world.assignments("n1", &id).await.unwrap();
    next(&mut assignments).await.unwrap();
    for name in ["t1", "t2", "t3"] {
        world
            .write(|tx| tx.create(task(name, "n1", TaskState::Assigned)).unwrap())
            .await;
    }
    world.write(|tx| tx.remove::<Task>("t2").unwrap()).await;
    assert_eq!(
        items(&next(&mut assignments).await.unwrap()),
        ["+t1", "+t3"]
    );
}

#[tokio::test]
async fn a_session_has_one_stream_of_assignments_until_it_is_resumed() {
    let world = World::two_nodes().await;
    let (id, _session) = world.register("n1").await;
    let first = world.assignments("n1", &id).await.unwrap();
    let second = world.assignments("n1", &id).await.err().unwrap();
    assert_eq!(
        told(second),
        (Code::InvalidArgument, "session invalid".to_owned())
    );
    let _session = world.session("n1", &id).await.unwrap();
    assert_eq!(last(first).await.0, Code::InvalidArgument);
    let mut again = world.assignments("n1", &id).await.unwrap();
    assert_eq!(next(&mut again).await.unwrap().r#type(), Type::Complete);
}
