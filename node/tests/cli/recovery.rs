//! Starts that go on from what is left, and starts that hang.

use std::path::Path;

use rustix::process::{Signal, kill_process};
use skep_proto::v1::NodeRole;
use tokio::{net::TcpListener, time::timeout};

use super::{Manager, PATIENCE, assert_fresh, contents, eventually, joining, node, refused};

fn forced(dir: &Path) -> tokio::process::Command {
    let mut command = node(dir);
    command.arg("--force-new-cluster");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_managers_log_there_is_nothing_to_force() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = dir.path().join("fresh");
    let path = fresh.display().to_string();
    refused(forced(&fresh), &["--force-new-cluster", "raft log", &path]).await;
    assert_fresh(&fresh);

    let manager = Manager::start(&dir.path().join("manager")).await;
    let addr = manager.addr().await;
    let token = manager.token(NodeRole::Worker).await;
    let state = dir.path().join("worker");
    let mut worker = joining(&state, &addr, &token).spawn().unwrap();
    eventually("the worker", async || {
        (manager.nodes().await.len() == 2 && state.join("certificates/swarm-node.key").exists())
            .then_some(())
    })
    .await;
    worker.kill().await.unwrap();
    let before = contents(&state);
    refused(forced(&state), &["--force-new-cluster", "is a worker"]).await;
    assert_eq!(contents(&state), before);

    let mut both = joining(&fresh, &addr, &token);
    both.arg("--force-new-cluster");
    refused(both, &["--force-new-cluster", "--join-addr"]).await;
    let mut no_token = node(&fresh);
    no_token.args(["--join-addr", &addr]);
    refused(no_token, &["--join-token", &addr]).await;
    assert_fresh(&fresh);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_whose_partner_is_lost_goes_on_alone() {
    let dir = tempfile::tempdir().unwrap();
    let lost = Manager::start(&dir.path().join("lost")).await;
    let cluster = lost.cluster().await.id;
    let addr = lost.addr().await;
    let token = lost.token(NodeRole::Manager).await;
    let state = dir.path().join("left");
    let left = Manager::spawn(&state, joining(&state, &addr, &token)).await;
    eventually("two managers", async || {
        let nodes = left.nodes().await;
        let managers = nodes.iter().filter(|node| node.manager_status.is_some());
        (managers.count() == 2).then_some(())
    })
    .await;
    for mut manager in [lost, left] {
        manager.child.kill().await.unwrap();
    }
    let left = Manager::spawn(&state, forced(&state)).await;
    assert_eq!(left.cluster().await.id, cluster);
    eventually("one manager", async || {
        let nodes = left.nodes().await;
        let managers = nodes.iter().filter_map(|node| node.manager_status.as_ref());
        let leads: Vec<bool> = managers.map(|manager| manager.leader).collect();
        (nodes.len() == 2 && leads == [true]).then_some(())
    })
    .await;
    left.stop().await;
    // Without the flag it is still alone.
    let left = Manager::start(&state).await;
    assert_eq!(left.cluster().await.id, cluster);
    left.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_a_start_that_hangs_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(&dir.path().join("manager")).await;
    let token = manager.token(NodeRole::Manager).await;
    // Takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let state = dir.path().join("state");
    let child = joining(&state, &addr, &token).spawn().unwrap();
    let hanging = Manager { dir: state, child };
    let accepted = timeout(PATIENCE, silent.accept()).await;
    let _connection = accepted.unwrap().unwrap();
    hanging.stop().await;
    // Also one that waits for the rest of its quorum.
    let second = dir.path().join("second");
    let addr = manager.addr().await;
    let mut partner = Manager::spawn(&second, joining(&second, &addr, &token)).await;
    eventually("two managers", async || {
        let nodes = partner.nodes().await;
        let managers = nodes.iter().filter(|node| node.manager_status.is_some());
        (managers.count() == 2).then_some(())
    })
    .await;
    partner.child.kill().await.unwrap();
    kill_process(manager.pid(), Signal::TERM).unwrap();
    let mut manager = manager;
    let ended = timeout(PATIENCE, manager.child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
}
