//! Start, end, stop, and being found again.

use futures_util::FutureExt as _;
use skep_agent::executor::{Adopted, Executor as _, Failure};
use skep_proto::v1::{NodeDescription, TaskState};
use tokio::time::{Instant, timeout};

use crate::support::{PATIENCE, bench, with};

#[tokio::test]
async fn a_container_has_its_name_and_tells_its_exit_code() {
    let Some(bench) = bench().await else { return };
    let task = bench.shell("exit 3");
    let mut controller = bench.prepared(&task).await;
    assert_eq!(controller.container(), None, "nothing runs yet");
    controller.start().await.unwrap();
    let exit = controller.wait().await.unwrap();
    assert_eq!(exit.code, Some(3));
    assert_eq!(exit.reason, "task: non-zero exit (3)");
    assert_eq!(controller.wait().await.unwrap(), exit, "the same answer");
    let status = controller.container().unwrap();
    assert_eq!(status.exit_code, 3);
    let found = bench.docker.inspect_container(&status.container_id, None);
    let name = format!("/test.1.{}", task.id);
    assert_eq!(found.await.unwrap().name, Some(name));
    for _ in 0..2 {
        controller.remove().await.unwrap();
    }
    assert!(bench.containers(&task).await.is_empty());
}

#[tokio::test]
async fn a_stop_is_a_signal_and_after_the_grace_a_kill() {
    let Some(bench) = bench().await else { return };
    let line = "trap 'exit 5' USR1; while :; do sleep 0.1; done";
    let task = with(bench.shell(line), |spec| spec.stop_signal = "USR1".into());
    let mut controller = bench.started(&task).await;
    assert!(controller.container().unwrap().pid > 0);
    assert!(controller.wait().now_or_never().is_none(), "it runs");
    controller.shutdown().await.unwrap();
    assert_eq!(controller.container().unwrap().exit_code, 5);
    controller.remove().await.unwrap();

    let task = with(bench.shell("trap '' TERM; sleep 1000"), |spec| {
        spec.stop_grace_period = Some(skep_proto::Duration {
            seconds: 1,
            nanos: 0,
        });
    });
    let mut controller = bench.started(&task).await;
    let before = Instant::now();
    controller.shutdown().await.unwrap();
    assert!(before.elapsed().as_millis() >= 1000, "it has its time");
    assert_eq!(controller.container().unwrap().exit_code, 137);
    controller.remove().await.unwrap();
}

