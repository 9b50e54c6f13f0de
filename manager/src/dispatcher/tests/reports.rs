//! Reports of task statuses.

use futures_util::future::join_all;
use skep_proto::v1::{
    Task, TaskState, TaskStatus, UpdateTaskStatusRequest, dispatcher_server::Dispatcher as _,
    update_task_status_request::TaskStatusUpdate,
};
use tonic::Code;

use crate::dispatcher::testing::{World, from, task, told};

#[tokio::test]
async fn a_report_is_stored_when_it_is_answered() {
    let world = World::two_nodes().await;
    world
        .write(|tx| tx.create(task("t1", "n1", TaskState::Assigned)).unwrap())
        .await;
    let (id, _session) = world.register("n1").await;
    world
        .report("n1", &id, &[("t1", TaskState::Running)])
        .await
        .unwrap();
    let stored = world.get::<Task>("t1");
    assert_eq!(stored.status().state(), TaskState::Running);
    assert_eq!(stored.status().applied_by, "m1");
    assert!(stored.status().applied_at.is_some());
}

#[tokio::test]
async fn what_changes_nothing_is_not_written() {
    let world = World::two_nodes().await;
    world
        .write(|tx| tx.create(task("t1", "n1", TaskState::Assigned)).unwrap())
        .await;
    let (id, _session) = world.register("n1").await;
    world
        .report("n1", &id, &[("t1", TaskState::Running)])
        .await
        .unwrap();
    let index = world.store.snapshot().index();
    world
        .report("n1", &id, &[("t1", TaskState::Running)])
        .await
        .unwrap();
    world
        .report("n1", &id, &[("t1", TaskState::Starting)])
        .await
        .unwrap();
    world
        .report("n1", &id, &[("gone", TaskState::Running)])
        .await
        .unwrap();
    let nothing = TaskStatusUpdate {
        task_id: "t1".to_owned(),
        status: None,
    };
    let nonsense = TaskStatusUpdate {
        task_id: "t1".to_owned(),
        status: Some(TaskStatus {
            state: 9999,
            ..Default::default()
        }),
    };
    let request = UpdateTaskStatusRequest {
        session_id: id,
        updates: vec![nothing, nonsense],
    };
    world
        .dispatcher
        .update_task_status(from("n1", request))
        .await
        .unwrap();
    assert_eq!(world.store.snapshot().index(), index);
    assert_eq!(world.get::<Task>("t1").status().state(), TaskState::Running);
}

#[tokio::test]
async fn a_report_about_another_nodes_task_is_refused_whole() {
    let world = World::two_nodes().await;
    world
        .write(|tx| {
            tx.create(task("t1", "n1", TaskState::Assigned)).unwrap();
            tx.create(task("t2", "n2", TaskState::Assigned)).unwrap();
        })
        .await;
    let (id, _session) = world.register("n1").await;
    let updates = [("t1", TaskState::Running), ("t2", TaskState::Failed)];
    let refused = told(world.report("n1", &id, &updates).await.unwrap_err());
    let text = "cannot update a task not assigned this node".to_owned();
    assert_eq!(refused, (Code::PermissionDenied, text));
    assert_eq!(
        world.get::<Task>("t1").status().state(),
        TaskState::Assigned
    );
    assert_eq!(
        world.get::<Task>("t2").status().state(),
        TaskState::Assigned
    );
}

#[tokio::test]
async fn a_giant_status_spoils_only_its_own_report() {
    let world = World::two_nodes().await;
    world
        .write(|tx| tx.create(task("t1", "n1", TaskState::Assigned)).unwrap())
        .await;
    let (id, _session) = world.register("n1").await;
    let status = TaskStatus {
        state: TaskState::Failed.into(),
        err: "x".repeat(1 << 20),
        ..Default::default()
    };
    let update = TaskStatusUpdate {
        task_id: "t1".to_owned(),
        status: Some(status),
    };
    let request = UpdateTaskStatusRequest {
        session_id: id,
        updates: vec![update],
    };
    let refused = world
        .dispatcher
        .update_task_status(from("n1", request))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_node_that_reports_too_much_at_once_is_refused_and_a_small_report_gets_through() {
    let world = World::two_nodes().await;
    world
        .write(|tx| tx.create(task("t1", "n1", TaskState::Assigned)).unwrap())
        .await;
    let (id, _session) = world.register("n1").await;
    let update = TaskStatusUpdate {
        task_id: "t1".to_owned(),
        status: Some(TaskStatus {
            state: TaskState::Running.into(),
            message: "x".repeat(200 * 1024),
            ..Default::default()
        }),
    };
    let request = |count| UpdateTaskStatusRequest {
        session_id: id.clone(),
        updates: vec![update.clone(); count],
    };
    for (count, code) in [(50, Some(Code::ResourceExhausted)), (2, None)] {
        let answer = world
            .dispatcher
            .update_task_status(from("n1", request(count)));
        assert_eq!(answer.await.err().map(|status| status.code()), code);
    }
    assert_eq!(world.get::<Task>("t1").status().state(), TaskState::Running);
}

#[tokio::test]
async fn many_reports_share_few_transactions() {
    let world = World::two_nodes().await;
    let names: Vec<_> = (0..1000).map(|n| format!("t{n}")).collect();
    for names in names.chunks(200) {
        world
            .write(|tx| {
                for name in names {
                    tx.create(task(name, "n1", TaskState::Assigned)).unwrap();
                }
            })
            .await;
    }
    let (id, _session) = world.register("n1").await;
    let index = world.store.snapshot().index();
    let reports = names
        .iter()
        .map(async |name| world.report("n1", &id, &[(name, TaskState::Running)]).await);
    for answer in join_all(reports).await {
        answer.unwrap();
    }
    let snapshot = world.store.snapshot();
    assert!(
        snapshot
            .all::<Task>()
            .all(|task| task.status().state() == TaskState::Running)
    );
    let transactions = snapshot.index() - index;
    assert!(
        (5..50).contains(&transactions),
        "{transactions} transactions for 1000 reports"
    );
}
