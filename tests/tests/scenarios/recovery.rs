//! Managers that come back elsewhere, in any order, or alone.

use skep_proto::v1::{RemoveNodeRequest, UpdateClusterRequest, node_status::State};
use skep_tests::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn r10_managers_die_and_come_back_in_any_order() {
    let mut cluster = Cluster::start(3, 0).await;
    let web = cluster.create("web", 0, &["sleep", "1"]).await;
    let managers = cluster.managers();
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for (round, order) in (0..).zip(orders) {
        // Nobody knows for sure that this is committed when they start again.
        cluster.scale(&web.id, round % 3).await;
        for manager in [round, round + 1, round + 2] {
            let manager = &managers[manager as usize % managers.len()];
            match round % 2 {
                0 => cluster.kill(manager).await,
                _ => cluster.stop(manager).await,
            }
        }
        for manager in order {
            cluster.restart(&managers[manager]).await;
        }
        cluster.leader().await;
        cluster.all_ready().await;
    }
    cluster.scale(&web.id, 3).await;
    cluster.running(&web.id, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r25_managers_come_back_elsewhere() {
    let mut cluster = Cluster::start(3, 0).await;
    let web = cluster.create("web", 1, &["sleep", "1"]).await;
    // One after the other, the leader among them.
    for manager in [cluster.leader().await, cluster.follower().await] {
        cluster.kill(&manager).await;
        cluster.restart_elsewhere(&manager, None).await;
        cluster.managers_are_known().await;
    }
    // All at once: nobody knows where anybody is, but for the first.
    let managers = cluster.managers();
    for manager in &managers {
        cluster.stop(manager).await;
    }
    cluster.restart_elsewhere(&managers[0], None).await;
    let contact = cluster.addr(&managers[0]);
    for manager in &managers[1..] {
        let contact = Some(contact.clone());
        cluster.restart_elsewhere(manager, contact).await;
    }
    cluster.managers_are_known().await;
    cluster.all_ready().await;
    cluster.scale(&web.id, 2).await;
    cluster.running(&web.id, 2).await;
    // What users see.
    for node in cluster.node_objects().await.unwrap() {
        let name = &node.description.as_ref().unwrap().hostname;
        assert_eq!(node.manager_status.unwrap().addr, cluster.addr(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_one_manager_goes_on_alone() {
    let mut cluster = Cluster::start(3, 1).await;
    let web = cluster.create("web", 2, &["sleep", "1"]).await;
    cluster.running(&web.id, 2).await;
    cluster
        .set_heartbeat(std::time::Duration::from_secs(1))
        .await;
    let managers = cluster.managers();
    for manager in &managers {
        cluster.kill(manager).await;
    }
    cluster.force("manager-2").await;
    assert_eq!(cluster.leader().await, "manager-2");
    cluster.managers_are_known().await;
    // The worker comes back by itself; those that are lost are found to be.
    cluster.node_is("worker-1", State::Ready).await;
    cluster.node_is("manager-1", State::Down).await;
    cluster.node_is("manager-3", State::Down).await;
    cluster.scale(&web.id, 4).await;
    cluster.running(&web.id, 4).await;
    // A lost one that comes back is told, and changes nothing.
    cluster.restart("manager-1").await;
    cluster.steps_down("manager-1").await;
    cluster.stop("manager-1").await;
    cluster.managers_are_known().await;
    // It can be taken off the list.
    let lost = cluster.node_object("manager-3").await.id;
    let mut control = cluster.control().await;
    let removed = control.remove_node(RemoveNodeRequest {
        node_id: lost,
        force: true,
    });
    removed.await.unwrap();
    // The flag once more, and a plain start: the same cluster.
    cluster.stop("manager-2").await;
    cluster.force("manager-2").await;
    cluster.leader().await;
    cluster.kill("manager-2").await;
    cluster.restart("manager-2").await;
    cluster.running(&web.id, 4).await;
    // It grows again.
    cluster.add("manager-4", true).await;
    cluster.managers_are_known().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_ticks_count_from_the_next_start() {
    let mut cluster = Cluster::start(3, 0).await;
    let object = cluster.object().await;
    let mut spec = object.spec().clone();
    spec.raft_mut().heartbeat_tick = 2;
    spec.raft_mut().election_tick = 30;
    let update = |spec| UpdateClusterRequest {
        cluster_id: object.id.clone(),
        cluster_version: object.meta().version,
        spec: Some(spec),
        rotation: None,
    };
    let mut refused = spec.clone();
    refused.raft_mut().heartbeat_tick = 30;
    let mut control = cluster.control().await;
    let refused = control.update_cluster(update(refused));
    let refused = refused.await.unwrap_err();
    assert!(
        refused.message().contains("greater than heartbeat tick"),
        "{refused}"
    );
    control.update_cluster(update(spec)).await.unwrap();
    let managers = cluster.managers();
    for manager in &managers {
        cluster.stop(manager).await;
    }
    let started = std::time::Instant::now();
    for manager in &managers {
        cluster.restart(manager).await;
    }
    cluster.leader().await;
    // Thirty ticks of 100 ms, where it was ten to fifteen.
    let waited = started.elapsed();
    assert!(waited >= std::time::Duration::from_secs(2), "{waited:?}");
    cluster.all_ready().await;
}

/// A start that fails half-way has let go of everything when it says so.
#[tokio::test(flavor = "multi_thread")]
async fn r34_a_manager_that_cannot_start_leaves_nothing_running() {
    let mut cluster = Cluster::start(2, 0).await;
    let (first, second) = ("manager-1", "manager-2");
    cluster.stop(second).await;
    // Its log is not its own.
    let raft = cluster.state_dir(second).join("raft");
    let aside = raft.with_file_name("aside");
    std::fs::rename(&raft, &aside).unwrap();
    let mut stranger = Cluster::start(1, 0).await;
    stranger.stop(first).await;
    std::fs::rename(stranger.state_dir(first).join("raft"), &raft).unwrap();
    for _ in 0..2 {
        let refused = cluster.refuses_to_start(second).await;
        assert!(refused.contains("the raft log belongs to"), "{refused}");
    }
    // Port, socket, log and directory are free.
    std::fs::remove_dir_all(&raft).unwrap();
    std::fs::rename(&aside, &raft).unwrap();
    cluster.restart(second).await;
    cluster.leader().await;
    cluster.all_ready().await;
}
