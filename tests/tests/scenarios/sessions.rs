//! Sessions of agents outlive the managers they are with.

use skep_proto::v1::{TaskState, node_spec::Availability, node_status::State};
use skep_tests::cluster::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_with_another_manager_and_its_reports_are_right() {
    let mut cluster = Cluster::of_processes(3, 1).await;
    for manager in cluster.managers() {
        cluster
            .set_availability(&manager, Availability::Drain)
            .await;
    }
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    // Each task runs until its gate opens, then fails: what happens while no manager listens.
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exit 7",
        gate.display()
    );
    let web = cluster.create("web", 2, &["sh", "-c", &script]).await;
    cluster
        .update(&web.id, |spec| {
            spec.task_mut().restart.get_or_insert_default().condition =
                skep_proto::v1::restart_policy::RestartCondition::None.into();
        })
        .await;
    let tasks = eventually("tasks of the last spec", async || {
        let tasks = cluster.running(&web.id, 2).await;
        let none = skep_proto::v1::restart_policy::RestartCondition::None;
        let last = tasks.iter().all(|task| {
            task.spec()
                .restart
                .as_ref()
                .is_some_and(|restart| restart.condition() == none)
        });
        last.then_some(tasks)
    })
    .await;
    // Without any manager the worker has nobody to tell.
    for manager in cluster.managers() {
        cluster.kill(&manager).await;
    }
    std::fs::write(&gate, "").unwrap();
    for manager in cluster.managers() {
        cluster.restart(&manager).await;
    }
    cluster.node_is("worker-1", State::Ready).await;
    for task in &tasks {
        let ended = eventually("the report", async || {
            let task = cluster.task(&task.id).await.ok()?;
            (task.status().state() > TaskState::Running).then_some(task)
        })
        .await;
        assert_eq!(ended.status().state(), TaskState::Failed);
        let Some(skep_proto::v1::task_status::RuntimeStatus::Container(container)) =
            &ended.status().runtime_status
        else {
            panic!("no container status")
        };
        assert_eq!(container.exit_code, 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_manager_dies_is_back_without_being_down() {
    let mut cluster = Cluster::start(3, 1).await;
    let web = cluster.create("web", 4, &["sleep", "1000"]).await;
    cluster.running(&web.id, 4).await;
    let leader = cluster.leader().await;
    cluster.stop(&leader).await;
    cluster.leader().await;
    cluster.node_is("worker-1", State::Ready).await;
    let node = cluster.id("worker-1");
    let on_worker = |tasks: Vec<skep_proto::v1::Task>| {
        tasks
            .into_iter()
            .filter(|task| task.node_id == node)
            .map(|task| task.id)
            .collect::<Vec<_>>()
    };
    let before = on_worker(cluster.tasks(&web.id).await.unwrap());
    cluster.scale(&web.id, 6).await;
    eventually("new tasks on the worker", async || {
        let after = on_worker(cluster.tasks(&web.id).await.ok()?);
        let kept = before.iter().all(|id| after.contains(id));
        (kept && after.len() > before.len()).then_some(())
    })
    .await;
}