#[tokio::test]
async fn what_never_started_stops_and_goes_away() {
    let Some(bench) = bench().await else { return };
    let task = bench.shell("sleep 1000");
    let mut controller = bench.prepared(&task).await;
    controller.shutdown().await.unwrap();
    controller.remove().await.unwrap();
    assert!(bench.containers(&task).await.is_empty());
    let mut unknown = bench.controller(&bench.shell("true"));
    unknown.shutdown().await.unwrap();
    unknown.remove().await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_tells_why() {
    let Some(bench) = bench().await else { return };
    let task = with(bench.shell(""), |spec| {
        spec.command = vec!["/no/such".into()]
    });
    let mut controller = bench.prepared(&task).await;
    let Err(Failure::Fatal(why)) = controller.start().await else {
        panic!("it started")
    };
    assert!(
        why.starts_with("starting container failed: ") && why.contains("/no/such"),
        "{why}"
    );
    controller.remove().await.unwrap();
}

#[tokio::test]
async fn a_new_daemon_takes_up_what_runs_and_what_has_ended() {
    let Some(bench) = bench().await else { return };
    let task = bench.shell("sleep 1000");
    let first = bench.started(&task).await;
    let status = first.container();
    drop(first);
    let mut second = bench.controller(&task);
    assert_eq!(second.adopt(TaskState::Running).await, Ok(Adopted::Running));
    assert_eq!(second.container(), status, "it is the same one");
    assert!(second.wait().now_or_never().is_none(), "it runs");
    drop(second);

    // It ends while no daemon looks.
    let id = status.unwrap().container_id;
    bench.docker.kill_container(&id, None).await.unwrap();
    let mut third = bench.controller(&task);
    assert_eq!(third.adopt(TaskState::Running).await, Ok(Adopted::Running));
    let exit = timeout(PATIENCE, third.wait()).await.unwrap().unwrap();
    assert_eq!(exit.code, Some(137), "the engine knows");
    third.remove().await.unwrap();

    let mut fourth = bench.controller(&task);
    let adopted = fourth.adopt(TaskState::Running).await.unwrap();
    assert!(matches!(adopted, Adopted::Gone(_)), "{adopted:?}");
    assert_eq!(fourth.adopt(TaskState::Ready).await, Ok(Adopted::Absent));
}

#[tokio::test]
async fn a_daemon_that_died_half_way_leaves_one_container() {
    let Some(bench) = bench().await else { return };
    let task = bench.shell("sleep 1000");
    // It died after the creation, before anybody knew.
    drop(bench.prepared(&task).await);
    let mut next = bench.controller(&task);
    assert_eq!(next.adopt(TaskState::Preparing).await, Ok(Adopted::Absent));
    next.prepare().await.unwrap();
    assert_eq!(bench.containers(&task).await.len(), 1);
    drop(next);
    // And the next one between the creation and the start.
    let mut last = bench.controller(&task);
    assert_eq!(last.adopt(TaskState::Starting).await, Ok(Adopted::Absent));
    last.start().await.unwrap();
    assert!(last.container().unwrap().pid > 0);
    last.remove().await.unwrap();
    assert!(bench.containers(&task).await.is_empty());
}

#[tokio::test]
async fn an_interrupted_call_is_not_overtaken() {
    let Some(bench) = bench().await else { return };
    let task = with(bench.shell("sleep 1000"), |spec| {
        spec.stop_grace_period = Some(skep_proto::Duration::default());
    });
    for millis in [0, 5, 20, 60] {
        let mut controller = bench.controller(&task);
        let brief = std::time::Duration::from_millis(millis);
        let _ = timeout(brief, controller.prepare()).await;
        controller.remove().await.unwrap();
        assert!(bench.containers(&task).await.is_empty(), "{millis} ms");

        controller.prepare().await.unwrap();
        let _ = timeout(brief, controller.start()).await;
        controller.shutdown().await.unwrap();
        let id = bench.containers(&task).await.remove(0);
        let state = bench.docker.inspect_container(&id, None).await.unwrap();
        assert_eq!(state.state.unwrap().running, Some(false), "{millis} ms");
        controller.remove().await.unwrap();
    }
}

#[tokio::test]
async fn containers_of_forgotten_tasks_are_removed_at_the_start() {
    let Some(bench) = bench().await else { return };
    let mut tasks = [(); 4].map(|()| bench.shell("sleep 1000"));
    let node = tasks[0].node_id.clone();
    for task in &mut tasks[..3] {
        task.node_id.clone_from(&node);
    }
    let [forgotten, stored, new, foreign] = &tasks;
    for task in &tasks {
        drop(bench.started(task).await);
    }
    bench
        .executor
        .resume(&node, std::slice::from_ref(&stored.id));
    drop(bench.controller(new));
    let deadline = Instant::now() + PATIENCE;
    while !bench.containers(forgotten).await.is_empty() {
        assert!(Instant::now() < deadline, "it is still there");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for task in [stored, new, foreign] {
        assert_eq!(bench.containers(task).await.len(), 1);
        bench.controller(task).remove().await.unwrap();
    }
}

#[tokio::test]
async fn a_task_of_which_nothing_is_known_is_still_removed() {
    let Some(bench) = bench().await else { return };
    let task = bench.shell("sleep 1000");
    drop(bench.started(&task).await);
    let rest = skep_proto::v1::Task {
        id: task.id.clone(),
        ..Default::default()
    };
    let mut controller = bench.controller(&rest);
    assert_eq!(
        controller.adopt(TaskState::Starting).await,
        Ok(Adopted::Running)
    );
    controller.remove().await.unwrap();
    assert!(bench.containers(&task).await.is_empty());
}

#[tokio::test]
async fn the_node_is_described_as_its_engine_sees_it() {
    let Some(bench) = bench().await else { return };
    let mut description = NodeDescription::default();
    bench.executor.describe(&mut description);
    let version = bench.docker.version().await.unwrap().version;
    let engine = description.engine.unwrap();
    assert_eq!(Some(engine.engine_version), version);
    let has = |kind: &str, name: &str| {
        let mut plugins = engine.plugins.iter();
        plugins.any(|it| it.r#type == kind && it.name == name)
    };
    assert!(has("Volume", "local") && has("Log", "json-file") && has("Network", "bridge"));
    assert!(!has("Network", "overlay"));
    assert!(description.resources.unwrap().memory_bytes > 1 << 20);
}
