//! `swarmd dev` and the processes it starts, killed for real.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod cluster;
mod wait;

use std::time::Duration;

use skep_proto::v1::node_status::State;

use crate::cluster::{Dev, processes_of};

#[test]
fn once_runs_the_service_and_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let done = Dev::command(dir.path())
        .args(["--once", "--", "sleep", "1000"])
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{out}{err}");
    assert!(err.contains("converged"), "progress is shown: {err}");
    for expected in [
        "3 managers and 2 workers",
        "manager-3",
        "SWMTKN-1-",
        "service ps demo",
    ] {
        assert!(out.contains(expected), "no {expected:?} in {out}");
    }
    assert_eq!(processes_of(dir.path()), Vec::<i32>::new());
}

#[test]
fn a_command_that_cannot_run_is_told_and_ends_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let done = Dev::command(dir.path())
        .args([
            "--once",
            "--managers",
            "1",
            "--workers",
            "0",
            "--",
            "/no/such/command",
        ])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1));
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(
        err.contains("/no/such/command"),
        "the reason is told: {err}"
    );
    assert_eq!(processes_of(dir.path()), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupting_it_ends_everything_and_the_directory_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--managers", "1", "--workers", "1"]).await;
    let before = dev.service("demo").await.id;
    dev.interrupt().await;
    assert_eq!(processes_of(dir.path()), Vec::<i32>::new());
    let mut dev = Dev::start(dir.path(), &["--managers", "1", "--workers", "1"]).await;
    assert_eq!(
        dev.service("demo").await.id,
        before,
        "the cluster is the same one"
    );
    dev.interrupt().await;
    assert_eq!(processes_of(dir.path()), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_killed_and_an_update_through_a_survivor_restarts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &[]).await;
    let before = dev.task_processes("demo", 3).await;
    let leader = dev.leader().await;
    dev.kill(&leader).await;
    // The user's limit: five seconds from the kill to the acknowledged update.
    tokio::time::timeout(Duration::from_secs(5), dev.scale("demo", 5))
        .await
        .expect("within 5 s");
    let after = dev.task_processes("demo", 5).await;
    assert!(before.is_subset(&after), "{before:?} became {after:?}");
    dev.start_again(&leader).await;
    dev.node_is(&leader, State::Ready).await;
    assert!(before.is_subset(&dev.task_processes("demo", 5).await));
    dev.interrupt().await;
    assert_eq!(processes_of(dir.path()), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_managers_are_killed_and_nothing_is_lost_or_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &[]).await;
    dev.scale("demo", 6).await;
    let before = dev.task_processes("demo", 6).await;
    let scaled = dev.service("demo").await;
    for manager in ["manager-1", "manager-2", "manager-3"] {
        dev.kill(manager).await;
    }
    for manager in ["manager-1", "manager-2", "manager-3"] {
        dev.start_again(manager).await;
    }
    assert_eq!(dev.service("demo").await.spec(), scaled.spec());
    for node in [
        "manager-1",
        "manager-2",
        "manager-3",
        "worker-1",
        "worker-2",
    ] {
        dev.node_is(node, State::Ready).await;
    }
    assert_eq!(dev.task_processes("demo", 6).await, before);
    dev.interrupt().await;
    assert_eq!(processes_of(dir.path()), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_comes_back_without_stray_processes() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--managers", "1", "--workers", "2"]).await;
    let before = dev.task_processes("demo", 3).await;
    let stray = dev.task_processes_on("demo", "worker-1").await;
    assert!(
        !stray.is_empty() && stray.len() < before.len(),
        "tasks are spread"
    );
    dev.kill("worker-1").await;
    dev.node_is("worker-1", State::Down).await;
    let moved = dev.task_processes("demo", 3).await;
    assert!(moved.is_disjoint(&stray));
    dev.start_again("worker-1").await;
    dev.node_is("worker-1", State::Ready).await;
    dev.gone(&stray).await;
    assert_eq!(
        dev.task_processes("demo", 3).await,
        moved,
        "what runs elsewhere is left alone"
    );
    dev.interrupt().await;
    assert_eq!(processes_of(dir.path()), Vec::<i32>::new());
}
