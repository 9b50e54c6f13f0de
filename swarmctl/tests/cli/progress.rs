//! Waiting for convergence against scripted states of tasks.

use std::time::Duration;

use skep_proto::v1::{TaskState, UpdateStatus, update_status::UpdateState};
use swarmctl::{
    Exit,
    client::Client,
    progress::{Output, ProgressError, wait_converged},
};
use tokio::time::sleep;
use tonic::Status;

use crate::{
    fake::{Fake, Frame, World, node, service},
    run::{swarmctl, swarmctl_at},
};

fn world(script: Vec<Frame>) -> World {
    World {
        nodes: vec![node("n1", "host-1")],
        script: script.into(),
        ..Default::default()
    }
}

fn run(slots: &'static [u64]) -> Frame {
    Box::new(move |world| {
        for &slot in slots {
            world.task(
                &format!("t{slot}"),
                slot,
                TaskState::Running,
                TaskState::Running,
            );
        }
    })
}

const CREATE: &str = "service create --name web --replicas 3 --update-monitor 300ms";

#[tokio::test]
async fn lines_tell_how_far_it_is() {
    let fake = Fake::new(world(vec![
        Box::new(|world| {
            for slot in [1, 2, 3] {
                world.task(
                    &format!("t{slot}"),
                    slot,
                    TaskState::Pending,
                    TaskState::Running,
                );
            }
            world.tasks[2].status_mut().err = "no suitable node (x)".to_owned();
        }),
        run(&[1, 2]),
        run(&[3]),
    ]));
    fake.world().script[2] = Box::new(|world| {
        world
            .task("t3", 3, TaskState::Running, TaskState::Running)
            .status_mut()
            .err
            .clear();
    });
    let ran = swarmctl(&fake, &format!("{CREATE} -- true")).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Ok, "s1\n"),
        "{}",
        ran.err
    );
    let expected = "\
overall progress: 0 out of 3 tasks
1/3: pending
2/3: pending
3/3: pending: no suitable node (x)
overall progress: 2 out of 3 tasks
1/3: running
2/3: running
overall progress: 3 out of 3 tasks
3/3: running
verify: Waiting 1 second to verify that tasks are stable...
verify: Service s1 converged
";
    assert_eq!(ran.err, expected);
}

#[tokio::test]
async fn quiet_waits_without_a_word() {
    let fake = Fake::new(world(vec![run(&[1, 2]), run(&[3])]));
    assert_eq!(
        swarmctl(&fake, &format!("{CREATE} -q -- true")).await.ok(),
        "s1\n"
    );
    assert!(fake.world().script.is_empty());
    assert!(fake.count("get_service") >= 4);
}

#[tokio::test]
async fn an_update_waits_until_old_tasks_are_gone() {
    let mut start = world(vec![
        Box::new(|world| {
            world.task("new", 1, TaskState::Running, TaskState::Running);
        }),
        Box::new(|world| {
            world.task("old", 1, TaskState::Shutdown, TaskState::Shutdown);
        }),
    ]);
    start.services.push(service("s1", "web", 1));
    start.task("old", 1, TaskState::Running, TaskState::Running);
    start.old.insert("old".to_owned());
    let fake = Fake::new(start);
    let ran = swarmctl(&fake, "service update --env-add A=1 web").await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Ok, "web\n"),
        "{}",
        ran.err
    );
    let expected = "\
overall progress: 0 out of 1 tasks
overall progress: 1 out of 1 tasks
1/1: running
verify: Waiting for 1 old task to stop...
verify: Waiting 1 second to verify that tasks are stable...
verify: Service s1 converged
";
    assert_eq!(ran.err, expected);
}

#[tokio::test]
async fn a_paused_update_is_4() {
    let mut start = world(vec![Box::new(|world| {
        world.services[0].update_status = Some(UpdateStatus {
            state: UpdateState::Paused.into(),
            message: "update paused due to failure of task t1".to_owned(),
            ..Default::default()
        });
    })]);
    start.services.push(service("s1", "web", 1));
    let fake = Fake::new(start);
    let err = swarmctl(&fake, "service update -q --force web")
        .await
        .failed(Exit::NotConverged);
    let text = "Error: service update paused: update paused due to failure of task t1\n";
    assert_eq!(err, text);
    assert_eq!(Exit::NotConverged.code(), 4);
}

#[tokio::test]
async fn a_timeout_is_4_and_says_what_was_seen() {
    let mut start = world(vec![]);
    start.task("t1", 1, TaskState::Running, TaskState::Running);
    let fake = Fake::new(start);
    let line = format!("{CREATE} -q --timeout 1s -- true");
    let err = swarmctl(&fake, &line).await.failed(Exit::NotConverged);
    assert_eq!(
        err,
        "Error: service s1 did not converge within 1s (1 out of 3 tasks)\n"
    );
}

#[tokio::test]
async fn a_service_that_is_removed_is_4() {
    let fake = Fake::new(world(vec![Box::new(|world| world.services.clear())]));
    let err = swarmctl(&fake, &format!("{CREATE} -q -- true"))
        .await
        .failed(Exit::NotConverged);
    assert_eq!(err, "Error: service s1 was removed\n");
}

#[tokio::test]
async fn a_change_of_leader_is_survived() {
    let fake = Fake::new(world(vec![
        Box::new(|world| {
            let gone = [
                Status::unavailable("connection refused"),
                Status::unknown("The swarm does not have a leader."),
            ];
            world.failures.extend(gone.into_iter().cycle().take(10));
        }),
        run(&[1, 2, 3]),
    ]));
    let ran = swarmctl(&fake, &format!("{CREATE} -- true")).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    assert!(fake.world().failures.is_empty());
    assert!(
        ran.err.ends_with("verify: Service s1 converged\n"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_restart_of_the_manager_is_survived() {
    let mut fake = Fake::new(world(vec![]));
    let socket = fake.socket.clone();
    let line = format!("{CREATE} -q --timeout 1m -- true");
    let looked = async |fake: &Fake, times| {
        while fake.count("list_nodes") < times {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let restart = async {
        looked(&fake, 1).await;
        // Down for longer than the time between two looks.
        fake.restart(sleep(Duration::from_millis(500))).await;
        let before = fake.count("list_nodes");
        looked(&fake, before + 1).await;
        run(&[1, 2, 3])(&mut fake.world());
    };
    let (ran, ()) = tokio::join!(swarmctl_at(&socket, &line), restart);
    assert_eq!(ran.ok(), "s1\n");
}

#[tokio::test]
async fn another_error_ends_the_waiting() {
    let fake = Fake::new(world(vec![Box::new(|world| {
        world
            .failures
            .push_back(Status::permission_denied("not you"));
    })]));
    let err = swarmctl(&fake, &format!("{CREATE} -q -- true"))
        .await
        .failed(Exit::Failed);
    assert_eq!(
        err,
        "Error: cannot follow the progress of the service: not you\n"
    );
}

#[tokio::test]
async fn the_library_waits_too() {
    let mut start = world(vec![run(&[1])]);
    start.services.push(service("s1", "web", 1));
    let fake = Fake::new(start);
    let client = Client::connect(&fake.socket).await.unwrap();
    let soon = Some(Duration::from_secs(30));
    wait_converged(&client, "s1", Output::Quiet, soon)
        .await
        .unwrap();
    let gone = wait_converged(&client, "s2", Output::Quiet, soon).await;
    assert!(matches!(gone, Err(ProgressError::Removed(id)) if id == "s2"));
}
