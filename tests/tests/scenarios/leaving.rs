//! Nodes that leave for good.

use std::fs;

use skep_proto::v1::{TaskState, node_status::State};
use skep_tests::cluster::Cluster;
use tonic::Code;

/// What is left in a state directory, but for the lock.
fn left(cluster: &Cluster, name: &str) -> Vec<String> {
    let entries = fs::read_dir(cluster.state_dir(name)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "swarmd.lock").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_its_tasks_and_leaves_nothing() {
    let mut cluster = Cluster::of_processes(1, 1).await;
    cluster
        .set_heartbeat(std::time::Duration::from_secs(1))
        .await;
    let web = cluster.create("web", 4, &["sleep", "1000"]).await;
    let tasks = cluster.running(&web.id, 4).await;
    let id = cluster.id("worker-1");
    let there: Vec<_> = tasks.iter().filter(|task| task.node_id == id).collect();
    assert!(!there.is_empty());
    cluster.leave("worker-1", false).await.unwrap();
    assert_eq!(left(&cluster, "worker-1"), [""; 0]);
    for task in there {
        let task = cluster.task(&task.id).await.unwrap();
        assert!(task.status().state() > TaskState::Running, "{task:?}");
    }
    cluster.node_is("worker-1", State::Down).await;
    // Others do its work, and its node can go.
    let moved = cluster.running(&web.id, 4).await;
    assert!(moved.iter().all(|task| task.node_id != id));
    cluster.remove_node(&id, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_leaves_the_others_and_the_last_one_only_by_force() {
    let mut cluster = Cluster::start(2, 0).await;
    let leader = cluster.leader().await;
    cluster.leave(&leader, false).await.unwrap();
    assert_eq!(left(&cluster, &leader), [""; 0]);
    cluster.voters_are(1).await;
    let last = cluster.leader().await;
    assert_ne!(last, leader);
    let refused = cluster.leave(&last, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        refused.message(),
        "attempting to demote the last manager of the swarm; use --force to leave all the same"
    );
    // Nothing has changed.
    cluster.create("web", 1, &["sleep", "1000"]).await;
    cluster.leave(&last, true).await.unwrap();
    assert_eq!(left(&cluster, &last), [""; 0]);
}
