//! `swarmd leave`, beside a node that runs and without one.

use std::{path::Path, process::Output};

use skep_proto::v1::NodeRole;
use tokio::{process::Command, time::timeout};

use super::{Manager, PATIENCE, assert_fresh, eventually, joining, node, output, refused, swarmd};

fn leave(dir: &Path, more: &[&str]) -> Command {
    let mut command = swarmd();
    command.arg("leave").arg("--state-dir").arg(dir).args(more);
    command
}

fn left(done: &Output) {
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "Node left the swarm.\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_leaves_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("manager");
    let mut manager = Manager::start(&state).await;
    let (addr, token) = (manager.addr().await, manager.token(NodeRole::Worker).await);
    let worker_dir = dir.path().join("worker");
    let mut worker = joining(&worker_dir, &addr, &token).spawn().unwrap();
    eventually("the worker", async || {
        worker_dir.join("local.sock").exists().then_some(())
    })
    .await;
    left(&output(leave(&worker_dir, &[])).await);
    let ended = timeout(PATIENCE, worker.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0), "a service manager leaves it alone");
    assert_fresh(&worker_dir);

    refused(leave(&state, &[]), &["last manager", "--force"]).await;
    assert_eq!(manager.nodes().await.len(), 2, "it runs on");
    left(&output(leave(&state, &["--force"])).await);
    let ended = timeout(PATIENCE, manager.child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
    assert_fresh(&state);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_run_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("manager");
    let path = state.display().to_string();
    refused(leave(&state, &[]), &["no node in", &path]).await;
    Manager::start(&state).await.stop().await;
    refused(leave(&state, &[]), &["is a manager", "--force", &path]).await;
    left(&output(leave(&state, &["--force"])).await);
    assert_fresh(&state);
    // It is as good as new.
    let again = Manager::spawn(&state, node(&state)).await;
    assert_eq!(again.nodes().await.len(), 1);
    again.stop().await;
}
