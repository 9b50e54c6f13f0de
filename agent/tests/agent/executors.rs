//! What every executor must do, and every executor against it.

use std::time::Duration;

use skep_agent::executor::{Adopted, Executor, null::NullExecutor, process::ProcessExecutor};
use skep_proto::v1::TaskState;
use tokio::time::timeout;

use crate::support::{self, command, controller};

macro_rules! contract {
    ($($name:ident)*) => {
        mod null {
            $(#[tokio::test] async fn $name() { super::$name(&super::NullExecutor).await; })*
        }
        mod process {
            $(#[tokio::test] async fn $name() { super::$name(&super::ProcessExecutor::default()).await; })*
        }
    };
}

contract! {
    a_task_runs_until_it_is_shut_down
    a_dropped_wait_loses_nothing
    what_never_started_stops_and_goes_away
    shutdown_and_remove_may_be_repeated
    a_new_controller_takes_up_what_runs
    nothing_is_found_of_what_never_started
    remove_ends_what_runs
}

const MOMENT: Duration = Duration::from_millis(50);

async fn a_task_runs_until_it_is_shut_down(executor: &dyn Executor) {
    let dir = tempfile::tempdir().unwrap();
    let task = command(&["sleep", "1000"]);
    let mut controller = controller(executor, &task, dir.path());
    controller.prepare().await.unwrap();
    assert_eq!(controller.container(), None, "nothing runs yet");
    controller.start().await.unwrap();
    assert_eq!(controller.container().unwrap().container_id, task.id);
    assert!(timeout(MOMENT, controller.wait()).await.is_err(), "it runs");
    controller.shutdown().await.unwrap();
    let exit = timeout(support::PATIENCE, controller.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(controller.wait().await.unwrap(), exit, "the same answer");
    controller.remove().await.unwrap();
}

async fn a_dropped_wait_loses_nothing(executor: &dyn Executor) {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = controller(executor, &command(&["sleep", "1000"]), dir.path());
    controller.prepare().await.unwrap();
    controller.start().await.unwrap();
    for _ in 0..3 {
        assert!(
            timeout(Duration::from_millis(1), controller.wait())
                .await
                .is_err()
        );
    }
    controller.shutdown().await.unwrap();
    timeout(support::PATIENCE, controller.wait())
        .await
        .unwrap()
        .unwrap();
}

async fn what_never_started_stops_and_goes_away(executor: &dyn Executor) {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = controller(executor, &command(&["sleep", "1000"]), dir.path());
    controller.prepare().await.unwrap();
    controller.shutdown().await.unwrap();
    controller.remove().await.unwrap();
    assert_eq!(controller.container(), None);
}

async fn shutdown_and_remove_may_be_repeated(executor: &dyn Executor) {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = controller(executor, &command(&["sleep", "1000"]), dir.path());
    controller.prepare().await.unwrap();
    controller.start().await.unwrap();
    for _ in 0..2 {
        controller.shutdown().await.unwrap();
        controller.remove().await.unwrap();
    }
}

async fn a_new_controller_takes_up_what_runs(executor: &dyn Executor) {
    let dir = tempfile::tempdir().unwrap();
    let task = command(&["sleep", "1000"]);
    let mut first = controller(executor, &task, dir.path());
    first.prepare().await.unwrap();
    first.start().await.unwrap();
    let status = first.container();
    drop(first);
    let mut second = controller(executor, &task, dir.path());
    assert_eq!(second.adopt(TaskState::Running).await, Ok(Adopted::Running));
    assert_eq!(second.container(), status, "it is the same one");
    assert!(timeout(MOMENT, second.wait()).await.is_err(), "it runs");
    second.shutdown().await.unwrap();
    second.remove().await.unwrap();
}

async fn nothing_is_found_of_what_never_started(executor: &dyn Executor) {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = controller(executor, &command(&["sleep", "1000"]), dir.path());
    assert_eq!(
        controller.adopt(TaskState::Ready).await,
        Ok(Adopted::Absent)
    );
    controller.prepare().await.unwrap();
    controller.remove().await.unwrap();
}

async fn remove_ends_what_runs(executor: &dyn Executor) {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = controller(executor, &command(&["sleep", "1000"]), dir.path());
    controller.prepare().await.unwrap();
    controller.start().await.unwrap();
    let pid = controller.container().unwrap().pid;
    controller.remove().await.unwrap();
    assert!(pid == 0 || !support::alive(pid));
}
