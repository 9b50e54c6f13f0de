//! Workers become managers and managers workers, and the tasks on them do not notice.

use std::{collections::BTreeSet, fs};

use skep_proto::v1::{ListNodesRequest, NodeRole, Task, node_status::State};
use skep_security::{Role, UnlockKey};
use skep_tests::cluster::{Cluster, eventually};

fn ids(tasks: &[Task]) -> BTreeSet<&str> {
    tasks.iter().map(|task| task.id.as_str()).collect()
}

/// Waits until the certificate in use says so.
async fn certified(cluster: &Cluster, name: &str, role: Role) {
    eventually("the certificate of the role", async || {
        (cluster.node(name).identity().role == role).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_promoted_demoted_and_promoted_again_and_its_tasks_run_on() {
    let mut cluster = Cluster::of_processes(1, 1).await;
    let web = cluster.create("web", 4, &["sleep", "1000"]).await;
    let before = cluster.running(&web.id, 4).await;
    let id = cluster.id("worker-1");
    let socket = cluster.state_dir("worker-1").join("s.sock");
    for _ in 0..2 {
        cluster.promote("worker-1").await;
        cluster.becomes_manager("worker-1").await;
        cluster.voters_are(2).await;
        assert_eq!(cluster.node("worker-1").identity().role, Role::Manager);
        assert_eq!(cluster.id("worker-1"), id);
        // Its control socket answers.
        let mut control = cluster.control_of("worker-1").await;
        let listed = control
            .list_nodes(ListNodesRequest::default())
            .await
            .unwrap();
        assert_eq!(listed.into_inner().nodes.len(), 2);

        cluster.demote("worker-1").await;
        cluster.steps_down("worker-1").await;
        cluster.voters_are(1).await;
        certified(&cluster, "worker-1", Role::Worker).await;
        let state = cluster.state_dir("worker-1");
        assert!(!socket.exists() && !state.join("raft").exists());
        eventually("the mark to go", async || {
            (!state.join("removed").exists()).then_some(())
        })
        .await;
        cluster.node_is("worker-1", State::Ready).await;
    }
    let after = cluster.running(&web.id, 4).await;
    assert_eq!(ids(&before), ids(&after));
    let all = cluster.tasks(&web.id).await.unwrap();
    assert_eq!(all.len(), 4, "none was restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn r30_a_promoted_node_finds_managers_though_the_one_it_joined_through_is_none_any_more() {
    let mut cluster = Cluster::start(2, 1).await;
    let first = "manager-1";
    cluster.demote(first).await;
    cluster.promote("worker-1").await;
    cluster.steps_down(first).await;
    cluster.becomes_manager("worker-1").await;
    cluster.voters_are(2).await;
    let raft = cluster.raft().await;
    assert!(raft.member_of(&cluster.id(first)).is_none());
    assert!(raft.member_of(&cluster.id("worker-1")).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn r29_a_promotion_that_was_broken_off_goes_on_after_a_restart() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.promote("worker-1").await;
    // Its certificate is a manager's, and nobody drives it any further.
    certified(&cluster, "worker-1", Role::Manager).await;
    cluster.kill("worker-1").await;
    cluster.restart("worker-1").await;
    assert!(cluster.node("worker-1").manager().is_none());
    cluster.becomes_manager("worker-1").await;
    cluster.voters_are(2).await;
    // From now on it simply goes on.
    cluster.stop("worker-1").await;
    cluster.restart("worker-1").await;
    assert!(cluster.node("worker-1").manager().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn r38_a_promotion_survives_the_loss_of_the_leader() {
    let mut cluster = Cluster::start(3, 1).await;
    let leader = cluster.leader().await;
    cluster.promote("worker-1").await;
    cluster.kill(&leader).await;
    cluster.becomes_manager("worker-1").await;
    eventually("the promoted node to be a member", async || {
        let raft = cluster.raft().await;
        raft.member_of(&cluster.id("worker-1")).map(drop)
    })
    .await;
    assert_eq!(
        cluster.node_object("worker-1").await.role(),
        NodeRole::Manager
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_promoted_where_managers_are_locked_is_locked_from_the_start() {
    let mut cluster = Cluster::start(1, 1).await;
    let key_file = |cluster: &Cluster, name: &str| {
        let path = cluster.state_dir(name).join("certificates/swarm-node.key");
        fs::read_to_string(path).unwrap()
    };
    let before = cluster.node("manager-1").tls().current().cert_pem().clone();
    cluster
        .configure(|spec| spec.encryption_config_mut().auto_lock_managers = true)
        .await;
    // The key that was in plain is replaced.
    eventually("another certificate of the manager", async || {
        let now = cluster.node("manager-1").tls().current();
        (*now.cert_pem() != before && key_file(&cluster, "manager-1").contains("ENCRYPTED"))
            .then_some(())
    })
    .await;
    cluster.promote("worker-1").await;
    certified(&cluster, "worker-1", Role::Manager).await;
    assert!(key_file(&cluster, "worker-1").contains("ENCRYPTED"));
    cluster.becomes_manager("worker-1").await;
    cluster.voters_are(2).await;
    let key: UnlockKey = {
        let leader = cluster.leader().await;
        let snapshot = cluster.node(&leader).manager().unwrap().store().snapshot();
        let object = snapshot.all::<skep_proto::v1::Cluster>().next().unwrap();
        UnlockKey::from_bytes(&object.unlock_keys[0].key).unwrap()
    };
    cluster.stop("worker-1").await;
    cluster.restart_locked("worker-1", &key).await;
    // A worker again, it is not locked.
    cluster.demote("worker-1").await;
    cluster.steps_down("worker-1").await;
    certified(&cluster, "worker-1", Role::Worker).await;
    assert!(!key_file(&cluster, "worker-1").contains("ENCRYPTED"));
    cluster.stop("worker-1").await;
    cluster.restart("worker-1").await;
    cluster.node_is("worker-1", State::Ready).await;
}
