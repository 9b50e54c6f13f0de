//! Workers die, are drained and come back.

use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use skep_proto::v1::{
    Task, node_spec::Availability, node_status::State, task_spec::Runtime,
    task_status::RuntimeStatus,
};
use skep_tests::cluster::{Cluster, eventually, spec};

fn pid(task: &Task) -> Pid {
    let Some(RuntimeStatus::Container(container)) = &task.status().runtime_status else {
        panic!("task {} has no process", task.id)
    };
    Pid::from_raw(container.pid).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_tasks_run_elsewhere_and_it_comes_back_clean() {
    let mut cluster = Cluster::of_processes(1, 2).await;
    cluster.set_heartbeat(Duration::from_secs(1)).await;
    cluster
        .set_availability("manager-1", Availability::Drain)
        .await;
    let web = cluster.create("web", 4, &["sleep", "1000"]).await;
    let dead = cluster.id("worker-1");
    let first = cluster.running(&web.id, 4).await;
    let left: Vec<_> = first
        .iter()
        .filter(|task| task.node_id == dead)
        .map(pid)
        .collect();
    assert_eq!(left.len(), 2, "tasks are spread");
    // Its sessions know the new heartbeat period only after their next beat.
    cluster.kill("worker-1").await;
    cluster.node_is("worker-1", State::Down).await;
    let survivor = cluster.id("worker-2");
    let moved = cluster.running(&web.id, 4).await;
    assert!(moved.iter().all(|task| task.node_id == survivor));
    assert!(
        left.iter().all(|&pid| test_kill_process(pid).is_ok()),
        "nobody was there to stop them"
    );

    cluster.restart("worker-1").await;
    cluster.node_is("worker-1", State::Ready).await;
    eventually("no stray process", async || {
        left.iter()
            .all(|&pid| test_kill_process(pid).is_err())
            .then_some(())
    })
    .await;
    let still = cluster.running(&web.id, 4).await;
    let ids = |tasks: &[Task]| {
        let mut ids: Vec<_> = tasks.iter().map(|task| task.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&still), ids(&moved), "what runs is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_moves_tasks_and_active_lets_new_ones_in() {
    let cluster = Cluster::start(1, 2).await;
    cluster
        .set_availability("manager-1", Availability::Drain)
        .await;
    let web = cluster.create("web", 4, &["sleep", "1000"]).await;
    cluster.running(&web.id, 4).await;
    cluster
        .set_availability("worker-1", Availability::Drain)
        .await;
    let other = cluster.id("worker-2");
    eventually("all tasks on the other worker", async || {
        let tasks = cluster.running(&web.id, 4).await;
        tasks.iter().all(|task| task.node_id == other).then_some(())
    })
    .await;
    cluster
        .set_availability("worker-1", Availability::Active)
        .await;
    cluster.scale(&web.id, 8).await;
    let tasks = cluster.running(&web.id, 8).await;
    let back = cluster.id("worker-1");
    assert_eq!(tasks.iter().filter(|task| task.node_id == back).count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_says_why() {
    let cluster = Cluster::start(1, 1).await;
    let web = cluster.create("web", 0, &["sleep", "1000"]).await;
    cluster
        .update(&web.id, |spec| {
            spec.task_mut()
                .placement
                .get_or_insert_default()
                .constraints = vec!["node.labels.disk==ssd".to_owned()];
            let replicas = skep_proto::v1::ReplicatedService { replicas: 1 };
            spec.mode = Some(skep_proto::v1::service_spec::Mode::Replicated(replicas));
        })
        .await;
    let err = eventually("a reason", async || {
        let tasks = cluster.tasks(&web.id).await.ok()?;
        let err = tasks.first()?.status().err.clone();
        (!err.is_empty()).then_some(err)
    })
    .await;
    assert_eq!(
        err,
        "no suitable node (scheduling constraints not satisfied on 2 nodes)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_command_is_restarted_and_its_exit_code_told() {
    let cluster = Cluster::of_processes(1, 0).await;
    let web = cluster.create("web", 1, &["sh", "-c", "exit 3"]).await;
    let failed = eventually("a failed task", async || {
        let tasks = cluster.tasks(&web.id).await.ok()?;
        tasks
            .into_iter()
            .find(|task| task.status().state() == skep_proto::v1::TaskState::Failed)
    })
    .await;
    let Some(RuntimeStatus::Container(container)) = &failed.status().runtime_status else {
        panic!("no container status")
    };
    assert_eq!(container.exit_code, 3);
    eventually("another try in the same slot", async || {
        let tasks = cluster.tasks(&web.id).await.ok()?;
        tasks
            .into_iter()
            .find(|task| task.id != failed.id && task.slot == failed.slot)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_waits_for_a_node_that_runs_it() {
    let cluster = Cluster::of_processes(1, 0).await;
    let mut spec = spec("web", 1, &[]);
    if let Some(Runtime::Container(container)) = &mut spec.task_mut().runtime {
        container.image = "nginx:1.27".to_owned();
    }
    let web = cluster.create_service(spec).await;
    let err = eventually("a reason", async || {
        let tasks = cluster.tasks(&web.id).await.ok()?;
        let err = tasks.first()?.status().err.clone();
        (!err.is_empty()).then_some(err)
    })
    .await;
    assert_eq!(
        err,
        "no suitable node (no executor for the image on 1 node)"
    );
}
