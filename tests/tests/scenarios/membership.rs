//! Managers leave, are removed, lose their logs, and come back.

use skep_proto::v1::{NodeRole, node_status::State, raft_member_status::Reachability};
use skep_security::Role;
use skep_tests::cluster::{Cluster, eventually};
use tonic::Code;

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Waits until the node of `name` is called what it should be.
async fn role_is(cluster: &Cluster, name: &str, role: NodeRole) {
    eventually("the role", async || {
        (cluster.node_object(name).await.role() == role).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_join_one_after_the_other_and_all_have_a_vote() {
    let mut cluster = Cluster::start(1, 0).await;
    for count in 2..=5 {
        let name = format!("manager-{count}");
        cluster.add(&name, true).await;
        // It has started: it counts.
        let status = cluster.node(&name).manager().unwrap().status();
        assert!(status.borrow().votes(), "{name}");
        cluster.voters_are(count).await;
    }
    // Two may go now.
    cluster.kill("manager-1").await;
    cluster.kill("manager-2").await;
    cluster.leader().await;
    cluster.create("web", 1, &["sleep", "1000"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_follower_leaves_ends_its_manager_and_runs_on_as_a_worker() {
    let mut cluster = Cluster::start(3, 0).await;
    let follower = cluster.follower().await;
    cluster.demote(&follower).await;
    cluster.steps_down(&follower).await;
    cluster.voters_are(2).await;
    role_is(&cluster, &follower, NodeRole::Worker).await;
    cluster.node_is(&follower, State::Ready).await;
    let web = cluster.create("web", 3, &["sleep", "1000"]).await;
    cluster.running(&web.id, 3).await;
    // Once more changes nothing.
    cluster.demote(&follower).await;
    // It stays a worker when it is started again, also by those who want it to join.
    cluster.stop(&follower).await;
    let leader = cluster.leader().await;
    cluster
        .restart_joining(&follower, &leader)
        .await
        .expect("it starts as a worker");
    assert!(cluster.node(&follower).manager().is_none());
    cluster.node_is(&follower, State::Ready).await;
    cluster.voters_are(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r27_the_leader_of_two_or_three_managers_is_demoted_and_the_others_answer() {
    for managers in [2, 3] {
        let mut cluster = Cluster::start(managers, 0).await;
        let old = cluster.leader().await;
        cluster.demote(&old).await;
        cluster.steps_down(&old).await;
        cluster.voters_are(managers - 1).await;
        role_is(&cluster, &old, NodeRole::Worker).await;
        assert_eq!(cluster.node_objects().await.unwrap().len(), managers);
        assert_ne!(cluster.leader().await, old);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r28_a_manager_that_was_demoted_while_it_was_away_does_not_come_back_as_one() {
    let mut cluster = Cluster::start(3, 0).await;
    let away = cluster.follower().await;
    let id = cluster.id(&away);
    cluster.kill(&away).await;
    let certificates = cluster.state_dir(&away).join("certificates");
    let managers = tempfile::tempdir().unwrap();
    copy(&certificates, managers.path());
    cluster.node_is(&away, State::Down).await;
    cluster.demote(&away).await;
    cluster.voters_are(2).await;
    role_is(&cluster, &away, NodeRole::Worker).await;
    // It still has its log, its certificate, and nobody has told it.
    cluster.restart(&away).await;
    cluster.steps_down(&away).await;
    cluster.node_is(&away, State::Ready).await;
    assert!(cluster.raft().await.member_of(&id).is_none());
    // Nor does it without what it remembers, and with a manager's certificate.
    let mark = cluster.state_dir(&away).join("removed");
    eventually("its worker's certificate, and the mark to go", async || {
        let role = cluster.node(&away).identity().role;
        (role == Role::Worker && !mark.exists()).then_some(())
    })
    .await;
    cluster.stop(&away).await;
    copy(managers.path(), &certificates);
    let leader = cluster.leader().await;
    let refused = cluster.restart_joining(&away, &leader).await.unwrap_err();
    assert!(refused.contains("is to be a worker"), "{refused}");
    cluster.voters_are(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_demoted_at_the_price_of_the_quorum() {
    let mut cluster = Cluster::start(3, 0).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut managers = cluster.managers();
    managers.retain(|name| *name != leader && *name != follower);
    let dead = managers.pop().unwrap();
    let dead_id = cluster.id(&dead);
    cluster.kill(&dead).await;
    eventually("the dead one to be missed", async || {
        let raft = cluster.raft().await;
        let member = raft.member_of(&dead_id).unwrap();
        (member.status().reachability() == Reachability::Unreachable).then_some(())
    })
    .await;
    let refused = cluster.try_demote(&leader).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        refused.message(),
        "can't remove member from the raft: this would result in a loss of quorum: of the 2 \
         managers left 1 could be reached, and 2 must be"
    );
    let again = cluster.try_demote(&leader).await.unwrap_err();
    assert_eq!(again.message(), refused.message());
    // The dead one may go, and is a worker when it comes back.
    cluster.demote(&dead).await;
    cluster.voters_are(2).await;
    cluster.restart(&dead).await;
    cluster.steps_down(&dead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_of_a_removed_node_leaves_and_ends() {
    let mut cluster = Cluster::start(3, 0).await;
    let follower = cluster.follower().await;
    let id = cluster.id(&follower);
    cluster.demote(&follower).await;
    cluster.remove_node(&id, true).await;
    cluster.steps_down(&follower).await;
    cluster.voters_are(2).await;
    let nodes = cluster.node_objects().await.unwrap();
    assert!(nodes.iter().all(|node| node.id != id));
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_a_manager_without_its_log_is_refused_or_becomes_a_new_member() {
    let mut cluster = Cluster::start(3, 0).await;
    let follower = cluster.follower().await;
    let node_id = cluster.id(&follower);
    let old = cluster.raft().await.member_of(&node_id).unwrap().raft_id;
    cluster.kill(&follower).await;
    cluster.wipe(&follower);
    let leader = cluster.leader().await;
    cluster
        .restart_joining(&follower, &leader)
        .await
        .expect("it is taken in again");
    cluster.voters_are(3).await;
    let raft = cluster.raft().await;
    let new = raft.member_of(&node_id).unwrap().raft_id;
    assert_ne!(new, old);
    assert!(raft.removed.contains(&old));
    cluster.all_ready().await;
}
